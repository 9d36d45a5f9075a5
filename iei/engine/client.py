"""A worker's client of all engines: every job is sent to the one with the fewest unanswered jobs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from iei.engine.address import EngineAddress
from iei.engine.answers import Status, error_of
from iei.engine.api import Result
from iei.engine.frames import Describe, Reply, Slot, Submit, packed_bytes, unpack_outputs
from iei.engine.link import Link
from iei.errors import BackendFailed, Overloaded, Unhealthy
from iei.models.catalog import Catalog
from iei.models.spec import Modality, ModelSpec
from iei.priority import PRIORITY
from iei.settings import EngineSettings

SPEC_BYTES = 64 * 1024
"""Size of the output region for the description of a model."""
ERROR_BYTES = 512
"""Least size of an output region, so that the text of an error fits."""
RESTARTING = "the engine is not there: it is being restarted"
ARRIVAL_S = 3600.0
"""How long a worker waits for a model to be downloaded and loaded. Each caller of `describe` has its own deadline."""


class EngineClient:
    """Implements `Engine` with engines in processes of their own."""

    def __init__(
        self, addresses: Sequence[EngineAddress], models: Sequence[str], arena_bytes: int, silent_s: float
    ) -> None:
        """Opens nothing until `start`: make it before the workers are forked.

        Args:
            addresses: of the engines, at least one.
            models: served names, in the order of the engines' catalog.
            arena_bytes: size of this worker's shared memory with each engine.
            silent_s: an engine that has inputs and answers none for so long hangs, and is not `ready`.
        """
        self._addresses = addresses
        self._models = list(models)
        self._arena_bytes = arena_bytes
        self._silent_s = silent_s
        self._links: list[Link] = []
        self._specs: dict[str, ModelSpec] = {models[0]: self.default}
        self._questions: dict[str, asyncio.Task[ModelSpec]] = {}

    @property
    def default(self) -> ModelSpec:
        """The first model of the catalog."""
        return self._addresses[0].default

    @property
    def ready(self) -> bool:
        """Whether one of the engines is connected and answers."""
        return any(link.answers for link in self._links)

    @property
    def shared_bytes(self) -> int:
        """As `Engine.shared_bytes`, of all arenas."""
        return sum(link.shared_bytes for link in self._links)

    async def start(self) -> None:
        """Starts to connect; does not wait for it."""
        self._links = [Link(address, self._arena_bytes, self._silent_s) for address in self._addresses]

    async def stop(self) -> None:
        """Closes all connections."""
        questions = list(self._questions.values())
        for question in questions:
            question.cancel()
        await asyncio.gather(*questions, return_exceptions=True)
        for link in self._links:
            await link.close()
        self._links = []

    async def describe(self, model: str, *, deadline: float) -> ModelSpec:
        """As `Engine.describe`."""
        if model in self._specs:
            return self._specs[model]
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                return await asyncio.shield(self._question(model))  # others may wait for the same answer
        except TimeoutError:
            if self.ready:
                raise Overloaded(f"{model} is still being loaded: try again later") from None
            raise Unhealthy(RESTARTING) from None

    def _question(self, model: str) -> asyncio.Task[ModelSpec]:
        """The one task that asks for a model, for all callers: it holds a slot for as long as a download takes."""
        if model not in self._questions:
            question = self._questions[model] = asyncio.create_task(self._ask(model), name=f"describe {model}")
            question.add_done_callback(lambda _: self._questions.pop(model))
        return self._questions[model]

    async def _ask(self, model: str) -> ModelSpec:
        frame = Describe(job=0, model=self._models.index(model), slot=Slot(0, SPEC_BYTES))
        _, content = await self._submit(frame, deadline=time.monotonic() + ARRIVAL_S)
        spec = self._specs[model] = ModelSpec.from_json(content)
        return spec

    async def run(
        self,
        spec: ModelSpec,
        modality: Modality,
        array: npt.NDArray[np.generic],
        shapes: Mapping[str, tuple[int, ...]],
        *,
        deadline: float,
    ) -> Result:
        """As `Engine.run`."""
        frame = Submit(
            job=0,
            model=self._models.index(spec.name),
            modality=modality,
            dtype=array.dtype,
            shape=array.shape,
            outputs=tuple(shapes),
            slot=Slot(array.nbytes, max(packed_bytes(shapes), ERROR_BYTES)),
            deadline=deadline,
            priority=PRIORITY.get(),
        )
        reply, content = await self._submit(frame, array, deadline=deadline)
        try:
            return Result(unpack_outputs(content, shapes), reply.forward)
        except ValueError as error:
            raise BackendFailed(f"the result has not the shape that the model's description says: {error}") from error

    async def _submit(
        self, frame: Submit | Describe, content: npt.NDArray[np.generic] | None = None, *, deadline: float
    ) -> tuple[Reply, bytes]:
        """The reply to a job and what the engine wrote, if it is OK; raises the error that it means otherwise."""
        if not self._links:
            raise Unhealthy("this worker is stopping")
        link = min(self._links, key=lambda link: (not link.up, link.load))
        try:
            reply, written = await link.submit(frame, content, deadline=deadline)
        except TimeoutError:
            if link.up:
                raise Overloaded("this input waited for the model longer than it may (IEI_REQUEST_TIMEOUT_S)") from None
            raise Unhealthy(RESTARTING) from None
        if reply.status == Status.OK:
            return reply, written
        raise error_of(reply.status, written.decode(errors="ignore"))  # it may have been cut within a character


def connect(addresses: Sequence[EngineAddress], catalog: Catalog, settings: EngineSettings) -> EngineClient:
    """A client of all engines at `addresses`. Opens nothing until it is started: make it before the workers fork."""
    return EngineClient(addresses, catalog.names, settings.arena_bytes, silent_s=settings.engine_timeout_s)
