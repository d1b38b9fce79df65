"""Certificates made for the run: an authority of the tests' own, and pairs of files that it signed."""

from __future__ import annotations

import ssl
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import trustme


class Pair(NamedTuple):
    """The two files that a gateway is given."""

    cert: Path
    key: Path

    @property
    def settings(self) -> dict[str, str]:
        return {"tls_cert": str(self.cert), "tls_key": str(self.key)}


class Authority:
    """Signs certificates for 127.0.0.1; `file` is what clients trust."""

    def __init__(self, folder: Path) -> None:
        self._authority = trustme.CA()
        self._folder = folder
        self.file = folder / "authority.pem"
        self._authority.cert_pem.write_to_path(self.file)

    def write(self, name: str = "gateway", not_after: datetime | None = None) -> Pair:
        """A new certificate and key, in place of an earlier pair of the name."""
        issued = self._authority.issue_cert("127.0.0.1", not_after=not_after)
        pair = Pair(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        pair.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(pair.key)
        return pair

    def serving(self) -> ssl.SSLContext:
        """How a server shows itself with a new certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.write())
        return context

    def trusting(self, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """How a client checks the gateway, with one version of TLS or any."""
        context = ssl.create_default_context(cafile=self.file)
        if version is not None:
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            context.maximum_version = context.minimum_version = version
        return context


def serial_of(pair: Pair) -> bytes:
    """The certificate itself, as a client is shown it."""
    return ssl.PEM_cert_to_DER_cert(
        pair.cert.read_text().partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----"
    )
