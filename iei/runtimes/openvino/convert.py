"""Checkpoint → a converted model, checked against torch.

    python -m iei.runtimes.openvino.convert CHECKPOINT FOLDER [--allow-pickle]

A program of its own, because it needs torch, and memory that would stay with the process. Writes into FOLDER, or exits
with 1 and the reason on stdout. Ends when its stdin does.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov
import torch
from openvino.tools.ovc import convert_model
from torch import Tensor, nn

from iei.checkpoints.checkpoint import read_checkpoint
from iei.runtimes.openvino import program
from iei.runtimes.openvino.cache import versions
from iei.runtimes.openvino.converted import IMAGE_GRAPH, TEXT_GRAPH, Converted, ImageGraph, TextGraph, sha256
from iei.runtimes.openvino.runtime import Graph, of_size
from iei.runtimes.torch.device import Placement
from iei.runtimes.torch.load import load_towers
from iei.runtimes.torch.text_model import TextModel
from iei.runtimes.torch.vision_model import VisionModel

MAX_DIFFERENCE, MIN_COSINE = 1e-4, 0.99999
"""Between OpenVINO's outputs and torch's. The difference may be 1e-5 of the largest value, where that is more."""

Side = VisionModel | TextModel
Inputs = tuple[Tensor, ...]


class NotConverted(Exception):
    """A side can't be traced, or its graph computes other numbers; the message says which."""


class _AllOutputs(nn.Module):
    """A side with all of its outputs as a tuple, which is what can be traced."""

    def __init__(self, side: Side) -> None:
        super().__init__()
        self.side = side

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.side(*inputs, self.side.side.outputs).values())


def convert(checkpoint_folder: Path, folder: Path, *, allow_pickle: bool) -> Converted:
    """Writes the converted model of a checkpoint into an empty folder, or why there is none.

    Raises:
        StartupError: the checkpoint can't be loaded.
    """
    checkpoint = read_checkpoint(checkpoint_folder)
    placement = Placement(torch.device("cpu"), torch.float32, "auto", "none")
    towers = load_towers(checkpoint, placement, allow_pickle=allow_pickle)
    try:
        converted = Converted(
            made_with=versions(),
            parameters=sum(weight.numel() for weight in towers.module.parameters()),
            image=_convert_image(towers.image, folder / IMAGE_GRAPH) if towers.image else None,
            text=_convert_text(towers.text, folder / TEXT_GRAPH) if towers.text else None,
            contrast=towers.contrast,
            files={file.name: sha256(file) for file in folder.iterdir()},
        )
    except NotConverted as reason:
        for file in folder.iterdir():
            file.unlink()
        converted = Converted(versions(), refusal=str(reason))
    converted.write(folder)
    return converted


def _convert_image(model: VisionModel, file: Path) -> ImageGraph:
    height, width = model.geometry.size
    stride = model.side.stride
    own, *others = [(height, width)]
    if model.side.any_size:
        # Traced at a size that positions are interpolated for, with sides that differ: no size becomes a constant.
        others = [(height + 2 * stride, width + stride), (height + stride, width + 3 * stride)]
    graph = _trace(model, _pictures(model, 2, (others or [own])[0]), [-1, *((-1, -1) if others else own), 3])
    _compare(
        model, graph, [_pictures(model, count, size) for count, size in zip((3, 1, 2), (own, *others), strict=False)]
    )
    try:
        _compare(model, of_size(graph.clone(), model.geometry), [_pictures(model, count, own) for count in (1, 3)])
        folds = True
    except NotConverted:
        folds = False
    ov.save_model(graph, file, compress_to_fp16=False)
    return ImageGraph(model.side, folds)


def _convert_text(model: TextModel, file: Path) -> TextGraph:
    longest = model.side.max_tokens
    graph = _trace(model, _texts(model, (min(9, longest), min(5, longest))), [-1, model.padding.length or -1])
    batches = ((1,), (3, 7, 17), (min(longest, 64), 2))
    _compare(model, graph, [_texts(model, [min(length, longest) for length in batch]) for batch in batches])
    ov.save_model(graph, file, compress_to_fp16=False)
    return TextGraph(model.side, model.padding)


def _trace(model: Side, example: Inputs, shape: list[int]) -> ov.Model:
    """Returns the graph of `model` for inputs of `shape`, in which -1 stands for any size.

    Raises:
        NotConverted: it can't be traced.
    """
    types = {torch.uint8: ov.Type.u8, torch.float32: ov.Type.f32, torch.int64: ov.Type.i64}
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return convert_model(
                _AllOutputs(model),
                example_input=example,
                input=[(shape, types[tensor.dtype]) for tensor in example],
            )
    except Exception as error:  # tracing runs all of transformers and of OpenVINO's front end
        raise NotConverted(f"it can't be traced: {str(error).splitlines()[0]}") from error


def _compare(model: Side, graph: ov.Model, batches: Sequence[Inputs]) -> None:
    """Computes batches with both.

    Raises:
        NotConverted: outputs differ by more than rounding.
    """
    outputs = model.side.outputs
    compiled = Graph(graph, outputs, 1, ov.Type.f32)
    for inputs in batches:
        with torch.inference_mode():
            expected = {name: value.numpy() for name, value in model(*inputs, outputs).items()}
        try:
            actual = compiled.run([tensor.numpy() for tensor in inputs], outputs)
        except RuntimeError as error:
            raise NotConverted(
                f"OpenVINO can't compute {list(inputs[0].shape)}: {str(error).splitlines()[-1]}"
            ) from error
        for name in outputs:
            here, there = (_rows(name, each[name], inputs) for each in (actual, expected))
            if not _same(here, there):
                raise NotConverted(f"OpenVINO computes other numbers: {name} of {list(inputs[0].shape)}")


def _rows(name: str, values: npt.NDArray[np.float32], inputs: Inputs) -> npt.NDArray[np.float32]:
    """All vectors of an output, [N, D], but for tokens of padding, whose values mean nothing."""
    if name == "tokens" and len(inputs) == 2:
        return values[inputs[1].numpy() > 0]
    return values.reshape(-1, values.shape[-1])


def _same(here: npt.NDArray[np.float32], there: npt.NDArray[np.float32]) -> bool:
    if here.shape != there.shape:
        return False
    cosines = (here * there).sum(-1) / (np.linalg.norm(here, axis=-1) * np.linalg.norm(there, axis=-1) + 1e-30)
    allowed = max(MAX_DIFFERENCE, 1e-5 * float(np.abs(there).max()))
    return bool(np.abs(here - there).max() <= allowed and cosines.min() >= MIN_COSINE)


def _pictures(model: VisionModel, count: int, size: tuple[int, int]) -> Inputs:
    """Noise over gradients."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 128, size[1])[None, None, :, None] * rng.random((count, 1, 1, 3))
    pixels = ramp + rng.integers(0, 128, (count, *size, 3))
    return (torch.from_numpy(pixels.astype(np.float32 if model.geometry.float_resize else np.uint8)),)


def _texts(model: TextModel, lengths: Sequence[int]) -> Inputs:
    rng = np.random.default_rng(0)
    return model.batch([rng.integers(0, model.padding.vocabulary, length).astype(np.int32) for length in lengths])


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--allow-pickle", action="store_true")
    arguments = parser.parse_args()
    program.run(lambda: convert(arguments.checkpoint, arguments.folder, allow_pickle=arguments.allow_pickle))


if __name__ == "__main__":
    main()
