"""TLS of the listening socket: versions 1.2 and 1.3, with a certificate that can be renewed while the gateway runs."""

from __future__ import annotations

import ssl
from typing import Any

from gateway.errors import StartupError
from gateway.settings import Settings


class ServerTls:
    """`context` is what to listen with; each handshake takes the certificate read last. Raises StartupError."""

    def __init__(self, settings: Settings) -> None:
        self._cert = settings.tls_cert
        self._key = settings.tls_key
        self._current = self._read()
        self.context = _new_context()
        self.context.sni_callback = self._choose

    def reload(self) -> None:
        """Reads certificate and key anew. Raises StartupError that names the fault; those in force then stay."""
        self._current = self._read()

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
        return context


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _no_password() -> str:
    """Instead of OpenSSL's question at the terminal, which would hold up the start."""
    return ""
