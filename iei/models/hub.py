"""Hub id or local folder → a folder that holds the checkpoint's files."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download

FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
)


def fetch_checkpoint(model_id: str, revision: str | None) -> Path:
    folder = Path(model_id)
    if folder.is_dir():
        return folder
    return Path(snapshot_download(model_id, revision=revision, allow_patterns=list(FILES)))
