"""What /docs says before the routes: how to begin, and what holds for all of them."""

from __future__ import annotations

from collections.abc import Iterable

from iei.dialects.openapi import SAMPLES
from iei.dialects.registry import Dialect
from iei.models.spec import ModelSpec


def introduction(spec: ModelSpec, dialects: Iterable[Dialect], *, has_keys: bool) -> str:
    """Markdown, for the model that is served.

    Args:
        spec: the default model.
        dialects: whose routes follow.
        has_keys: whether requests need a key.
    """
    rows = "\n".join(f"| {each.name} | {each.about} |" for each in dialects if each.is_documented)
    sample = SAMPLES[spec.modalities[-1]][0]
    key = " -H 'Authorization: Bearer KEY'" if has_keys else ""
    takes = " and ".join(f"{modality}s" for modality in spec.modalities)
    text = _TEXT.format(model=spec.name, takes=takes, rows=rows, key=key, sample=sample)
    return text + _KEYS if has_keys else text


_TEXT = """\
This server turns {takes} into vectors, with the model `{model}`.

```sh
curl http://localhost:8000/embed{key} -H 'Content-Type: application/json' \\
    -d '{{"inputs": "{sample}"}}'
```

Each group below is the API of one kind of client. They all lead to the same vectors, so take the one that your client
speaks, and give it this server's address as its base URL.

| group | for whom |
|---|---|
{rows}

**Every example runs as it is**: open a route, and press *Execute*.

An image is base64, a `data:` URI or a URL. Errors name the item at fault (`inputs[3]: …`), in the form of the group.
`/m/NAME/` before a path makes `NAME` the model of that request, where the server has several.
"""

_KEYS = """
This server needs an API key. This page sends the one that it was given; another one goes into *Authorize*.
"""
