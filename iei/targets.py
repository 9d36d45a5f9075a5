"""What is to become of a request's inputs, once its model is known: outputs, poolings and norms, checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from iei.errors import FixedSize, InvalidField
from iei.models.spec import POOLED, ImageTower, Modality, ModelSpec, TextTower, Tower, why_not
from iei.requests import ImageInput, Options, TextInput, Unreadable

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
    spec: ModelSpec, items: Iterable[ImageInput | TextInput | Unreadable], options: Options, normalize: bool | None
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
    kinds = _MODALITIES.keys() & {type(item) for item in items}
    return {kind: _target(spec, _MODALITIES[kind], options, normalize) for kind in kinds}


def default_norms(spec: ModelSpec, normalize: bool | None) -> dict[Modality, bool]:
    """Modality → whether the vectors of a request that says nothing are divided by their L2 norm.

    Args:
        spec: the model.
        normalize: what the server is set to, if it is.
    """
    towers = {modality: _tower(spec, modality) for modality in spec.modalities}
    return {name: _normalizes(tower.pooling, tower, Options(), normalize) for name, tower in towers.items()}


def check_dimensions(
    spec: ModelSpec, targets: Iterable[Target], options: Options, allowed: Literal["any", "trained"]
) -> tuple[str, ...]:
    """What a client should know about vectors as short as it wants them: one sentence, or none.

    Args:
        spec: the model.
        targets: what `resolve_targets` returned.
        options: what the request says.
        allowed: which shorter vectors the server gives.

    Raises:
        InvalidField: the model is not known to be trained for them, and only trained ones are allowed.
    """
    dimensions, trained = options.dimensions, spec.matryoshka
    is_shorter = any(dimensions != target.tower.outputs[name] for target in targets for name in target.outputs)
    if dimensions is None or not is_shorter or trained is True:
        return ()
    if isinstance(trained, tuple):
        if dimensions in trained:
            return ()
        what = f"was trained for vectors of {', '.join(map(str, trained))} values, not {dimensions}"
    else:
        what = f"{'was not' if trained is False else 'is not known to be'} trained for shorter vectors (Matryoshka)"
    warning = f"model {spec.name!r} {what}: its first {dimensions} values alone may compare badly"
    if allowed == "trained":
        raise InvalidField(f"{warning} (IEI_DIMENSIONS=trained)", "dimensions")
    return (warning,)


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
