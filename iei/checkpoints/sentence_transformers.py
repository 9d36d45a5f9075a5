"""sentence-transformers' files → how a text model's tokens become the vector that it was trained for.

`modules.json` names the steps and their folders; `1_Pooling`, `2_Dense` and `2_Normalize` are usual. Steps and options
that can't be followed exactly are refused: slightly different vectors would spoil an index without any error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iei.checkpoints.files import read_json
from iei.errors import StartupError

POOLING_MODES: Mapping[str, str] = {
    "cls": "cls",
    "mean": "mean",
    "max": "max",
    "lasttoken": "last",
    "mean_sqrt_len_tokens": "mean_sqrt",
    "weightedmean": "weighted_mean",
}
"""sentence-transformers' name of a pooling → ours. A runtime with a text side computes all of ours."""

_OLD_KEYS: Mapping[str, str] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Flags of 1_Pooling/config.json until version 5, in the order in which several poolings are concatenated."""

_TRANSFORMER_FILES = tuple(
    f"sentence_{name}_config.json" for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta")
)
_CHANGES_INPUTS = ("config_args", "config_kwargs", "processing_kwargs", "query_length", "document_length")
"""Entries of a Transformer's config that change its inputs and are not supported."""
_PLAIN = {"method": "forward", "method_output_name": "last_hidden_state"}

Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear layer after the pooling."""

    folder: Path
    """Where its weights are."""
    inputs: int
    outputs: int
    bias: bool
    activation: str
    """The last part of its class's name: Tanh, Identity …"""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What these files say about a checkpoint."""

    pooling: tuple[str, ...] = ("mean",)
    """Poolings; several are concatenated."""
    dense: tuple[Dense, ...] = ()
    normalize: bool = True
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    max_tokens: int | None = None
    lowercase: bool = False


def read_pipeline(folder: Path) -> Pipeline:
    """Returns the checkpoint's pipeline; without `modules.json`: the mean over all tokens, normalised.

    Raises:
        StartupError: a step or an option that is not supported, by name.
    """
    described = read_json(folder / "config_sentence_transformers.json") or {}
    kind = described.get("model_type", "SentenceTransformer")
    if kind != "SentenceTransformer":
        raise StartupError(f"{folder} is a {kind}, which gives no single vector per text: choose an embedding model.")
    prompts = {name: prompt or "" for name, prompt in described.get("prompts", {}).items()}
    default_prompt = described.get("default_prompt_name")
    if default_prompt is not None and default_prompt not in prompts:
        raise StartupError(
            f"The default prompt {default_prompt!r} of {folder} is not among its prompts: correct its "
            "config_sentence_transformers.json."
        )
    max_tokens, lowercase = _read_transformer(folder)
    steps = _read_steps(folder)
    return Pipeline(
        pooling=_read_pooling(steps.pooling),
        dense=tuple(_read_dense(step) for step in steps.dense),
        normalize=steps.normalize,
        prompts=prompts,
        default_prompt=default_prompt,
        max_tokens=max_tokens,
        lowercase=lowercase,
    )


@dataclass(frozen=True, slots=True)
class _Steps:
    """Folders of the steps after the transformer."""

    pooling: Path
    dense: tuple[Path, ...] = ()
    normalize: bool = True


_ORDER = ("Transformer", "Pooling", "Dense", "Normalize")


def _read_steps(folder: Path) -> _Steps:
    modules = read_json(folder / "modules.json", list)
    if not modules:
        return _Steps(folder / "1_Pooling")
    steps = [(_step(folder, module), folder / module.get("path", "")) for module in modules]
    names = [name for name, _ in steps]
    if names[:2] != ["Transformer", "Pooling"] or names != sorted(names, key=_ORDER.index) or steps[0][1] != folder:
        raise StartupError(
            f"{folder / 'modules.json'} has the steps {', '.join(names)}: only a Transformer in the same folder, "
            "Pooling, any Dense and Normalize, in this order, can be followed."
        )
    dense = tuple(path for name, path in steps if name == "Dense")
    return _Steps(steps[1][1], dense, "Normalize" in names)


def _step(folder: Path, module: Config) -> str:
    name = str(module.get("type", ""))
    package, _, step = name.rpartition(".")
    if not package.startswith("sentence_transformers.") or step not in _ORDER:
        raise StartupError(f"{folder / 'modules.json'} has a step {name!r}, which is not supported.")
    return step


def _read_pooling(folder: Path) -> tuple[str, ...]:
    config = read_json(folder / "config.json") or {}
    if not config.get("include_prompt", True):
        raise StartupError(f"{folder} leaves the prompt out of its pooling (include_prompt), which is not supported.")
    modes = config.get("pooling_mode") or [mode for key, mode in _OLD_KEYS.items() if config.get(key)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    unknown = [mode for mode in modes if mode not in POOLING_MODES]
    if unknown:
        raise StartupError(f"{folder} has the pooling {unknown[0]!r}, which is not supported.")
    return tuple(POOLING_MODES[mode] for mode in modes)


def _read_dense(folder: Path) -> Dense:
    config = read_json(folder / "config.json") or {}
    try:
        inputs, outputs = int(config["in_features"]), int(config["out_features"])
    except (KeyError, TypeError, ValueError):
        raise StartupError(f"{folder / 'config.json'} does not say its in_features and out_features.") from None
    source, target = (config.get(key) or "sentence_embedding" for key in ("module_input_name", "module_output_name"))
    if config.get("use_residual") or (source, target) != ("sentence_embedding", "sentence_embedding"):
        raise StartupError(f"{folder} is a Dense with a residual, or of single tokens, which is not supported.")
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    return Dense(folder, inputs, outputs, bool(config.get("bias", True)), activation.rpartition(".")[2])


def _read_transformer(folder: Path) -> tuple[int | None, bool]:
    """Returns the longest input in tokens, if it is given, and whether texts are lowercased."""
    file = next((file for name in _TRANSFORMER_FILES if (file := folder / name).is_file()), None)
    config = (file and read_json(file)) or {}
    followed = [key for key in _CHANGES_INPUTS if config.get(key)]
    if followed or config.get("modality_config", {}).get("text", _PLAIN) != _PLAIN:
        raise StartupError(f"{file} sets {', '.join(followed) or 'modality_config'}, which is not supported.")
    max_tokens = config.get("max_seq_length")
    return int(max_tokens) if max_tokens else None, bool(config.get("do_lower_case"))
