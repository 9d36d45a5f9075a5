"""Where `iei serve` listens: reserved before models are loaded, and handed to gunicorn."""

from __future__ import annotations

import os
from pathlib import Path

from gunicorn import systemd

from iei import ports
from iei.errors import StartupError
from iei.settings import ServerSettings, said


def reserved(settings: ServerSettings) -> str:
    """Gunicorn's `bind`: the descriptor of a socket that is bound and does not listen yet, or a Unix socket's path.

    Gunicorn would find out that the port is in use after the models are loaded, and try for five seconds more.

    Raises:
        StartupError: nothing can listen there.
    """
    address = settings.address
    if address.startswith("unix:"):
        folder = Path(address.removeprefix("unix:")).parent
        if not os.access(folder, os.W_OK | os.X_OK):
            raise StartupError(f"can't listen on {said('bind')}={address}: no socket can be made in {folder}.")
        return address
    if systemd.listen_fds(unset_environment=False):  # systemd has opened the sockets, and gunicorn takes those
        return address
    return f"fd://{ports.bind(address, 'IEI_BIND, IEI_PORT').detach()}"
