"""What a server survives: engines and workers killed, a burst, a long day, a full disk, a lost folder, a silent hub.

    uv run python -m benchmarks.endure             # about 50 minutes; writes benchmarks/results/endure.json and
                                                   # the table of docs/reliability.md
    uv run python -m benchmarks.endure --quick     # some minutes: few kills and a short day; keeps no figures
    uv run python -m benchmarks.endure --only burst disk    # writes the rows of these

Each trial starts a server of its own, with the model and the photos of `benchmarks.workload`, and keeps sending while
the thing happens. A trial says what it saw, and whether that is what docs/reliability.md promises; the exit status is 1
if it is not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil
import uvloop

from benchmarks import machine, memory
from benchmarks.load import Connection, Load, request
from benchmarks.report import progress, replace_section
from benchmarks.workload import bodies, write_model
from tests.servers import ROOT, Server, ServerDied, serve

PAGE = ROOT / "docs" / "reliability.md"
RESULTS = ROOT / "benchmarks" / "results" / "endure.json"
WORKERS = 4
RECOVERY_S = 120.0
"""How long a trial waits for a server to answer again before it gives up."""


@dataclass(frozen=True)
class Plan:
    """How much is done. The defaults are what docs/reliability.md reports."""

    engine_kills: int = 200
    worker_kills: int = 50
    burst: int = 20
    """How many times the usual number of connections."""
    burst_s: float = 20.0
    day_s: float = 1200.0
    """Length of the long day."""
    settle_s: float = 120.0
    """From its start until memory is first looked at."""


QUICK = Plan(engine_kills=5, worker_kills=5, burst_s=5.0, day_s=60.0, settle_s=20.0)


@dataclass(frozen=True)
class Outcome:
    """What a trial saw."""

    seen: str
    kept: bool
    """Whether that is what is promised."""
    figures: dict[str, float | list[float]] = field(default_factory=dict)


class Traffic(Load):
    """A load that goes on whatever happens, and counts it."""

    def __init__(self, url: str, bodies: list[str]) -> None:
        address = urlsplit(url)
        super().__init__(itertools.cycle([request(address.netloc, body) for body in bodies]))
        self.host, self.port = address.hostname or "127.0.0.1", address.port or 80
        self.statuses: Counter[int] = Counter()
        self.errors: Counter[str] = Counter()
        """What other answers than 200 and 429 said."""
        self.closed: list[tuple[float, int]] = []
        """When a connection with a request on it was closed, and its local port."""
        self.answered: list[tuple[float, float, int]] = []
        """When an answer was complete, how long it took, and its status."""
        self.open: set[Sender] = set()
        self.dialing: set[asyncio.Task[None]] = set()

    async def connect(self, count: int) -> None:
        """Opens `count` connections, each of which keeps sending."""
        for _ in range(count):
            await self.dial()

    async def dial(self) -> None:
        """Opens one, however long that takes: a killed worker's clients come back like this."""
        while not self.stopped:
            with contextlib.suppress(OSError):
                await asyncio.get_running_loop().create_connection(lambda: Sender(self), self.host, self.port)
                return
            await asyncio.sleep(0.05)

    def stop(self) -> None:
        """Closes all connections. What was on its way is not counted."""
        self.stopped = True
        for sender in list(self.open):
            sender.transport.abort()

    def latencies(self, since: float, status: int = 200) -> list[float]:
        """Seconds of the answers of that status that were complete after `since`."""
        return [took for at, took, code in self.answered if at >= since and code == status]

    @property
    def failed(self) -> int:
        """Requests that were answered with an error."""
        return sum(count for status, count in self.statuses.items() if status != 200)


