"""Which `model_type`s can be served: the rows of all tables, by what they take."""

from __future__ import annotations

from iei.errors import StartupError
from iei.models.architectures import ARCHITECTURES
from iei.models.text_architectures import TEXT_ARCHITECTURES, TWO_TOWERS


def supported(model_type: object) -> str:
    """The `model_type` of a `config.json`, checked before transformers reads any file of a checkpoint.

    Raises:
        StartupError: no table has it; with the list of all that have a row.
    """
    if isinstance(model_type, str) and model_type in {*ARCHITECTURES, *TEXT_ARCHITECTURES, *TWO_TOWERS}:
        return model_type
    of_images, of_texts, of_both = (
        ", ".join(sorted(rows)) for rows in (ARCHITECTURES.keys() - TWO_TOWERS.keys(), TEXT_ARCHITECTURES, TWO_TOWERS)
    )
    raise StartupError(
        f"model_type {model_type!r} is not supported: choose a model of one of the types {of_images} for images, "
        f"{of_texts} for texts, {of_both} for both."
    )
