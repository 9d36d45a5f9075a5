"""HTTPS by `iei serve`: with a certificate that a client checks, and refused where it can't be."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from iei.commands.tls import tls_options
from iei.errors import StartupError
from iei.settings import ServerSettings
from tests import pictures
from tests.servers import ROOT, serve

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, which makes certificates, is missing")


@pytest.fixture(scope="module")
def folder(certificate: Path) -> Path:
    """With `cert.pem` and `key.pem` for localhost, `other.pem`, another key, and `locked.pem`, with a passphrase."""
    for command in ("genrsa -out other.pem 2048", "rsa -in key.pem -aes128 -passout pass:word -out locked.pem"):
        subprocess.run(["openssl", *command.split()], cwd=certificate, check=True, capture_output=True)
    return certificate


@pytest.mark.server
def test_a_client_that_checks_certificates_gets_vectors(folder: Path, demo_cache: str) -> None:
    env = {
        "IEI_TLS_CERT": str(folder / "cert.pem"),
        "IEI_TLS_KEY": str(folder / "key.pem"),
        "IEI_CACHE_DIR": demo_cache,
        "IEI_API_KEYS": "secret",
    }
    command = ["python", "-m", "iei", "serve", "--demo", "--workers", "1", "--bind", "127.0.0.1:0"]
    with serve(env, command=command) as server:
        assert server.url.startswith("https://")
        trusted = ssl.create_default_context(cafile=folder / "cert.pem")
        body = {"inputs": [pictures.base64_of(pictures.png(8, 8))]}
        with httpx.Client(base_url=server.url, verify=trusted, timeout=60) as client:
            answer = client.post("/embed", json=body, headers={"authorization": "Bearer secret"})
            assert (answer.status_code, len(answer.json()[0])) == (200, 192)
            assert client.post("/embed", json=body).status_code == 401
        check = {**os.environ, "IEI_BIND": server.url.removeprefix("https://"), **env}
        subprocess.run([sys.executable, "deploy/healthcheck.py"], cwd=ROOT, env=check, check=True)
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{server.url}/health")
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"{server.url.replace('https', 'http')}/health")


def _settings(folder: Path, cert: str | None, key: str | None) -> ServerSettings:
    return ServerSettings(tls_cert=folder / cert if cert else None, tls_key=folder / key if key else None)


@pytest.mark.parametrize(
    ("cert", "key", "sentence"),
    [
        ("cert.pem", None, "IEI_TLS_CERT is set and IEI_TLS_KEY is not"),
        (None, "key.pem", "IEI_TLS_KEY is set and IEI_TLS_CERT is not"),
        ("none.pem", "key.pem", "IEI_TLS_CERT: .*none.pem can't be read: No such file"),
        ("cert.pem", ".", "IEI_TLS_KEY: .* can't be read: Is a directory"),
        ("cert.pem", "other.pem", r"can't be used \(KEY_VALUES_MISMATCH\)"),
        ("cert.pem", "locked.pem", "without a passphrase"),
        ("key.pem", "cert.pem", "can't be used"),
    ],
)
def test_what_can_not_serve_https_is_refused_in_one_sentence(
    folder: Path, cert: str | None, key: str | None, sentence: str
) -> None:
    with pytest.raises(StartupError, match=sentence) as refused:
        tls_options(_settings(folder, cert, key))
    assert len(str(refused.value).splitlines()) == 1


def test_without_a_certificate_it_is_http(folder: Path) -> None:
    assert tls_options(_settings(folder, None, None)) == {}
    assert tls_options(_settings(folder, "cert.pem", "key.pem"))["certfile"] == str(folder / "cert.pem")


def _serve() -> list[str]:
    return [sys.executable, "-m", "iei", "serve", "--demo", "--bind", "127.0.0.1:0"]


def _gunicorn() -> list[str]:
    return [sys.executable, "-m", "gunicorn", "server:app", "--preload", "--bind", "127.0.0.1:0"]


@pytest.mark.server
@pytest.mark.parametrize(
    ("command", "sentence"),
    [(_serve, "IEI_TLS_KEY is not"), (_gunicorn, "give gunicorn --certfile and --keyfile")],
    ids=["iei serve", "gunicorn"],
)
def test_a_start_without_a_key_ends_before_a_model_is_loaded(
    folder: Path, command: Callable[[], list[str]], sentence: str
) -> None:
    env = {**os.environ, "IEI_TLS_CERT": str(folder / "cert.pem")}
    done = subprocess.run(command(), cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    (last,) = [line for line in done.stderr.splitlines() if line.startswith("iei: ")]
    assert sentence in last
    assert "is loaded" not in done.stderr
    assert "Traceback" not in done.stderr
