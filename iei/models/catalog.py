"""The catalog of models that may be served: their names, and how each is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from iei.errors import ModelNotFound, StartupError
from iei.load_options import LoadOptions
from iei.models.immich import IMMICH_MODELS

if TYPE_CHECKING:
    from iei.settings import ModelSettings

DEMO = "demo"
"""The id of the built-in model."""

DEMO_NOTE = "small, trained on drawings: for trying IEI, not for real searches"
"""What everybody must know who sees vectors of it."""

MOUNTED = Path("/mnt/models")
"""Directory in which KServe mounts the model that it has downloaded."""


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A model that may be served."""

    name: str
    """What clients call it."""
    id: str
    """Hub id, local folder, or `demo`."""
    revision: str | None = None
    """Branch, tag or commit. None: the default branch."""
    matryoshka: bool = False
    """Whether the operator says that it was trained for shorter vectors of any length."""


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """Everything that decides how a model is loaded."""

    entry: CatalogEntry
    device: str
    """As `IEI_DEVICE` names one: `auto`, `cpu`, `cuda:0` …"""
    options: LoadOptions
    pooling_optional: bool = False
    """A model that can't give `options.pooling` is served with its own default instead of being refused."""
    prefer_cache: bool = False
    """Use the cached files of a hub id, if they are complete, without asking the hub for newer ones."""


@dataclass(frozen=True)
class Catalog:
    """The models that may be served. Read once, before any process starts.

    The engine's frames identify models by their index here, so all processes must have the same catalog.
    """

    entries: tuple[CatalogEntry, ...]
    """At least one; the first is the default of requests that name none."""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the models, in order."""
        return tuple(entry.name for entry in self.entries)

    def resolve(self, name: str | None) -> CatalogEntry:
        """The model that a request means by `name`: a served name or, failing that, an id.

        Raises:
            ModelNotFound: there is no such model.
        """
        if name is None:
            return self.entries[0]
        matches = (*(entry for entry in self.entries if entry.name == name), *self._with_id(name))
        if not matches:
            raise ModelNotFound(f"model {name[:100]!r} is not served here; served: {', '.join(self.names)}")
        return matches[0]

    def aliases(self, name: str) -> tuple[str, ...]:
        """What the model called `name` may be called besides: its hub id. A folder is not published."""
        return tuple(
            entry.id for entry in self.entries if entry.name == name != entry.id and served_name(entry.id) == entry.id
        )

    def __contains__(self, name: str) -> bool:
        return any(name in (entry.name, entry.id) for entry in self.entries)

    def _with_id(self, model_id: str) -> tuple[CatalogEntry, ...]:
        return tuple(entry for entry in self.entries if entry.id == model_id)

    def load_requests(self, device: str, options: LoadOptions) -> tuple[LoadRequest, ...]:
        """The models, in the catalog's order, as an engine on `device` loads them."""
        return tuple(
            LoadRequest(entry, device, options, pooling_optional=place > 0) for place, entry in enumerate(self.entries)
        )


def read_catalog(settings: ModelSettings, mounted: Path = MOUNTED) -> Catalog:
    """Reads the catalog: the setting `models`, or else `model`, and then the models in the allow-list file.

    Raises:
        StartupError: two models have the same name, a name has no model, a revision is set for several models, or the
            allow-list file is missing, or a path can't be looked at.
    """
    try:
        entries = _entries(settings, mounted)
    except OSError as error:  # no right to enter a folder, or an id that is longer than any name of a file
        raise StartupError(f"{error.filename!r} can't be read: {error.strerror}.") from None
    names = [entry.name for entry in entries]
    if twice := {name for name in names if names.count(name) > 1}:
        raise StartupError(f"Two models are called {', '.join(sorted(twice))}: rename one of them (name=id).")
    trained = set(_lines(settings.matryoshka.replace(",", "\n")))
    if unknown := trained.difference(names):
        raise StartupError(f"IEI_MATRYOSHKA names {', '.join(sorted(unknown))}; there are: {', '.join(names)}.")
    return Catalog(tuple(replace(entry, matryoshka=entry.name in trained) for entry in entries))


def _entries(settings: ModelSettings, mounted: Path) -> tuple[CatalogEntry, ...]:
    """The models that the settings name, and after them those of the allow-list file that they don't."""
    named = [_parsed(line) for line in _lines(settings.models.replace(",", "\n"))]
    listed = [_parsed(line) for line in _lines(_allow_list(settings))]
    chosen = _chosen(settings, mounted)
    if not named and (chosen or not listed):
        if settings.artifacts and not chosen:
            raise StartupError(
                f"AIP_STORAGE_URI={settings.artifacts!r} is no folder with a model, and IEI does not read Cloud "
                "Storage: put the model into the image, and set IMAGE_EMBEDDING_MODEL to its folder or to a hub id."
            )
        model_id = chosen or settings.model
        named = [CatalogEntry(settings.model_name or served_name(model_id), _source(model_id), settings.revision)]
    elif settings.revision:
        raise StartupError("IEI_REVISION is for one model: where several are listed, write name=id@revision.")
    known = {(entry.name, entry.id) for entry in named}
    return (*named, *(entry for entry in listed if (entry.name, entry.id) not in known))


def served_name(model_id: str) -> str:
    """The default name of a model: its hub id, or the last part of its folder, so that paths are not published."""
    return Path(model_id).resolve().name if Path(model_id).is_dir() else model_id


def _chosen(settings: ModelSettings, mounted: Path) -> str | None:
    """The single model to serve: from IEI's own setting, else KServe's mount or Vertex AI's, else `fallback_model`."""
    if settings.is_set("model"):
        return settings.model
    folders = (folder for folder in (str(mounted), settings.artifacts) if folder)
    return next((folder for folder in folders if Path(folder, "config.json").is_file()), settings.fallback_model)


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if entry := line.partition("#")[0].strip():
            yield entry


def _allow_list(settings: ModelSettings) -> str:
    """The text of the allow-list file. Only the default one may be missing."""
    file = settings.supported_models
    if not file.is_file() and settings.is_set("supported_models"):
        raise StartupError(f"IEI_SUPPORTED_MODELS: there is no file {file}.")
    return file.read_text() if file.is_file() else ""


def _parsed(line: str) -> CatalogEntry:
    """Parses `name=id@revision`, in which the name and the revision are optional."""
    name, equals, source = (part.strip() for part in line.partition("="))
    if not equals:
        name, source = "", line
    model_id, _, revision = (source, "", "") if Path(source).exists() else source.partition("@")
    if not model_id or (equals and not name):
        raise StartupError(f"{line!r} is not a model: write name=id-or-folder, or just an id or a folder.")
    return CatalogEntry(name or served_name(model_id), _source(model_id), revision or None)


def _source(model_id: str) -> str:
    """The hub id that is meant by one of immich's names; anything else stays as it is."""
    known = None if Path(model_id).exists() else IMMICH_MODELS.get(model_id)
    return (known and known.hub_id) or model_id
