"""All settings: names, environment variables, defaults and meanings. Settings are read from the environment only here.

Settings are grouped by the component that uses them. A component gets its whole group, so that no value has to be
copied by hand. docs/configuration.md and `iei serve --help` are generated from these classes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from iei.errors import StartupError
from iei.load_options import LoadOptions
from iei.machine import cores
from iei.setting import SECTIONS, Group, Section, choices, setting

UrlTexts = Literal["warn", "refuse", "allow"]
LogLevel = Literal["debug", "info", "warning", "error"]

_DEVICE = r"(cpu|mps|cuda(:\d+)?)"
_DEVICE_FORM = "auto, cpu, mps, cuda or cuda:0, or several of them with commas between"
_HOST = r"(\[[0-9a-fA-F:.]+\]|[^\[\]:/\s]+)"
_HOST_AND_PORT = rf"^{_HOST}:\d{{1,5}}$"
_HOST_AND_PORT_FORM = "host:port, such as 127.0.0.1:9000"
_ADDRESS = rf"^({_HOST}?(:\d{{1,5}})?|unix:.+)$"
_ROUTE = r"^/[^{}?#\s]*$"
_ROUTE_FORM = "a path that begins with /, without spaces, ?, # and braces"
_PATH = r"/[^{}?#\s,]*"

DEFAULT_PORT = 8000


class ModelSettings(Group):
    """Which models may be served, and under which names."""

    model: str = setting("Models", "google/vit-base-patch16-224", "IMAGE_EMBEDDING_MODEL", "IEI_MODEL")
    """Hub id or local folder of the model, or `demo` for the built-in small one, for trying."""
    fallback_model: str | None = setting("Models", None, "IEI_FALLBACK_MODEL", "MODEL_ID")
    """The model to serve if `IEI_MODEL` is not set and KServe has mounted no model at `/mnt/models`."""
    model_name: str | None = setting("Models", None, "IEI_MODEL_NAME", "MODEL_NAME")
    """Name of the model in requests. Default: its hub id, or the name of its folder."""
    models: str = setting("Models", "", "IEI_MODELS")
    """Several models, separated by commas: `name=id-or-folder`, `id@revision` or `id`. The first is the default."""
    supported_models: Path = setting("Models", Path("supported_models.txt"), "IEI_SUPPORTED_MODELS")
    """A file that lists more models to serve: one id per line, `#` for comments. The default file is optional."""
    revision: str | None = setting("Models", None, "IEI_REVISION")
    """Branch, tag or commit of the model on the hub. In a list of models, write `id@revision` instead."""
    artifacts: str | None = setting("Models", None, "IEI_ARTIFACTS", "AIP_STORAGE_URI")
    """Vertex AI's address of a model: served if it is a folder and no model is set. Cloud Storage is not read."""

    matryoshka: str = setting("Vectors", "", "IEI_MATRYOSHKA")
    """Names of models, separated by commas, that were trained for shorter vectors although their files don't say so."""


