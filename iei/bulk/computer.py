"""What computes the vectors of a bulk job: a model in this process, or servers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from iei.bulk.fingerprint import Fingerprint
from iei.models.spec import Modality
from iei.requests import Embedding


class Computer(Protocol):
    """Computes vectors. What it gives is known as soon as it is made; it computes between `start` and `stop`."""

    @property
    def fingerprint(self) -> Fingerprint:
        """What decides the numbers of its vectors."""
        ...

    @property
    def dimension(self) -> int:
        """Values of a vector."""
        ...

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What the model takes."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know about these vectors: sentences."""
        ...

    @property
    def in_work(self) -> int:
        """How many inputs it should have at a time, so that it never waits for the next: a few batches."""
        ...

    @property
    def busy(self) -> Mapping[str, float]:
        """What may keep the work from going faster (`decoding`, `model`) → seconds for which it was busy so far."""
        ...

    async def start(self) -> None:
        """To be called once, on the event loop that will call `embed`."""

    async def stop(self) -> None:
        """Ends what `start` began."""

    async def embed(self, data: bytes | str) -> Embedding:
        """The embedding of a picture's file, or of a text. Its `picture` may be missing.

        Raises:
            InvalidInput: this input can't be embedded.
            IEIError, StartupError: nothing can be embedded any more.
        """
        ...
