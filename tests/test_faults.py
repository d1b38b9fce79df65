"""What the decoder says of bad data, word for word, and the errors that are made of it."""

from __future__ import annotations

import tracemalloc
from typing import Annotated

import msgspec
import pytest
from msgspec import Meta, Raw, Struct

from gateway import faults
from gateway.commands.add_calendar_event import AddCalendarEvent
from gateway.errors import QUOTED_CHARS_MAX, ErrorCode
from gateway.faults import STEPS_MAX, depth_of, fault_of, nesting_fault, text_fault, without_repeats


class Row(Struct, forbid_unknown_fields=True):
    number: Annotated[int, Meta(ge=1, le=6)]


class Sample(Struct, forbid_unknown_fields=True):
    title: Annotated[str, Meta(pattern=r"\S", max_length=5, min_length=1)]
    code: str | None = None
    flag: bool | None = None
    ratio: float | None = None
    rows: list[Row] | None = None
    body: Raw = Raw(b"null")


TEXTS = [
    ("{}", "Object missing required field `title`"),
    ('{"title":"x","rows":[{"number":1},{}]}', "Object missing required field `number` - at `$.rows[1]`"),
    ('{"title":"x","a` b":1}', "Object contains unknown field `a` b`"),
    ('{"title":"x","rows":[{"x\\n":1}]}', "Object contains unknown field `x\n` - at `$.rows[0]`"),
    ('{"title":5}', "Expected `str`, got `int` - at `$.title`"),
    ('{"title":null}', "Expected `str`, got `null` - at `$.title`"),
    ('{"title":"x","code":1.5}', "Expected `str | null`, got `float` - at `$.code`"),
    ('{"title":"x","flag":{}}', "Expected `bool | null`, got `object` - at `$.flag`"),
    ('{"title":"x","ratio":[]}', "Expected `float | null`, got `array` - at `$.ratio`"),
    ('{"title":"x","rows":"y"}', "Expected `array | null`, got `str` - at `$.rows`"),
    ('{"title":"x","rows":[null]}', "Expected `object`, got `null` - at `$.rows[0]`"),
    ('{"title":"x","rows":[{"number":true}]}', "Expected `int`, got `bool` - at `$.rows[0].number`"),
    ('{"title":"x","rows":[{"number":1.0}]}', "Expected `int`, got `float` - at `$.rows[0].number`"),
    ('{"title":"x","rows":[{"number":0}]}', "Expected `int` >= 1 - at `$.rows[0].number`"),
    ('{"title":"x","rows":[{"number":7}]}', "Expected `int` <= 6 - at `$.rows[0].number`"),
    (
        '{"title":"x","rows":[{"number":' + "9" * 5000 + "}]}",
        "Integer value out of range - at `$.rows[0].number`",
    ),
    ('{"title":"x","rows":[{"number":1e999}]}', "Number out of range - at `$.rows[0].number`"),
    ('{"title":" "}', "Expected `str` matching regex '\\\\S' - at `$.title`"),
    ('{"title":"123456"}', "Expected `str` of length <= 5 - at `$.title`"),
    ('{"title":""}', "Expected `str` of length >= 1 - at `$.title`"),
    ("[]", "Expected `object`, got `array`"),
]


def refused(text: str, request: type[Struct] = Sample) -> msgspec.ValidationError:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(text, type=request)
    return caught.value


def test_decoder_says_what_the_translation_relies_on():
    """Each text of msgspec that the translation takes apart is still what msgspec says."""
    assert [text for _, text in TEXTS] == [str(refused(given)) for given, _ in TEXTS]


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ('{"title":"x","body":"\\ud83d"}', msgspec.DecodeError),
        ('{"title":"x","body":NaN}', msgspec.DecodeError),
        ('{"title":"x","body":01}', msgspec.DecodeError),
        ('{"title":"x","body":"\t"}', msgspec.DecodeError),
        ('{"title":"x","body":' + "[" * 2000 + "]" * 2000 + "}", RecursionError),
    ],
)
def test_decoder_checks_what_it_leaves_undecoded(given, kind):
    """Text, numbers and nesting are checked in undecoded fields too, which are handed to PostgreSQL as they are."""
    with pytest.raises(kind) as caught:
        msgspec.json.decode(given, type=Sample)
    assert kind is type(caught.value)


def test_decoder_accepts_what_the_gateway_must_refuse_itself():
    """NUL escapes, repeated keys and integers of any length pass the decoder: were it to refuse them, checks could go."""
    sample = msgspec.json.decode('{"title":"a","title":"\\u0000","body":' + "9" * 5000 + "}", type=Sample)
    assert ["\0", 5000] == [sample.title, len(bytes(sample.body))]


