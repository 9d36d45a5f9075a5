"""The settings as Markdown, so that the documentation can't say anything else than the code.

`python -m iei.configuration` prints docs/configuration.md; with `--write`, in a checkout, it writes that page and the
short table in README.md.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from iei.settings import Settings, env_names

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
_SECTIONS = {
    "model": "Models",
    "workers": "Server",
    "device": "Computing",
    "pooling": "Vectors",
    "concurrency_level": "Requests",
    "max_body_bytes": "Limits on what is sent",
    "url_inputs": "URLs",
    "predict_resize": "Decoding",
    "graceful_timeout_s": "Operation",
}
"""The first setting of each section → its title."""

_MIB = 2**20
_HEADER = "| variable | default | values | meaning |\n|---|---|---|---|"
_INTRODUCTION = """\
# Configuration

<!-- Written by `python -m iei.configuration --write`; edit iei/settings.py instead. -->

Every setting is an environment variable, and a flag of `iei serve` and `iei embed`: `IEI_MAX_BATCH` is `--max-batch`.
A flag wins over a variable; a variable that is empty is not set. A value that makes no sense stops the start, with one
sentence that names the variable, and so do two variables of one setting that disagree.

Started by plain gunicorn or uvicorn, the server takes workers, address and graceful timeout from *their* options;
`IEI_WORKERS`, `IEI_BIND` and `IEI_GRACEFUL_TIMEOUT_S` then have no effect. All others hold however it is started."""
_OTHERS = """\
## Variables of others

| variable | read by | meaning |
|---|---|---|
| `HF_TOKEN` | huggingface_hub | token for gated and private models |
| `HF_HOME` | huggingface_hub | where downloaded models are kept (default `~/.cache/huggingface`) |
| `HF_ENDPOINT` | huggingface_hub | another hub, a mirror for example |
| `HF_HUB_OFFLINE` | huggingface_hub | `1`: never ask the hub, start from what is kept |
| `CUDA_VISIBLE_DEVICES` | CUDA | which GPUs there are; `cuda:0` is the first of them |"""


def markdown() -> str:
    """The page docs/configuration.md."""
    return "\n\n".join([_INTRODUCTION, *_sections(), _OTHERS]) + "\n"


def readme_table() -> str:
    """What stands between the README's markers."""
    rows = (_row(Settings.model_fields[name]) for name in _MOST_USED)
    return "\n".join([_HEADER, *rows, "", f"[All settings]({PAGE})"])


def with_table(readme: str) -> str:
    """A README with the table of today between its markers.

    Raises:
        ValueError: it has not both markers.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{README} has no {BEGIN} … {END} for the table of settings")
    return f"{before}{BEGIN}\n{readme_table()}\n{END}{after}"


def _sections() -> Iterator[str]:
    rows: dict[str, list[str]] = {}
    title = ""
    for name, field in Settings.model_fields.items():
        title = _SECTIONS.get(name, title)
        rows.setdefault(title, []).append(_row(field))
    for title, lines in rows.items():
        yield "\n".join([f"## {title}", "", _HEADER, *lines])


def _row(field: FieldInfo) -> str:
    variables = " or ".join(f"`{name}`" for name in env_names(field))
    meaning = " ".join((field.description or "").split())
    return f"| {variables} | {_default(field)} | {_values(field)} | {meaning} |"


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
    """What may be set, as far as the type says it."""
    if get_origin(field.annotation) is Literal:
        return _alternatives(get_args(field.annotation))
    if field.annotation is bool:
        return _alternatives(("true", "false"))
    words = re.fullmatch(r"\^\(([\w|]+)\)\$", _pattern(field.metadata))
    if words:
        return _alternatives(words[1].split("|"))
    return ", ".join(f"{sign} {_number(bound)}" for sign, bound in _bounds(field.metadata))


def _alternatives(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _bounds(metadata: Iterable[Any]) -> Iterator[tuple[str, float]]:
    for constraint in metadata:
        for attribute, sign in (("gt", ">"), ("ge", "≥"), ("le", "≤")):
            if (bound := getattr(constraint, attribute, None)) is not None:
                yield sign, bound


def _pattern(metadata: Iterable[Any]) -> str:
    patterns: list[str] = [constraint.pattern for constraint in metadata if getattr(constraint, "pattern", None)]
    return patterns[0] if patterns else ""


def _number(value: float) -> str:
    """Sizes in full, 300.0 as 300."""
    return str(int(value)) if value == int(value) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"update {PAGE} and {README} in the current folder")
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
