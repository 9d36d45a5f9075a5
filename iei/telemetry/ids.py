"""Ids of requests."""

from __future__ import annotations

import re
import uuid

_SOUND_ID = re.compile(r"[\x21-\x7e]{1,128}")


def request_id(given: str) -> str:
    """The id that a client gave its request, if it may stand in headers and logs; else a new one."""
    return given if _SOUND_ID.fullmatch(given) else uuid.uuid4().hex
