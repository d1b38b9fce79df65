"""Synthetic requests with the sizes of a CRM's calendar, encoded beforehand."""

from __future__ import annotations

from random import Random

import msgspec

from gateway.harness.credentials import Member

HORIZON_SECONDS = 30 * 86_400
PAGE_ROWS = 20
_WORDS = (
    "call",
    "client",
    "retention",
    "review",
    "contract",
    "deposit",
    "account",
    "desk",
    "weekly",
    "margin",
    "offer",
    "pricing",
)


def tail(data: object) -> bytes:
    """The rest of a frame behind its extID."""
    return b',"data":' + msgspec.json.encode(data) + b"}"


def add(member: Member, pick: Random, now: int) -> tuple[bytes, bool]:
    """An add, and whether it invites the member to somebody else's event."""
    start = now + pick.randrange(HORIZON_SECONDS) // 900 * 900
    invites = pick.random() < 0.25
    others = [pick.randrange(1000, 5000) for _ in range(min(8, int(pick.expovariate(0.5))))]
    data: dict[str, object] = {
        "title": " ".join(pick.choices(_WORDS, k=pick.randint(2, 7))).capitalize(),
        "type": pick.randrange(7),
        "priority": pick.choice((0, 0, 1, 1, 2, 3)),
        "start_time": start,
        "end_time": start + pick.choice((900, 1800, 3600, 7200)),
        "customer_id": pick.randrange(1, 100_000),
        "remind_before_sec": pick.choice((0, 600, 900)),
        "participant_manager_ids": sorted({*others, member.manager_id}),
    }
    if invites:
        data["owner_manager_id"] = member.manager_id + 1
    if member.all_desks:
        data["desk"] = pick.choice(("DESK_EU", "DESK_RETENTION", "DESK_SALES", "DESK_ASIA"))
    if pick.random() < 0.6:  # most bodies are a paragraph or two, some are pages
        words = pick.choices(_WORDS, k=1 + min(2000, int(pick.lognormvariate(3.2, 1.1))))
        paragraph = {"type": "paragraph", "content": [{"type": "text", "text": " ".join(words)}]}
        data["ast_json"] = {"type": "doc", "content": [paragraph]}
    return tail(data), invites


def page(pick: Random, now: int) -> bytes:
    """A page of the next hour's agenda, or of a day's."""
    start = now + pick.randrange(HORIZON_SECONDS)
    span = pick.choice((3600, 3600, 86_400))
    return tail({"from": start, "to": start + span, "limit": PAGE_ROWS, "offset": 0, "deskFilter": "*"})
