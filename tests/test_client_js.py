"""docs/client.js, the client that a web developer begins with: it does what it says, by a real Node, through a restart."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
from asyncio.subprocess import Process
from pathlib import Path
from typing import Any

import pytest

from tests.client import EVENT, WAIT_SECONDS
from tests.conftest import PASSWORD, SECRET
from tests.process import ROOT, gateway_process

NODE = [shutil.which("node") or "node", "--experimental-websocket", "--no-warnings", "--input-type=module"]
EVENTS = 300
PROGRAM = """
const { Gateway } = await import(process.argv[1]);
const [, , url, password, event, events] = process.argv;
const gateway = new Gateway(url);
const session = await gateway.signIn("10", password);
const refused = await gateway.command("MngAddCalendarEvent", {}).catch((reply) => reply);
console.log(JSON.stringify({ manager: session.manager_id, refused: refused.error }));
const ids = [];
for (let number = 0; number < events; number += 10) {
  const adds = [...Array(10)].map(() => gateway.command("MngAddCalendarEvent", JSON.parse(event)));
  for (const added of await Promise.all(adds)) ids.push(added.event.id);
  console.log(JSON.stringify({ added: ids.length }));
}
const page = { from: 1, to: 9e9, limit: 1000, offset: 0, deskFilter: "*" };
const { rows } = await gateway.command("MngGetCalendarEventsByFilter", page);
await gateway.command("MngLogout");
const refusedNow = await gateway.command("MngGetCalendarEvent", { id: 1 }).catch((reply) => reply);
const again = await gateway.signIn("11", password);
console.log(JSON.stringify({ ids: ids.length, rows: rows.length, signedOut: refusedNow.error, again: again.manager_id }));
process.exit(0);
"""


def can_run() -> bool:
    """Whether there is a Node with a WebSocket."""
    try:
        tried = subprocess.run([*NODE, "-e", "new WebSocket"], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return "Not enough arguments" in tried.stderr or "1 argument required" in tried.stderr


async def begun(url: str) -> Process:
    arguments = [(ROOT / "docs/client.js").as_uri(), url, PASSWORD, json.dumps(EVENT), str(EVENTS)]
    return await asyncio.create_subprocess_exec(*NODE, "-e", PROGRAM, "--", *arguments, stdout=asyncio.subprocess.PIPE)


async def said(process: Process) -> Any:
    assert process.stdout is not None
    async with asyncio.timeout(WAIT_SECONDS):
        return json.loads(await process.stdout.readline())


@pytest.mark.skipif(not can_run(), reason="needs Node 20 or later")
async def test_client_adds_each_event_once_through_a_restart(dsn: str, db: Any, scratch_dir: Path) -> None:
    """Its gateway is stopped and killed while it adds, and comes back on the same port: all is acknowledged, and there once.

    Signed out, somebody else signs in.
    """
    process, port = None, 0
    try:
        for end in (signal.SIGTERM, signal.SIGKILL, None):
            async with gateway_process(scratch_dir, database_url=dsn, token_secret=SECRET, port=port) as gateway:
                port = gateway.port
                if process is None:
                    process = await begun(gateway.url)
                    assert {"manager": 10, "refused": "FIELD_REQUIRED"} == await said(process)
                assert "added" in await said(process)
                if end is not None:
                    gateway.signal(end)
                    await gateway.exited()
                    continue
                while "added" in (last := await said(process)):
                    pass
                assert {"ids": EVENTS, "rows": EVENTS, "signedOut": "UNAUTHORIZED", "again": 11} == last
                async with asyncio.timeout(WAIT_SECONDS):
                    assert 0 == await process.wait()
    finally:
        if process is not None and process.returncode is None:
            process.kill()
    assert EVENTS == await db.fetchval("SELECT count(*) FROM calendar_event")
