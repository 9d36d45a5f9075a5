"""Calls a server with infinity_client, in an environment of its own. Prints what it has found as JSON.

Usage: infinity_program.py URL IMAGE TEXT
"""

from __future__ import annotations

import json
import sys
from typing import Any

from infinity_client import Client
from infinity_client.api.default import embeddings, health, models
from infinity_client.models import OpenAIEmbeddingInputImage, OpenAIEmbeddingInputText


def main(url: str, image: str, text: str) -> None:
    client = Client(base_url=url)
    long = OpenAIEmbeddingInputText(input_=["a", "cat " * 1000])
    print(
        json.dumps(
            {
                "text": _vectors(embeddings.sync_detailed(client=client, body=OpenAIEmbeddingInputText(input_=[text]))),
                "image": _vectors(
                    embeddings.sync_detailed(client=client, body=OpenAIEmbeddingInputImage(input_=[image]))
                ),
                "named": _vectors(
                    embeddings.sync_detailed(client=client, body=OpenAIEmbeddingInputText(input_=[text], model="clip"))
                ),
                "refused": embeddings.sync_detailed(client=client, body=long).status_code,
                "unknown": embeddings.sync_detailed(
                    client=client, body=OpenAIEmbeddingInputText(input_=[text], model="other")
                ).status_code,
                "models": [model.id for model in models.sync(client=client).data],
                "health": health.sync(client=client).to_dict(),
            }
        )
    )


def _vectors(response: Any) -> Any:
    return [item.embedding for item in response.parsed.data]


if __name__ == "__main__":
    main(*sys.argv[1:])
