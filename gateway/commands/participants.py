"""Who takes part in an event, from what a request says and from who took part before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Raw, Struct, structs

from gateway.event import Participant
from gateway.fields import NULL, Id, ParticipantStatus, Role, Time

OWNER_ROLE, OWNER_STATUS = 0, 1
FORMER_OWNER_ROLE, FORMER_OWNER_STATUS = 1, 1
INVITED_ROLE, INVITED_STATUS = 1, 0


class ParticipantGiven(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A participant as a client sends it; `event_id` is taken and ignored, so that a list just read can be sent back."""

    manager_id: Id
    role: Role | None = None
    status: ParticipantStatus | None = None
    created_time: Time | None = None
    updated_time: Time | None = None
    event_id: Raw = NULL


def invited(event_id: int, owner: int, manager_ids: Iterable[int], now: int) -> list[Participant]:
    """The participants of a new event that names only their ids."""
    first = Participant(event_id, owner, OWNER_ROLE, OWNER_STATUS, now, now)
    others = [
        Participant(event_id, manager_id, INVITED_ROLE, INVITED_STATUS, now, now)
        for manager_id in sorted(set(manager_ids))
        if manager_id != owner
    ]
    return [first, *others]


def given_rows(
    participants: Sequence[ParticipantGiven] | None, manager_ids: Sequence[int] | None
) -> list[ParticipantGiven] | None:
    """The rows that a request gives: `participants` wins over `participant_manager_ids`; None when neither was sent."""
    if participants is not None:
        return list(participants)
    if manager_ids is not None:
        return [ParticipantGiven(manager_id=manager_id) for manager_id in dict.fromkeys(manager_ids)]
    return None


def participants_of(
    event_id: int, owner: int, given: Sequence[ParticipantGiven], before: Mapping[int, Participant], now: int
) -> list[Participant]:
    """The participants after a write: those given and the owner, who is always organizer and has always accepted.

    Whoever stays keeps what the row given does not say.
    """
    rows = {row.manager_id: row for row in given}
    rows.setdefault(owner, ParticipantGiven(manager_id=owner))
    found = [_participant(event_id, owner, row, before.get(row.manager_id), now) for row in rows.values()]
    return sorted(found, key=lambda row: (row.manager_id != owner, row.manager_id))


def with_former_owner(before: Mapping[int, Participant], former: int, owner: int, now: int) -> dict[int, Participant]:
    """Those who took part, with the former owner as a participant like others once somebody else is the owner."""
    if former == owner or former not in before:
        return dict(before)
    demoted = structs.replace(before[former], role=FORMER_OWNER_ROLE, status=FORMER_OWNER_STATUS, updated_time=now)
    return {**before, former: demoted}


def _participant(event_id: int, owner: int, row: ParticipantGiven, before: Participant | None, now: int) -> Participant:
    role, status, created = (before.role, before.status, before.created_time) if before else (INVITED_ROLE, INVITED_STATUS, now)
    if row.manager_id == owner:
        role, status = OWNER_ROLE, OWNER_STATUS
    else:
        role = role if row.role is None else row.role
        status = status if row.status is None else row.status
    created = row.created_time or created
    unchanged = before is not None and (role, status) == (before.role, before.status)
    updated = row.updated_time or (before.updated_time if before is not None and unchanged else now)
    return Participant(event_id, row.manager_id, role, status, created, updated)
