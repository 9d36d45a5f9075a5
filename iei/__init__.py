"""IEI (Image Embedding Inference): a server that computes embeddings of images and texts."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str


def __getattr__(name: str) -> str:
    if name == "__version__":  # looked up when it is asked for: a supervisor would take twice as long to start
        from importlib.metadata import version

        return version("image-embedding-inference")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
