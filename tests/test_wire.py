"""Messages and replies as bytes: what is readable, what is not, and which extID an answer carries."""

from __future__ import annotations

import json
import sys
from typing import Any

import msgspec
import pytest

from gateway import wire
from gateway.errors import CommandError, ErrorCode, Outcome
from gateway.faults import SEARCHED_VALUES_MAX
from gateway.wire import Authorization, BadFrameError, Frame

HEAD = '{"command":"HealthCheck","extID":1'


def readable(message: str) -> Frame:
    found = wire.read(message)
    assert isinstance(found, tuple)
    assert found[1] is None, found[1]
    return found[0]


def fault_in_data(message: str) -> CommandError:
    found = wire.read(message)
    assert isinstance(found, tuple)
    assert found[1] is not None
    return found[1]


def refused(message: str) -> tuple[bytes, ErrorCode]:
    with pytest.raises(BadFrameError) as caught:
        wire.read(message)
    return wire.encode_ext_id(caught.value.ext_id), caught.value.error.code


UNREADABLE = [
    "",
    " ",
    "hello",
    "null",
    "5",
    '"HealthCheck"',
    "[]",
    "[" + HEAD + "}]",
    HEAD,
    HEAD + "}}",
    HEAD + "} x",
    HEAD + ",}",
    "\ufeff" + HEAD + "}",
    "'" + HEAD + "}'",
    HEAD + ',"data":{"a":01}}',
    HEAD + ',"data":{"a":"\t"}}',
    HEAD + ',"data":{"a":"\0"}}',
    HEAD + ',"data":{"a":"\\x"}}',
    '{"command":"HealthCheck"}',
    '{"command":"HealthCheck","extID":' + "9" * 5000 + "}",
    "[" * 100_000,
    HEAD + ',"data":' + '{"a":' * 100_000 + "1" + "}" * 100_000 + "}",
]


def test_read_refuses_what_has_no_ext_id():
    """What is no JSON object, or has no valid extID, is answered with BAD_REQUEST and extID null."""
    assert [(b"null", ErrorCode.BAD_REQUEST)] * len(UNREADABLE) == [refused(message) for message in UNREADABLE]


EXT_IDS = [
    '""',
    '"' + "x" * 129 + '"',
    "1.0",
    "1e2",
    "true",
    "null",
    "[]",
    "{}",
    "9223372036854775808",
    "-9223372036854775809",
]


def test_read_refuses_a_wrong_ext_id():
    """An extID of another type, empty, too long or beyond 64 bits is none."""
    found = [refused('{"command":"HealthCheck","extID":' + ext_id + "}") for ext_id in EXT_IDS]
    assert [(b"null", ErrorCode.BAD_REQUEST)] * len(EXT_IDS) == found


@pytest.mark.parametrize(("rest", "wrong"), [("", "is required:"), (',"extid":1', "is required:"), (',"extID":1.5', "must be")])
def test_ext_id_that_is_missing_is_asked_for(rest, wrong):
    """It is called required where there is none, also under another spelling, and wrong only where it is."""
    with pytest.raises(BadFrameError) as caught:
        wire.read('{"command":"HealthCheck"' + rest + "}")
    assert f"extID {wrong} a string of 1 to 128 characters or an integer within 64 bits" == caught.value.error.message


@pytest.mark.parametrize(
    "ext_id",
    ["1", 1, 0, -5, 2**63 - 1, -(2**63), "x" * 128, "\U0001f600" * 128, "a-b_c$d@e", "\u0000", "null", '"\\', "\ud83d"],
)
def test_ext_id_keeps_type_and_value(ext_id):
    """An extID comes back as JSON of the same type and value, from both ways of reading."""
    sent = json.dumps(ext_id)
    if ext_id != "\ud83d":
        assert ext_id == readable('{"command":"HealthCheck","extID":' + sent + "}").ext_id
    echoed, code = refused('{"command":5,"extID":' + sent + "}")
    assert (ErrorCode.BAD_REQUEST, ext_id, type(ext_id)) == (code, json.loads(echoed), type(json.loads(echoed)))
    assert ext_id == json.loads(wire.success(wire.encode_ext_id(ext_id), b"{}"))["extID"]


