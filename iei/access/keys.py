"""API keys: how they are written, and which of them a request has."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iei.errors import StartupError
from iei.priority import BY_LABEL, Priority
from iei.settings import AccessSettings

log = logging.getLogger(__name__)

CHECK_S = 1.0
"""How often the file of keys is looked at, at most: changes are noticed this many seconds later."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)
_KEY = re.compile(r"[\x21-\x7e]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HASHED = "sha256:"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a key may send, over all workers of a server. None: as much as the server takes from anyone."""

    inputs_per_s: float | None = None
    """Inputs a second, on average."""
    inputs_at_once: int | None = None
    """Inputs of requests that have not been answered yet."""


@dataclass(frozen=True, slots=True)
class Key:
    """One API key."""

    name: str
    """What logs call it."""
    digest: bytes = field(repr=False)
    """SHA-256 of the key itself, which is kept nowhere."""
    limits: Limits
    priority: Priority = Priority.INTERACTIVE
    """The highest that its requests may have."""


class Keyring:
    """The keys that are accepted. With a file, those that it has now: it is read again after it has changed.

    Args:
        keys: at least one.
        file: where they are from, or None.
        version: of the file, as `_read` returned it with the keys.
        clock: in seconds.
    """

    def __init__(
        self,
        keys: Sequence[Key],
        file: Path | None = None,
        version: _Version | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = keys
        self._file = file
        self._version = version
        self._clock = clock
        self._checked = clock()

    def find(self, candidates: Iterable[bytes]) -> Key | None:
        """The key that one of `candidates` is.

        Each candidate is compared with each key, whichever of them match, so that the duration tells nothing.
        """
        if self._file and self._clock() - self._checked >= CHECK_S:
            self._checked = self._clock()
            self._refresh(self._file)
        found = None
        for candidate in candidates:
            digest = hashlib.sha256(candidate).digest()
            for key in self._keys:
                if hmac.compare_digest(digest, key.digest):
                    found = key
        return found

    def _refresh(self, file: Path) -> None:
        version = _version(file)
        if version == self._version:
            return
        self._version = version  # also of a file that is refused: its fault is logged once
        try:
            self._keys, self._version = _read(file)
        except StartupError as error:
            log.error("%s The %d keys from before stay in force.", error, len(self._keys))
        else:
            log.info("%s has changed: %d keys (%s)", file, len(self._keys), ", ".join(key.name for key in self._keys))


def read_keyring(settings: AccessSettings) -> Keyring | None:
    """The keys that the settings name; None if they name none, and everybody may send requests.

    Raises:
        StartupError: they can't be read, or an entry is invalid. The message has no part of a key.
    """
    if settings.api_keys and settings.api_keys_file:
        raise StartupError("IEI_API_KEYS and IEI_API_KEYS_FILE exclude each other: unset one of them.")
    if settings.api_keys:
        return Keyring(parse_keys(settings.api_keys.get_secret_value().split(","), "IEI_API_KEYS"))
    if settings.api_keys_file:
        keys, version = _read(settings.api_keys_file)
        return Keyring(keys, settings.api_keys_file, version)
    return None


def parse_keys(entries: Iterable[str], source: str) -> tuple[Key, ...]:
    """Parses entries `key` or `name=key`, each with its limits after it.

    With all that there are: `name=key inputs_per_s=50 inputs_at_once=200 priority=bulk`. A key is its text, or
    `sha256:` and the hexadecimal digest of its text. Empty entries and comments (`#`) are skipped.

    Args:
        entries: the texts of the entries.
        source: where they are from, for error messages.

    Raises:
        StartupError: an entry is invalid, two have the same name or key, or there is none. The message names the entry
            by its name, or by its place where it has none, and has no part of a key.
    """
    keys: dict[bytes, Key] = {}
    for key in _parsed(entries, source):
        if any(other.name == key.name for other in keys.values()):
            raise StartupError(f"{source}: two keys are called {key.name!r}: rename one of them.")
        if other := keys.get(key.digest):
            raise StartupError(f"{source}: {other.name!r} and {key.name!r} are the same key: remove one of them.")
        keys[key.digest] = key
    if not keys:
        raise StartupError(f"{source} has no key: add one, or unset it if everybody may send requests.")
    return tuple(keys.values())


def _parsed(entries: Iterable[str], source: str) -> Iterator[Key]:
    count = 0
    for entry in entries:
        words = _words(entry)
        if words:
            count += 1
            yield _key(words, count, source)


def _words(entry: str) -> list[str]:
    """The words of an entry up to a comment, which begins at the beginning of a word: keys may have a `#` inside."""
    words = entry.split()
    comment = next((place for place, word in enumerate(words) if word.startswith("#")), len(words))
    return words[:comment]


def _key(words: Sequence[str], place: int, source: str) -> Key:
    first, *options = words
    before, equals, after = first.partition("=")
    # "dGVzdA==" is no key "=" of the name "dGVzdA", which would show the key in logs.
    is_named = bool(equals) and bool(after.strip("="))
    if not is_named and equals:
        raise StartupError(f"{source}: key {place}: a key that has a = in it needs a name: name=key.")
    name, secret = (before, after) if is_named else (f"key {place}", first)
    if is_named and (not _NAME.fullmatch(name) or name in _OPTIONS):
        raise StartupError(
            f"{source}: key {place}: a name has up to 64 letters, digits, '.', '_' and '-', and is not that of a limit."
        )
    where = f"{source}: {name!r}" if is_named else f"{source}: {name}"
    values = _values(options, where)
    priority = values.pop("priority", Priority.INTERACTIVE)
    return Key(name, _digest(secret, where), Limits(**values), priority)


def _digest(secret: str, where: str) -> bytes:
    if secret.startswith(_HASHED):
        digest = secret.removeprefix(_HASHED).lower()
        if not _SHA256.fullmatch(digest):
            raise StartupError(f"{where}: after sha256: there must be 64 hexadecimal digits.")
        return bytes.fromhex(digest)
    if not _KEY.fullmatch(secret):
        raise StartupError(f"{where}: a key may have printable ASCII characters only: it is sent in a header.")
    return hashlib.sha256(secret.encode()).digest()


def _values(options: Sequence[str], where: str) -> dict[str, Any]:
    """Options other than those known may be the rest of a key that has a space in it: messages don't repeat them."""
    values: dict[str, Any] = {}
    for option in options:
        name, _, value = option.partition("=")
        if name not in _OPTIONS:
            *names, last = _OPTIONS
            raise StartupError(f"{where}: after a key there may be {', '.join(names)} and {last}, each as limit=value.")
        if name in values:
            raise StartupError(f"{where}: {name} is given twice.")
        parse, allowed = _OPTIONS[name]
        values[name] = parse(value)
        if values[name] is None:
            raise StartupError(f"{where}: {name} must be {allowed}.")
    return values


_WHOLE = re.compile(r"[1-9][0-9]{0,8}")
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")

_OPTIONS: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "inputs_per_s": (lambda text: float(text) or None if _DECIMAL.fullmatch(text) else None, "a number above 0"),
    "inputs_at_once": (lambda text: int(text) if _WHOLE.fullmatch(text) else None, "a whole number, at least 1"),
    "priority": (BY_LABEL.get, " or ".join(BY_LABEL)),
}
"""Name → its value from a text, None if the text is none; and what the text must be."""

_Version = tuple[int, int, int]
"""Time of the last change in nanoseconds, size in bytes, inode."""


def _version(file: Path) -> _Version | None:
    """None: there is no such file."""
    try:
        return _version_of(file.stat())
    except OSError:
        return None


def _version_of(status: os.stat_result) -> _Version:
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read(file: Path) -> tuple[Sequence[Key], _Version]:
    """The keys of a file, one in each line, and the version of it that was read.

    Raises:
        StartupError: it can't be read, or an entry is invalid.
    """
    try:
        with file.open(encoding="utf-8") as lines:
            status = os.fstat(lines.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise StartupError(f"IEI_API_KEYS_FILE: {file} is not a file.")
            return parse_keys(lines, f"IEI_API_KEYS_FILE: {file}"), _version_of(status)
    except OSError as error:
        raise StartupError(f"IEI_API_KEYS_FILE: {file} can't be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise StartupError(f"IEI_API_KEYS_FILE: {file} is not a text in UTF-8.") from None
