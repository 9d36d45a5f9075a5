"""Calls a server with kserve's own client, in an environment of its own, and prints what it answers as JSON.

kserve's requirements contradict this project's: tests/clients/test_instances.py runs this file as a program.

Usage: python kserve_v1_program.py BASE_URL CALLS, where CALLS is JSON: a list of [method, {argument: value}].
"""

import asyncio
import json
import sys
from typing import Any

import httpx
from kserve import InferenceRESTClient, RESTConfig


async def main(base_url: str, calls: list[Any]) -> list[Any]:
    answers = []
    async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
        for method, arguments in calls:
            try:
                answers.append({"answer": await getattr(client, method)(base_url, **arguments)})
            except httpx.HTTPStatusError as error:
                answers.append({"status": error.response.status_code, "message": str(error)})
    return answers


print(json.dumps(asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))))
