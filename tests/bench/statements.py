"""The gateway's own SQL with its arguments, and the frames that make the gateway run it."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from gateway.access import Access
from gateway.calendar_store.event_filter import EventFilter, statement_of
from gateway.calendar_store.sql import ACCESS, VISIBLE, access_arguments, event_json
from tests.bench.dataset import DESK, MANAGER_ID, Dataset
from tests.bench.load_job import NUMBER

PAGE_ROWS = 200
LARGE_ROWS = 50_000


class Query(Struct, frozen=True):
    """One read: the SQL with `$1`, `$2`, ..., its arguments as PostgreSQL's text, and the frame that asks for it."""

    name: str
    sql: str
    arguments: list[str]
    frame: str


def month_of_manager(dataset: Dataset, access: Access) -> Query:
    """All that the manager owns, created or takes part in."""
    return _filter("month", access, dataset.month, limit=500, manager_id=MANAGER_ID)


def week_of_desk(dataset: Dataset, access: Access) -> Query:
    """All of one desk."""
    return _filter("week", access, dataset.week, limit=500, desk_mask=DESK)


def page(dataset: Dataset, access: Access, after: tuple[int, int] | None) -> Query:
    """A page of everything that the manager may see."""
    return _filter("page", access, dataset.long_range, limit=PAGE_ROWS, after=after)


def large(dataset: Dataset, access: Access) -> Query:
    """The largest reply there is."""
    return _filter("large", access, dataset.long_range, limit=LARGE_ROWS)


def one_event(access: Access) -> Query:
    """One event by its id, which stands for `:id`; its frames are made by `frame_of_event`.

    The gateway reads several at once; this is the same for one, as a program that reads one by one would have it.
    """
    arguments = [*map(_text, access_arguments(access)), ":id"]
    sql = f"SELECT {event_json()} AS event FROM {ACCESS}, calendar_event AS event WHERE event.id = $6::bigint AND {VISIBLE}"
    return Query("event", sql, arguments, "")


def frame_of_event(event_id: int) -> str:
    """The frame that asks for one event."""
    return _frame("MngGetCalendarEvent", {"id": event_id})


def frame_of_health_check() -> str:
    """The frame that costs the gateway least."""
    return _frame("HealthCheck", {})


def as_pgbench(query: Query, before: str = "") -> tuple[str, list[str]]:
    """The query as a script for pgbench, and the options that give its variables their values."""
    options = [f"--define=p{number}={text}" for number, text in enumerate(query.arguments, start=1) if text != ":id"]
    names = [text if text == ":id" else f":p{number}" for number, text in enumerate(query.arguments, start=1)]
    sql = re.sub(r"\$(\d+)", lambda found: names[int(found[1]) - 1], query.sql)
    return f"{before}{sql};\n", options


def as_psql(query: Query) -> str:
    """The query for psql with its arguments bound, as the gateway's are."""
    values = " ".join("'" + text.replace("'", "''") + "'" for text in query.arguments)
    return f"{query.sql.strip()}\n\\bind {values} \\g /dev/null\n"


def _filter(name: str, access: Access, range_: tuple[int, int], *, limit: int, desk_mask: str = "*", **more: object) -> Query:
    wanted = EventFilter(from_time=range_[0], to_time=range_[1], limit=limit, desk_mask=desk_mask, **more)  # type: ignore[arg-type]
    statement, *arguments = statement_of(access, wanted, limit + 1)
    data: dict[str, object] = {"from": range_[0], "to": range_[1], "limit": limit, "offset": 0, "deskFilter": desk_mask}
    if wanted.manager_id:
        data["manager_id"] = wanted.manager_id
    if wanted.after:
        data["after"] = {"start_time": wanted.after[0], "id": wanted.after[1]}
    return Query(name, statement.sql, [_text(argument) for argument in arguments], _frame("MngGetCalendarEventsByFilter", data))


def _frame(command: str, data: dict[str, object]) -> str:
    return msgspec.json.encode({"command": command, "extID": NUMBER, "data": data}).decode()


def _text(argument: object) -> str:
    """A value as PostgreSQL reads it from text."""
    if isinstance(argument, Sequence) and not isinstance(argument, str):
        return "{" + ",".join('"' + str(item).replace("\\", "\\\\") + '"' for item in argument) + "}"
    return str(argument)
