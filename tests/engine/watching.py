"""An engine that shows with which priority inputs reach it."""

from __future__ import annotations

from typing import Any

from iei.engine.api import Result
from iei.engine.inprocess import InProcessEngine
from iei.priority import PRIORITY, Priority
from iei.telemetry.record import current
from tests.engine.runtimes_for_tests import KnownRuntime


class WatchingEngine(InProcessEngine):
    """Notes the priority of every input."""

    def __init__(self) -> None:
        super().__init__(KnownRuntime())
        self.seen: list[Priority] = []
        self.recorded: list[Priority] = []
        """The same, as the records of the requests have it."""

    async def run(self, *arguments: Any, **options: Any) -> Result:
        self.seen.append(PRIORITY.get())
        self.recorded.append(current().priority)
        return await super().run(*arguments, **options)
