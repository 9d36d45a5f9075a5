"""Which models may be served, and under which names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from iei.errors import ModelNotFound, StartupError
from iei.models.spec import LoadRequest
from iei.settings import Settings

DEMO = "demo"
"""The id of the built-in model, which is untrained."""
MOUNTED = Path("/mnt/models")
"""Where KServe puts the model that it has fetched."""


@dataclass(frozen=True)
class Catalog:
    names: tuple[str, ...]
    """As clients write them. The first is the default of requests that name none."""
    ids: tuple[str, ...]
    """The hub id or folder behind each name."""
    revisions: tuple[str | None, ...]
    """Branch, tag or commit of each, where one is asked for."""

    def resolve(self, name: str | None) -> str:
        """The served name that a request means.

        Raises:
            ModelNotFound: no such model here.
        """
        if name is None:
            return self.names[0]
        if name in self.names:
            return name
        if name in self.ids:
            return self.names[self.ids.index(name)]
        raise ModelNotFound(f"model {name[:100]!r} is not served here; served: {', '.join(self.names)}")


def catalog(settings: Settings, mounted: Path = MOUNTED) -> Catalog:
    """What the settings allow: `models`, or else `model`; and then whatever the allow-list file adds.

    Raises:
        StartupError: two models have the same name, a name has no model, a revision belongs to none of them, or a list
            is not there.
    """
    named = [_parsed(entry) for entry in _entries(settings.models.replace(",", "\n"))]
    listed = [_parsed(entry) for entry in _entries(_list_of(settings))]
    chosen = _chosen(settings, mounted)
    if not named and (chosen or not listed):
        model_id = chosen or settings.model
        named = [(settings.model_name or served_name(model_id), model_id, settings.revision)]
    elif settings.revision:
        raise StartupError("IEI_REVISION is for one model: where several are listed, write name=id@revision.")
    named += [entry for entry in listed if entry[:2] not in {(name, model_id) for name, model_id, _ in named}]
    names, ids, revisions = zip(*named, strict=True)
    if twice := {name for name in names if names.count(name) > 1}:
        raise StartupError(f"Two models are called {', '.join(sorted(twice))}: give one another name (name=id).")
    return Catalog(names, ids, revisions)


def _chosen(settings: Settings, mounted: Path) -> str | None:
    """The one model that somebody chose: by IEI's own setting, or else through KServe, where a mount comes first."""
    if settings.is_set("model"):
        return settings.model
    return str(mounted) if (mounted / "config.json").is_file() else settings.fallback_model


def load_requests(settings: Settings, device: str) -> tuple[LoadRequest, ...]:
    """The catalog's models, in its order, as an engine on `device` is to load them."""
    served = catalog(settings)
    return tuple(
        LoadRequest(
            name=name,
            id=model_id,
            revision=revision,
            device=device,
            dtype=settings.dtype,
            pooling=settings.pooling,
            pooling_optional=name != served.names[0],
            attention=settings.attention,
            quantization=settings.quantization,
            threads=settings.threads,
            max_batch=settings.max_batch,
            allow_pickle=settings.allow_pickle,
            cache_dir=str(settings.cache_dir) if settings.cache_dir else None,
        )
        for name, model_id, revision in zip(served.names, served.ids, served.revisions, strict=True)
    )


def served_name(model_id: str) -> str:
    """A hub id is its own name; a folder goes by its last part, as its path is nobody else's business."""
    return Path(model_id).resolve().name if Path(model_id).is_dir() else model_id


def _entries(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if entry := line.partition("#")[0].strip():
            yield entry


def _list_of(settings: Settings) -> str:
    """The text of the allow-list file. Only the default one may be missing."""
    file = settings.supported_models
    if not file.is_file() and settings.is_set("supported_models"):
        raise StartupError(f"IEI_SUPPORTED_MODELS: there is no file {file}.")
    return file.read_text() if file.is_file() else ""


def _parsed(entry: str) -> tuple[str, str, str | None]:
    """`name=id@revision` → its parts; the name may be missing, and the revision."""
    name, equals, source = (part.strip() for part in entry.partition("="))
    if not equals:
        name, source = "", entry
    model_id, _, revision = (source, "", "") if Path(source).exists() else source.partition("@")
    if not model_id or (equals and not name):
        raise StartupError(f"{entry!r} is no model: write name=id-or-folder, or just an id or a folder.")
    return name or served_name(model_id), model_id, revision or None
