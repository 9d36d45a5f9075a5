"""A program for an environment that has kserve and not IEI: `kserve_grpc_client.py HOST:PORT CERTIFICATE`.

It reads calls as JSON, and writes what became of them. The certificate is a file, or empty for a server without TLS.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import numpy as np
from grpc import RpcError
from kserve import InferenceGRPCClient, InferInput, InferRequest


async def main(address: str, certificate: str, calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The state of the server, and the vectors or the error of each call."""
    async with InferenceGRPCClient(address, use_ssl=bool(certificate), root_certificates=certificate or None) as client:
        state = {"live": await client.is_server_live(), "ready": await client.is_server_ready()}
        return [state, *[await answer(client, call) for call in calls]]


async def answer(client: InferenceGRPCClient, call: dict[str, Any]) -> dict[str, Any]:
    """`raw`: as raw_input_contents, otherwise as `contents`. `headers`: of this call."""
    data = call["data"]
    tensor = InferInput(call["name"], [len(data)], "BYTES", None if call.get("raw") else data)
    if call.get("raw"):
        tensor.set_data_from_numpy(np.array(data, object), binary_data=True)
    headers = tuple((name, value) for name, value in call.get("headers", ()))
    try:
        response = await client.infer(InferRequest(model_name=call["model"], infer_inputs=[tensor]), headers=headers)
    except RpcError as error:
        return {"code": error.code().name, "details": error.details()}
    (output,) = response.outputs
    assert output.name == "embedding"
    return {"vectors": output.as_numpy().tolist()}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], sys.argv[2], json.load(sys.stdin)))))
