"""Every setting: its name, environment variable, default and meaning. Nothing else in IEI reads the environment.

`docs/configuration.md` and `iei serve --help` are made from this table.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from iei.errors import StartupError
from iei.machine import cores

_DEVICE = r"(cpu|mps|cuda(:\d+)?)"


def setting(default: Any, *env: str, **constraints: Any) -> Any:
    """A field read from the environment variables `env`: the first that is set wins."""
    return Field(default, validation_alias=AliasChoices(*env), **constraints)


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        frozen=True, populate_by_name=True, use_attribute_docstrings=True, env_ignore_empty=True
    )

    model: str = setting("google/vit-base-patch16-224", "IMAGE_EMBEDDING_MODEL", "IEI_MODEL")
    """Hub id or local folder of the model, or `demo` for the built-in untrained one."""
    fallback_model: str | None = setting(None, "IEI_FALLBACK_MODEL", "MODEL_ID")
    """The model, where `IEI_MODEL` names none and KServe has mounted none at `/mnt/models`."""
    model_name: str | None = setting(None, "IEI_MODEL_NAME", "MODEL_NAME")
    """What clients call the model. Default: its id, or the last part of its folder."""
    models: str = setting("", "IEI_MODELS")
    """Several models instead, commas between: `name=id-or-folder`, `id@revision` or just ids. The first is default."""
    supported_models: Path = setting(Path("supported_models.txt"), "IEI_SUPPORTED_MODELS")
    """A file with more models that may be served, one id a line, `#` for comments. The default one may be missing."""
    max_loaded_models: int = setting(2, "IEI_MAX_LOADED_MODELS", ge=1)
    """Most models in memory at a time: the least recently used one makes room for one that is asked for."""
    load_at_start: Literal["first", "all"] = setting("first", "IEI_LOAD_AT_START")
    """Which models are loaded before the server starts: the default one, or all (as many as may be loaded)."""
    revision: str | None = setting(None, "IEI_REVISION")
    """Branch, tag or commit of the model on the hub. Of several, each is given its own: `id@revision`."""
    workers: int = setting(4, "IEI_WORKERS", ge=1)
    """HTTP worker processes. They parse and decode; the model is in memory once, whatever their number."""
    bind: str = setting("0.0.0.0:8000", "IEI_BIND")
    """Address to listen on: `host:port` or `unix:/path`."""

    device: str = setting("auto", "IEI_DEVICE", pattern=rf"^(auto|{_DEVICE}(,{_DEVICE})*)$")
    """`auto`, `cpu`, `mps`, `cuda`, `cuda:N`; several with commas (`cuda:0,cuda:1`) run one engine each."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting("auto", "IEI_DTYPE")
    """Precision of weights and forward. `auto`: float32 on CPU; on a GPU bfloat16 where it has it, else float16."""
    max_batch: int = setting(0, "IEI_MAX_BATCH", ge=0, le=4096)
    """Most inputs in one forward. 0: the device's default (4 per core on a CPU, 64 on a GPU)."""
    threads: int = setting(0, "IEI_THREADS", ge=0)
    """CPU threads of one forward. 0: as many as there are cores."""
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = setting("auto", "IEI_ATTENTION")
    """Implementation of attention. `auto`: `sdpa` where the model has it."""
    quantization: Literal["none", "bitsandbytes-8bit", "bitsandbytes-4bit"] = setting("none", "IEI_QUANTIZATION")
    """Precision of the weights in memory (CUDA only; needs the bitsandbytes package)."""
    allow_pickle: bool = setting(False, "IEI_ALLOW_PICKLE")
    """Where there are no safetensors, take `pytorch_model.bin` too, through torch's restricted unpickler."""
    engine_timeout_s: float = setting(300.0, "IEI_ENGINE_TIMEOUT_S", gt=0)
    """A forward that runs longer than this has hung: the engine is restarted."""

    pooling: str = setting(
        "auto", "IEI_POOLING", "POOLING_STRATEGY", pattern="^(auto|cls|mean|patch_mean|max|last|pooler)$"
    )
    """Default pooling; only the first model must have it. `auto`: `mean` for images, the checkpoint's own for texts."""
    normalize: bool = setting(False, "IEI_NORMALIZE", "NORMALIZE_EMBEDDINGS")
    """Whether vectors are divided by their L2 norm when the request does not say. Unset: texts as their model does."""

    concurrency_level: int = setting(1000, "IEI_CONCURRENCY_LEVEL", "IEI_CONCURRENCY", ge=1)
    """Most inputs of one request in work at the same time; never more than four batches for each device."""
    max_inputs: int = setting(1024, "IEI_MAX_INPUTS", ge=1)
    """Most inputs in one request."""
    max_output_values: int = setting(16_000_000, "IEI_MAX_OUTPUT_VALUES", ge=1)
    """Most numbers in one answer. Each takes about 10 bytes in JSON; a ViT-B has 151,296 in all tokens of a picture."""
    max_queue: int = setting(4096, "IEI_MAX_QUEUE", ge=1)
    """Most inputs in work or waiting in one worker; beyond it, requests are answered 429."""
    request_timeout_s: float = setting(300.0, "IEI_REQUEST_TIMEOUT_S", gt=0)
    """Inputs that the model has not come to this long after their request arrived are not run: 429."""
    max_body_bytes: int = setting(64 * 2**20, "IEI_MAX_BODY_BYTES", ge=1)
    """Largest request body."""
    body_timeout_s: float = setting(60.0, "IEI_BODY_TIMEOUT_S", gt=0)
    """A request whose body has not arrived after this long is answered 408."""
    max_image_bytes: int = setting(32 * 2**20, "IEI_MAX_IMAGE_BYTES", ge=1)
    """Largest encoded image."""
    max_text_length: int = setting(1_000_000, "IEI_MAX_TEXT_LENGTH", ge=1)
    """Longest text before it is cut to the model's tokens: characters, or ids where a client sends those."""
    max_image_pixels: int = setting(64_000_000, "IEI_MAX_IMAGE_PIXELS", ge=1)
    """Most pixels in one image, checked in its header before it is decoded."""
    max_decoding_pixels: int = setting(128_000_000, "IEI_MAX_DECODING_PIXELS", ge=1)
    """Most pixels that one worker decodes at the same time, over all requests: 4 to 9 bytes of memory each."""
    url_inputs: str = setting("public", "IEI_URL_INPUTS")
    """URLs taken as images: `public` (the open internet), `off`, or domains with commas between (may be private)."""
    url_timeout_s: float = setting(10.0, "IEI_URL_TIMEOUT_S", gt=0)
    """The longest that one download may take in all, redirects included."""
    predict_resize: Literal["processor", "multiple"] = setting("processor", "IEI_PREDICT_RESIZE")
    """Size of pictures at `/predict`: the model's own, or theirs, rounded up to `multiple`s of the patch."""
    max_patches: int = setting(4096, "IEI_MAX_PATCHES", ge=1)
    """Most patches of a picture that keeps its size."""
    decode_threads: int = setting(0, "IEI_DECODE_THREADS", ge=0)
    """Threads that decode images in each worker. 0: the cores shared out between the workers, from 1 to 4 each."""
    fast_decode: bool = setting(False, "IEI_FAST_DECODE")
    """Decode large JPEGs at a reduced scale: up to 4 times faster, pixels differ a little (docs/models.md)."""
    arena_bytes: int = setting(64 * 2**20, "IEI_ARENA_BYTES", ge=2**20)
    """Shared memory of one worker for pixels on their way to the engine. Only what is used is really taken."""

    graceful_timeout_s: int = setting(30, "IEI_GRACEFUL_TIMEOUT_S", ge=1)
    """After SIGTERM, how long accepted requests may take (`iei serve`; plain gunicorn has its own option)."""
    log_level: Literal["debug", "info", "warning", "error"] = setting("info", "IEI_LOG_LEVEL")
    """How much is logged."""
    cache_dir: Path | None = setting(None, "IEI_CACHE_DIR")
    """Where the demo model is kept. Default: `~/.cache/iei`. (Downloads from the hub go where `HF_HOME` says.)"""

    @field_validator("pooling", mode="before")
    @classmethod
    def _in_any_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    def is_set(self, name: str) -> bool:
        """Whether somebody chose this setting's value, in the environment or by a flag."""
        return name in self.model_fields_set

    @property
    def devices(self) -> list[str]:
        """One engine process each."""
        return self.device.split(",")

    @property
    def decoders(self) -> int:
        """More would only take turns, and take the model's cores from it when it runs on this CPU."""
        return self.decode_threads or min(4, max(1, cores() // self.workers))


def read_settings(**given: Any) -> Settings:
    """The settings of this process's environment, with those `given` laid over them.

    Raises:
        StartupError: a variable has a value that makes no sense, with its name, the value and what would.
    """
    _check_agreement(given)
    try:
        return Settings(**given)
    except ValidationError as error:
        faults = [f"{_said(fault['loc'][0], given)}={fault['input']!r}: {fault['msg']}" for fault in error.errors()]
        raise StartupError("; ".join(faults)) from None


def _check_agreement(given: Mapping[str, Any]) -> None:
    """Of two variables for one setting, which one counts is nothing that anybody should have to look up."""
    for name, field in Settings.model_fields.items():
        found = {env: os.environ[env] for env in env_names(field) if os.environ.get(env)}
        if name not in given and len(set(found.values())) > 1:
            values = " and ".join(f"{env}={value!r}" for env, value in found.items())
            raise StartupError(f"{values} are variables of the same setting: unset all but one.")


def _said(location: int | str, given: Mapping[str, Any]) -> str:
    """The flag or variable that somebody set. Pydantic reports a field under its own name or under its first alias."""
    for name, field in Settings.model_fields.items():
        if location in (name, *env_names(field)):
            set_ones = [env for env in env_names(field) if os.environ.get(env)]
            return f"--{name.replace('_', '-')}" if name in given else next(iter(set_ones), env_names(field)[0])
    return str(location)


def env_names(field: FieldInfo) -> list[str]:
    """The environment variables of a setting, the preferred one first."""
    alias = field.validation_alias
    assert isinstance(alias, AliasChoices)
    return [str(choice) for choice in alias.choices]
