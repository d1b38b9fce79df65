"""Writes docs/protocol.md, settings.md and metrics.md from the code's own Structs and tables. `make docs` calls it."""

from __future__ import annotations

import importlib
import shlex
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, Union

import msgspec
from msgspec import Meta

from gateway import wire
from gateway.access import CALENDAR_TYPES
from gateway.commands.table import COMMANDS, Command
from gateway.environment import CLIENT_VARIABLES, entries
from gateway.errors import CLOSE_CODES, ERRORS
from gateway.event import Event, Participant
from gateway.metrics import COMMANDS as COMMAND_BOUNDS
from gateway.metrics import SECONDS, Described, Metrics
from gateway.protocol_words import FAILURES, INTRODUCTION, MEANINGS, MESSAGES, RIGHTS
from gateway.settings import Settings
from gateway.wire import Frame

GENERATED = "<!-- Written by `make docs` from the code; a test compares. Do not edit. -->\n\n"


class Exchange(NamedTuple):
    """A frame and its reply, as they were on the wire in a test run (times and tokens replaced)."""

    frame: str
    reply: str


METRICS_INTRODUCTION = f"""\
# Metrics

`GET /metrics` on `GATEWAY_METRICS_HOST` and `GATEWAY_METRICS_PORT`, in the Prometheus or the OpenMetrics format. No sign-in guards
it, and it holds no data of clients: no label takes a value that a client makes up.

Times are in buckets up to
{", ".join(f"{bound:g}" for bound in SECONDS)} seconds,
commands up to {", ".join(map(str, COMMAND_BOUNDS))}.

"""
LIBRARY_METRICS = """

Of the process, by prometheus-client (`process_*` on Linux alone):

"""


def protocol_page(exchanges: Mapping[str, Sequence[Exchange]]) -> str:
    """docs/protocol.md, with an exchange or more for each command."""
    kinds = ", ".join(f"{kind.name} {kind.value}" for kind in sorted(CALENDAR_TYPES))
    return "\n".join(
        (
            GENERATED + INTRODUCTION.format(frame=_fields_table(Frame), types=kinds),
            *(_command_section(name, command, exchanges[name]) for name, command in COMMANDS.items()),
            "## The event\n",
            _fields_table(Event, sent=False) + "\n",
            "Participants:\n",
            _fields_table(Participant, sent=False) + "\n",
            RIGHTS,
            FAILURES + _errors_table() + "\n",
            "## Close codes\n",
            "4000-4499: come back, with back-off. 4500-4999: do not come back without a change.\n",
            _table(("code", "why"), ((str(code.value), why) for code, why in CLOSE_CODES.items())) + "\n",
            MESSAGES,
        )
    )


def settings_page() -> str:
    """docs/settings.md."""
    rows = (
        (f"`{entry.variable}`", entry.value.replace("|", "\\|") or "(empty)", entry.unit, entry.right, entry.meaning)
        for entry in entries(Settings(), {})
    )
    client = ((f"`{name}`", meaning) for name, meaning in CLIENT_VARIABLES.items())
    return (
        GENERATED
        + "# Settings\n\nEnvironment variables, checked when the gateway starts. `gateway settings` shows those in force.\n\n"
        + _table(("variable", "default", "unit", "right", "meaning and reason"), rows)
        + "\n\nRead by `gateway send`, `gateway load` and `gateway replay` alone:\n\n"
        + _table(("variable", "meaning"), client)
        + "\n"
    )


def metrics_page() -> str:
    """docs/metrics.md."""
    described = (
        (f"`{metric.name}`", metric.kind, ", ".join(f"`{label}`" for label in metric.labels), metric.meaning)
        for metric in Metrics().described
    )
    library = ((f"`{metric.name}`", metric.kind, metric.meaning) for metric in library_metrics())
    return (
        GENERATED
        + METRICS_INTRODUCTION
        + _table(("name", "type", "labels", "meaning"), described)
        + LIBRARY_METRICS
        + _table(("name", "type", "meaning"), library)
        + "\n"
    )


def library_metrics() -> list[Described]:
    """The metrics that prometheus-client adds of itself: those that nobody here has described."""
    metrics = Metrics()
    ours = {metric.name.removesuffix("_total") for metric in metrics.described}
    return [
        Described(f"{family.name}_total" if family.type == "counter" else family.name, family.type, (), family.documentation)
        for family in metrics.registry.collect()
        if family.name not in ours
    ]


