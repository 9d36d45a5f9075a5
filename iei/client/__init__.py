"""A client of the server: files, pictures, arrays, addresses and texts → NumPy arrays.

    from iei.client import Client

    with Client("http://localhost:8000") as client:
        vectors = client.embed_images(["cat.jpg", "dog.png"])  # float32[2, d]

It makes batches, sends several at a time, tries again when the server is busy, and sends and receives no base64 and no
lists of numbers. It imports nothing of the server. docs/client.md has more.
"""

from iei.client.answers import Info
from iei.client.async_client import AsyncClient
from iei.client.client import Client
from iei.client.errors import ClientError, InputError, ServerError, Unreachable
from iei.client.pictures import ImageItem

__all__ = ["AsyncClient", "Client", "ClientError", "ImageItem", "Info", "InputError", "ServerError", "Unreachable"]
