"""IEI (Image Embedding Inference): a server that computes embeddings of images and texts."""

from importlib.metadata import version

__version__ = version("image-embedding-inference")