class ServerSettings(Group):
    """The HTTP server and its processes."""

    workers: int = setting("Server", 4, "IEI_WORKERS", ge=1)
    """Number of HTTP worker processes, which parse requests and decode images. They share one copy of the model."""
    bind: str = setting("Server", "0.0.0.0:8000", "IEI_BIND", pattern=_ADDRESS, form="host:port, or unix:/path")
    """Address to listen on: `host:port`, one of them alone, or `unix:/path`."""
    host: str | None = setting("Server", None, "IEI_HOST", pattern=r"^[^/\s]+$", form="a name or an address")
    """The host to listen on, instead of the one of `IEI_BIND`."""
    port: int | None = setting("Server", None, "IEI_PORT", "PORT", "IEI_VERTEX_PORT", "AIP_HTTP_PORT", ge=0, le=65535)
    """The port to listen on, instead of the one of `IEI_BIND`: platforms such as Cloud Run set `PORT`, Vertex AI
    `AIP_HTTP_PORT`. 0: any that is free."""
    grpc_bind: str | None = setting("Server", None, "IEI_GRPC_BIND", pattern=_HOST_AND_PORT, form=_HOST_AND_PORT_FORM)
    """Address to serve gRPC on, `host:port` (docs/api/grpc.md). Default: not served. Needs the extra `grpc`."""
    metrics_bind: str | None = setting(
        "Server", None, "IEI_METRICS_BIND", pattern=_HOST_AND_PORT, form=_HOST_AND_PORT_FORM
    )
    """Address to serve `/metrics` on, `host:port`, instead of on the server's own; needs no API key there."""
    tls_cert: Path | None = setting("Server", None, "IEI_TLS_CERT")
    """PEM file of the certificate, with its chain, for HTTPS (`iei serve` only). Default: HTTP."""
    tls_key: Path | None = setting("Server", None, "IEI_TLS_KEY")
    """PEM file of the certificate's private key, without a passphrase."""
    drain_s: float = setting("Operation", 5.0, "IEI_DRAIN_S", ge=0)
    """Seconds between SIGTERM and the closing of the port, in which readiness is 503 and each response ends its
    connection, so that balancers send elsewhere. 0: the port closes at once."""
    graceful_timeout_s: int = setting("Operation", 30, "IEI_GRACEFUL_TIMEOUT_S", ge=1)
    """Seconds that accepted requests may take after the port is closed (gunicorn ends them after its own option)."""

    @property
    def address(self) -> str:
        """Where to listen: `bind`, with `host` and `port` in place of its own; both are there, unless it is `unix:…`.

        Raises:
            StartupError: `bind` is a Unix socket, which has neither, and one of them is set.
        """
        if self.bind.startswith("unix:"):
            if self.host is None and self.port is None:
                return self.bind
            name, value = ("host", self.host) if self.host is not None else ("port", self.port)
            raise StartupError(f"{said(name)}={value} has no meaning with {said('bind')}={self.bind}: unset one.")
        host, port = _parts(self.bind)
        host = self.host or host or "0.0.0.0"
        host = f"[{host}]" if ":" in host and not host.startswith("[") else host
        return f"{host}:{port or DEFAULT_PORT if self.port is None else self.port}"


def _parts(bind: str) -> tuple[str, str]:
    """Host and port of `host:port`; empty where they are left out."""
    if bind.isdecimal():
        return "", bind
    if bind.endswith("]") or ":" not in bind:
        return bind, ""
    host, _, port = bind.rpartition(":")
    return host, port


class LogSettings(Group):
    """What is written to stderr."""

    log_level: LogLevel = setting("Operation", "info", "IEI_LOG_LEVEL")
    """Lowest level of messages that are logged."""
    log_format: Literal["human", "json"] = setting("Operation", "human", "IEI_LOG_FORMAT")
    """Lines for people, or one JSON object per line for machines."""
    log_requests: Literal["off", "failed", "all"] = setting("Operation", "off", "IEI_LOG_REQUESTS")
    """Requests that get a line in the log, at level `info`: none, those that failed, or all but health checks."""


