"""Which items a part was made of."""

from __future__ import annotations

import hashlib


class Ids:
    """Ids of the items of a part, in order: how many, the first and the last, and a digest over all."""

    def __init__(self) -> None:
        self.count = 0
        self.first = ""
        self.last = ""
        self._digest = hashlib.sha256()

    def add(self, item_id: str) -> None:
        """Adds the id of the next item."""
        self.first = self.first if self.count else item_id
        self.last = item_id
        self.count += 1
        self._digest.update(item_id.encode("utf-8", "surrogatepass") + b"\0")

    @property
    def digest(self) -> str:
        """SHA-256 over all, in hex."""
        return self._digest.hexdigest()
