"""Recorded streams, as tests write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from gateway.capture import Header
from tests.client import EVENT


def line(time: float, connection: int, command: str, data: dict[str, Any], **more: Any) -> dict[str, Any]:
    frame = {"command": command, "extID": "recorded", "data": data}
    return {"time": time, "connection": connection, "manager": 10, "frame": frame, "status": 200, **more}


def add(time: float, connection: int, event_id: int = 1) -> dict[str, Any]:
    return line(time, connection, "MngAddCalendarEvent", EVENT, id=event_id)


GET = ("MngGetCalendarEvent", {"id": 1})


def update(title: str) -> tuple[str, dict[str, Any]]:
    return "MngUpdateCalendarEvent", {"id": 1, "title": title}


def stream(folder: Path, *lines: dict[str, Any]) -> Path:
    """A file with these lines."""
    file = folder / "stream.ndjson"
    file.write_bytes(b"\n".join(msgspec.json.encode(item) for item in (Header(), *lines)) + b"\n")
    return file