class TraceSettings(Group):
    """Where traces are sent. OpenTelemetry's SDK reads its other variables itself."""

    otlp_endpoint: str | None = setting("Operation", None, "IEI_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    """URL of an OpenTelemetry collector that takes OTLP over HTTP (extra `otel`). Default: there are no traces."""
    otlp_traces_endpoint: str | None = setting(
        "Operation", None, "IEI_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    )
    """The same for traces alone, with the path, such as `http://collector:4318/v1/traces`."""
    otel_disabled: bool = setting("Operation", False, "IEI_OTEL_DISABLED", "OTEL_SDK_DISABLED")
    """No traces, whatever endpoints are set."""

    @property
    def collector(self) -> str | None:
        """The whole URL for traces; None: there are none."""
        if self.otel_disabled:
            return None
        base = self.otlp_endpoint
        return self.otlp_traces_endpoint or (f"{base.rstrip('/')}/v1/traces" if base else None)


class AccessSettings(Group):
    """Who may send requests."""

    api_keys: SecretStr | None = setting("Access", None, "IEI_API_KEYS")
    """API keys, separated by commas: `key` or `name=key`, each with its limits after it (docs/operations.md). Default:
    everybody may send requests."""
    api_keys_file: Path | None = setting("Access", None, "IEI_API_KEYS_FILE")
    """A file of API keys, one per line, `#` for comments. It is read again when it changes."""
    public_docs: bool | None = setting("Access", None, "IEI_PUBLIC_DOCS")
    """Whether `/openapi.json` is sent without a key; if not, `/docs`, which shows it, asks for one. Default: only if
    there are no keys. `false` on a server without keys hides both."""
    page: bool = setting("Access", True, "IEI_PAGE")
    """Whether browsers get a page at `/` to try the server on (docs/page.md). Where there are keys, it asks for one."""
    public_metrics: bool | None = setting("Access", None, "IEI_PUBLIC_METRICS")
    """Whether `/metrics` is shown without a key. Default: only if there are no keys."""
    cors_origins: str = setting("Access", "", "IEI_CORS_ORIGINS")
    """Web pages that may call this server from a browser: origins (`https://example.com`) separated by commas, or `*`
    for all. Default: none."""

    @property
    def has_keys(self) -> bool:
        """Whether requests need a key."""
        return bool(self.api_keys or self.api_keys_file)


class RemoteSettings(Group):
    """Servers that compute for `iei embed`."""

    client_key: SecretStr | None = setting("Access", None, "IEI_CLIENT_KEY")
    """API key that `iei embed --server` sends to the servers."""


class EngineSettings(Group):
    """The engine processes, and the memory that workers share with them."""

    device: str = setting(
        "Computing", "auto", "IEI_DEVICE", pattern=rf"^(auto|{_DEVICE}(,{_DEVICE})*)$", form=_DEVICE_FORM
    )
    """`auto`, `cpu`, `mps`, `cuda` or `cuda:N`; for a list (`cuda:0,cuda:1`), one engine runs on each device."""
    max_loaded_models: int = setting("Models", 2, "IEI_MAX_LOADED_MODELS", ge=1)
    """Most models in memory at the same time. To load another one, the least recently used model is unloaded."""
    load_at_start: Literal["first", "all"] = setting("Models", "first", "IEI_LOAD_AT_START")
    """Models to load before the server starts: the default one, or all, up to `IEI_MAX_LOADED_MODELS`."""
    engine_timeout_s: float = setting("Computing", 300.0, "IEI_ENGINE_TIMEOUT_S", gt=0)
    """Seconds after which a forward pass counts as hung and the engine is restarted."""
    arena_bytes: int = setting("Decoding", 64 * 2**20, "IEI_ARENA_BYTES", ge=2**20)
    """Shared memory of each worker for inputs to the engine, in bytes. Pages are allocated when first used."""

    @field_validator("device", mode="before")
    @classmethod
    def _is_lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @property
    def devices(self) -> list[str]:
        """The devices; one engine process runs on each."""
        return self.device.split(",")

    @property
    def at_start(self) -> int:
        """The largest number of models that are loaded before the server starts."""
        return self.max_loaded_models if self.load_at_start == "all" else 1

    @property
    def max_encoded_bytes(self) -> int:
        """The largest JPEG that is left to an engine: a 32nd of an arena, so that others find room beside it."""
        return self.arena_bytes // 32


class RequestSettings(Group):
    """Limits on a request, and defaults for what it leaves out."""

    normalize: bool | None = setting("Vectors", None, "IEI_NORMALIZE", "NORMALIZE_EMBEDDINGS")
    """Whether vectors are divided by their L2 norm if the request does not say. Default: as in the model's own pipeline
    for texts, no for images."""
    dimensions: Literal["any", "trained"] = setting("Vectors", "any", "IEI_DIMENSIONS")
    """Shorter vectors that a request may ask for: `any`, with a warning where the model is not known to be trained for
    them (Matryoshka), or only those it was `trained` for."""
    concurrency_level: int = setting("Requests", 1000, "IEI_CONCURRENCY_LEVEL", "IEI_CONCURRENCY", ge=1)
    """Most inputs of one request that are processed at the same time; at most four batches per device."""
    max_inputs: int = setting("Requests", 1024, "IEI_MAX_INPUTS", ge=1)
    """Most inputs in one request."""
    max_output_values: int = setting("Requests", 16_000_000, "IEI_MAX_OUTPUT_VALUES", ge=1)
    """Most numbers in one response, each about 10 bytes in JSON. All tokens of an image are 151,296 with a ViT-B."""
    max_queue: int = setting("Requests", 4096, "IEI_MAX_QUEUE", ge=1)
    """Most inputs that one worker processes or queues; further requests are answered 429."""
    max_queue_bulk: int | None = setting("Requests", None, "IEI_MAX_QUEUE_BULK", ge=1)
    """The same for inputs of bulk requests, which are counted by themselves. Default: as `IEI_MAX_QUEUE`."""
    bulk_routes: str = setting(
        "Requests",
        "",
        "IEI_BULK_ROUTES",
        pattern=rf"^({_PATH}(,{_PATH})*)?$",
        form="paths that begin with /, with commas between",
    )
    """Paths, separated by commas, whose requests are bulk unless they say `X-IEI-Priority: interactive`; each with the
    paths below it. `/`: all (docs/operations.md)."""
    url_texts: UrlTexts = setting("Requests", "warn", "IEI_URL_TEXTS")
    """What becomes of a URL without `modality`, which a model for images and texts takes for a text: it is embedded
    with a `warn`ing (x-iei-warning), or `refuse`d, or `allow`ed."""
    request_timeout_s: float = setting("Requests", 300.0, "IEI_REQUEST_TIMEOUT_S", gt=0)
    """Inputs that have not reached the model this many seconds after their request arrived are dropped: 429."""

    @property
    def bulk_queue(self) -> int:
        """Most inputs of bulk requests that one worker processes or queues."""
        return self.max_queue_bulk or self.max_queue


class BodySettings(Group):
    """Limits on request bodies."""

    max_body_bytes: int = setting("Limits on what is sent", 64 * 2**20, "IEI_MAX_BODY_BYTES", ge=1)
    """Largest request body, in bytes."""
    body_timeout_s: float = setting("Limits on what is sent", 60.0, "IEI_BODY_TIMEOUT_S", gt=0)
    """Seconds in which the body of a request must arrive; otherwise it is answered 408."""


class ConnectionSettings(Group):
    """Limits on connections whose clients are slow, or too many."""

    head_timeout_s: float = setting("Limits on what is sent", 10.0, "IEI_HEAD_TIMEOUT_S", gt=0)
    """Seconds in which the request line and the headers must arrive; otherwise the connection is closed (408)."""
    max_head_bytes: int = setting("Limits on what is sent", 64 * 2**10, "IEI_MAX_HEAD_BYTES", ge=1024)
    """Largest request line and headers together, in bytes."""
    write_timeout_s: float = setting("Limits on what is sent", 30.0, "IEI_WRITE_TIMEOUT_S", gt=0)
    """Seconds in which a client must read 16 KiB of an answer, or all that is left of it; otherwise the connection is
    closed."""
    max_connections: int = setting("Limits on what is sent", 1000, "IEI_MAX_CONNECTIONS", ge=1)
    """Most connections of one worker. Beyond it, the one that has been idle for longest is closed; if none is, the
    new one is answered 503."""


class InputSettings(Group):
    """How inputs are fetched, decoded and tokenized, and the limits on them."""

    max_image_bytes: int = setting("Limits on what is sent", 32 * 2**20, "IEI_MAX_IMAGE_BYTES", ge=1)
    """Largest encoded image, in bytes."""
    max_text_length: int = setting("Limits on what is sent", 1_000_000, "IEI_MAX_TEXT_LENGTH", ge=1)
    """Longest text before truncation to the model's limit: in characters, or in token ids if the client sends ids."""
    max_image_pixels: int = setting("Limits on what is sent", 64_000_000, "IEI_MAX_IMAGE_PIXELS", ge=1)
    """Most pixels in one image, checked in its header before decoding."""
    max_image_side: int = setting("Limits on what is sent", 65_535, "IEI_MAX_IMAGE_SIDE", ge=1)
    """Longest side of an image, in pixels. The default is the longest that a JPEG can have."""
    max_decoding_pixels: int = setting("Limits on what is sent", 128_000_000, "IEI_MAX_DECODING_PIXELS", ge=1)
    """Most pixels that one worker decodes at the same time, over all requests. Each takes 4 to 9 bytes of memory;
    those of WebP, TIFF and progressive JPEG take up to 18 and count twice."""
    url_inputs: str = setting("URLs", "public", "IEI_URL_INPUTS")
    """Allowed image URLs: `public` (the open internet), `off`, or domains separated by commas (may be private)."""
    url_timeout_s: float = setting("URLs", 10.0, "IEI_URL_TIMEOUT_S", gt=0)
    """Most seconds that one download may take, redirects included."""
    max_patches: int = setting("Decoding", 4096, "IEI_MAX_PATCHES", ge=1)
    """Most patches of an image that keeps its own size."""
    decode_threads: int = setting("Decoding", 0, "IEI_DECODE_THREADS", ge=0)
    """Threads that decode images in each worker. 0: cores divided by workers, at least 1 and at most 4."""
    fast_decode: bool = setting("Decoding", False, "IEI_FAST_DECODE")
    """Decode large JPEGs at a reduced scale: 4 to 7 times as fast, but pixels differ slightly (docs/models.md)."""

    def threads(self, workers: int) -> int:
        """The number of decoding threads in each worker.

        More threads than cores would not decode faster, and would slow down the model.

        Args:
            workers: number of worker processes.
        """
        return self.decode_threads or min(4, max(1, cores() // workers))


class DialectSettings(Group):
    """Settings of single dialects."""

    predict_resize: Literal["processor", "multiple"] = setting("Decoding", "processor", "IEI_PREDICT_RESIZE")
    """Image size at `/predict`: the model's (`processor`), or the image's, rounded up to a `multiple` of the patch."""
    vertex_health_route: str | None = setting(
        "Server", None, "IEI_VERTEX_HEALTH_ROUTE", "AIP_HEALTH_ROUTE", pattern=_ROUTE, form=_ROUTE_FORM
    )
    """Path at which Vertex AI asks for the server's readiness, in addition to `/health`."""
    vertex_predict_route: str | None = setting(
        "Server", None, "IEI_VERTEX_PREDICT_ROUTE", "AIP_PREDICT_ROUTE", pattern=_ROUTE, form=_ROUTE_FORM
    )
    """Path to which Vertex AI sends predictions, in addition to `/vertex`."""
    immich_upstream: str | None = setting("Server", None, "IEI_IMMICH_UPSTREAM")
    """URL of immich's own machine-learning service, which answers immich's requests for faces and OCR."""

    @field_validator("immich_upstream")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        is_http = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0  # `port` checks itself
        if not is_http or parts.query or parts.fragment:
            raise ValueError("must be a URL such as http://immich-machine-learning:3003")
        return value.rstrip("/")

    token_ids: str = setting("Requests", "refuse", "IEI_TOKEN_IDS")
    """What token ids at `/v1/embeddings` are, if the request does not say: `refuse` them, ids of the `model`'s own
    tokenizer, or of an encoding of tiktoken, such as `cl100k_base` (docs/api/openai.md)."""


class Settings(BaseModel):
    """All settings, by the component that uses them."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    models: ModelSettings = Field(default_factory=ModelSettings)
    server: ServerSettings = Field(default_factory=ServerSettings)
    logs: LogSettings = Field(default_factory=LogSettings)
    traces: TraceSettings = Field(default_factory=TraceSettings)
    access: AccessSettings = Field(default_factory=AccessSettings)
    load: LoadOptions = Field(default_factory=LoadOptions)
    engine: EngineSettings = Field(default_factory=EngineSettings)
    requests: RequestSettings = Field(default_factory=RequestSettings)
    body: BodySettings = Field(default_factory=BodySettings)
    connections: ConnectionSettings = Field(default_factory=ConnectionSettings)
    inputs: InputSettings = Field(default_factory=InputSettings)
    dialects: DialectSettings = Field(default_factory=DialectSettings)
    remote: RemoteSettings = Field(default_factory=RemoteSettings)


class Setting(NamedTuple):
    """Description of one setting."""

    group: str
    """Field of `Settings` that holds it."""
    name: str
    """Unique over all groups; the flag of `iei serve` is made from it."""
    field: FieldInfo
    section: Section
    variables: tuple[str, ...]
    """Environment variables, the preferred one first."""
    form: str
    """What its pattern means; empty if it has none."""

    @property
    def flag(self) -> str:
        """Its option on the command line."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def is_secret(self) -> bool:
        """Whether its value may be shown to nobody. It has no flag: everyone can read the arguments of a process."""
        return SecretStr in get_args(self.field.annotation)


def _all_settings() -> Iterator[Setting]:
    for group, group_field in Settings.model_fields.items():
        kind: Any = group_field.annotation
        for name, field in kind.model_fields.items():
            extra: Any = field.json_schema_extra
            yield Setting(group, name, field, extra["section"], tuple(extra["variables"]), extra["form"])


SETTINGS: Mapping[str, Setting] = {
    setting.name: setting for setting in sorted(_all_settings(), key=lambda each: SECTIONS.index(each.section))
}
"""All settings by name, in the order of their sections."""


def read_settings(**given: Any) -> Settings:
    """Reads the settings from the environment.

    Args:
        **given: settings by name, which override the environment.

    Raises:
        StartupError: a value is invalid, or two variables of one setting differ. The message names the variable, its
            value and what is allowed.
        TypeError: `given` has a name that is not a setting.
    """
    if unknown := given.keys() - SETTINGS.keys():
        raise TypeError(f"there are no settings {', '.join(sorted(unknown))}")
    groups: dict[str, dict[str, Any]] = {name: {} for name in Settings.model_fields}
    for each in SETTINGS.values():
        found = _found(each)
        if each.name in given:
            groups[each.group][each.name] = given[each.name]
        elif len(set(found.values())) > 1:
            # A silent precedence between two variables of one setting would hide a mistake.
            values = " and ".join(f"{variable}={value!r}" for variable, value in found.items())
            raise StartupError(f"{values} are variables of the same setting: unset all but one.")
        elif found:
            groups[each.group][each.name] = next(iter(found.values()))
    try:
        return Settings.model_validate(groups)
    except ValidationError as error:
        faults = [_fault(SETTINGS[str(fault["loc"][1])], fault, given) for fault in error.errors()]
        raise StartupError("; ".join(faults)) from None


def unknown_variables() -> Iterator[str]:
    """A sentence for each variable that looks like a setting and is none: it has no effect."""
    known = [variable for setting in SETTINGS.values() for variable in setting.variables]
    for variable, value in os.environ.items():
        if variable.startswith(_OURS) and variable not in known and not _is_service_link(variable, value):
            near = get_close_matches(variable, known, n=1, cutoff=0.75)
            advice = f"did you mean {near[0]}?" if near else "docs/configuration.md lists the settings."
            yield f"{variable} is not a setting, and is ignored: {advice}"


_OURS = "IEI_"


def _is_service_link(variable: str, value: str) -> bool:
    """Whether Kubernetes set it for a service whose name begins with `iei`: `IEI_PORT` is tcp://10.0.0.1:8000 then."""
    return bool(_SERVICE.fullmatch(variable)) or value.startswith(("tcp://", "udp://", "sctp://"))


_SERVICE = re.compile(r"IEI_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")


def _found(setting: Setting) -> dict[str, str]:
    """The environment variables of a setting that are set, with their values. Empty ones count as unset."""
    return {
        variable: value
        for variable in setting.variables
        if (value := os.environ.get(variable)) and not _is_service_link(variable, value)
    }


def said(name: str, given: Container[str] = ()) -> str:
    """The flag or the variable that set the setting `name`, for error messages.

    Args:
        name: of the setting.
        given: names of the settings that flags have set.
    """
    setting = SETTINGS[name]
    return setting.flag if name in given else next(iter(_found(setting)), setting.variables[0])


def _fault(setting: Setting, fault: ErrorDetails, given: Container[str]) -> str:
    """What is wrong with a value, and what it must be."""
    if words := choices(setting.field):
        wanted = f"must be {', '.join(words[:-1])} or {words[-1]}"
    elif setting.form and fault["type"] == "string_pattern_mismatch":
        wanted = f"must be {setting.form}"
    else:
        wanted = _WANTED.get(fault["type"]) or fault["msg"].replace("Input should", "must").removeprefix(
            "Value error, "
        )
    return f"{said(setting.name, given)}={fault['input']!r}: {wanted}"


_WANTED = {"int_parsing": "must be a whole number", "float_parsing": "must be a number"}
"""pydantic's names of faults → what it takes sentences to say."""
