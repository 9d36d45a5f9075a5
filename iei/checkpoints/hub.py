"""Hub id → a folder with a checkpoint's files. Imported only when a model of the hub is asked for: it takes long.

`HF_TOKEN`, `HF_HOME`, `HF_ENDPOINT` and `HF_HUB_OFFLINE` mean what they mean to huggingface_hub, which reads them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download, set_client_factory, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # exported lazily: httpx2 by now
from huggingface_hub.utils._http import default_client_factory

from iei.checkpoints.families import supported
from iei.checkpoints.files import PICKLES, SAFETENSORS, weight_files
from iei.checkpoints.folders import DESCRIPTIONS, read_config
from iei.checkpoints.progress import progress
from iei.errors import StartupError

log = logging.getLogger(__name__)

DENSE = "*_Dense/config.json"
"""Marks a folder of sentence-transformers that has weights of its own."""


def download(model_id: str, revision: str | None, *, allow_pickle: bool, prefer_cache: bool) -> Path:
    """What `iei.checkpoints.folders.fetch_checkpoint` does for an id of the hub."""
    try:
        if prefer_cache:
            with contextlib.suppress(LocalEntryNotFoundError):
                return _cached(model_id, revision, allow_pickle)
        return _asked(model_id, revision, allow_pickle)
    except (OSError, ValueError, httpx.HTTPError) as error:
        raise StartupError(_explanation(error, model_id, revision)) from error


def _asked(model_id: str, revision: str | None, allow_pickle: bool) -> Path:
    """Returns what the hub has now or, if the hub can't be reached, the copy in the cache."""
    try:
        return _download(model_id, revision, allow_pickle)
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, httpx.TransportError, HfHubHTTPError) as reason:
        if isinstance(reason, HfHubHTTPError) and reason.response.status_code < 500:
            raise
        try:
            folder = _cached(model_id, revision, allow_pickle)
        except LocalEntryNotFoundError as error:
            raise error from reason
        if not isinstance(reason, OfflineModeIsEnabled):
            log.warning("%s can't be reached (%s): %s starts from the cache", constants.ENDPOINT, reason, model_id)
        return folder


def _download(model_id: str, revision: str | None, allow_pickle: bool) -> Path:
    set_client_factory(_client)
    found = HfApi().model_info(model_id, revision=revision)
    files = [sibling.rfilename for sibling in found.siblings or ()]
    if "config.json" not in files:
        raise StartupError(f"{model_id} has no config.json on the hub: it is not a transformers model.")
    folder = Path(hf_hub_download(model_id, "config.json", revision=found.sha)).parent
    supported(read_config(folder)["model_type"])
    wanted = _wanted(model_id, files, allow_pickle)
    if not _has(folder, wanted):
        snapshot_download(model_id, revision=found.sha, allow_patterns=wanted, tqdm_class=progress())
    if not _has(folder, wanted):  # without its list of files, huggingface_hub returns the folder as it is
        raise LocalEntryNotFoundError("The list of its files could not be had.")
    _remember(revision or constants.DEFAULT_REVISION, folder)
    return folder


def _client() -> httpx.Client:
    """Returns huggingface_hub's client with time limits: its own waits for some answers without a limit."""
    client = default_client_factory()
    client.event_hooks["request"].append(_give_up_in_time)
    return client


def _give_up_in_time(request: httpx.Request) -> None:
    limit_s = max(constants.HF_HUB_ETAG_TIMEOUT, constants.HF_HUB_DOWNLOAD_TIMEOUT)
    request.extensions["timeout"] = dict.fromkeys(request.extensions["timeout"], limit_s)


def _wanted(model_id: str, files: list[str], allow_pickle: bool) -> list[str]:
    """Returns those of a repository's files that are downloaded."""
    described = [file for file in files if _match(file, DESCRIPTIONS)]
    weights = weight_files(files, f"{model_id} on the hub", allow_pickle=allow_pickle)
    for dense in (file.removesuffix("/config.json") for file in files if fnmatch(file, DENSE)):
        inside = [file.removeprefix(f"{dense}/") for file in files if file.startswith(f"{dense}/")]
        found = weight_files(inside, f"{model_id}/{dense}", allow_pickle=allow_pickle)
        weights += [f"{dense}/{file}" for file in found]
    return described + weights


