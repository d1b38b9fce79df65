"""SIGHUP on a terminal: the same reload as elsewhere, until the terminal itself is gone."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from tests.client import WAIT_SECONDS
from tests.issuers import publish, rsa_jwk
from tests.process import ROOT, becomes_true
from tests.run_log import SECRET


async def test_hangup_stops_a_gateway_whose_terminal_was_closed(dsn: str, tmp_path: Path) -> None:
    """While the terminal is open keys are read anew; once it is closed the gateway drains and ends with 0."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    given = {
        "PORT": "0",
        "METRICS_HOST": "off",
        "DATABASE_URL": dsn,
        "TOKEN_SECRET": SECRET,
        "JWKS_FILE": publish(tmp_path / "jwks", rsa_jwk()),
    }
    environment |= {f"GATEWAY_{name}": value for name, value in given.items()}
    terminal, its_end = os.openpty()
    output, told = tmp_path / "hangup.out", bytearray()
    with output.open("wb") as out:
        command = [sys.executable, "-m", "gateway", "serve"]
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environment, stdout=out, stderr=its_end)
    try:
        os.close(its_end)
        os.set_blocking(terminal, False)
        await becomes_true(lambda: "Ctrl-C" in output.read_text())
        process.send_signal(signal.SIGHUP)

        def reloaded() -> bool:
            try:
                told.extend(os.read(terminal, 65536))
            except BlockingIOError:
                return False
            return b"reloaded" in told

        await becomes_true(reloaded)
        assert process.returncode is None
        os.close(terminal)
        process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(WAIT_SECONDS):
            assert 0 == await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
