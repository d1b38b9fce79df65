"""A bug to plant, as a plugin of pytest: frames are logged at DEBUG. The search of a run's logs has to find it."""

from __future__ import annotations

import pytest

from gateway.dispatch import Dispatch

_read = Dispatch.read


def pytest_configure(config: pytest.Config) -> None:
    def read(self, message, identity):
        self._log._logger.debug("frame", text=message)
        return _read(self, message, identity)

    Dispatch.read = read  # type: ignore[method-assign]
