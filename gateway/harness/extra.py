"""What the harness needs beyond the gateway's own dependencies; importing it costs nothing."""

from __future__ import annotations

import importlib

from gateway.errors import StartupError

PACKAGES = ("picows", "hdrh", "uvloop")


def require_extra() -> None:
    """Raises StartupError when the client or the histograms are not installed."""
    for package in PACKAGES:
        try:
            importlib.import_module(package)
        except ImportError:
            raise StartupError(f"{package} is not installed: pip install 'crm-gateway[load]'") from None
