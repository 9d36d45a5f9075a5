"""A checkpoint, described for whichever runtime loads it: read from its small files, without torch or transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from iei.checkpoints.demo import demo_folder
from iei.checkpoints.families import supported
from iei.checkpoints.files import EXPORTED
from iei.checkpoints.folders import fetch_checkpoint, read_config, revision_of
from iei.checkpoints.preprocessor import read_geometry, read_preprocessor
from iei.checkpoints.sentence_transformers import Pipeline, read_pipeline
from iei.checkpoints.text_architectures import TEXT_ARCHITECTURES, TWO_TOWERS
from iei.checkpoints.tokenizer import TOKENIZER_FILE, TokenizerFile, read_tokenizer
from iei.models.catalog import DEMO, LoadRequest
from iei.models.spec import Geometry


@dataclass(frozen=True, slots=True)
class TextFiles:
    """What a checkpoint's files say about texts."""

    tokenizer: TokenizerFile
    pipeline: Pipeline
    """What happens between the tokens and the vector that the checkpoint was trained for."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder with a model of a supported family. It takes pictures, texts, or both."""

    folder: Path
    model_type: str
    """A row of the tables in `vision_architectures` and `text_architectures`."""
    revision: str | None
    """The commit that the folder holds; None for folders outside the hub's cache."""
    geometry: Geometry | None
    """How pictures are prepared; None if the model takes none."""
    text: TextFiles | None
    """None if the model takes no texts, or is served without its text side because it has no tokenizer."""

    @property
    def is_exported(self) -> bool:
        """Whether `iei export` has written the folder: it has no weights, but a converted model."""
        return (self.folder / EXPORTED).is_dir()


def find_folder(request: LoadRequest) -> Path:
    """Returns the folder of the request's checkpoint, which is written or downloaded first if it is not here yet.

    Raises:
        StartupError: it can't be written or downloaded, or its `model_type` is not supported.
    """
    if request.entry.id == DEMO:
        return demo_folder(request.options.cache_dir)
    return fetch_checkpoint(
        request.entry.id,
        request.entry.revision,
        allow_pickle=request.options.allow_pickle,
        prefer_cache=request.prefer_cache,
    )


def read_checkpoint(folder: Path) -> Checkpoint:
    """Reads everything in `folder` that describes the model; no weights.

    Raises:
        StartupError: a file is missing or broken, or asks for something that is not supported.
    """
    model_type = supported(read_config(folder)["model_type"])
    revision = revision_of(folder)
    if model_type in TEXT_ARCHITECTURES:
        # The pipeline first: a checkpoint of an unsupported kind is refused as that, not for a missing tokenizer.
        pipeline = read_pipeline(folder)
        return Checkpoint(folder, model_type, revision, None, TextFiles(read_tokenizer(folder), pipeline))
    geometry = read_geometry(read_preprocessor(folder), model_type)
    return Checkpoint(folder, model_type, revision, geometry, _text_side(folder, model_type))


def _text_side(folder: Path, model_type: str) -> TextFiles | None:
    """Of a checkpoint that takes pictures. Some carry a CLIP for its pictures alone, and leave its tokenizer out."""
    if model_type not in TWO_TOWERS or not (folder / TOKENIZER_FILE).is_file():
        return None
    # Both sides' pooler outputs lie in one space; normalising only texts would take them out of it.
    pipeline = Pipeline(pooling=("pooler",), normalize=False, lowercase=TWO_TOWERS[model_type].lowercase)
    return TextFiles(read_tokenizer(folder), pipeline)