class Sender(Connection):
    """A connection of a `Traffic`: errors are counted, 429 is obeyed, and a closed connection is opened again."""

    load: Traffic

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Sends the first request, unless the traffic was stopped while this was being dialed."""
        self.transport = cast(asyncio.Transport, transport)
        if self.load.stopped:
            self.transport.abort()
            return
        self.local_port = transport.get_extra_info("sockname")[1]
        self.load.open.add(self)
        super().connection_made(transport)

    def complete(self) -> None:
        """Notes the answer, and sends the next request: at once, or when the server says."""
        status, now = int(self.answer[9:12]), time.perf_counter()
        self.load.statuses[status] += 1
        if status not in (200, 429):
            self.load.errors[bytes(self.answer).partition(b"\r\n\r\n")[2].decode(errors="replace")[:200]] += 1
        self.load.answered.append((now, now - self.sent, status))
        if self.load.stopped:
            return
        if status == 429:
            asyncio.get_running_loop().call_later(random.uniform(1, 2), self.again)  # `Retry-After: 1`
        else:
            self.send()

    def again(self) -> None:
        """Sends the next request, if the connection is still there."""
        if self in self.load.open and not self.load.stopped:
            self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Counts it, and opens another."""
        self.load.open.discard(self)
        if not self.load.stopped:
            self.load.closed.append((time.perf_counter(), self.local_port))
            task = asyncio.ensure_future(self.load.dial())
            self.load.dialing.add(task)
            task.add_done_callback(self.load.dialing.discard)


@contextlib.asynccontextmanager
async def traffic(server: Server, connections: int) -> AsyncIterator[Traffic]:
    """Keeps `connections` busy while the block runs."""
    load = Traffic(server.url, bodies())
    await load.connect(connections)
    await answers(load, connections)
    try:
        yield load
    finally:
        load.stop()


async def answers(load: Traffic, count: int) -> float:
    """Waits until `count` more requests were answered 200; returns how many seconds the first of them took to come.

    Raises:
        TimeoutError: they did not come within `RECOVERY_S`.
    """
    before, started, first = load.statuses[200], time.perf_counter(), 0.0
    while load.statuses[200] < before + count:
        if load.statuses[200] > before and not first:
            first = time.perf_counter() - started
        if time.perf_counter() - started > RECOVERY_S:
            raise TimeoutError(f"no answer within {RECOVERY_S:g} s")
        await asyncio.sleep(0.01)
    return first or time.perf_counter() - started


def served(model: Path, **environment: str) -> contextlib.AbstractContextManager[Server]:
    """The server of a trial: `iei serve` with four workers."""
    return serve(
        {"IMAGE_EMBEDDING_MODEL": str(model), "IEI_WORKERS": str(WORKERS), **environment},
        command=["python", "-m", "iei", "serve", "--bind", "127.0.0.1:0"],
    )


async def kill_engine(server: Server) -> None:
    """SIGKILL to its engine, as soon as there is one."""
    engines: list[psutil.Process] = []
    while not engines:
        engines = [each for each in server.processes() if "iei.engine.process" in _command(each)]
        await asyncio.sleep(0.05)
    engines[0].kill()
    engines[0].wait(RECOVERY_S)


def workers_of(server: Server) -> list[psutil.Process]:
    """Its workers: children of the master that are forks of it."""
    master = psutil.Process(server.process.pid)
    return [each for each in master.children() if not any("iei.engine" in word for word in _command(each))]


