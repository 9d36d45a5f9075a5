"""API keys in the headers of requests, whatever protocol the headers belong to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from iei.access.keys import Key, Keyring
from iei.access.quotas import Quota, Quotas
from iei.errors import Unauthorized
from iei.priority import Priority
from iei.telemetry.record import current


class Allowed(NamedTuple):
    """What the sender of a request may have."""

    quota: Quota | None = None
    """What the request counts against; None: it has no limits of its own."""
    priority: Priority = Priority.INTERACTIVE
    """The highest."""


Sender = Callable[[Mapping[str, str]], Allowed]
"""Headers, by names in lower case → what their sender is allowed.

Raises Unauthorized if they have no key and need one.
"""


def anybody(headers: Mapping[str, str]) -> Allowed:
    """The `Sender` of servers without keys."""
    return Allowed()


def by_key(keyring: Keyring, quotas: Quotas) -> Sender:
    """The `Sender` of servers with keys.

    Args:
        keyring: the keys that are accepted.
        quotas: the counters of keys with limits.
    """

    def sender(headers: Mapping[str, str]) -> Allowed:
        key = key_of(headers, keyring)
        current().key = key.name
        return Allowed(quotas.of(key), key.priority)

    return sender


def key_of(headers: Mapping[str, str], keyring: Keyring) -> Key:
    """The key of a request: `Authorization: Bearer KEY`, `X-API-Key: KEY`, or `api-key: KEY` as in Azure.

    Args:
        headers: by their names in lower case.
        keyring: the keys that are accepted.

    Raises:
        Unauthorized: there is no key, or it is not one of these.
    """
    sent = list(_sent(headers))
    key = keyring.find(sent)
    if key is None:
        raise Unauthorized(_WRONG if sent else _MISSING)
    return key


_MISSING = "this server needs an API key: send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"
_WRONG = "the API key is not one of this server's"


def _sent(headers: Mapping[str, str]) -> Iterator[bytes]:
    """What may be a key, as it was sent."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    bearer = token if scheme.lower() == "bearer" else ""
    for value in (bearer, headers.get("x-api-key", ""), headers.get("api-key", "")):
        if key := value.strip():
            yield key.encode("latin-1")