WRONG_TOP_LEVELS = [
    '{"extID":1}',
    '{"extID":1,"command":null}',
    '{"extID":1,"command":5}',
    '{"extID":1,"command":["HealthCheck"]}',
    '{"extID":1,"command":"\\ud83d"}',
    HEAD + ',"data":[]}',
    HEAD + ',"data":"{}"}',
    HEAD + ',"data":5}',
    HEAD + ',"data":false}',
    HEAD + ',"data":""}',
    HEAD + ',"__token":5}',
    HEAD + ',"__token":{}}',
    HEAD + ',"idempotencyKey":5}',
    HEAD + ',"idempotencyKey":""}',
    HEAD + ',"idempotencyKey":"' + "k" * 129 + '"}',
    HEAD + ',"from":"\\ud83d"}',
    HEAD + ',"from":{"\\udc00":1}}',
    HEAD + ',"from":NaN}',
    HEAD + ',"data":{"ast_json":[Infinity]}}',
    HEAD + ',"data":{"ast_json":-Infinity}}',
]


def test_read_finds_the_ext_id_of_a_wrong_frame():
    """A wrong type at the top level, half a surrogate pair or a NaN costs the command, not the extID."""
    assert [(b"1", ErrorCode.BAD_REQUEST)] * len(WRONG_TOP_LEVELS) == [refused(message) for message in WRONG_TOP_LEVELS]


def test_read_ignores_unknown_keys_and_takes_null_for_omitted():
    """Unknown keys of any kind are skipped; null stands for an omitted field."""
    plain = readable(HEAD + "}")
    assert (b"{}", None, None) == (bytes(plain.data), plain.token, plain.idempotency_key)
    for extra in ('"from":"crm"', '"x":[{"data":1}]', '"n":' + "9" * 5000, '"z":"\\u0000"', '"data":null,"__token":null'):
        assert plain == readable(HEAD + "," + extra + "}")


def test_read_takes_the_last_of_equal_keys():
    """The last counts at the top level, also behind one of a wrong type, and `data` keeps its bytes."""
    data = '{ "ast_json" : 1.0E+2, "n":' + "9" * 30 + ' , "ast_json":"\\u0041"}'
    for message in (
        '{"command":"A","extID":2,"data":{},"command":"HealthCheck","extID":1,"data":' + data + "}",
        '{"command":5,"extID":[],"data":7,"command":"HealthCheck","extID":1,"data":' + data + "}",
    ):
        frame = readable(message)
        assert ("HealthCheck", 1, data) == (frame.command, frame.ext_id, bytes(frame.data).decode())
    assert b"{}" == bytes(readable('{"command":5,"extID":1,"data":{"a":1},"command":"x","data":null}').data)
    assert (b"null", ErrorCode.BAD_REQUEST) == refused('{"command":"HealthCheck","extID":1,"extID":null}')


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ('{"title":"a\\u0000"}', "title"),
        ('{"a":{"b":["x","\\u0000"]}}', "a.b[1]"),
        ('{"title":"\\ud83d"}', "title"),
        ('{"title":"\\ude00\\ud83d"}', "title"),
        ('{"a\\u0000":1}', None),
        ('{"a\\ud83d":1}', None),
        ('{"n":' + "9" * 5000 + ',"title":"\\u0000"}', "title"),
    ],
)
def test_read_finds_bad_text_in_data(data, field):
    """A NUL or half a surrogate pair in `data` is a fault of its field, reported once command and session are right."""
    fault = fault_in_data(HEAD + ',"data":' + data + "}")
    assert (ErrorCode.INVALID_DATA, field) == (fault.code, fault.field)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (r'"extID":7,"data":{"title":["\u0000",%s0]}', None),
        (r'"extID":7,"data":{"title":["\ud800",%s0]}', (b"7", ErrorCode.BAD_REQUEST)),
        (r'"extID":7,"__token":1,"data":{"title":[%s0]}', (b"7", ErrorCode.BAD_REQUEST)),
        (r'"extID":1.5,"data":{"title":["\u0000",%s0]}', (b"null", ErrorCode.BAD_REQUEST)),
        (r'"extID":"\ud83d\ude00","__token":1,"data":{"title":[%s0]}', ('"\U0001f600"'.encode(), ErrorCode.BAD_REQUEST)),
        (r'"extID":"\ud83d\ude00","data":{"title":["\ud800",%s0]}', ('"\U0001f600"'.encode(), ErrorCode.BAD_REQUEST)),
        (r'"extID":"a\\ud83d","data":{"title":["\udfff",%s0]}', (rb'"a\\ud83d"', ErrorCode.BAD_REQUEST)),
        (r'"extID":7,"data":{"title":["\\ud83d\ude00",%s0]}', (b"7", ErrorCode.BAD_REQUEST)),
        (r'"extID":"a\ud83d","data":{"title":["\udfff",%s0]}', (b"null", ErrorCode.BAD_REQUEST)),
        ('"extID":"\ufffd","__token":1,"data":{"title":[%s0]}', ('"\ufffd"'.encode(), ErrorCode.BAD_REQUEST)),
        (r'"extID":7,"data":{"title":[%sNaN]}', (b"null", ErrorCode.BAD_REQUEST)),
    ],
)
def test_read_searches_no_long_message(wrong, error, monkeypatch):
    """Where one of many values is wrong is not said, as looking for it would stop the event loop; the extID is found."""
    message = '{"command":"HealthCheck",' + wrong % ("0," * SEARCHED_VALUES_MAX) + "}"
    monkeypatch.setattr("gateway.wire.json", None)
    monkeypatch.setattr("gateway.wire.text_fault", None)
    if error is None:
        fault = fault_in_data(message)
        assert (ErrorCode.INVALID_DATA, None) == (fault.code, fault.field)
        assert "NUL" in fault.message
    else:
        assert error == refused(message)