EVENT = '"title":"x","start_time":1,"end_time":2'
TRANSLATED = [
    ("{}", ErrorCode.FIELD_REQUIRED, "title", "title is required"),
    ('{"title":null}', ErrorCode.FIELD_REQUIRED, "title", "title is required"),
    ('{"title":5}', ErrorCode.INVALID_DATA, "title", "title must be a string, not an integer"),
    ('{"title":" "}', ErrorCode.INVALID_DATA, "title", "title must not be blank"),
    (
        '{"title":"x","start_time":1710000000000}',
        ErrorCode.INVALID_DATA,
        "start_time",
        "start_time must be before the year 10000 (<= 253402300799): send seconds, this looks like milliseconds",
    ),
    (
        '{"title":"x","start_time":0}',
        ErrorCode.INVALID_DATA,
        "start_time",
        "start_time must be an integer >= 1 (seconds since 1970)",
    ),
    (
        '{"title":"x","type":7}',
        ErrorCode.INVALID_DATA,
        "type",
        "type must be an integer <= 6 (0 task, 1 reminder, 2 call, 3 meeting, 4 follow-up, 5 deadline, 6 system)",
    ),
    ('{"title":"x","login":-1}', ErrorCode.INVALID_DATA, "login", "login must be an integer >= 0"),
    (
        '{"title":"x","desk":"a b"}',
        ErrorCode.INVALID_DATA,
        "desk",
        "desk must be up to 64 of the characters A-Z a-z 0-9 _ . -",
    ),
    (
        '{"title":"x","login":' + "9" * 5000 + "}",
        ErrorCode.INVALID_DATA,
        "login",
        "login is out of range: Integer value out of range",
    ),
    (
        "{%s,'participants':[{'manager_id':1,'role':'x'}]}".replace("'", '"') % EVENT,
        ErrorCode.INVALID_DATA,
        "participants[0].role",
        "participants[0].role must be an integer (0 organizer, 1 required, 2 optional), not a string",
    ),
    (
        "{%s,'participants':[{'manager_id':null}]}".replace("'", '"') % EVENT,
        ErrorCode.FIELD_REQUIRED,
        "participants[0].manager_id",
        "participants[0].manager_id is required",
    ),
    (
        "{%s,'participants':[null]}".replace("'", '"') % EVENT,
        ErrorCode.INVALID_DATA,
        "participants[0]",
        "participants[0] must be an object, not null",
    ),
    (
        "{%s,'participant_ids':[1]}".replace("'", '"') % EVENT,
        ErrorCode.INVALID_DATA,
        "participant_ids",
        "participant_ids is not a known field; did you mean participants or participant_manager_ids?",
    ),
    (
        "{%s,'updated_by':1}".replace("'", '"') % EVENT,
        ErrorCode.INVALID_DATA,
        "updated_by",
        "updated_by is set by the gateway: leave it out, like id, reminder_sent_time, created_time, updated_time, version",
    ),
]


def test_fault_names_the_field_and_what_would_be_right():
    """Each refusal becomes an error with the field's path and a message that says what is right."""
    found = [(given, fault_of(refused(given, AddCalendarEvent), AddCalendarEvent)) for given, *_ in TRANSLATED]
    assert TRANSLATED == [(given, error.code, error.field, error.message) for given, error in found]


@pytest.mark.parametrize("key", ["k" * 1_000_000, "` - at `$." * 50_000, "a - at `$.b" * 50_000, "\\n" * 300_000])
def test_fault_cuts_a_long_key(key):
    """A key of a megabyte is quoted short, in the message and in the field, whatever it contains."""
    error = fault_of(refused('{"title":"x","' + key + '":1}'), Sample)
    assert (len(error.field or ""), len(error.message)) < (2 * QUOTED_CHARS_MAX + 4, 5 * QUOTED_CHARS_MAX)


TEXT_FAULTS: list[tuple[object, str | None]] = [
    ({"title": "a\0"}, "title"),
    ({"ast_json": {"content": [{"text": "ok"}, {"text": "a\ud83d"}]}}, "ast_json.content[1].text"),
    ({"ast_json": [["\udc00"]]}, "ast_json[0][0]"),
    ({"ast_json": {"a\0": 1}}, "ast_json"),
]


def test_text_fault_tells_where_the_text_is():
    """A NUL or half a surrogate pair is found at any depth, in values and keys; whole text is not blamed."""
    assert [path for _, path in TEXT_FAULTS] == [fault.field for data, _ in TEXT_FAULTS if (fault := text_fault(data))]
    assert text_fault({"title": "\\u0000 \U0001f600", "n": [1, None, 1.5, True]}) is None
    in_a_key = text_fault({"\ud83d": 1})
    assert in_a_key is not None
    assert (None, True) == (in_a_key.field, in_a_key.message.startswith("data contains an unpaired surrogate"))


def test_text_fault_costs_no_memory_for_paths():
    """A long key above a long list is not copied for each item: a small message once took gigabytes."""
    data = {"z": ["\0"], "k" * 100_000: [1] * 20_000}
    tracemalloc.start()
    fault = text_fault(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert fault is not None
    assert (True, "z[0]") == (peak < 16 * 1024 * 1024, fault.field)


def test_text_fault_keeps_its_path_short():
    """A path is told for some steps only, and long keys in it are cut."""
    data: object = "\0"
    for _ in range(400):
        data = {"k" * 1000: data}
    fault = text_fault(data)
    assert fault is not None
    assert ".".join(["k" * QUOTED_CHARS_MAX + "..."] * STEPS_MAX) == fault.field


def test_nesting_is_counted_outside_strings():
    """Brackets inside strings are text, also behind escaped quotes."""
    cases = {"null": 0, "[]": 1, '{"a":[{}]}': 3, '"[[["': 0, '["\\"[[", "\\\\", [1]]': 2, "[[],[]]": 2, "[" * 9 + "]" * 9: 9}
    assert cases == {text: depth_of(text.encode()) for text in cases}
    assert nesting_fault("ast_json", b'["[[[[[["]', 1) is None
    fault = nesting_fault("ast_json", b"[[]]", 1)
    assert fault is not None
    assert (ErrorCode.TOO_LARGE, "ast_json") == (fault.code, fault.field)


def test_repeats_leave_the_last_and_the_body_untouched():
    """Of equal keys the last is left, in rows too; what a request keeps undecoded keeps its bytes, repeats and all."""
    body = b'{ "a" : 1.0E+2, "a":"\\u0041" }'
    given = Raw(b'{"title":5,"body":' + body + b',"rows":[{"number":"x","number":2}, null],"title":"y"}')
    assert b'{"title":"y","body":' + body + b',"rows":[{"number":2},null]}' == without_repeats(given, Sample)
    assert body == bytes(faults.members_of(given)["body"])
