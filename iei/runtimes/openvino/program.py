"""What the programs of this folder share: they end with whoever started them, and say in a sentence why they failed."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from iei.errors import StartupError


def run(work: Callable[[], object]) -> NoReturn:
    """Does the program's work. Of all that is printed, stdout gets only the reason of a failure, with exit status 1.

    Does not return: the process ends at once. Libraries take long to clean up, and complain on stderr about each other.
    """
    _end_with_stdin()
    status = 0
    try:
        with contextlib.redirect_stdout(sys.stderr):
            work()
    except StartupError as error:
        print(error)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _end_with_stdin() -> None:
    """Ends this process, at once and from a thread, when whoever started it has gone."""

    def wait_for_the_end() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=wait_for_the_end, name="life", daemon=True).start()
