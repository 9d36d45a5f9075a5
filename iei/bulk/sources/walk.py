"""All files below a folder, in one order each time, a folder's names at a time."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from typing import NamedTuple

from iei.bulk.sources.files import Files, join

PASSED_OVER = frozenset({"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"})
"""Folders in which systems and archivers keep their own files, some of them pictures."""


class Found(NamedTuple):
    """A file, or a folder that may not be read."""

    path: str
    name: str
    """Its path below the folder where the walk began; that of a folder ends in `/`."""
    error: PermissionError | None = None
    """Why the folder may not be read."""


class _Level(NamedTuple):
    path: str
    name: str
    coming: list[str]
    """Reversed: what has been taken is freed."""
    identity: Hashable


def walk(files: Files, root: str, *, levels: int | None = None) -> Iterator[Found]:
    """Yields what is below `root`, folder by folder, names sorted in each. Hidden files and folders are left out.

    Links are followed, but not back into a folder that the walk is in.

    Args:
        files: where `root` is.
        root: the folder.
        levels: how many folders deep, `root` counted. None: all.

    Raises:
        OSError: `root` can't be read; or a folder below it is there no more, or its disk fails. One that may not be
            read is yielded instead: a job of a night should not end for it.
    """
    inside = [_Level(root, "", files.names(root)[::-1], files.identity(root))]
    while inside:
        level = inside[-1]
        if not level.coming:
            inside.pop()
            continue
        entry = level.coming.pop()
        if entry.startswith(".") or entry.rstrip("/") in PASSED_OVER:
            continue
        name, path = level.name + entry, join(level.path, entry.rstrip("/"))
        if not entry.endswith("/"):
            yield Found(path, name)
        elif levels is None or len(inside) < levels:
            try:
                identity = files.identity(path)
                if all(identity != above.identity for above in inside):
                    inside.append(_Level(path, name, files.names(path)[::-1], identity))
            except PermissionError as error:
                yield Found(path, name, error)


MAGIC = re.compile(r"[*?[]")
"""What makes a path a pattern."""
_TOKENS = re.compile(r"\*\*/|\*\*|\*|\?|\[(!?)([^]]+)\]")
_SPECIAL, _ESCAPED = re.compile(r"[\\^\[&|~]"), r"\\\g<0>"
_MEANINGS = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def glob(files: Files, pattern: str) -> Iterator[Found]:
    """Yields what matches a pattern of `*`, `?`, `[…]` and `**`, in the order of `walk`, with whole paths as names.

    `glob.glob` would hold all names to sort them, and knows no object stores.
    """
    fixed = MAGIC.split(pattern, maxsplit=1)[0]
    root = fixed[: fixed.rfind("/") + 1]
    rest = pattern[len(root) :]
    matches = re.compile(_expression(rest), re.DOTALL).fullmatch
    for found in walk(files, root, levels=None if "**" in rest else rest.count("/") + 1):
        if found.error or matches(found.name):
            yield found._replace(name=root + found.name)


def _expression(pattern: str) -> str:
    parts, end = [], 0
    for token in _TOKENS.finditer(pattern):
        parts.append(re.escape(pattern[end : token.start()]))
        parts.append(_MEANINGS.get(token[0]) or f"[{'^' if token[1] else ''}{_SPECIAL.sub(_ESCAPED, token[2] or '')}]")
        end = token.end()
    return "".join([*parts, re.escape(pattern[end:])])
