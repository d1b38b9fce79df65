"""TLS of the listening socket: versions 1.2 and 1.3, with a certificate that can be renewed while the gateway runs."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509

from gateway.errors import StartupError
from gateway.log import Logger
from gateway.settings import Settings

RENEWED_BEFORE = timedelta(days=14)
"""What renews certificates of 90 days does so a month before their end: one that ends sooner has been forgotten."""


class ServerTls:
    """`context` is what to listen with; each handshake takes the certificate read last. Raises StartupError."""

    def __init__(self, settings: Settings) -> None:
        self._cert = settings.tls_cert
        self._key = settings.tls_key
        self._not_after: datetime | None = None
        self._current = self._read()
        self.context = _new_context()
        self.context.sni_callback = self._choose

    def reload(self) -> None:
        """Reads certificate and key anew. Raises StartupError that names the fault; those in force then stay."""
        self._current = self._read()

    def warn_of_end(self, logger: Logger) -> None:
        """Says in the log when the certificate is over, or soon will be: clients refuse it, and tell only themselves."""
        if self._not_after is None:
            return
        left = self._not_after - datetime.now(UTC)
        if left < RENEWED_BEFORE:
            what = "certificate ends soon" if left > timedelta(0) else "certificate has expired"
            logger.warning(what, file=self._cert, not_after=self._not_after.isoformat())

    def _choose(self, socket: Any, _server_name: str | None, _context: ssl.SSLContext) -> None:
        # A context of its own for each certificate: one that is changed in place may end up with half of a bad pair.
        socket.context = self._current

    def _read(self) -> ssl.SSLContext:
        for variable, path in (("GATEWAY_TLS_CERT", self._cert), ("GATEWAY_TLS_KEY", self._key)):
            try:
                with open(path, "rb"):
                    pass
            except OSError as error:
                raise StartupError(f"{variable}: cannot read {path} ({error.strerror}): name a PEM file.") from None
        context = _new_context()
        try:
            context.load_cert_chain(self._cert, self._key, password=_no_password)
        except ssl.SSLError as error:
            raise StartupError(
                f"GATEWAY_TLS_CERT and GATEWAY_TLS_KEY: {self._cert} and {self._key} are no pair "
                f"({error.reason or 'not PEM'}): name a PEM certificate, with its chain behind it, and its own private key "
                "without a password."
            ) from None
        self._not_after = _end_of(self._cert)
        return context


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _end_of(path: str) -> datetime | None:
    """When the first certificate of the file ends; None where OpenSSL takes what is too odd to be read here."""
    try:
        return x509.load_pem_x509_certificate(Path(path).read_bytes()).not_valid_after_utc
    except (OSError, ValueError, x509.InvalidVersion):
        return None


def _no_password() -> str:
    """Instead of OpenSSL's question at the terminal, which would hold up the start."""
    return ""
