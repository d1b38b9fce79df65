"""The gateway as a stranger sees it: one process on an embedded PostgreSQL, spoken to over the wire alone."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from gateway.embedded import EmbeddedPostgres
from gateway.event import Participant
from tests.client import Client
from tests.process import GatewayProcess, becomes_true, gateway_process

DOCUMENT = (
    '{"command":"MngAddCalendarEvent","extID":"1","data":{"brand":"default","desk":"DESK_RETENTION","owner_manager_id":10,'
    '"title":"Retention sync","type":3,"priority":1,"start_time":1710000000,"end_time":1710003600,'
    '"ast_json":{"type":"doc","content":[]},"participant_manager_ids":[10,11,12]}}'
)


@pytest.fixture(scope="module")
def data_dir(scratch_dir: Path) -> Iterator[Path]:
    """A data directory that the tests of this file share; a server that a test left running is stopped."""
    folder = scratch_dir / "acceptance"
    yield folder
    left = EmbeddedPostgres(folder)
    if left.is_running():
        left.start()
        left.stop()


async def add_document(gateway: GatewayProcess, data_dir: Path) -> dict[str, Any]:
    """Signs in with the password file and sends the document's example: its event."""
    async with Client.connected(gateway.url) as client:
        await client.login("10", (data_dir / "passwords" / "10").read_text().strip())
        reply = await client.exchange(DOCUMENT, "1")
    assert 200 == reply["status"]
    event: dict[str, Any] = reply["data"]["event"]
    return event


async def stored(data_dir: Path, event_id: int) -> dict[str, Any]:
    """The event as the tables have it, put together by PostgreSQL."""
    db = await asyncpg.connect(EmbeddedPostgres(data_dir).dsn)
    try:
        await db.set_type_codec("json", schema="pg_catalog", encoder=str, decoder=_decoded)
        (event,) = await db.fetch("SELECT * FROM calendar_event WHERE id = $1", event_id)
        rows = await db.fetch("SELECT * FROM calendar_participant WHERE event_id = $1 ORDER BY role, manager_id", event_id)
    finally:
        await db.close()
    shown = [{name: row[name] for name in Participant.__struct_fields__} for row in rows]
    return {**dict(event), "participants": shown}


def _decoded(text: str) -> Any:
    return {"type": "doc", "content": []} if text == '{"type":"doc","content":[]}' else text


async def test_gateway_keeps_an_event_over_a_restart(scratch_dir, data_dir):
    """What was answered with 200 is in PostgreSQL as it was answered, and still there after stop and start."""
    async with gateway_process(scratch_dir, data_dir=data_dir) as gateway:
        event = await add_document(gateway, data_dir)
        assert event == await stored(data_dir, event["id"])
        gateway.signal(signal.SIGTERM)
        assert 0 == await gateway.exited()
    assert not EmbeddedPostgres(data_dir).is_running()
    async with gateway_process(scratch_dir, data_dir=data_dir) as gateway:
        assert event == await stored(data_dir, event["id"])
        assert event["id"] < (await add_document(gateway, data_dir))["id"]
        gateway.signal(signal.SIGINT)
        assert 0 == await gateway.exited()


async def test_gateway_keeps_an_event_over_its_own_death(scratch_dir, data_dir):
    """A gateway killed after its 200 has lost nothing, and the next one serves on the same data."""
    async with gateway_process(scratch_dir, data_dir=data_dir) as gateway:
        event = await add_document(gateway, data_dir)
        await gateway.kill()
    async with gateway_process(scratch_dir, data_dir=data_dir) as gateway:
        assert event == await stored(data_dir, event["id"])
        assert event["id"] < (await add_document(gateway, data_dir))["id"]
        gateway.signal(signal.SIGTERM)
        assert 0 == await gateway.exited()


@pytest.mark.parametrize("uvloop", ["present", "absent"])
async def test_signal_during_the_last_steps_is_no_crash(scratch_dir, data_dir, tmp_path, monkeypatch, uvloop):
    """A signal that comes while the embedded PostgreSQL is being stopped leaves that to finish, with exit code 0."""
    if uvloop == "absent":
        (tmp_path / "uvloop.py").write_text("raise ImportError")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with gateway_process(scratch_dir, data_dir=data_dir) as gateway:
        gateway.signal(signal.SIGTERM)
        await becomes_true(lambda: gateway.runs("pg_ctl"))
        gateway.signal(signal.SIGTERM)
        assert 0 == await gateway.exited()
    await becomes_true(lambda: not EmbeddedPostgres(data_dir).is_running())
