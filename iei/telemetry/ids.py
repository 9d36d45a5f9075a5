"""Ids of requests."""

from __future__ import annotations

import random
import re

_SOUND_ID = re.compile(r"[\x21-\x7e]{1,128}")


def request_id(given: str) -> str:
    """The id that a client gave its request, if it may stand in headers and logs; else a new one.

    A new one need not be a secret, so it is not the system that is asked for it. Each worker has numbers of its own.
    """
    return given if _SOUND_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"
