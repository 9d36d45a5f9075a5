"""Hub id or local folder → a folder with a checkpoint's files, and what is in it besides weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from iei.checkpoints.families import supported
from iei.checkpoints.files import read_json
from iei.errors import StartupError

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
)
"""Files of a repository that are read besides its weights."""


def fetch_checkpoint(
    model_id: str, revision: str | None, *, allow_pickle: bool = False, prefer_cache: bool = False
) -> Path:
    """Returns the folder of a checkpoint, downloaded into the hub's cache if it is not a local folder.

    `model_type` is checked before any weights are downloaded.

    Args:
        model_id: a local folder, or an id of the hub.
        revision: branch, tag or commit on the hub; None for its default branch.
        allow_pickle: whether the weights may be in a pickle.
        prefer_cache: ask the hub only if the cache lacks something.

    Raises:
        StartupError: one sentence that says what to do.
    """
    if folder := local_folder(model_id):
        if not folder.is_dir():
            raise StartupError(
                f"There is no folder {model_id}: check the path, or name a model of the hub (owner/name)."
            )
        supported(read_config(folder)["model_type"])
        return folder
    from iei.checkpoints.hub import download  # late: huggingface_hub takes 10 MiB, and long to import

    return download(model_id, revision, allow_pickle=allow_pickle, prefer_cache=prefer_cache)


def local_folder(model_id: str) -> Path | None:
    """Returns the folder that a model's id is the path of, which need not exist; None if it is an id of the hub."""
    folder = Path(model_id).expanduser()
    return folder if folder.is_dir() or model_id.startswith(("/", ".", "~")) else None


def read_config(folder: Path) -> dict[str, Any]:
    """Returns a checkpoint's `config.json`.

    Raises:
        StartupError: it is missing, is not JSON, or has no `model_type`.
    """
    config: dict[str, Any] | None = read_json(folder / "config.json")
    if config is None:
        raise StartupError(f"{folder} has no config.json: it is not the folder of a transformers model.")
    if "model_type" not in config:
        raise StartupError(f"{folder / 'config.json'} has no model_type: it is not the config of a transformers model.")
    return config


def descriptions(folder: Path) -> list[Path]:
    """Returns the files of a checkpoint's folder that are read besides its weights, relative to it."""
    return [file.relative_to(folder) for pattern in DESCRIPTIONS for file in sorted(folder.glob(pattern))]


def revision_of(folder: Path) -> str | None:
    """Returns the commit that a folder of the hub's cache holds; None for other folders."""
    return folder.name if folder.parent.name == "snapshots" else None
