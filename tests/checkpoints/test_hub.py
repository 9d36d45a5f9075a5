"""Downloads, from a hub on loopback, in processes of their own: huggingface_hub reads its environment when imported."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from iei.runtimes.loading import load
from tests.checkpoints.fake_hub import TOKEN, FakeHub
from tests.checkpoints.vision_checkpoints import write_checkpoint
from tests.load_requests import load_request

pytestmark = pytest.mark.server

FETCH = """
import json, sys, time
from iei.errors import StartupError
from iei.checkpoints.folders import fetch_checkpoint
time.sleep = lambda seconds: None  # huggingface_hub rests between its tries
asked, patience_s = json.loads(sys.argv[1])
if patience_s is not None:  # its variables take whole seconds only
    from huggingface_hub import constants
    constants.HF_HUB_ETAG_TIMEOUT = constants.HF_HUB_DOWNLOAD_TIMEOUT = patience_s
for model_id, revision, options in asked:
    try:
        answer = {"folder": str(fetch_checkpoint(model_id, revision, **options))}
    except StartupError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer))
"""

Asked = tuple[str, str | None, dict[str, bool]]
"""Model id, revision, options of `fetch_checkpoint`."""

NEEDED = {"config.json", "preprocessor_config.json", "model.safetensors"}


@dataclass
class Client:
    """A machine with a cache of its own."""

    endpoint: str
    home: Path
    stderr: str = ""
    patience_s: float | None = None
    """How long it waits for an answer."""

    def answers(self, *asked: Asked, stderr: int = subprocess.PIPE, **env: str) -> list[dict[str, str]]:
        ran = subprocess.run(
            [sys.executable, "-W", "error", "-c", FETCH, json.dumps([asked, self.patience_s])],
            env={"PATH": os.environ["PATH"], "HF_ENDPOINT": self.endpoint, "HF_HOME": str(self.home), **env},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            timeout=60,
            check=False,
        )
        self.stderr = ran.stderr or ""
        assert ran.returncode == 0, self.stderr
        return [json.loads(line) for line in ran.stdout.splitlines()]

    def fetch(
        self, model_id: str, revision: str | None = None, *, env: Mapping[str, Any] = {}, **options: bool
    ) -> Path:
        (answer,) = self.answers((model_id, revision, options), **env)
        assert "folder" in answer, answer
        return Path(answer["folder"])

    def error(self, model_id: str, revision: str | None = None, *, env: Mapping[str, Any] = {}, **options: bool) -> str:
        (answer,) = self.answers((model_id, revision, options), **env)
        assert "error" in answer, answer
        return answer["error"]


@pytest.fixture
def hub() -> FakeHub:
    return FakeHub()


@pytest.fixture
def client(hub: FakeHub, tmp_path: Path) -> Iterator[Client]:
    with hub.serve() as endpoint:
        yield Client(endpoint, tmp_path / "home")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_checkpoint("vit", tmp_path / "tiny")


def test_takes_what_is_needed_and_nothing_else(hub: FakeHub, client: Client, tiny: Path) -> None:
    for name in (
        "README.md",
        "pytorch_model.bin",
        "tf_model.h5",
        "model.fp16.safetensors",
        "onnx/model.onnx",
        "run.py",
    ):
        (tiny / name).parent.mkdir(exist_ok=True)
        (tiny / name).write_text("not needed")
    commit = hub.add("someone/tiny", tiny)
    folder = client.fetch("someone/tiny")
    assert hub.downloaded() == NEEDED
    assert folder.name == commit
    assert (folder / "model.safetensors").read_bytes() == (tiny / "model.safetensors").read_bytes()
    assert load(load_request("tiny", str(folder))).spec.revision == commit


def test_takes_what_text_needs_too(hub: FakeHub, client: Client, tiny: Path) -> None:
    texts = {
        "tokenizer.json",
        "modules.json",
        "config_sentence_transformers.json",
        "sentence_bert_config.json",
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
    }
    for name in texts:
        (tiny / name).parent.mkdir(exist_ok=True)
        (tiny / name).write_text(json.dumps({"file": name}))
    (tiny / "2_Dense" / "pytorch_model.bin").touch()
    hub.add("someone/tiny", tiny)
    client.fetch("someone/tiny", allow_pickle=True)
    assert hub.downloaded() == NEEDED | texts


def test_a_log_gets_lines(hub: FakeHub, client: Client, tiny: Path) -> None:
    hub.add("someone/tiny", tiny)
    client.fetch("someone/tiny")
    assert client.stderr == "downloaded 0.2 of 0.2 MB\n"


def test_a_terminal_gets_bars(hub: FakeHub, client: Client, tiny: Path) -> None:
    hub.add("someone/tiny", tiny)
    terminal, stderr = pty.openpty()
    termios.tcsetwinsize(stderr, (24, 100))
    with os.fdopen(terminal, "rb", buffering=0) as screen:
        client.answers(("someone/tiny", None, {}), stderr=stderr)
        os.set_blocking(terminal, False)
        shown = b"".join(iter(lambda: screen.read(4096) or b"", b""))
        os.close(stderr)
    assert b"100%|" in shown


def test_second_start_takes_the_cache(hub: FakeHub, client: Client, tiny: Path) -> None:
    hub.add("someone/tiny", tiny)
    first = client.fetch("someone/tiny")
    hub.requests.clear()
    assert client.fetch("someone/tiny") == first
    assert hub.downloaded() == set()
    assert client.stderr == ""


def test_a_new_commit_is_taken(hub: FakeHub, client: Client, tiny: Path) -> None:
    old = hub.add("someone/tiny", tiny)
    client.fetch("someone/tiny")
    (tiny / "preprocessor_config.json").write_text("{}")
    new = hub.add("someone/tiny", tiny)
    hub.requests.clear()
    assert client.fetch("someone/tiny").name == new != old
    assert hub.downloaded() == {"preprocessor_config.json"}


def test_a_load_that_prefers_the_cache_asks_nobody(hub: FakeHub, client: Client, tiny: Path) -> None:
    """A reload must not get other weights in the middle of an index."""
    hub.add("someone/tiny", tiny)
    first = client.fetch("someone/tiny", prefer_cache=True)
    (tiny / "preprocessor_config.json").write_text("{}")
    hub.add("someone/tiny", tiny)
    hub.requests.clear()
    assert client.fetch("someone/tiny", prefer_cache=True) == first
    assert hub.requests == []
    assert client.stderr == ""


def test_a_cache_that_lacks_a_file_is_completed(hub: FakeHub, client: Client, tiny: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tiny / "2_Dense").mkdir(exist_ok=True)
        (tiny / "2_Dense" / name).write_text("{}")
    hub.add("someone/tiny", tiny)
    folder = client.fetch("someone/tiny")
    for missing in NEEDED | {"2_Dense/model.safetensors"}:
        (folder / missing).unlink()
        assert (client.fetch("someone/tiny", prefer_cache=True) / missing).is_file()


def test_offline_takes_the_cache_and_asks_nobody(hub: FakeHub, client: Client, tiny: Path) -> None:
    commit = hub.add("someone/tiny", tiny)
    first = client.fetch("someone/tiny")
    hub.requests.clear()
    asked: list[Asked] = [("someone/tiny", None, {}), ("someone/tiny", commit, {})]
    assert client.answers(*asked, HF_HUB_OFFLINE="1") == [{"folder": str(first)}] * 2
    assert hub.requests == []
    assert client.stderr == ""


def test_a_hub_that_is_down_is_no_reason_not_to_start(hub: FakeHub, client: Client, tiny: Path) -> None:
    hub.add("someone/tiny", tiny)
    first = client.fetch("someone/tiny")
    hub.broken = True
    assert client.fetch("someone/tiny") == first
    assert "can't be reached" in client.stderr
    assert "someone/tiny starts from the cache" in client.stderr
    assert Client(_nowhere(), client.home).fetch("someone/tiny") == first


def test_nothing_cached_and_no_way_to_the_hub(hub: FakeHub, client: Client, tiny: Path) -> None:
    offline = client.error("someone/tiny", env={"HF_HUB_OFFLINE": "1"})
    assert "someone/tiny is not completely in the cache" in offline
    assert "HF_HUB_OFFLINE is set: unset it for the first start" in offline
    nowhere = Client(_nowhere(), client.home).error("someone/tiny")
    assert "Connection refused" in nowhere
    assert "check the network, the proxy and HF_ENDPOINT" in nowhere


AT_ONCE = {"HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "1"}


def test_a_hub_that_never_answers_is_not_waited_for(hub: FakeHub, client: Client, tiny: Path) -> None:
    hub.add("someone/tiny", tiny)
    hub.silent = ""
    refused = client.error("someone/tiny", env=AT_ONCE)
    assert "someone/tiny is not completely in the cache" in refused
    assert "timed out" in refused
    assert "check the network, the proxy and HF_ENDPOINT" in refused


@pytest.mark.parametrize("silent", ["/api/models/", "/tree/", "/blobs/"])
def test_a_hub_that_stalls_halfway_does_not_keep_the_cache_from_use(
    hub: FakeHub, client: Client, tiny: Path, silent: str
) -> None:
    hub.add("someone/tiny", tiny)
    old = client.fetch("someone/tiny")
    (tiny / "model.safetensors").write_bytes(bytes(1000))
    new = hub.add("someone/tiny", tiny)
    hub.silent = silent
    client.patience_s = 0.2
    assert client.fetch("someone/tiny") == old
    assert "someone/tiny starts from the cache" in client.stderr
    assert client.fetch("someone/tiny", env={"HF_HUB_OFFLINE": "1"}) == old
    hub.silent, client.patience_s = None, None
    assert client.fetch("someone/tiny").name == new


def test_half_a_download_is_no_model(hub: FakeHub, client: Client, tiny: Path) -> None:
    """Its weights failed for good; what is there must not start offline."""
    hub.add("someone/tiny", tiny)
    weights = hub.repositories["someone/tiny"].files.pop("model.safetensors")
    assert "someone/tiny on the hub has no model.safetensors" in client.error("someone/tiny")
    assert "is not completely in the cache" in client.error("someone/tiny", env={"HF_HUB_OFFLINE": "1"})
    hub.repositories["someone/tiny"].files["model.safetensors"] = weights
    assert (client.fetch("someone/tiny") / "model.safetensors").is_file()


def test_a_transfer_that_breaks_goes_on_where_it_broke(hub: FakeHub, client: Client, tiny: Path) -> None:
    file = tiny / "model.safetensors"
    file.write_bytes(file.read_bytes() + bytes(12_000_000))  # huggingface_hub keeps what came in pieces of 10 MB
    hub.add("someone/tiny", tiny)
    hub.cut_after = 11_000_000
    folder = client.fetch("someone/tiny")
    assert (folder / "model.safetensors").read_bytes() == (tiny / "model.safetensors").read_bytes()
    (rest,) = hub.ranges
    assert 0 < int(rest.removeprefix("bytes=").rstrip("-")) <= 11_000_000


def test_what_cannot_be_served_is_not_downloaded(hub: FakeHub, client: Client, tiny: Path) -> None:
    (tiny / "config.json").write_text('{"model_type": "gpt2", "auto_map": {"AutoModel": "evil.Model"}}')
    hub.add("someone/tiny", tiny)
    assert "model_type 'gpt2' is not supported" in client.error("someone/tiny")
    assert hub.downloaded() == {"config.json"}


def test_pickles_are_taken_only_on_request(hub: FakeHub, client: Client, tiny: Path) -> None:
    dense = tiny / "2_Dense"
    dense.mkdir()
    (dense / "config.json").write_text("{}")
    (dense / "pytorch_model.bin").touch()
    hub.add("someone/tiny", tiny)
    assert "someone/tiny/2_Dense has its weights in a pickle only" in client.error("someone/tiny")
    assert hub.downloaded() == {"config.json"}
    (tiny / "model.safetensors").rename(tiny / "pytorch_model.bin")
    hub.add("someone/tiny", tiny)
    assert "set IEI_ALLOW_PICKLE=true if you trust its source" in client.error("someone/tiny")
    assert hub.downloaded() == {"config.json"}
    folder = client.fetch("someone/tiny", allow_pickle=True)
    assert (folder / "pytorch_model.bin").is_file()
    assert (folder / "2_Dense" / "pytorch_model.bin").is_file()
    offline = {"HF_HUB_OFFLINE": "1"}
    assert client.fetch("someone/tiny", allow_pickle=True, env=offline) == folder
    assert "set IEI_ALLOW_PICKLE=true" in client.error("someone/tiny", env=offline)


def test_revisions(hub: FakeHub, client: Client, tiny: Path) -> None:
    commit = hub.add("someone/tiny", tiny)
    assert client.fetch("someone/tiny", commit) == client.fetch("someone/tiny", "main")
    assert "someone/tiny has no revision v9: set IEI_REVISION" in client.error("someone/tiny", "v9")


def test_access(hub: FakeHub, client: Client, tiny: Path) -> None:
    hub.add("someone/private", tiny, private=True)
    hub.add("someone/gated", tiny, gated=True)
    hub.add("someone/public", tiny)
    asked: list[Asked] = [(f"someone/{name}", None, {}) for name in ("private", "gated", "missing", "public")]
    private, gated, missing, public = client.answers(*asked)
    assert "someone/private is not on http" in private["error"]
    assert "or it is private: check its spelling, or set HF_TOKEN" in private["error"]
    assert f"someone/gated is gated: ask for access at {client.endpoint}/someone/gated" in gated["error"]
    assert "someone/missing is not on http" in missing["error"]
    assert "folder" in public

    private, gated, missing, public = client.answers(*asked, HF_TOKEN=TOKEN)
    assert "folder" in private
    assert "someone/gated is gated" in gated["error"]
    assert "someone/missing is not on http" in missing["error"]

    for answer in client.answers(*asked, HF_TOKEN="hf_wrong"):
        assert "does not accept HF_TOKEN: renew it" in answer["error"]
        assert "hf_wrong" not in answer["error"]


def test_what_is_no_model(hub: FakeHub, client: Client, tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "README.md").touch()
    hub.add("someone/dataset", tmp_path / "dataset")
    dataset, sentence, path = client.answers(
        ("someone/dataset", None, {}), ("no such model", None, {}), ("./nowhere", None, {})
    )
    assert "someone/dataset has no config.json on the hub" in dataset["error"]
    assert "'no such model' is neither a folder nor an id of the hub" in sentence["error"]
    assert "There is no folder ./nowhere" in path["error"]


def _nowhere() -> str:
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"
