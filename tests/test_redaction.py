"""What a recording leaves out of a frame's data, and what it leaves as it was."""

from __future__ import annotations

import json
from typing import Any, get_args

import msgspec
import pytest

from gateway.commands.table import COMMANDS
from gateway.redaction import Redaction
from tests.client import EVENT, Client
from tests.conftest import PASSWORD, started
from tests.test_harness_capture import recorded

REQUESTS = {name: command.request for name, command in COMMANDS.items()}


def redacted(command: str, data: str, *, text: bool = False) -> str:
    return bytes(Redaction(REQUESTS, text=text).redacted(command, data.encode())).decode()


@pytest.mark.parametrize(
    ("command", "data"),
    [
        ("MngLogin", '{"login":"10","password":"HIDDEN"}'),
        ("MngLogin", '{"login":"10","password":"HIDDEN","password":"HIDDEN"}'),
        ("MngLogin", '{"login":"10","p\\u0061ssword":"HIDDEN"}'),
        ("MngLogin", '{"login":"10","Password ":"HIDDEN"}'),
        ("MngLogin", '{"login":"10","pasword":"HIDDEN"}'),
        ("MngLogin", '{"login":"10","pw":{"HIDDEN":["HIDDEN"]}}'),
        ("MngLogin", '{"login":{"pw":"HIDDEN"}}'),
        ("mnglogin", '{"login":"10","pw":"HIDDEN"}'),
        ("MngGetCalendarEvent", '{"id":1,"Pass Word":"HIDDEN"}'),
        ("MngAddCalendarEvent", '{"ast_json":[{"__Token":{"HIDDEN":"HIDDEN"}}]}'),
    ],
)
def test_redaction_hides_secrets_under_any_spelling(command, data):
    """Also when texts are kept: with other case, blanks or escapes, deep inside, twice, or misspelt in a sign-in."""
    hidden = redacted(command, data)
    assert "HIDDEN" in data
    assert "HIDDEN" not in hidden
    assert isinstance(json.loads(hidden), dict)


SECRET_NAMES = (
    *("password", "new_password", "passwd", "pwd", "userPwd", "passphrase", "Pass Phrase", "token", "access_token"),
    *("secret", "client-secret", "authorization", "Proxy-Authorization", "apikey", "API_KEY", "x-api-key"),
)
FALSE_FRIENDS = ("author", "authorized_by", "compass", "key", "keyboard", "pass", "passport_number", "tok", "width", "word")


@pytest.mark.parametrize("value", ['"HIDDEN"', '{"a":"HIDDEN"}'])
@pytest.mark.parametrize("name", SECRET_NAMES)
def test_redaction_hides_what_a_name_says_is_secret(name, value):
    """Whatever else the name says, beside what the command knows and deep inside a body; the rest stays."""
    data = f'{{"title":"A title","{name}":{value},"ast_json":[{{"b":{{"{name}":{value}}}}}]}}'
    hidden = redacted("MngAddCalendarEvent", data)
    assert "HIDDEN" not in hidden
    assert "A title" == json.loads(hidden)["title"]


def names_inside(kind: Any) -> set[str]:
    """Those of the fields of all Structs in a type."""
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return set().union(*map(names_inside, get_args(kind)))
    fields = msgspec.structs.fields(kind)
    return {field.encode_name for field in fields}.union(*(names_inside(field.type) for field in fields))


KNOWN = sorted(set().union(*map(names_inside, REQUESTS.values())) - {"password"})


@pytest.mark.parametrize("name", [*FALSE_FRIENDS, *KNOWN])
def test_redaction_keeps_what_a_name_says_is_none(name):
    """No name that a command knows, at any depth, is taken for a secret's but that of a sign-in's; nor one that looks alike."""
    data = f'{{"{name}":"kept","ast_json":{{"{name}":"kept"}}}}'
    assert json.loads(data) == json.loads(redacted("MngAddCalendarEvent", data))


@pytest.mark.parametrize("name", ["title", "Title", "ast_json", "astJson", "body", "t\\u0069tle", "participants", "__access"])
@pytest.mark.parametrize("value", ['"HIDDEN"', '["HIDDEN"]', '[{"a":"HIDDEN"}]'])
def test_redaction_fills_texts_under_any_key(name, value):
    """Wherever a client put its text, known or not; what a command knows stays."""
    filled = redacted("MngAddCalendarEvent", f'{{"desk":"A","{name}":{value},"start_time":17}}', text=True)
    if (name, value) != ("participants", '"HIDDEN"'):
        assert "HIDDEN" not in filled
    assert ("A", 17) == (json.loads(filled)["desk"], json.loads(filled)["start_time"])


def test_redaction_keeps_what_holds_no_text():
    """Types, lengths in characters and bytes, nesting, NULs, ids and unreadable numbers stay as they were."""
    data = '{"id":5,"title":"é\\u0000😀\\ud83d\\ude00\\n","ast_json":{"phone":[-5550.5e3,true,"\\\\\\"",null]},"n":1e400}'
    filled = redacted("MngUpdateCalendarEvent", data, text=True)
    expected = '{"id":5,"title":"ß\\u0000🟟\\ud83d\\ude00\\/","ast_json":{"xxxxx":[-1110.1e1,true,"\\/\\/",null]},"n":1e400}'
    assert expected == filled
    assert len(data.encode()) == len(filled.encode())
    assert len(json.loads(data)["title"]) == len(json.loads(filled)["title"])


def test_redaction_makes_one_line():
    """Blanks between tokens are a client's choice, lines are the recording's."""
    assert '{ "id":  1}' == redacted("MngGetCalendarEvent", '{\n"id":\r\n1}')


REFUSED = (
    {"title": 12345},
    {"title": ["a title"]},
    {"title": None},
    {"title": " \n "},
    {"title": "a\0b"},
    {"title": "é" * 600},
    {"ast_json": 12},
    {"ast_json": {"text": "a\0b"}},
    {"ast_json": "é" * 6_000},
    {"ast_json": msgspec.Raw(b"[" * 100 + b"]" * 100)},
    {"Title": "a title"},
    {"participants": [{"manager_id": 10, "note": "a note"}]},
    {"participant_manager_ids": ["10"]},
)


async def test_redacted_commands_are_answered_as_before(dsn, tmp_path):
    """What was wrong with a title or body is wrong with its filler, and what was right is right."""
    adds = [{**EVENT, **changes} for changes in ({}, {"title": "é" * 200, "ast_json": 'a "text"\n😀'}, *REFUSED)]
    limited = {"body_bytes_max": 10_000, "capture_dir": str(tmp_path), "capture_text": "redact"}
    async with started(dsn, **limited) as running, Client.connected(running.url) as client:
        await client.login("10", PASSWORD)
        before = [(await client.command("MngAddCalendarEvent", data))["status"] for data in adds]
    _, _, lines = recorded(tmp_path)
    lines.pop(0)
    async with started(dsn, body_bytes_max=10_000) as running, Client.connected(running.url) as client:
        await client.login("10", PASSWORD)
        after = [(await client.command(line.frame.command, line.frame.data))["status"] for line in lines]
    assert [200] * 2 == before[:2]
    assert {400, 413} == set(before[2:])
    assert before == [line.status for line in lines] == after
