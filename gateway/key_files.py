"""What is read from files of keys that an operator may renew while the gateway runs: issuers' keys, and the certificate.

How each is read and used is in issuer_keys.py and tls.py; whose sockets end with a key, in server.py.
"""

from __future__ import annotations

from gateway.errors import StartupError
from gateway.issuer_keys import IssuerKeys
from gateway.log import Logger
from gateway.settings import Settings
from gateway.tls import ServerTls


class KeyFiles:
    """All of them, read. Raises StartupError when one is wrong."""

    def __init__(self, settings: Settings) -> None:
        self.issuer_keys = IssuerKeys(settings)
        self.tls = ServerTls(settings) if settings.tls_cert else None

    def warn(self, logger: Logger) -> None:
        """Says in the log what is in force and will not do for long."""
        if self.tls:
            self.tls.warn_of_end(logger)

    def reload(self, logger: Logger) -> None:
        """Reads each anew; where one is wrong, says so and leaves in force what was read before."""
        for what, file in (("issuer keys", self.issuer_keys), ("certificate", self.tls)):
            if file is not None:
                try:
                    file.reload()
                except StartupError as error:
                    logger.error("reload failed", what=what, line=str(error))  # noqa: TRY400 - the message says it all
                else:
                    logger.info("reloaded", what=what)
        self.warn(logger)