def _command_section(name: str, command: Command, exchanges: Sequence[Exchange]) -> str:
    parts = [f"### {name}\n", _summary(command) + "\n"]
    fields = _fields_table(command.request)
    parts.append(fields + "\n" if fields else "`data` has no fields.\n")
    parts += [f"`{struct.__name__}`:\n\n{_fields_table(struct)}\n" for struct in structs_inside(command.request)]
    typed = [f"    {_typed(name, exchanges[0])}\n"] + [""] * len(exchanges)
    parts += [f"{line}    {each.frame}\n    {each.reply}\n" for line, each in zip(typed, exchanges, strict=False)]
    return "\n".join(parts)


def _typed(name: str, exchange: Exchange) -> str:
    """The same frame from a terminal."""
    data = wire.encode(msgspec.json.decode(exchange.frame)["data"]).decode()
    return f"gateway send {name}" + ("" if data == "{}" else f" --data {shlex.quote(data)}")


def _summary(command: Command) -> str:
    module = importlib.import_module(command.handler.__module__)
    needs = {"nothing": "Needs no session.", "session": "Needs a session.", "calendar": "Needs a session with the calendar."}
    what = (module.__doc__ or "").strip().partition(": ")[2]
    return f"{what[:1].upper()}{what[1:]} {needs[command.needs]} Reply: `{_reply_words(command.reply)}`."


def _reply_words(reply: type[msgspec.Struct]) -> str:
    return "{" + ",".join(f'"{field.encode_name}"' for field in msgspec.structs.fields(reply)) + "}"


def _fields_table(struct: type[msgspec.Struct], *, sent: bool = True) -> str:
    """What a client sends, or what it gets."""
    hints = typing.get_type_hints(struct, include_extras=True)
    rows = [
        (f"`{field.encode_name}`", type_words(hints[field.name]), "yes" if field.required else "", _meaning_of(struct, field))
        for field in msgspec.structs.fields(struct)
        if field.name != "access_claim"
    ]
    return _table(("field", "type", "required" if sent else "", "meaning"), rows) if rows else ""


def _meaning_of(struct: type[msgspec.Struct], field: msgspec.structs.FieldInfo) -> str:
    """What the page says of a field. Raises KeyError for one that it knows nothing of."""
    own = MEANINGS.get(f"{struct.__name__}.{field.encode_name}")
    return MEANINGS[field.encode_name] if own is None else own


def type_words(hint: Any) -> str:
    """A field's type for people, with its bounds."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _bounded_words(arguments[0], arguments[1])
    if origin in (Union, types.UnionType):
        return " or ".join(type_words(argument) for argument in arguments if argument is not types.NoneType)
    if origin is list:
        return f"array of {type_words(arguments[0])}"
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return f"`{hint.__name__}`"
    return {int: "integer", str: "string", float: "number", msgspec.Raw: "JSON"}.get(hint, str(hint))


def _bounded_words(kind: Any, meta: Meta) -> str:
    said = f" ({meta.description})" if meta.description else ""
    if kind is int:
        return f"integer {_power(meta.ge)}..{_power(meta.le)}{said}"
    if kind is str and (meta.max_length is not None or meta.min_length is not None):
        return f"string of {meta.min_length or 0}..{meta.max_length} characters{said}"
    return f"{type_words(kind)}{said}"


def _power(number: int | float | None) -> str:
    return {2**53 - 1: "2^53-1", 2**63 - 1: "2^63-1", -(2**63): "-2^63"}.get(int(number or 0), str(number))


def structs_inside(struct: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    """The Structs that its fields hold, and those that they hold."""
    found: list[type[msgspec.Struct]] = []
    pending = list(typing.get_type_hints(struct).values())
    while pending:
        hint = pending.pop()
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct) and hint not in found:
            found.append(hint)
        pending += typing.get_args(hint)
    return found


def _errors_table() -> str:
    return _table(
        ("status", "error", "when", "again later"),
        ((str(spec.status), f"`{code}`", spec.when, "yes" if spec.try_again else "no") for code, spec in ERRORS.items()),
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    columns = [index for index, name in enumerate(head) if name]
    lines = [[head[index] for index in columns], ["---"] * len(columns)]
    lines += [[row[index] for index in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
