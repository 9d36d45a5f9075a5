"""Generates the documentation of the settings from the code, so that the two can't differ.

`python -m iei.configuration` prints docs/configuration.md; with `--write`, in a checkout, it writes that page and the
table of the most used settings in README.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from iei.setting import choices
from iei.settings import SETTINGS, Setting

PAGE = Path("docs/configuration.md")
README = Path("README.md")
BEGIN, END = "<!-- settings -->", "<!-- /settings -->"

_MOST_USED = (
    "model",
    "models",
    "workers",
    "bind",
    "device",
    "dtype",
    "max_batch",
    "pooling",
    "normalize",
    "concurrency_level",
    "url_inputs",
)
_MIB = 2**20
_HEADER = "| variable | default | values | meaning |\n|---|---|---|---|"
_INTRODUCTION = """\
# Configuration

<!-- Written by `python -m iei.configuration --write`; edit iei/settings.py and iei/load_options.py instead. -->

Every setting is an environment variable, and a flag of `iei serve` and `iei embed`: `IEI_MAX_BATCH` is `--max-batch`.
Only `IEI_API_KEYS` is no flag: every user of a machine can read the arguments of its processes.
A flag overrides a variable; an empty variable counts as unset. Words are read in any case. A variable that begins with
`IEI_` and is not here is ignored, with a warning that has the nearest name. The server does not start if a value is
invalid, or if two variables of the same setting have different values; the error message names the variables.

When gunicorn or uvicorn is started directly instead of by `iei serve`, the number of workers, the address and the
graceful timeout come from *its* options, and `IEI_WORKERS`, `IEI_BIND`, `IEI_HOST`, `IEI_PORT` and
`IEI_GRACEFUL_TIMEOUT_S` have no effect.
`IEI_TLS_CERT` and `IEI_TLS_KEY` are refused then. All other settings apply however the server is started."""
_OTHERS = """\
## Variables of other libraries

| variable | read by | meaning |
|---|---|---|
| `HF_TOKEN` | huggingface_hub | token for gated and private models |
| `HF_HOME` | huggingface_hub | where downloaded models are stored (default `~/.cache/huggingface`) |
| `HF_ENDPOINT` | huggingface_hub | base URL of another hub, for example a mirror |
| `HF_HUB_OFFLINE` | huggingface_hub | `1`: never contact the hub, use only downloaded files |
| `CUDA_VISIBLE_DEVICES` | CUDA | which GPUs are visible; `cuda:0` is the first of them |"""


def markdown() -> str:
    """The text of docs/configuration.md."""
    return "\n\n".join([_INTRODUCTION, *_sections(), _OTHERS]) + "\n"


def readme_table() -> str:
    """The Markdown between the markers in README.md: the most used settings and a link to the others."""
    rows = (_row(SETTINGS[name]) for name in _MOST_USED)
    return "\n".join([_HEADER, *rows, "", f"[All settings]({PAGE})"])


def with_table(readme: str) -> str:
    """`readme` with the current table between its markers.

    Args:
        readme: the text of README.md.

    Raises:
        ValueError: a marker is missing.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{README} has no {BEGIN} … {END} for the table of settings")
    return f"{before}{BEGIN}\n{readme_table()}\n{END}{after}"


def _sections() -> Iterator[str]:
    """A heading and a table for each section."""
    for title, settings in groupby(SETTINGS.values(), key=attrgetter("section")):
        yield "\n".join([f"## {title}", "", _HEADER, *map(_row, settings)])


def _row(setting: Setting) -> str:
    variables = " or ".join(f"`{name}`" for name in setting.variables)
    meaning = " ".join((setting.field.description or "").split())
    return f"| {variables} | {_default(setting.field)} | {_values(setting.field)} | {meaning} |"


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int | float):
        return f"`{_number(value)}`" + (f" ({value // _MIB} MiB)" if value >= _MIB and value % _MIB == 0 else "")
    return f"`{value}`"


def _values(field: FieldInfo) -> str:
    """The allowed values, as far as the field's type and bounds define them."""
    if words := choices(field):
        return ", ".join(f"`{word}`" for word in words)
    return ", ".join(f"{sign} {_number(bound)}" for sign, bound in _bounds(field.metadata))


def _bounds(metadata: Iterable[Any]) -> Iterator[tuple[str, float]]:
    for constraint in metadata:
        for attribute, sign in (("gt", ">"), ("ge", "≥"), ("le", "≤")):
            if (bound := getattr(constraint, attribute, None)) is not None:
                yield sign, bound


def _number(value: float) -> str:
    """Without a decimal part if it is zero: 300.0 as 300."""
    return str(int(value)) if value == int(value) else str(value)


def main() -> None:
    """Prints docs/configuration.md, or with `--write` updates it and README.md.

    Raises:
        SystemExit: the files can't be read or written, or README.md lacks a marker.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"update {PAGE} and {README} in the current directory")
    if not parser.parse_args().write:
        print(markdown(), end="")
        return
    try:
        readme = with_table(README.read_text(encoding="utf-8"))
        PAGE.write_text(markdown(), encoding="utf-8")
        README.write_text(readme, encoding="utf-8")
    except (OSError, ValueError) as error:
        raise SystemExit(f"{error}: run this in a checkout of IEI.") from None


if __name__ == "__main__":
    main()
