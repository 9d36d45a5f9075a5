"""What sentence-transformers adds to a text model beyond one pooling: several poolings, and Dense layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from iei.checkpoints.files import weight_files
from iei.checkpoints.sentence_transformers import Dense, Pipeline
from iei.errors import StartupError
from iei.models.spec import POOLED
from iei.runtimes.torch.text_pooling import TEXT_POOLINGS

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "GELU": nn.GELU,
    "Identity": nn.Identity,
    "ReLU": nn.ReLU,
    "SiLU": nn.SiLU,
    "Sigmoid": nn.Sigmoid,
    "Tanh": nn.Tanh,
}
"""Name of a class of torch.nn → the class. All others are refused, so that files can't choose which code is run."""


class TextHead(nn.Module):
    """Tokens → the vector that a checkpoint was trained for: concatenated poolings, then Dense layers, in float32."""

    def __init__(self, pipeline: Pipeline, dense: nn.Sequential) -> None:
        super().__init__()
        self.pooling = pipeline.pooling
        self.dense = dense

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """float32 tokens [B, L, D] and their mask [B, L] → float32 [B, dim]."""
        vectors: Tensor = self.dense(torch.cat([TEXT_POOLINGS[name](tokens, mask) for name in self.pooling], -1))
        return vectors


def load_head(pipeline: Pipeline, hidden_size: int, device: torch.device, *, allow_pickle: bool) -> TextHead | None:
    """Loads the head that `pipeline` describes.

    Args:
        pipeline: what the checkpoint's files say.
        hidden_size: length of the model's tokens.
        device: where the head computes.
        allow_pickle: whether Dense weights may be in a pickle.

    Returns:
        The head in evaluation mode; None if the pipeline is one of the poolings that every text model offers.

    Raises:
        StartupError: a Dense layer that can't be read or does not fit.
    """
    if not pipeline.dense and len(pipeline.pooling) == 1 and pipeline.pooling[0] in POOLED:
        return None
    sizes = [hidden_size * len(pipeline.pooling), *(layer.outputs for layer in pipeline.dense)]
    for layer, (inputs, _) in zip(pipeline.dense, pairwise(sizes), strict=True):
        if layer.inputs != inputs:
            raise StartupError(f"{layer.folder} takes {layer.inputs} values, and gets {inputs}: its config is wrong.")
    layers = [part for layer in pipeline.dense for part in _load_dense(layer, allow_pickle)]
    return TextHead(pipeline, nn.Sequential(*layers)).to(device).eval()


def _load_dense(layer: Dense, allow_pickle: bool) -> tuple[nn.Linear, nn.Module]:
    if layer.activation not in ACTIVATIONS:
        raise StartupError(
            f"{layer.folder} has the activation {layer.activation}, which is not supported: "
            f"only {', '.join(ACTIVATIONS)} are."
        )
    linear = nn.Linear(layer.inputs, layer.outputs, layer.bias)
    file, *_ = weight_files([file.name for file in layer.folder.iterdir()], layer.folder, allow_pickle=allow_pickle)
    stored = {name.removeprefix("linear."): value.float() for name, value in _read(layer.folder / file).items()}
    wanted = {name: value.shape for name, value in linear.state_dict().items()}
    if {name: value.shape for name, value in stored.items()} != wanted:
        raise StartupError(f"The weights in {layer.folder} are not those that its config.json describes.")
    linear.load_state_dict(stored)
    return linear, ACTIVATIONS[layer.activation]()


def _read(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        weights: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file can make the libraries raise anything
        raise StartupError(f"{file} can't be read ({type(error).__name__}): download or copy it again.") from error
    return weights