def _match(file: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(file, pattern) for pattern in patterns)


def _has(folder: Path, files: Iterable[str]) -> bool:
    return all((folder / file).exists() for file in files)


def _remember(revision: str, folder: Path) -> None:
    """Writes into the cache which commit a revision means. huggingface_hub would do it before all files are there."""
    ref = folder.parents[1] / "refs" / revision
    if revision != folder.name and not (ref.is_file() and ref.read_text() == folder.name):
        with contextlib.suppress(OSError):  # a read-only cache works without it
            ref.parent.mkdir(parents=True, exist_ok=True)
            ref.write_text(folder.name)


def _cached(model_id: str, revision: str | None, allow_pickle: bool) -> Path:
    """Returns the copy in the cache. Raises LocalEntryNotFoundError if it is not complete."""
    wanted = [*DESCRIPTIONS, *SAFETENSORS, *(f"*_Dense/{name}" for name in SAFETENSORS)]
    folder = Path(snapshot_download(model_id, revision=revision, allow_patterns=wanted, local_files_only=True))
    files = [file.name for file in folder.iterdir()]
    if not any(_match(file, (*SAFETENSORS, *PICKLES)) for file in files):
        raise LocalEntryNotFoundError("An earlier download broke off before its weights.")
    weight_files(files, folder, allow_pickle=allow_pickle)
    supported(read_config(folder)["model_type"])
    return folder


def _explanation(error: Exception, model_id: str, revision: str | None) -> str:
    """Returns one sentence that says what to do about an error of huggingface_hub."""
    advice = next((advice for kind, advice in _ADVICE if isinstance(error, kind)), _BROKEN_OFF)
    if isinstance(error, HfHubHTTPError) and advice is _BROKEN_OFF:
        advice = _ADVICE_BY_STATUS.get(error.response.status_code, advice)
    if isinstance(error, LocalEntryNotFoundError) and constants.is_offline_mode():
        advice = _OFFLINE
    reason = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
    return advice.format(
        model=model_id, revision=revision, hub=constants.ENDPOINT, cache=constants.HF_HUB_CACHE, reason=reason
    )


_ADVICE: tuple[tuple[type[Exception], str], ...] = (
    (
        GatedRepoError,
        "{model} is gated: ask for access at {hub}/{model}, and set HF_TOKEN to a token of the account that got it.",
    ),
    (
        RepositoryNotFoundError,
        "{model} is not on {hub}, or it is private: check its spelling, or set HF_TOKEN to a token that may read it.",
    ),
    (RevisionNotFoundError, "{model} has no revision {revision}: set IEI_REVISION to a branch, tag or commit of it."),
    (
        LocalEntryNotFoundError,
        "{model} is not completely in the cache ({cache}) and can't be had from {hub} ({reason}): check the network, "
        "the proxy and HF_ENDPOINT, or give the path of a local folder.",
    ),
    (HFValidationError, "{model!r} is neither a folder nor an id of the hub: write owner/name, or a folder's path."),
)
"""Error → advice. The first match counts, as huggingface_hub's errors inherit from one another."""

_ADVICE_BY_STATUS: Mapping[int, str] = {
    401: "{hub} does not accept HF_TOKEN: renew it, or unset it if {model} is public.",
    403: "HF_TOKEN may not read {model}: give that token read access to it.",
    429: "{hub} limits how often {model} is asked for: wait some minutes, or set HF_TOKEN.",
}

_OFFLINE = (
    "{model} is not completely in the cache ({cache}) and HF_HUB_OFFLINE is set: unset it for the first start, or "
    "give the path of a local folder."
)
_BROKEN_OFF = "{model} could not be downloaded from {hub} ({reason}): check the network and the disk, and start again."
