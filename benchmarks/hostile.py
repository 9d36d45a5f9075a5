"""What strangers can cost: bodies and pictures that are made to be expensive, and what they take of a server.

    uv run python -m benchmarks.hostile [bodies] [pictures] [--only TEXT]

Each body is sent to a worker that has just been started, while another connection asks the same worker for /ping, again
and again: the longest answer is how long its event loop was held. Each picture is decoded in a process of its own, as a
worker does it, and compared with photos of the same limit. Prints two tables.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import http.client
import json
import os
import signal
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psutil

from benchmarks import machine
from benchmarks.memory import ROLES
from benchmarks.report import table
from iei.inputs.budget import PixelBudget
from iei.inputs.decode import DecodeLimits, configure_pillow, decoded
from iei.inputs.geometry import to_pixels
from iei.models.spec import Geometry
from iei.settings import InputSettings
from tests.hostile_pictures import hostile, photos
from tests.servers import Server, serve

MIB = 2**20
MOST = 64 * MIB - 2000
"""Bytes of the largest body that is taken."""


class Body(NamedTuple):
    """A body, and how it is sent."""

    path: str
    content: bytes
    headers: Mapping[str, str] = {"content-type": "application/json"}
    chunk: int = 0
    """Bytes of each chunk (Transfer-Encoding: chunked). 0: with a Content-Length."""


def of(path: str, before: bytes, item: bytes, after: bytes, bytes_: int = MOST) -> Callable[[], Body]:
    """A body that repeats `item`, with commas, up to a size."""
    times = (bytes_ - len(before) - len(after)) // (len(item) + 1)
    return lambda: Body(path, before + (item + b",") * (times - 1) + item + after)


def packed(body: Callable[[], Body], pack: Callable[[bytes], bytes], name: str) -> Callable[[], Body]:
    """The same, compressed."""

    def made() -> Body:
        plain = body()
        return plain._replace(content=pack(plain.content), headers={**plain.headers, "content-encoding": name})

    return made


def kserve(data: bytes) -> tuple[bytes, bytes]:
    """What stands before and after the elements of a tensor."""
    return (b'{"inputs":[{"name":"image","shape":[1],"datatype":"BYTES","data":[' + data, b"]}]}")


def multipart(content: bytes) -> Body:
    """A form."""
    return Body("/embed", content, {"content-type": "multipart/form-data; boundary=b"})


def with_header(header: bytes) -> Body:
    """A message of KServe's binary extension: JSON, and no tensors after it."""
    length = {"inference-header-content-length": str(len(header))}
    return Body("/v2/models/demo/infer", header, {"content-type": "application/octet-stream", **length})


LISTS: Mapping[str, tuple[bytes, bytes]] = {
    "/embed": (b'{"inputs":[', b"]}"),
    "/embed_all": (b'{"inputs":[', b"]}"),
    "/": (b'{"inputs":[', b"]}"),
    "/similarity": (b'{"inputs":{"source_sentence":"a","sentences":[', b"]}}"),
    "/tokenize": (b'{"inputs":[', b"]}"),
    "/decode": (b'{"ids":[', b"]}"),
    "/v1/embeddings": (b'{"input":[', b"]}"),
    "/v2/models/demo/infer": kserve(b""),
    "/predict": (b'{"image_data":[', b"]}"),
    "/vectorize": (b'{"images":[', b"]}"),
    "/qdrant": (b'{"inputs":[', b"]}"),
    "/v1/embed": (b'{"model":"demo","images":[', b"]}"),
    "/v2/embed": (b'{"model":"demo","texts":[', b"]}"),
    "/v1/multimodalembeddings": (b'{"inputs":[', b"]}"),
    "/v1/models/demo:predict": (b'{"instances":[', b"]}"),
    "/api/embed": (b'{"model":"demo","input":[', b"]}"),
}
"""Route → what stands before and after the items of its list."""
OPENAI = LISTS["/v1/embeddings"]
EMBED = LISTS["/embed"]
MESSAGE = b'{"role":"user","content":[{"type":"text","text":"a"}]}'
TENSOR = b'{"name":"a","shape":[1],"datatype":"BYTES"}'


