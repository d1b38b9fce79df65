"""The metrics page of a running gateway: what it counts is what was sent, and nothing that anybody said is in it."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from gateway import __version__
from gateway.environment import load
from gateway.errors import CloseCode, StartupError
from gateway.metrics import Metrics
from tests.client import EVENT, WAIT_SECONDS, Client
from tests.conftest import PASSWORD, started
from tests.held import HELD, PATIENT, held_adds
from tests.process import gateway_process
from tests.scrape import SHOWN, fetch, metrics_port, scrape, scrape_until

COUNT = "gateway_command_duration_seconds_count"
CANARY = "canary-4f1d"


@pytest.fixture
async def gateway(start):
    """A gateway that shows its metrics."""
    return await start(**SHOWN)


async def refuse_all(client: Client) -> None:
    """Sends frames that fail in every way a client can make them fail."""
    for number in range(7):
        await client.command(f"Mng{CANARY}{number}")
    await client.command("MngAddCalendarEvent", {**EVENT, "end_time": 1})
    await client.command("MngGetCalendarEvent", {"id": 99})
    await client.command("MngGetCalendarEvent", {"id": 99}, __token=CANARY)
    for message in ("no JSON", '{"extID":"x","command":7}'):
        await client.socket.send(message)
        assert 400 == (await client.receive())["status"]


async def test_metrics_count_exactly_what_was_sent(scratch_dir, dsn):
    """A scrape of a real process after real commands: every command once, by name and status, and in a batch."""
    async with (
        gateway_process(scratch_dir, database_url=dsn, **SHOWN) as gateway,
        Client.connected(gateway.url) as client,
    ):
        await client.login("10", PASSWORD)
        await adds(client, 25)
        await client.command("MngGetCalendarEvent", {"id": 1})
        await refuse_all(client)
        found = await scrape(gateway)
    assert {
        ("MngLogin", "200"): 1,
        ("MngAddCalendarEvent", "200"): 25,
        ("MngAddCalendarEvent", "400"): 1,
        ("MngGetCalendarEvent", "200"): 1,
        ("MngGetCalendarEvent", "404"): 1,
        ("MngGetCalendarEvent", "401"): 1,
        ("unknown", "404"): 7,
        ("unreadable", "400"): 2,
    } == found.values(COUNT, "command", "status")
    assert {("add",): 25, ("get",): 2} == found.values("gateway_batch_commands_sum", "statement")
    assert 25 >= found.value("gateway_batch_commands_count", statement="add")
    assert (1, 0) == (found.value("gateway_connections"), found.value("gateway_commands_in_flight"))
    assert 0 < found.value("gateway_command_duration_seconds_sum", command="MngAddCalendarEvent", status="200")
    assert 1 == found.value("gateway_build_info", version=__version__)
    assert 0 < found.value("process_resident_memory_bytes")


async def adds(client: Client, count: int) -> None:
    """Adds events, all in flight at once."""
    for number in range(count):
        await client.socket.send(json.dumps({"command": "MngAddCalendarEvent", "extID": number, "data": EVENT}))
    assert [200] * count == [(await client.receive())["status"] for _ in range(count)]


async def test_metrics_hold_nothing_that_a_client_said(scratch_dir, dsn):
    """Titles, passwords, tokens, command names, close reasons: none is in the page, in either format."""
    async with (
        gateway_process(scratch_dir, database_url=dsn, **SHOWN) as gateway,
        Client.connected(gateway.url) as client,
    ):
        await client.command("MngLogin", {"login": "10", "password": CANARY})
        await client.command("MngLogin", {"login": CANARY, "password": CANARY})
        token = (await client.login("10", PASSWORD))["token"]
        await client.add(title=CANARY, ast_json={CANARY: CANARY}, desk=CANARY)
        await refuse_all(client)
        await client.socket.close(4000 + 321, CANARY)
        await scrape_until(gateway, lambda found: found.value("gateway_closes_total", code="other", by="client"))
        pages = [(await fetch(metrics_port(gateway), accept=a))[2] for a in ("*/*", "application/openmetrics-text")]
    for page in pages:
        assert [] == [secret for secret in (CANARY, PASSWORD, token, "4321", dsn) if secret in page]


async def test_metrics_count_closes_by_code_and_side(start, connect):
    """Each socket once: closed by the gateway, by the library within it, by the client, or by nobody."""
    gateway = await start(connections_max=5, **SHOWN)
    clients = [await connect(gateway, login=None) for _ in range(5)]
    assert CloseCode.CONNECTION_LIMIT == await (await connect(gateway, login=None)).closed()
    await clients[0].socket.send(b"binary")
    await clients[0].closed()
    await clients[1].socket.close(1000)
    await clients[2].socket.close(3999)
    clients[3].socket.transport.abort()
    clients[4].socket.transport.write(b"\xff" * 20)  # no frame of the protocol
    await clients[4].closed()
    bad = {"additional_headers": {"Authorization": "Bearer wrong"}}
    await scrape_until(gateway, lambda found: found.value("gateway_connections") == 0)
    assert CloseCode.PROOF_REFUSED == await (await connect(gateway, login=None, **bad)).closed()
    found = await scrape_until(gateway, lambda found: found.value("gateway_closes_total") == 7)
    assert {
        ("4002", "gateway"): 1,
        ("1003", "gateway"): 1,
        ("1000", "client"): 1,
        ("other", "client"): 1,
        ("1006", "nobody"): 1,
        ("1002", "gateway"): 1,
        ("4503", "gateway"): 1,
    } == found.values("gateway_closes_total", "code", "by")
    assert {("token",): 1} == found.values("gateway_sign_in_failures_total", "proof")


async def test_metrics_count_a_client_that_does_not_read_as_too_slow(start, connect):
    """It is counted with the code that the gateway chose, although it never takes it."""
    gateway = await start(outbox_stall_seconds=0.2, outbox_bytes_max=65_536, **SHOWN)
    client = await connect(gateway)
    event = await client.add(ast_json="x" * 60_000)
    client.socket.transport.pause_reading()
    for number in range(60):
        frame = {"command": "MngGetCalendarEvent", "extID": number, "data": {"id": event["id"]}}
        await client.socket.send(json.dumps(frame))
    found = await scrape_until(gateway, lambda found: found.value("gateway_closes_total"))
    assert {(str(CloseCode.TOO_SLOW.value), "gateway"): 1} == found.values("gateway_closes_total", "code", "by")
    client.socket.transport.abort()


async def test_metrics_count_refused_sign_ins(gateway, connect):
    """A wrong password, an unknown login and a bad token message; what the client did right counts nothing."""
    client = await connect(gateway)
    for login, password in (("10", "wrong"), ("nobody", PASSWORD)):
        assert 401 == (await client.command("MngLogin", {"login": login, "password": password}))["status"]
    await client.socket.send('{"authorization":"wrong"}')
    assert (await client.receive())["success"] is False
    found = await scrape(gateway)
    assert {("password",): 2, ("token",): 1} == found.values("gateway_sign_in_failures_total", "proof")
    assert 2 == found.value(COUNT, command="MngLogin", status="401")


async def test_metrics_show_commands_in_flight(start, connect, dsn):
    """Held commands are in flight, and then no more."""
    gateway = await start(**PATIENT, **SHOWN)
    client = await connect(gateway)
    async with held_adds(dsn) as hold:
        for number in range(3):
            await client.socket.send(json.dumps({"command": "MngAddCalendarEvent", "extID": number, "data": HELD}))
        await hold.begun()
        await scrape_until(gateway, lambda found: found.value("gateway_commands_in_flight") == 3)
        await hold.release()
    assert [200] * 3 == [(await client.receive())["status"] for _ in range(3)]
    await scrape_until(gateway, lambda found: found.value("gateway_commands_in_flight") == 0)


async def test_metrics_show_commands_that_wait_for_a_database_connection(start, connect, dsn):
    """With its one connection held, a second statement waits in vain, and that wait is in the histogram."""
    gateway = await start(**{**PATIENT, **SHOWN, "db_connections_max": 1, "db_acquire_seconds": 0.3})
    first, second = await connect(gateway), await connect(gateway)
    async with held_adds(dsn) as hold, asyncio.TaskGroup() as tasks:
        held = tasks.create_task(first.add(participant_manager_ids=[11]))
        await hold.begun()
        assert 503 == (await second.command("MngGetCalendarEvent", {"id": 1}))["status"]
        await hold.release()
    assert held.result()["id"]
    found = await scrape(gateway)
    name = "gateway_db_connection_wait_seconds_bucket"
    assert 1 == found.value(name, pool="commands", le="+Inf") - found.value(name, pool="commands", le="0.25")
    assert (1, 1) == (found.value("gateway_db_connections"), found.value("gateway_db_connections_max"))


async def test_metrics_count_statements_that_had_a_connection_at_once(gateway, connect):
    """Reads one after the other, on the connection that is kept: each is a wait of nothing."""
    client = await connect(gateway)
    event = await client.add()
    before = await scrape(gateway)
    for _ in range(5):
        assert 200 == (await client.command("MngGetCalendarEvent", {"id": event["id"]}))["status"]
    after, least = await scrape(gateway), {"pool": "commands", "le": "0.00025"}
    name = "gateway_db_connection_wait_seconds_bucket"
    assert 5 == after.value(name, **least) - before.value(name, **least)


async def test_metrics_show_tasks(scratch_dir, dsn):
    """A socket more is a task more or several, and none once it is gone."""
    async with gateway_process(scratch_dir, database_url=dsn, **SHOWN) as gateway:
        tasks_at_rest = (await scrape(gateway)).value("gateway_tasks")
        async with Client.connected(gateway.url):
            await scrape_until(gateway, lambda found: found.value("gateway_tasks") > tasks_at_rest)
        await scrape_until(gateway, lambda found: found.value("gateway_tasks") == tasks_at_rest)


async def test_metrics_show_how_late_the_event_loop_is(gateway):
    """The loop's lag is looked at again and again."""
    await scrape_until(gateway, lambda found: found.value("gateway_event_loop_lag_seconds_count") >= 2)


