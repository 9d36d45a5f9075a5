"""What is to become of a request's inputs, once its model is known: outputs, poolings and norms, checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from iei.errors import FixedSize, InvalidField
from iei.models.spec import POOLED, ImageTower, Modality, ModelSpec, TextTower, Tower, why_not
from iei.requests import ImageInput, Options, TextInput

_MODALITIES: Mapping[type, Modality] = {ImageInput: "image", TextInput: "text"}


@dataclass(frozen=True, slots=True)
class Target:
    """What all inputs of one kind become in a request."""

    modality: Modality
    tower: Tower
    outputs: tuple[str, ...]
    """Names of outputs that the tower has."""
    normalized: frozenset[str]
    """Those whose vectors are divided by their L2 norm."""

    def normalizes(self, output: str) -> bool:
        """Whether vectors of `output` are divided by their L2 norm."""
        return output in self.normalized


def resolve_targets(
    spec: ModelSpec, items: Iterable[ImageInput | TextInput], options: Options, normalize: bool | None
) -> dict[type, Target]:
    """Kind of input → what is to become of it, for the kinds that `items` has.

    Args:
        spec: the model.
        items: the inputs of a request.
        options: what the request says.
        normalize: what the server is set to, if it is.

    Raises:
        InvalidField: the model does not take such inputs, or does not have what is asked for.
    """
    return {kind: _target(spec, _MODALITIES[kind], options, normalize) for kind in {type(item) for item in items}}


def text_tower(spec: ModelSpec) -> TextTower:
    """The part of a model that takes texts. Raises InvalidField where it has none."""
    tower = _tower(spec, "text")
    assert isinstance(tower, TextTower)
    return tower


def _target(spec: ModelSpec, modality: Modality, options: Options, normalize: bool | None) -> Target:
    tower = _tower(spec, modality)
    if options.resize_to_multiple and isinstance(tower, ImageTower) and not tower.any_size:
        raise FixedSize(f"model {spec.name!r} takes pictures of one size only")
    outputs = tuple(tower.pooling if name == "default" else name for name in options.outputs)
    for name in outputs:
        _check_output(name, tower, spec, options)
    normalized = (name for name in outputs if _normalizes(name, tower, options, normalize))
    return Target(modality, tower, outputs, frozenset(normalized))


def _tower(spec: ModelSpec, modality: Modality) -> Tower:
    tower = spec.tower_for(modality)
    if tower is None:
        raise InvalidField(f"model {spec.name!r} takes no {modality}s")
    return tower


def _check_output(name: str, tower: Tower, spec: ModelSpec, options: Options) -> None:
    if name not in tower.outputs:
        offered = ", ".join(output for output in tower.outputs if output in POOLED)
        raise InvalidField(f"{name!r} is not offered by {spec.name!r}: {why_not(name)}; offered: {offered}")
    if options.dimensions is not None and not 1 <= options.dimensions <= tower.outputs[name]:
        raise InvalidField(
            f"dimensions must be from 1 to {tower.outputs[name]} for this model, not {options.dimensions}", "dimensions"
        )


def _normalizes(output: str, tower: Tower, options: Options, normalize: bool | None) -> bool:
    """As the request says; or else, of vectors (not of rows of tokens), as the server or the model is set."""
    if options.normalize is not None or output not in POOLED:
        return bool(options.normalize)
    return normalize if normalize is not None else isinstance(tower, TextTower) and tower.normalize
