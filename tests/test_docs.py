"""The generated pages say what the code does, and their exchanges are those of this very run."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from gateway.commands.table import COMMANDS
from gateway.docs import Exchange, metrics_page, protocol_page, settings_page, structs_inside
from gateway.environment import CLIENT_VARIABLES, HINTS, PREFIX
from gateway.errors import CLOSE_CODES, ERRORS, CloseCode, ErrorCode
from gateway.event import Event, Participant
from gateway.protocol_words import MEANINGS
from gateway.wire import Frame
from tests.test_cli import run

DOCS = Path(__file__).parent.parent / "docs"
README = DOCS.parent / "README.md"
DOCUMENT_EVENT = {
    "brand": "default",
    "desk": "DESK_RETENTION",
    "owner_manager_id": 10,
    "title": "Retention sync",
    "type": 3,
    "priority": 1,
    "start_time": 1710000000,
    "end_time": 1710003600,
    "ast_json": {"type": "doc", "content": []},
    "participant_manager_ids": [10, 11, 12],
}
A_DAY = {"from": 1710028800, "to": 1710115200, "limit": 100, "offset": 0, "deskFilter": "DESK_*,!DESK_TEST", "manager_id": 10}
KEYED = {"idempotencyKey": "2f1c8a52"}
INVITATION = {"title": "Call back", "start_time": 1710100000, "end_time": 1710100000, "owner_manager_id": 11}
INVITATION |= {"participant_manager_ids": [10]}
CONVERSATION: list[tuple[Any, ...]] = [
    ("HealthCheck", {}),
    ("MngLogin", {"login": "10", "password": "correct horse"}),
    ("MngAddCalendarEvent", DOCUMENT_EVENT),
    ("MngAddCalendarEvent", INVITATION, KEYED),
    ("MngAddCalendarEvent", INVITATION, KEYED),
    ("MngAddCalendarEvent", {"title": "Retention sync", "start_time": 1710003600, "end_time": 1710000000}),
    ("MngUpdateCalendarEvent", {"id": 1, "title": "Retention sync, moved", "start_time": 1710086400, "end_time": 1710090000}),
    ("MngUpdateCalendarEvent", {"id": 1, "priority": 3, "if_version": 1}),
    ("MngCompleteCalendarEvent", {"id": 1}),
    ("MngArchiveCalendarEvent", {"id": 1, "if_version": 3}),
    ("MngGetCalendarEvent", {"id": 1}),
    ("MngGetCalendarEvent", {"id": 99}),
    ("MngGetCalendarEventsByFilter", A_DAY),
    ("MngGetCalendarEventsByFilter", {**A_DAY, "after": {"start_time": 1710086400, "id": 1}}),
    ("MngSetCalendarParticipantStatus", {"id": 2, "status": 1}),
    ("MngSetCalendarParticipantStatus", {"id": 1, "status": 2}),
    ("MngDeleteCalendarEvent", {"id": 1}),
    ("MngLogout", {}),
]
REPLACED = [
    (r'"(created_time|updated_time|time)":\d{10}', r'"\1":1710000000'),
    (r'"expires_time":\d{10}', '"expires_time":1710043200'),
    (r'"token":"[^"]+"', '"token":"<JWT>"'),
]


async def converse(client: Any) -> dict[str, list[Exchange]]:
    """Holds the conversation and returns what was on the wire, with what differs on every run replaced."""
    exchanges: dict[str, list[Exchange]] = {}
    for number, (command, data, *more) in enumerate(CONVERSATION, start=1):
        top_level = {"command": command, "extID": str(number), **(more[0] if more else {}), "data": data}
        frame = json.dumps(top_level, separators=(",", ":"))
        await client.socket.send(frame)
        exchanges.setdefault(command, []).append(Exchange(frame, replaced(await client.socket.recv())))
    return exchanges


def replaced(reply: str) -> str:
    for pattern, replacement in REPLACED:
        reply = re.sub(pattern, replacement, reply)
    return reply


@pytest.fixture
def compare(request):
    """Compares a page with its file, or writes it under `--write-docs`."""

    def compare_page(name: str, text: str) -> None:
        if request.config.getoption("--write-docs"):
            (DOCS / name).write_text(text)
        assert text == (DOCS / name).read_text(), f"docs/{name} is not what the code says: make docs"

    return compare_page


async def test_protocol_page_is_what_the_code_says(gateway, connect, compare):
    """docs/protocol.md equals what the Structs, the tables and a live conversation give."""
    compare("protocol.md", protocol_page(await converse(await connect(gateway, login=None))))


async def test_protocol_page_can_be_typed(gateway, connect):
    """Each `gateway send` of the page, in the order of the conversation, prints the reply that stands below it."""
    client = await connect(gateway, login=None)
    token, typed, text = "", set(), (DOCS / "protocol.md").read_text()
    for number, (command, data, *more) in enumerate(CONVERSATION, start=1):
        if command in typed:
            await client.command(command, data, __token=token, **(more[0] if more else {}))
            continue
        typed.add(command)
        found = re.search(rf"^    (gateway send {command}\b.*)\n    (.*)\n    (.*)$", text, re.MULTILINE)
        assert found, command
        arguments = (*shlex.split(found[1])[1:], "--ext-id", str(number), "--url", gateway.url)
        ended = await run(*arguments, **({"token": token} if token else {}))
        reply = json.loads(ended.out)
        token = reply["data"].get("token", token)
        assert json.loads(found[3]) == json.loads(replaced(json.dumps(reply, separators=(",", ":"))))
    assert set(COMMANDS) == typed


def test_settings_page_is_what_the_code_says(compare):
    """docs/settings.md equals what the settings give."""
    compare("settings.md", settings_page())


def test_metrics_page_is_what_the_code_says(compare):
    """docs/metrics.md equals what the registry gives."""
    compare("metrics.md", metrics_page())


def test_pages_name_every_command_error_close_code_and_setting():
    """Nothing that the code has is missing from the pages."""
    protocol, settings = (DOCS / "protocol.md").read_text(), (DOCS / "settings.md").read_text()
    missing = [name for name in COMMANDS if f"### {name}" not in protocol]
    missing += [code for code in ErrorCode if f"`{code}`" not in protocol]
    missing += [str(code.value) for code in CloseCode if f"| {code.value} |" not in protocol]
    missing += [name for name in HINTS if f"`{PREFIX}{name.upper()}`" not in settings]
    assert [] == missing
    assert (set(ErrorCode), set(CloseCode)) == (set(ERRORS), set(CLOSE_CODES))


def test_no_meaning_of_a_field_is_left_over():
    """Each is of a field that a table of the page has; that each field has one, the page itself sees to."""
    requests = [command.request for command in COMMANDS.values()]
    structs: set[type[Struct]] = {
        Frame,
        Event,
        Participant,
        *requests,
        *(inside for request in requests for inside in structs_inside(request)),
    }
    names = {f"{struct.__name__}.{name}" for struct in structs for name in struct.__struct_encode_fields__}
    assert set() == set(MEANINGS) - names - {name.partition(".")[2] for name in names}


def test_make_help_shows_every_target_whole():
    """Its name, and all of what its line in the Makefile says."""
    makefile = (README.parent / "Makefile").read_text()
    told = subprocess.run(["make", "-s", "help"], cwd=README.parent, capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"^([a-z]+):.*?##  *(.*)$", makefile, re.MULTILINE)
    assert targets == [tuple(shown.split(maxsplit=1)) for shown in told.splitlines()]


def test_readme_names_only_settings_and_targets_that_exist():
    """Every GATEWAY_* variable and make target of the README is real."""
    text = README.read_text()
    makefile = (README.parent / "Makefile").read_text()
    known = {PREFIX + name.upper() for name in HINTS} | set(CLIENT_VARIABLES)
    assert set() == set(re.findall(r"GATEWAY_[A-Z_]+[A-Z]", text)) - known
    assert [] == [t for t in re.findall(r"`make ([a-z]+)`", text) if f"\n{t}:" not in makefile]