def _command(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


async def engine_kills(plan: Plan, model: Path) -> Outcome:
    """SIGKILL to the engine, again and again, while 32 connections send."""
    recoveries: list[float] = []
    with served(model) as server:
        async with traffic(server, 32) as load:
            for number in range(1, plan.engine_kills + 1):
                await kill_engine(server)
                recoveries.append(await answers(load, 32))
                if number % 20 == 0:
                    told = f"{load.failed} answers were errors {dict(load.errors)}"
                    progress(f"{number} engines killed; {told}; {len(load.closed)} connections were closed")
            failed, answered = load.failed + len(load.closed), load.statuses[200]
    p50, p100 = median(recoveries), max(recoveries)
    return Outcome(
        f"{plan.engine_kills} kills, {answered} requests answered, {failed} failed; the next answer came after "
        f"{p50:.1f} s (median; longest {p100:.1f} s)",
        failed == 0,
        {"kills": plan.engine_kills, "answered": answered, "failed": failed, "gap_p50_s": p50, "gap_max_s": p100},
    )


async def worker_kills(plan: Plan, model: Path) -> Outcome:
    """SIGKILL to one worker after the other, while 32 connections send."""
    strangers, lost = 0, 0
    with served(model) as server:
        async with traffic(server, 32) as load:
            for _ in range(plan.worker_kills):
                worker = max(workers_of(server), key=lambda each: len(each.net_connections("tcp")))
                own = {each.raddr.port for each in worker.net_connections("tcp") if each.raddr}
                before = len(load.closed)
                worker.kill()
                await answers(load, 32)
                closed = {port for _, port in load.closed[before:]}
                lost += len(closed)
                strangers += len(closed - own)
            failed, answered = load.failed, load.statuses[200]
    return Outcome(
        f"{plan.worker_kills} kills, {answered} requests answered; {lost} connections of the killed workers were "
        f"closed, {strangers} of others; {failed} errors",
        strangers == 0 and failed == 0,
        {"kills": plan.worker_kills, "answered": answered, "closed": lost, "closed_of_others": strangers},
    )


async def burst(plan: Plan, model: Path) -> Outcome:
    """Suddenly twenty times as many connections, each of which comes back one to two seconds after a 429."""
    usual = 16
    with served(model, IEI_MAX_QUEUE=str(usual // WORKERS)) as server:
        async with traffic(server, usual) as load:
            await asyncio.sleep(plan.burst_s / 2)
            started = time.perf_counter()
            await asyncio.sleep(plan.burst_s / 2)
            before = load.latencies(started)
            crowd = Traffic(server.url, bodies())
            started = time.perf_counter()
            await crowd.connect(usual * (plan.burst - 1))
            await asyncio.sleep(plan.burst_s)
            during = load.latencies(started) + crowd.latencies(started)
            refused = load.latencies(started, 429) + crowd.latencies(started, 429)
            crowd.stop()
            ended = time.perf_counter()
            await asyncio.sleep(1.0)
            recovered = time.perf_counter()
            await asyncio.sleep(plan.burst_s / 2)
            after = load.latencies(recovered)
            others = (load.failed - load.statuses[429]) + (crowd.failed - crowd.statuses[429])
            others += len(load.closed) + len([at for at, _ in crowd.closed if at < ended])
    limit, slow = float(np.percentile(during, 99)), float(np.percentile(refused, 99))
    p50, p99, p50_after = (float(np.percentile(*each)) for each in ((before, 50), (before, 99), (after, 50)))
    return Outcome(
        f"accepted: p50 {median(during) * 1e3:.0f} ms, p99 {limit * 1e3:.0f} ms, before the burst {p50 * 1e3:.0f} and "
        f"{p99 * 1e3:.0f}; {len(refused)} answers 429, their p99 {slow * 1e3:.0f} ms; a second after it, p50 "
        f"{p50_after * 1e3:.0f} ms; {others} other errors",
        others == 0 and limit <= 1.5 * p99 and slow <= 0.5 and p50_after <= 1.25 * p50,
        {
            "before_p50_s": p50,
            "before_p99_s": p99,
            "during_p50_s": median(during),
            "during_p99_s": limit,
            "refused": len(refused),
            "refused_p99_s": slow,
            "after_p50_s": p50_after,
        },
    )


async def day(plan: Plan, model: Path) -> Outcome:
    """Requests at 80 % of what the server can do, for a long time: no process may grow."""
    with served(model) as server:
        async with traffic(server, 16) as load:
            await asyncio.sleep(10)
            started = time.perf_counter()
            await asyncio.sleep(20)
            rate = 0.8 * len(load.latencies(started)) / (time.perf_counter() - started)
        samples: dict[int, list[tuple[float, float]]] = {}
        async with open_loop(server, rate) as counts:
            started = time.perf_counter()
            while (elapsed := time.perf_counter() - started) < plan.day_s:
                for process in server.processes():
                    samples.setdefault(process.pid, []).append((elapsed, memory.own_mib(process.pid)))
                await asyncio.sleep(5)
        names = {process.pid: _role(server, process) for process in server.processes()}
    sizes = {pid: [size for at, size in series if at >= plan.settle_s] for pid, series in samples.items()}
    growths = {pid: growth(series) for pid, series in sizes.items()}
    worst = max(growths, key=growths.__getitem__)
    failed = sum(count for status, count in counts.items() if status != 200)
    minutes = {f"{names[pid]} {pid}, MiB by minute": by_minute(series) for pid, series in samples.items()}
    return Outcome(
        f"{plan.day_s / 60:g} minutes at {rate:.0f} requests a second, {counts[200]} answered, {failed} failed; of all "
        f"processes the {names[worst]} grew most, by {growths[worst]:.1%} of its memory, to {sizes[worst][-1]:.0f} MiB",
        failed == 0 and growths[worst] <= 0.05,
        {"rate": rate, "answered": counts[200], "failed": failed, "worst_growth": growths[worst], **minutes},
    )


def by_minute(series: list[tuple[float, float]]) -> list[float]:
    """The median size in each minute of a series of (seconds, MiB)."""
    grouped = itertools.groupby(series, key=lambda sample: sample[0] // 60)
    return [round(median(size for _, size in samples), 1) for _, samples in grouped]


def growth(sizes: list[float]) -> float:
    """How much larger the last tenth is than the first, in medians, as a part of the first."""
    tenth = max(1, len(sizes) // 10)
    return median(sizes[-tenth:]) / median(sizes[:tenth]) - 1


def _role(server: Server, process: psutil.Process) -> str:
    (role,) = memory.by_role(server.process.pid, [process])
    return role


@contextlib.asynccontextmanager
async def open_loop(server: Server, rate: float) -> AsyncIterator[Counter[int]]:
    """Sends `rate` requests a second while the block runs, whether they are answered or not. Counts the statuses."""
    counts: Counter[int] = Counter()
    contents = itertools.cycle([body.encode() for body in bodies()])
    headers = {"Content-Type": "application/json"}
    sending: set[asyncio.Task[None]] = set()

    async def one(client: httpx.AsyncClient) -> None:
        try:
            answer = await client.post("/embed", content=next(contents), headers=headers)
            counts[answer.status_code] += 1
        except httpx.TransportError:
            counts[0] += 1

    async def send(client: httpx.AsyncClient) -> None:
        started, sent = time.perf_counter(), 0
        while True:
            due = int((time.perf_counter() - started) * rate)
            for _ in range(due - sent):
                task = asyncio.create_task(one(client))
                sending.add(task)
                task.add_done_callback(sending.discard)
            sent = due
            await asyncio.sleep(1 / rate)

    limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as client:
        sender = asyncio.create_task(send(client))
        try:
            yield counts
        finally:
            sender.cancel()
            await asyncio.gather(*sending)


async def disk(plan: Plan, model: Path) -> Outcome:
    """The disk of the folder for temporary files and of the log is full; then the engine dies, too."""
    if os.geteuid() != 0:
        return Outcome("not tried: mounting a small disk needs root", False)
    with small_disk() as folder, served(model, TMPDIR=str(folder)) as server:
        filler = folder / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(2**16))
        async with traffic(server, 8) as load:
            await answers(load, 200)
            await kill_engine(server)
            gap = await answers(load, 200)
            failed, answered = load.failed + len(load.closed), load.statuses[200]
        full = shutil.disk_usage(folder).free
    return Outcome(
        f"{full} bytes free; {answered} requests answered, {failed} failed, with an engine killed and {gap:.1f} s "
        "later replaced meanwhile",
        failed == 0,
    )


@contextlib.contextmanager
def small_disk() -> Iterator[Path]:
    """A file system of 8 MiB."""
    with tempfile.TemporaryDirectory(prefix="iei-disk-") as name:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", name], check=True)
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "--lazy", name], check=True)


async def folder(plan: Plan, model: Path) -> Outcome:
    """The model's folder vanishes. Then the engine dies, and the folder comes back."""
    gone = model.with_name("elsewhere")
    with served(model, IEI_REQUEST_TIMEOUT_S="5") as server:
        async with traffic(server, 8) as load:
            os.rename(model, gone)  # noqa: PTH104
            await answers(load, 200)
            unharmed = load.failed + len(load.closed)
            await kill_engine(server)
            await asyncio.sleep(10)
            errors = {status for status in load.statuses if status != 200}
            os.rename(gone, model)  # noqa: PTH104
            started = time.perf_counter()
            await answers(load, 1)
            back = time.perf_counter() - started
            await asyncio.sleep(1)
            failed = load.failed
            await answers(load, 100)
            failed = load.failed - failed
    return Outcome(
        f"{unharmed} requests failed without the folder; without an engine, too, they were answered "
        f"{', '.join(map(str, sorted(errors)))}; with the folder back, the first answer came after {back:.1f} s, and "
        f"{failed} requests failed after it",
        unharmed == 0 and errors == {503} and failed == 0,
    )


async def hub(plan: Plan, model: Path) -> Outcome:
    """The hub accepts connections and says nothing: at the start, and when a model is asked for."""
    with silent_hub() as endpoint, tempfile.TemporaryDirectory() as home:
        environment = {"HF_ENDPOINT": endpoint, "HF_HOME": home, "HF_HUB_ETAG_TIMEOUT": "2"}
        models = f"here={model},there=someone/something"
        with served(model, IEI_MODELS=models, IMAGE_EMBEDDING_MODEL="", **environment) as server:
            async with traffic(server, 8) as load:
                body = {"model": "there", "input": ["x"]}
                async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
                    started = time.perf_counter()
                    asked = await client.post("/v1/embeddings", json=body)
                    took = time.perf_counter() - started
                await answers(load, 50)
                failed = load.failed + len(load.closed)
        started = time.perf_counter()
        try:
            with served(Path("someone/something"), **environment):
                sentence = ""
        except ServerDied as error:
            sentence = str(error).strip().splitlines()[-1]
        ended = time.perf_counter() - started
    return Outcome(
        f"a model that is not here: {asked.status_code} after {took:.0f} s, while {failed} requests for the other "
        f"failed; a start with it ends after {ended:.0f} s with “{sentence}”",
        asked.status_code == 503 and failed == 0 and sentence.startswith("iei: "),
    )


@contextlib.contextmanager
def silent_hub() -> Iterator[str]:
    """The URL of a server that accepts every connection and never answers."""
    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    kept.append(listener.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    for sock in kept:
        sock.close()


TRIALS: dict[str, Callable[[Plan, Path], Coroutine[None, None, Outcome]]] = {
    "engine": engine_kills,
    "worker": worker_kills,
    "burst": burst,
    "day": day,
    "disk": disk,
    "folder": folder,
    "hub": hub,
}


def try_all(plan: Plan, names: list[str]) -> dict[str, Outcome]:
    """The trials of these names, one after the other."""
    outcomes: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory(prefix="iei-endure-") as name:
        model = Path(name, "model")
        write_model(model)
        for trial in names:
            progress(f"{trial}: {TRIALS[trial].__doc__}")
            outcome = outcomes[trial] = uvloop.run(TRIALS[trial](plan, model))
            progress(f"{trial}: {'kept' if outcome.kept else 'NOT KEPT'}: {outcome.seen}")
    return outcomes


def noted(outcomes: dict[str, Outcome]) -> dict[str, dict[str, Any]]:
    """All outcomes that are written down, after these have been: trials can be made one by one."""
    results: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    where = {"date": f"{datetime.now(UTC):%Y-%m-%d}", **machine.describe()}
    results |= {name: {**asdict(outcome), "where": where} for name, outcome in outcomes.items()}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    return {name: results[name] for name in TRIALS if name in results}


def summary(results: dict[str, dict[str, Any]]) -> str:
    """The table, and what it was measured on."""
    rows = [
        [name, (TRIALS[name].__doc__ or "").strip(), result["seen"], "yes" if result["kept"] else "**no**"]
        for name, result in results.items()
    ]
    places = {
        f"{where['date']}, {where['cpu']}, {where['cores']} cores; python {where['python']}, torch {where['torch']}."
        for where in (result["where"] for result in results.values())
    }
    return "\n\n".join([*sorted(places), plain_table(["trial", "what happens", "seen", "kept"], rows)])


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of sentences, which no column would be wide enough for."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Tries, prints the table and, without `--quick`, writes it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few kills and a short day; keeps no figures")
    parser.add_argument(
        "--only", nargs="+", choices=TRIALS, default=list(TRIALS), metavar="TRIAL", help=", ".join(TRIALS)
    )
    arguments = parser.parse_args()
    outcomes = try_all(QUICK if arguments.quick else Plan(), arguments.only)
    if not arguments.quick:
        replace_section(PAGE, "endure", summary(noted(outcomes)))
    sys.exit(not all(outcome.kept for outcome in outcomes.values()))


if __name__ == "__main__":
    main()