def bodies() -> Mapping[str, Callable[[], Body]]:
    """All bodies by what is special about them."""
    gzipped: dict[str, Callable[[], Body]] = {
        f'gzip of 64 MiB of "" at {path}': packed(
            of(path, before, b'""', after), lambda plain: gzip.compress(plain, 9), "gzip"
        )
        for path, (before, after) in LISTS.items()
    }
    items = {'""': b'""', "[1]": b"[1]", "[]": b"[]", "{}": b"{}", "0": b"0", "null": b"null", "[[0]]": b"[[0]]"}
    lists = {
        f"64 MiB of {name} at {path}": of(path, *_around(path, item))
        for path in ("/embed", "/v1/embeddings", "/decode", "/v2/models/demo/infer", "/predict")
        for name, item in items.items()
    }
    return {
        **gzipped,
        **lists,
        "a million [1] at /v1/embeddings": of("/v1/embeddings", OPENAI[0], b"[1]", OPENAI[1], 4_000_000),
        "a million [1] at /decode": of("/decode", b'{"ids":[', b"[1]", b"]}", 4_000_000),
        "most values allowed: token ids": of("/v1/embeddings", OPENAI[0], b"12345", OPENAI[1], 5_990_000),
        "most values allowed: ids for /decode": of("/decode", b'{"ids":[', b"12345", b"]}", 5_990_000),
        "most parts allowed: objects with a text": of("/v1/embeddings", OPENAI[0], b'{"text":""}', OPENAI[1], 134_000),
        "most parts allowed: messages": of("/v1/embeddings", OPENAI[0], MESSAGE, OPENAI[1], 180_000),
        "most parts allowed: [1]": of("/v1/embeddings", OPENAI[0], b"[1]", OPENAI[1], 135_000),
        "most parts allowed: strings": of("/embed", EMBED[0], b'""', EMBED[1], 101_000),
        "most parts allowed: tensors": of("/v2/models/demo/infer", b'{"inputs":[', TENSOR, b"]}", 160_000),
        "objects with a text": of("/v1/embeddings", OPENAI[0], b'{"text":""}', OPENAI[1]),
        "tensors": of("/v2/models/demo/infer", b'{"inputs":[', TENSOR, b"]}"),
        "a tensor of numbers": of("/v2/models/demo/infer", *_around("/v2/models/demo/infer", b"0.1234567")),
        "keys": lambda: Body(
            "/embed", b'{"inputs":"a",' + b",".join(b'"%07d":0' % at for at in range(5_500_000)) + b"}"
        ),
        "one key, again and again": of("/embed", b'{"inputs":"a",', b'"k":0', b"}"),
        "brackets": lambda: Body("/embed", b"[" * MOST),
        "nested lists in an ignored field": of("/embed", b'{"inputs":"a","x":[', b"[" * 100 + b"]" * 100, b"]}"),
        "a long key": lambda: Body("/embed", b'{"' + b"a" * MOST + b'":1}'),
        "a string of escapes": lambda: Body("/embed", b'{"inputs":"' + rb"\u0041" * (MOST // 6) + b'"}'),
        "a string of escaped quotes": lambda: Body("/embed", b'{"inputs":"' + rb"\"" * (MOST // 2) + b'"}'),
        "a string of commas": lambda: Body("/embed", b'{"inputs":"' + b"," * MOST + b'"}'),
        "a string of emoji": lambda: Body("/embed", b'{"inputs":"' + "a😀".encode() * (MOST // 5) + b'"}'),
        "a string of letters and an emoji": lambda: Body(
            "/embed", b'{"inputs":"' + b"a" * MOST + "😀".encode() + b'"}'
        ),
        "a number": lambda: Body("/embed", b'{"inputs":' + b"1" * MOST + b"}"),
        "numbers of 4000 digits": of("/v1/embeddings", OPENAI[0], b"9" * 4000, OPENAI[1]),
        "spaces": lambda: Body("/embed", b'{"inputs":' + b" " * MOST + b"1}"),
        "a base64 string, which is legitimate": lambda: Body("/embed", b'{"inputs":"' + b"A" * MOST + b'"}'),
        "gzip of nulls": packed(
            lambda: Body("/embed", bytes(1024 * MIB)), lambda plain: gzip.compress(plain, 1), "gzip"
        ),
        "deflate of nulls": packed(
            lambda: Body("/embed", bytes(MOST)), lambda plain: zlib.compress(plain, 1), "deflate"
        ),
        "gzip in gzip": packed(
            lambda: Body("/embed", bytes(256 * MIB)), lambda plain: gzip.compress(gzip.compress(plain, 1)), "gzip"
        ),
        "a form of parts": lambda: multipart(
            b'--b\r\ncontent-disposition: form-data; name="a"\r\n\r\n\r\n' * 1_000_000 + b"--b--\r\n"
        ),
        "a form of headers": lambda: multipart(b"--b\r\n" + b"a:b\r\n" * (MOST // 5) + b"\r\n--b--\r\n"),
        "a form of line breaks": lambda: multipart(
            b'--b\r\ncontent-disposition: form-data; name="a"; filename="a"\r\n\r\n' + b"\r\n" * (MOST // 2 - 100)
        ),
        "a form of hyphens": lambda: multipart(
            b'--b\r\ncontent-disposition: form-data; name="a"; filename="a"\r\n\r\n' + b"\r\n--" * (MOST // 4 - 100)
        ),
        "a urlencoded form": lambda: Body(
            "/embed", b"a&" * (MOST // 2), {"content-type": "application/x-www-form-urlencoded"}
        ),
        "4 MB in chunks of a byte": lambda: Body("/embed", b'{"inputs":"' + b"a" * 4_000_000 + b'"}', chunk=1),
        "binary tensors": lambda: Body(
            "/v2/models/demo/infer",
            b'{"inputs":[{"name":"image","shape":[16000000],"datatype":"BYTES","parameters":{"binary_data_size":64000000}}]}'
            + bytes(64_000_000),
            {"content-type": "application/octet-stream", "inference-header-content-length": "110"},
        ),
        "a binary header of values": lambda: with_header(kserve(b"")[0] + b'"",' * 20_000_000 + b'""' + kserve(b"")[1]),
    }


def _around(path: str, item: bytes) -> tuple[bytes, bytes, bytes]:
    before, after = LISTS[path]
    return before, item, after


class Cost(NamedTuple):
    """What a body took."""

    seconds: float
    held_s: float
    memory_mib: float
    answer: str


def measure_bodies(only: str) -> Iterator[list[str]]:
    """A row for each body."""
    with serve({"IMAGE_EMBEDDING_MODEL": "demo"}, workers=1) as server:
        for name, make in bodies().items():
            if only in name:
                body = make()
                cost = sent(server, body)
                yield [
                    name,
                    f"{len(body.content) / 1e6:.2f}",
                    f"{cost.seconds:.2f}",
                    f"{cost.held_s:.2f}",
                    f"{cost.memory_mib:.0f}",
                    cost.answer,
                ]


def sent(server: Server, body: Body) -> Cost:
    """What it takes of a worker that has served nothing yet."""
    worker = fresh_worker(server)
    address = urlsplit(server.url)
    status = Path(f"/proc/{worker.pid}/status")
    before = _kib(status, "VmRSS")
    Path(f"/proc/{worker.pid}/clear_refs").write_text("5")
    stop, held = threading.Event(), [0.0]
    heart = threading.Thread(target=beat, args=(address.hostname, address.port, stop, held))
    heart.start()
    started = time.perf_counter()
    try:
        answer = post(str(address.hostname), int(address.port or 0), body)
    except OSError as error:
        answer = f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - started
    stop.set()
    heart.join()
    memory = (_kib(status, "VmHWM") - before) / 1024 if worker.is_running() and status.exists() else float("nan")
    return Cost(seconds, held[0], memory, answer)


def fresh_worker(server: Server) -> psutil.Process:
    """Ends the worker, and waits for its successor."""
    old = worker_of(server)
    old.send_signal(signal.SIGKILL)
    old.wait(30)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException, StopIteration, psutil.Error):
            address = urlsplit(server.url)
            connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return worker_of(server)
        time.sleep(0.05)
    raise RuntimeError("no worker came back")


def worker_of(server: Server) -> psutil.Process:
    """The process that serves: a child of the master without a program of its own."""
    children = psutil.Process(server.process.pid).children()
    return next(child for child in children if not any(word in ROLES for word in child.cmdline()))


def beat(host: str, port: int, stop: threading.Event, held: list[float]) -> None:
    """Asks for /ping until `stop`, and keeps the longest time that an answer took."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=90) as connection:
        while not stop.is_set():
            started = time.perf_counter()
            try:
                connection.sendall(b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n")
                connection.recv(4096)
            finally:
                held[0] = max(held[0], time.perf_counter() - started)
            time.sleep(0.002)


def post(host: str, port: int, body: Body) -> str:
    """Status and the beginning of the answer."""
    head = [f"POST {body.path} HTTP/1.1", "Host: a", *(f"{name}: {value}" for name, value in body.headers.items())]
    if body.chunk:
        pieces = (body.content[at : at + body.chunk] for at in range(0, len(body.content), body.chunk))
        content = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        head.append("Transfer-Encoding: chunked")
    else:
        content = body.content
        head.append(f"Content-Length: {len(content)}")
    with socket.create_connection((host, port), timeout=120) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may answer before it has read all
            connection.sendall("\r\n".join([*head, "", ""]).encode() + content)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return f"{response.status} {response.read(100).decode(errors='replace')}"


def _kib(status: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name))


SETTINGS = InputSettings()
LIMITS = DecodeLimits(
    max_pixels=SETTINGS.max_image_pixels,
    max_side=SETTINGS.max_image_side,
    budget=PixelBudget(SETTINGS.max_decoding_pixels),
)
GEOMETRY = Geometry("exact", 224, 224, 3)


def measure_pictures(only: str) -> Iterator[list[str]]:
    """A row for each picture, photos first."""
    configure_pillow(SETTINGS.max_image_pixels)
    megapixels = SETTINGS.max_image_pixels / 1e6
    for name, make in {**photos(megapixels), **hostile(megapixels, SETTINGS.max_image_bytes)}.items():
        if only not in name:
            continue
        data = make()
        if len(data) > SETTINGS.max_image_bytes:
            yield [name, f"{len(data) / 1e6:.2f}", "", "", "is refused for its size"]
            continue
        receiver, sender = get_context("fork").Pipe(duplex=False)
        process = get_context("fork").Process(target=_decoded, args=(data, sender))
        process.start()
        if receiver.poll(60):
            seconds, memory, answer = receiver.recv()
            yield [name, f"{len(data) / 1e6:.2f}", f"{seconds:.2f}", f"{memory:.0f}", answer]
        else:
            process.kill()
            yield [name, f"{len(data) / 1e6:.2f}", "> 60", "", ""]
        process.join()


def _decoded(data: bytes, sender: Any) -> None:
    """Decodes and resizes a picture, and sends what that took: CPU seconds, MiB, and what became of it."""
    status = Path("/proc/self/status")
    before = _kib(status, "VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    started = time.process_time()
    try:
        with decoded(data, LIMITS) as image:
            to_pixels(image, GEOMETRY)
            answer = f"{image.width}×{image.height}"
    except Exception as error:
        answer = str(error)
    seconds = time.process_time() - started
    sender.send((seconds, (_kib(status, "VmHWM") - before) / 1024, answer[:100]))
    os._exit(0)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["bodies", "pictures"], help="bodies, pictures (default: both)")
    parser.add_argument("--only", default="", help="those whose names contain this")
    arguments = parser.parse_args()
    print(json.dumps(machine.describe()))
    if "bodies" in arguments.what:
        header = ["body", "MB", "s", "loop held, s", "memory, MiB", "answer"]
        print(table(header, [_shown(row) for row in measure_bodies(arguments.only)]))
    if "pictures" in arguments.what:
        header = ["picture", "MB", "CPU s", "memory, MiB", "answer"]
        print(table(header, [_shown(row) for row in measure_pictures(arguments.only)]))


def _shown(row: list[str]) -> list[str]:
    print(" · ".join(row), flush=True)
    return [cell.replace("|", "¦").replace("\n", " ") for cell in row]


if __name__ == "__main__":
    main()
