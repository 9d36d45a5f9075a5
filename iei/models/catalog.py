"""Which models may be served, and under which names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from iei.errors import ModelNotFound
from iei.models.spec import LoadRequest
from iei.settings import Settings


@dataclass(frozen=True)
class Catalog:
    names: tuple[str, ...]
    """As clients write them. The first is the default of requests that name none."""
    ids: tuple[str, ...]
    """The hub id or folder behind each name."""

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
        raise ModelNotFound(f"model {name!r} is not served here; served: {', '.join(self.names)}")


def catalog(settings: Settings) -> Catalog:
    return Catalog((served_name(settings.model),), (settings.model,))


def load_requests(settings: Settings, device: str) -> tuple[LoadRequest, ...]:
    """The catalog's models, in its order, as an engine on `device` is to load them."""
    served = catalog(settings)
    return tuple(
        LoadRequest(
            name=name,
            id=model_id,
            revision=settings.revision,
            device=device,
            dtype=settings.dtype,
            pooling=settings.pooling,
            threads=settings.threads,
            max_batch=settings.max_batch,
            allow_pickle=settings.allow_pickle,
            cache_dir=str(settings.cache_dir) if settings.cache_dir else None,
        )
        for name, model_id in zip(served.names, served.ids, strict=True)
    )


def served_name(model_id: str) -> str:
    """A hub id is its own name; a folder goes by its last part, as its path is nobody else's business."""
    return Path(model_id).resolve().name if Path(model_id).is_dir() else model_id
