"""A hub of models on loopback, as far as huggingface_hub downloads from one.

    hub = FakeHub()
    commit = hub.add("someone/tiny", folder)
    with hub.serve() as endpoint:  # for HF_ENDPOINT
        ...

Speaks the API that huggingface_hub 2.4 uses: `/api/models/{id}[/revision/{rev}]`, `/api/models/{id}/tree/{rev}` and
`/{id}/resolve/{rev}/{file}`, where weights are redirected to another address, with ranges, as from a CDN.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_right"

_MODEL = re.compile(r"/api/models/(?P<id>[^/]+/[^/]+)(/(?P<what>revision|tree)/(?P<revision>[^/]+))?")
_FILE = re.compile(r"/(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
_BLOB = re.compile(r"/blobs/(?P<digest>[0-9a-f]{64})")


@dataclass(frozen=True)
class Repository:
    commit: str
    files: dict[str, bytes]
    private: bool = False
    """Unknown to whoever has no token."""
    gated: bool = False
    """Its list of files is open to all, the files to nobody."""


@dataclass
class FakeHub:
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    """`METHOD /path` of everything that was asked, in order."""
    ranges: list[str] = field(default_factory=list)
    """`Range` headers that were sent."""
    cut_after: int | None = None
    """Break the connection after so many bytes of the first transfer that is longer."""
    broken: bool = False
    """Answer everything with 503."""
    silent: str | None = None
    """Take requests whose path has this in it, and never answer them."""
    blobs: str = ""
    """Address that weights are redirected to."""
    closing: threading.Event = field(default_factory=threading.Event)

    def add(self, model_id: str, folder: Path, *, private: bool = False, gated: bool = False) -> str:
        """Serves the files of `folder` as they are now; returns their commit."""
        files = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.repositories[model_id] = Repository(commit, files, private, gated)
        return commit

    @contextlib.contextmanager
    def serve(self) -> Iterator[str]:
        """Its address, for `HF_ENDPOINT`, while the context lasts."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.blobs = f"http://localhost:{server.server_port}/blobs"  # another host: no token goes there
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            self.closing.set()
            server.shutdown()
            server.server_close()
            thread.join()

    def downloaded(self) -> set[str]:
        """Names of the files whose bytes were asked for: GET, not HEAD."""
        names = {_digest(data): name for repo in self.repositories.values() for name, data in repo.files.items()}
        asked = [path for method, path in (line.split() for line in self.requests) if method == "GET"]
        blobs = {names[match["digest"]] for path in asked if (match := _BLOB.fullmatch(path))}
        return blobs | {match["file"] for path in asked if (match := _FILE.fullmatch(path))}


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """Tests look at `requests`; their stderr stays clean."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.silent is not None and self.hub.silent in path:
            self.hub.closing.wait()
            self.close_connection = True
        elif self.hub.broken:
            self._refuse(503, "", "Service Unavailable")
        elif match := _BLOB.fullmatch(path):
            self._send_blob(match["digest"])
        elif match := _MODEL.fullmatch(path):
            self._with_repository(match["id"], match["revision"], lambda repo: self._describe(match, repo))
        elif match := _FILE.fullmatch(path):
            self._with_repository(match["id"], match["revision"], lambda repo: self._send_file(match["file"], repo))
        else:
            self._refuse(404, "", "Not Found")

    def _with_repository(self, model_id: str, revision: str | None, then: Any) -> None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        repo = self.hub.repositories.get(model_id)
        if token and token != TOKEN:
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif repo is None or (repo.private and not token):
            self._refuse(404 if token else 401, "RepoNotFound", "Repository not found")
        elif revision not in (None, "main", repo.commit):
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            then(repo)

    def _describe(self, match: re.Match[str], repo: Repository) -> None:
        if match["what"] == "tree":
            self._send_json([_entry(name, data) for name, data in repo.files.items()])
        else:
            siblings = [{"rfilename": name} for name in repo.files]
            self._send_json({"id": match["id"], "sha": repo.commit, "gated": repo.gated, "siblings": siblings})

    def _send_file(self, name: str, repo: Repository) -> None:
        if repo.gated:
            self._refuse(403, "GatedRepo", "Access to this model is restricted")
        elif name not in repo.files:
            self._refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": repo.commit})
        elif _is_large(name):
            data, digest = repo.files[name], _digest(repo.files[name])
            linked = {
                "X-Linked-Etag": f'"{digest}"',
                "X-Linked-Size": str(len(data)),
                "Location": f"{self.hub.blobs}/{digest}",
            }
            self._send(302, b"", {"X-Repo-Commit": repo.commit, **linked})
        else:
            data = repo.files[name]
            self._send(200, data, {"X-Repo-Commit": repo.commit, "ETag": f'"{_blob_id(data)}"'})

    def _send_blob(self, digest: str) -> None:
        data = next(
            data for repo in self.hub.repositories.values() for data in repo.files.values() if _digest(data) == digest
        )
        headers = {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        if span := self.headers.get("Range"):
            self.hub.ranges.append(span)
            start = int(span.removeprefix("bytes=").rstrip("-"))
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self._send(206, data[start:], headers)
        else:
            self._send(200, data, headers)

    def _send_json(self, content: Any) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.hub.cut_after
        if cut is not None and len(data) > cut:
            self.hub.cut_after = None
            data = data[:cut]
            self.close_connection = True
        self.wfile.write(data)


def _entry(name: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": _blob_id(data)}
    if _is_large(name):
        entry["lfs"] = {"oid": _digest(data), "size": len(data), "pointerSize": 134}
    return entry


def _is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _blob_id(data: bytes) -> str:
    """git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