async def test_metrics_count_what_a_capture_drops(start, connect, tmp_path):
    """Each frame that was answered and not recorded."""
    gateway = await start(capture_dir=str(tmp_path), capture_buffer_bytes_max=2048, **SHOWN)
    client = await connect(gateway)
    for _ in range(3):
        await client.add(title="x" * 400, ast_json="x" * 2000)
    found = await scrape(gateway)
    assert 3 == found.value("gateway_capture_dropped_frames_total")


async def test_metrics_are_served_in_the_format_that_is_asked_for(gateway):
    """OpenMetrics for who accepts it, the plain format for others; both parse. Another path is told the right one."""
    port = metrics_port(gateway)
    status, head, body = await fetch(port)
    assert (200, True) == (status, "Content-Type: text/plain; version=0.0.4" in head)
    plain = {family.name for family in text_string_to_metric_families(body)}
    status, head, body = await fetch(port, accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert (200, True) == (status, "Content-Type: application/openmetrics-text; version=1.0.0" in head)
    assert plain == {family.name for family in openmetrics_families(body)}
    assert (404, "The metrics are at /metrics.\n") == (await fetch(port, "/"))[::2]


async def test_metrics_have_an_address_of_their_own(gateway):
    """The port of the sockets does not show them: it may face the internet."""
    assert 404 == (await fetch(gateway.port))[0]


async def test_metrics_port_that_is_taken_stops_the_start(gateway, dsn):
    """The message names the settings and the way to do without."""
    taken = metrics_port(gateway)
    told = rf"Cannot serve metrics on 127.0.0.1:{taken} \(.+\): set GATEWAY_METRICS_HOST and GATEWAY_METRICS_PORT .*=off"
    with pytest.raises(StartupError, match=told):
        async with started(dsn, **{**SHOWN, "metrics_port": taken}):
            pass


async def test_metrics_can_be_switched_off(start):
    """`off` as the host listens nowhere."""
    gateway = await start(**{**SHOWN, "metrics_host": "off"})
    assert [] == [line for line in gateway.log_lines if line["event"] == "metrics"]


async def test_metrics_page_waits_for_no_client_at_the_stop(dsn):
    """A connection to it that has said nothing yet, or half of a request, is ended."""
    connections = []
    async with asyncio.timeout(WAIT_SECONDS):
        async with started(dsn, handshake_seconds=600, **SHOWN) as gateway:
            for said in (b"", b"GET /met"):
                reader, writer = await asyncio.open_connection("127.0.0.1", metrics_port(gateway))
                writer.write(said)
                connections.append((reader, writer))
            await scrape(gateway)  # who came before has been let in
        for reader, writer in connections:
            with suppress(ConnectionResetError):
                assert b"" == await reader.read()
            writer.close()


def test_metrics_port_must_not_be_the_gateways():
    """Both on one address is told when the settings are read, not as a port that is mysteriously taken."""
    with pytest.raises(StartupError, match="GATEWAY_METRICS_PORT is 8080: it must be another than GATEWAY_PORT"):
        load({"GATEWAY_METRICS_PORT": "8080"})
    assert 8080 == load({"GATEWAY_METRICS_PORT": "8080", "GATEWAY_METRICS_HOST": "10.0.0.1"}).metrics_port
    assert 0 == load({"GATEWAY_METRICS_PORT": "0", "GATEWAY_PORT": "0"}).metrics_port


def test_metrics_are_named_as_prometheus_asks():
    """Each is described; counters end in `_total`, others do not; times are in seconds."""
    described = Metrics().described
    assert len(described) == len({metric.name for metric in described})
    assert [] == [m.name for m in described if not m.name.startswith("gateway_") or len(m.meaning) < 10]
    assert [] == [m.name for m in described if (m.kind == "counter") != m.name.endswith("_total")]
    assert [] == [m.name for m in described if "time" in m.meaning.split() and not m.name.endswith("_seconds")]
