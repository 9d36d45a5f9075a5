"""A worker's end of the engines: every job goes to the one with the least to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from iei.engine.api import Result
from iei.engine.frames import (
    DTYPES,
    Kind,
    Reply,
    Status,
    Submit,
    outputs_mask,
    outputs_named,
    packed_bytes,
    unpack_outputs,
)
from iei.engine.launch import EngineAddress, LaunchedEngine
from iei.engine.link import Link
from iei.errors import BackendFailed, IEIError, Overloaded, Unhealthy
from iei.models.catalog import catalog
from iei.models.spec import MODALITIES, POOLED, Modality, ModelSpec
from iei.settings import Settings

SPEC_BYTES = 64 * 1024
ERROR_BYTES = 512
"""Room for the text of an error, where vectors need less."""
RESTARTING = "the engine is not there: it is being restarted"
ARRIVAL_S = 3600.0
"""How long a worker waits for a model to be downloaded and loaded. Those who asked for it wait as long as they like."""


class EngineClient:
    """Made before the workers are forked: it opens nothing until `start`.

    Args:
        models: served names, in the engines' order.
        silent_s: an engine that has inputs and answers none for so long hangs, and is not `ready`.
    """

    def __init__(
        self, addresses: Sequence[EngineAddress], models: Sequence[str], arena_bytes: int, silent_s: float
    ) -> None:
        self._addresses = addresses
        self._models = list(models)
        self._arena_bytes = arena_bytes
        self._silent_s = silent_s
        self._links: list[Link] = []
        self._specs: dict[str, ModelSpec] = {models[0]: self.default}
        self._questions: dict[str, asyncio.Task[ModelSpec]] = {}

    @property
    def default(self) -> ModelSpec:
        return self._addresses[0].default

    @property
    def ready(self) -> bool:
        return any(link.answers for link in self._links)

    async def start(self) -> None:
        self._links = [Link(address, self._arena_bytes, self._silent_s) for address in self._addresses]

    async def stop(self) -> None:
        questions = list(self._questions.values())
        for question in questions:
            question.cancel()
        await asyncio.gather(*questions, return_exceptions=True)
        for link in self._links:
            await link.close()
        self._links = []

    async def describe(self, model: str, *, deadline: float) -> ModelSpec:
        if model in self._specs:
            return self._specs[model]
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                return await asyncio.shield(self._question(model))  # whoever gives up leaves it to the others
        except TimeoutError:
            if self.ready:
                raise Overloaded(f"{model} is still being loaded: try again later") from None
            raise Unhealthy(RESTARTING) from None

    def _question(self, model: str) -> asyncio.Task[ModelSpec]:
        """One for all who ask for the model: it holds a slot, for as long as a download may take."""
        if model not in self._questions:
            question = self._questions[model] = asyncio.create_task(self._ask(model), name=f"describe {model}")
            question.add_done_callback(lambda _: self._questions.pop(model))
        return self._questions[model]

    async def _ask(self, model: str) -> ModelSpec:
        frame = Submit(
            Kind.DESCRIBE,
            job=0,
            model=self._models.index(model),
            output_bytes=SPEC_BYTES,
            deadline=time.monotonic() + ARRIVAL_S,
        )
        _, content = await self._run(frame)
        spec = self._specs[model] = ModelSpec.from_json(content)
        return spec

    async def run(
        self,
        spec: ModelSpec,
        modality: Modality,
        array: npt.NDArray[np.generic],
        outputs: Sequence[str],
        *,
        deadline: float,
    ) -> Result:
        mask = outputs_mask(tuple(outputs))
        shapes = output_shapes(spec, modality, array, outputs_named(mask))
        shape = array.shape + (0,) * (3 - array.ndim)
        frame = Submit(
            Kind.SUBMIT,
            job=0,
            model=self._models.index(spec.name),
            modality=MODALITIES.index(modality),
            dtype=DTYPES.index(array.dtype),
            outputs=mask,
            shape=(shape[0], shape[1], shape[2]),
            input_bytes=array.nbytes,
            output_bytes=max(packed_bytes(shapes), ERROR_BYTES),
            deadline=deadline,
        )
        reply, content = await self._run(frame, array)
        try:
            return Result(unpack_outputs(content, shapes), reply.queue_s, reply.inference_s)
        except ValueError as error:
            raise BackendFailed(f"the result has not the shape that the model's description says: {error}") from error

    async def _run(self, frame: Submit, content: npt.NDArray[np.generic] | None = None) -> tuple[Reply, bytes]:
        if not self._links:
            raise Unhealthy("this worker is stopping")
        link = min(self._links, key=lambda link: (not link.up, link.load))
        try:
            reply, written = await link.submit(frame, content)
        except TimeoutError:
            if link.up:
                raise Overloaded("the model did not come to this input in time (IEI_REQUEST_TIMEOUT_S)") from None
            raise Unhealthy(RESTARTING) from None
        if reply.status == Status.OK:
            return reply, written
        text = written.decode(errors="ignore")  # cut to fit its slot, perhaps within a character
        raise _STATUS_ERRORS[Status(reply.status)](text or _STATUS_TEXTS[Status(reply.status)])


def connect(engines: Sequence[LaunchedEngine], settings: Settings) -> EngineClient:
    """A client of all `engines`. Opens nothing until it is started: make it before the workers are forked."""
    return EngineClient(
        [engine.address for engine in engines],
        catalog(settings).names,
        settings.arena_bytes,
        silent_s=settings.engine_timeout_s,
    )


def output_shapes(
    spec: ModelSpec, modality: Modality, array: npt.NDArray[np.generic], outputs: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    """(dim,) of each pooled output, (rows, dim) of the others."""
    tower = spec.tower_for(modality)
    assert tower is not None
    return {
        name: (dim,) if name in POOLED else (tower.rows(name, array.shape), dim)
        for name, dim in ((name, tower.outputs[name]) for name in outputs)
    }


_STATUS_ERRORS: dict[Status, type[IEIError]] = {
    Status.FAILED: BackendFailed,
    Status.CANCELLED: Overloaded,
    Status.EXPIRED: Overloaded,
    Status.UNAVAILABLE: Unhealthy,
}
_STATUS_TEXTS = {
    Status.CANCELLED: "the job was cancelled",
    Status.EXPIRED: "this input waited for the model longer than it may (IEI_REQUEST_TIMEOUT_S)",
}
