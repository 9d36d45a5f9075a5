"""HTTPS for `iei serve`: gunicorn's options for a certificate, checked before anything else starts."""

from __future__ import annotations

import ssl
from pathlib import Path

from iei.errors import StartupError
from iei.settings import ServerSettings


def tls_options(settings: ServerSettings) -> dict[str, str]:
    """Gunicorn's options for the certificate that the settings name; none if they name none.

    Raises:
        StartupError: there is one file without the other, one can't be read, or they don't belong together.
    """
    if not settings.tls_cert and not settings.tls_key:
        return {}
    if not settings.tls_cert or not settings.tls_key:
        given, missing = ("KEY", "CERT") if settings.tls_key else ("CERT", "KEY")
        raise StartupError(f"IEI_TLS_{given} is set and IEI_TLS_{missing} is not: HTTPS needs both.")
    _check_readable("IEI_TLS_CERT", settings.tls_cert)
    _check_readable("IEI_TLS_KEY", settings.tls_key)
    try:
        # A key with a passphrase would ask for it at the terminal.
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            settings.tls_cert, settings.tls_key, password=lambda: ""
        )
    except ssl.SSLError as error:
        raise StartupError(
            f"IEI_TLS_CERT={settings.tls_cert} and IEI_TLS_KEY={settings.tls_key} can't be used "
            f"({error.reason or 'not PEM'}): they must be a certificate, with its chain, and its key, as PEM without a "
            "passphrase."
        ) from None
    return {"certfile": str(settings.tls_cert), "keyfile": str(settings.tls_key)}


def _check_readable(variable: str, file: Path) -> None:
    try:
        file.open("rb").close()
    except OSError as error:
        raise StartupError(f"{variable}: {file} can't be read: {error.strerror}.") from None
