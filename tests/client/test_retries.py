"""A server in trouble: what is sent again, when, and how the client gives up."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import numpy as np
import pytest

from iei.client import ServerError, Unreachable
from iei.client.retries import Attempts
from tests.client.stand_in import RESET, Answer, StandIn, numbers, one_after_the_other, refusal
from tests.client.using import BOTH, Using

BUSY = refusal(429, "too much is waiting", **{"retry-after": "1"})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("using", BOTH)
def test_a_busy_server_is_asked_again_when_it_says(using: Using) -> None:
    with StandIn(one_after_the_other(BUSY)).running() as server:
        started = time.monotonic()
        vectors = using(server.url, lambda client: client.embed_texts("7"))
    assert time.monotonic() - started >= 1
    assert vectors.tolist() == [[7]]
    assert server.received == [["7"], ["7"]]


@pytest.mark.parametrize("using", BOTH)
@pytest.mark.parametrize(
    "trouble", [refusal(503, "loading"), Answer(502, b"<html>"), RESET], ids=["503", "502", "reset"]
)
def test_trouble_that_passes_is_not_seen(using: Using, trouble: Answer) -> None:
    with StandIn(one_after_the_other(trouble, trouble)).running() as server:
        assert using(server.url, lambda client: client.embed_texts(["1", "2"])).tolist() == [[1], [2]]
    assert server.received == [["1", "2"]] * 3


@pytest.mark.parametrize("using", BOTH)
def test_a_server_may_start_after_its_clients(using: Using) -> None:
    stand_in = StandIn(port=free_port())
    with contextlib.ExitStack() as running:

        class StartIt(logging.Handler):
            """At the first warning that nobody listens."""

            def emit(self, record: logging.LogRecord) -> None:
                if "trying again" in record.getMessage():
                    logging.getLogger("iei.client").removeHandler(self)
                    running.enter_context(stand_in.running())

        logging.getLogger("iei.client").addHandler(StartIt())
        assert using(stand_in.url, lambda client: client.embed_texts("7")).tolist() == [[7]]


@pytest.mark.parametrize("using", BOTH)
def test_it_gives_up_with_the_last_answer(using: Using) -> None:
    with StandIn(lambda texts: BUSY).running() as server, pytest.raises(ServerError) as caught:
        using(server.url, lambda client: client.embed_texts("7"), retry_s=0.9)
    assert (caught.value.status, caught.value.message) == (429, "too much is waiting")
    assert len(server.received) == 1, "no use in waiting for one second of 0.9"


@pytest.mark.parametrize("using", BOTH)
def test_nobody_listens(using: Using) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(Unreachable, match=f"no server answers at {url}/: .*refused|failed"):
        using(url, lambda client: client.embed_texts("7"), retry_s=0)


@pytest.mark.parametrize("using", BOTH)
def test_what_will_not_pass_is_sent_once(using: Using) -> None:
    refused = refusal(422, "pooling: there is no cls", **{"x-request-id": "abc"})
    with StandIn(lambda texts: refused).running() as server, pytest.raises(ServerError) as caught:
        using(server.url, lambda client: client.embed_texts("7"))
    assert str(caught.value) == "422: pooling: there is no cls (request abc)"
    assert len(server.received) == 1


@pytest.mark.parametrize("using", BOTH)
def test_an_answer_that_takes_too_long_is_not_asked_for_twice(using: Using) -> None:
    given_up = threading.Event()

    def late(texts: list[str]) -> Answer:
        given_up.wait(10)
        return numbers(texts)

    with StandIn(late).running() as server:
        with pytest.raises(Unreachable, match="did not answer in time"):
            using(server.url, lambda client: client.embed_texts("7"), timeout_s=1)
        given_up.set()
    assert len(server.received) == 1


def answer(status: int, **headers: str) -> httpx2.Response:
    return httpx2.Response(status, headers=headers, request=httpx2.Request("POST", "http://x/embed"))


def test_retry_after_may_be_a_date() -> None:
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    pause_s = Attempts(100).pause_s(answer(503, **{"retry-after": in_a_minute}))
    assert pause_s is not None
    assert 58 < pause_s < 61


@pytest.mark.parametrize("value", ["", "soon", "-3", "1.5"])
def test_a_retry_after_that_makes_no_sense_is_ignored(value: str) -> None:
    pause_s = Attempts(10).pause_s(answer(503, **{"retry-after": value}))
    assert pause_s is not None
    assert pause_s < 1


def test_pauses_grow_up_to_a_bound_and_differ() -> None:
    series = [[attempts.pause_s(answer(503)) or 0 for _ in range(10)] for attempts in (Attempts(1e6), Attempts(1e6))]
    assert series[0] != series[1]
    assert np.all(np.array(series)[:, 7:] > 3.9), "twice as long each time"
    assert np.max(series) <= 8


def test_a_certificate_that_is_not_trusted_will_not_be_later() -> None:
    error = httpx2.ConnectError("certificate verify failed", request=httpx2.Request("POST", "https://x"))
    error.__cause__ = ssl.SSLCertVerificationError()
    assert Attempts(10).pause_s(error) is None
