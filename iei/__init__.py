"""IEI, Image Embedding Inference: the server that turns images and text into vectors."""

from importlib.metadata import version

__version__ = version("image-embedding-inference")