def test_read_accepts_text_that_only_looks_bad():
    """An escaped backslash before u0000, and a whole surrogate pair, are ordinary text."""
    data = '{"title":"\\\\u0000 \\ud83d\\ude00"}'
    assert data == bytes(readable(HEAD + ',"data":' + data + "}").data).decode()


@pytest.mark.parametrize("inner", ["1", '"\\u0000"', '"\\ud83d"', "NaN"])
@pytest.mark.parametrize("place", ["data", "from"])
def test_read_survives_every_depth(inner, place):
    """At each depth around the interpreter's limit a message is read or refused; no other exception leaves."""
    limit = sys.getrecursionlimit()
    told = set()
    for depth in [1, *range(limit - 120, limit + 20)]:
        nest = "[" * depth + inner + "]" * depth
        message = HEAD + ',"data":{' + (f'"a":{nest}}}' if place == "data" else f'}},"from":{nest}') + "}"
        try:
            wire.read(message)
        except BadFrameError as bad:
            told.add(bad.ext_id)
    assert None in told
    assert told <= {None, 1}


def test_read_knows_a_proof_of_identity():
    """A message with `authorization` and no command is a proof; a wrong type proves nothing."""
    assert Authorization("abc") == wire.read('{"authorization":"abc"}')
    assert Authorization("") == wire.read('{"authorization":5}')
    assert "HealthCheck" == readable(HEAD + ',"authorization":"abc"}').command


def test_replies_have_the_documented_shape():
    """Keys and order of a success, a short failure and a full one."""
    error = CommandError(ErrorCode.NO_SERVICE, 'busy "now"', field="a[0]", outcome=Outcome.UNKNOWN, retry_after_ms=5)
    replies: list[tuple[bytes, dict[str, Any]]] = [
        (wire.success(b'"1"', b'{"id":1}'), {"extID": "1", "status": 200, "data": {"id": 1}}),
        (
            wire.failure(b"null", CommandError(ErrorCode.BAD_REQUEST, "no")),
            {"extID": None, "status": 400, "error": "BAD_REQUEST", "message": "no", "outcome": "not_executed"},
        ),
        (
            wire.failure(b"-7", error),
            {
                "extID": -7,
                "status": 503,
                "error": "NO_SERVICE",
                "message": 'busy "now"',
                "field": "a[0]",
                "retry_after_ms": 5,
                "outcome": "unknown",
            },
        ),
    ]
    for reply, expected in replies:
        assert (expected, list(expected)) == (msgspec.json.decode(reply), list(msgspec.json.decode(reply)))


def test_notices_have_the_documented_shape():
    """The answers to proofs, and what a client is told when the gateway stops."""
    assert {"event": "authorization", "success": True} == json.loads(wire.authorization_reply(None))
    assert {"event": "authorization", "success": False, "error": "INVALID_TOKEN"} == json.loads(
        wire.authorization_reply("INVALID_TOKEN")
    )
    assert {"event": "server:drain", "data": {"retry_after_ms": 9}} == json.loads(wire.drain_notice(9))
