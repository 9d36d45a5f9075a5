"""Hub id or local folder → a folder that holds a checkpoint's files.

`HF_TOKEN`, `HF_HOME`, `HF_ENDPOINT` and `HF_HUB_OFFLINE` mean what they mean to huggingface_hub, which reads them.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
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

from iei.errors import StartupError
from iei.models.families import supported
from iei.models.progress import progress

log = logging.getLogger(__name__)

SAFETENSORS = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")
PICKLES = ("pytorch_model.bin", "pytorch_model-*-of-*.bin", "pytorch_model.bin.index.json")
DENSE_PICKLES = ("*_Dense/pytorch_model.bin",)
DESCRIPTIONS = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    # sentence-transformers: which pooling and which prompts a text model was trained with.
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_*_config.json",
    "*/config.json",
    "*_Dense/model.safetensors",
)
"""All that is read of a repository: no other framework's weights, no pictures, no code."""


def fetch_checkpoint(
    model_id: str, revision: str | None, *, allow_pickle: bool = False, prefer_cache: bool = False
) -> Path:
    """A local folder as it is; of a hub id, the files that are needed, from the cache or downloaded into it.

    `model_type` is checked against the table of architectures first: what can't be served is not downloaded either.
    With `prefer_cache`, the hub is asked only if the cache does not have all of it. Raises StartupError, one sentence
    that says what to do.
    """
    folder = Path(model_id).expanduser()
    if folder.is_dir():
        supported(read_config(folder)["model_type"])
        return folder
    if model_id.startswith(("/", ".", "~")):
        raise StartupError(f"There is no folder {model_id}: check the path, or name a model of the hub (owner/name).")
    try:
        if prefer_cache:
            with contextlib.suppress(LocalEntryNotFoundError):
                return _cached(model_id, revision, allow_pickle)
        return _download(model_id, revision, allow_pickle)
    except (OSError, ValueError, httpx.HTTPError) as error:
        raise StartupError(_explanation(error, model_id, revision)) from error


def read_config(folder: Path) -> dict[str, Any]:
    """A checkpoint's `config.json`, which has a `model_type`."""
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StartupError(f"{folder} has no config.json: it is not the folder of a transformers model.") from None
    except ValueError as error:
        raise StartupError(f"{file} is not JSON ({error}): download or copy it again.") from None
    if not isinstance(config, dict) or "model_type" not in config:
        raise StartupError(f"{file} has no model_type: it is not the config of a transformers model.")
    return config


def revision_of(folder: Path) -> str | None:
    """The commit that a folder of the cache holds; None for other folders."""
    return folder.name if folder.parent.name == "snapshots" else None


def _download(model_id: str, revision: str | None, allow_pickle: bool) -> Path:
    try:
        found = HfApi().model_info(model_id, revision=revision)
    except (OfflineModeIsEnabled, httpx.TransportError, HfHubHTTPError) as reason:
        if isinstance(reason, HfHubHTTPError) and reason.response.status_code < 500:
            raise
        try:
            folder = _cached(model_id, revision, allow_pickle)
        except LocalEntryNotFoundError as error:
            raise error from reason
        if not isinstance(reason, OfflineModeIsEnabled):
            log.warning("%s can't be reached (%s): %s starts from the cache", constants.ENDPOINT, reason, model_id)
        return folder
    files = [sibling.rfilename for sibling in found.siblings or ()]
    if "config.json" not in files:
        raise StartupError(f"{model_id} has no config.json on the hub: it is not a transformers model.")
    # By its name, not its commit: so the cache learns what the name means, for a start without the hub.
    folder = Path(hf_hub_download(model_id, "config.json", revision=revision)).parent
    supported(read_config(folder)["model_type"])
    wanted = [*DESCRIPTIONS, *_weights(model_id, files, allow_pickle)]
    if all((folder / file).exists() for file in files if _match(file, wanted)):
        return folder
    return Path(snapshot_download(model_id, revision=folder.name, allow_patterns=wanted, tqdm_class=progress()))


def _weights(model_id: str, files: list[str], allow_pickle: bool) -> tuple[str, ...]:
    """Patterns of the weights to take."""
    if any(_match(file, SAFETENSORS) for file in files):
        return (*SAFETENSORS, *(DENSE_PICKLES if allow_pickle else ()))
    if not any(_match(file, PICKLES) for file in files):
        raise StartupError(f"{model_id} has no model.safetensors on the hub: it holds no weights for transformers.")
    if not allow_pickle:
        raise StartupError(
            f"{model_id} has its weights in a pickle only: convert them to safetensors, or set IEI_ALLOW_PICKLE=true "
            "if you trust its source."
        )
    return (*PICKLES, *DENSE_PICKLES)


def _match(file: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(file, pattern) for pattern in patterns)


def _cached(model_id: str, revision: str | None, allow_pickle: bool) -> Path:
    """The copy of an earlier start. Raises LocalEntryNotFoundError where there is no whole one."""
    weights = [*SAFETENSORS, *(PICKLES if allow_pickle else ())]
    wanted = [*DESCRIPTIONS, *weights]
    folder = Path(snapshot_download(model_id, revision=revision, allow_patterns=wanted, local_files_only=True))
    if not any(_match(file.name, weights) for file in folder.iterdir()):
        raise LocalEntryNotFoundError("An earlier download broke off before its weights.")
    supported(read_config(folder)["model_type"])
    return folder


def _explanation(error: Exception, model_id: str, revision: str | None) -> str:
    """What to do about an error of huggingface_hub, in one sentence."""
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
"""The first that fits counts: huggingface_hub's errors inherit from one another."""

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
