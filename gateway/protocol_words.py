"""What docs/protocol.md says in words: beside the tables, and of each field. docs.py puts it together."""

from __future__ import annotations

from gateway.calendar_store.event_filter import BYTES_AT_ONCE_MAX
from gateway.calendar_store.event_reader import ROOM_SECONDS, ROWS_AT_ONCE_MAX, TURN_SECONDS
from gateway.drain import RETURNS_PER_SECOND
from gateway.faults import SEARCHED_VALUES_MAX
from gateway.handshake import PATHS, SUBPROTOCOL
from gateway.wire import EXT_ID_CHARS_MAX

INTRODUCTION = f"""\
# The protocol

JSON objects in WebSocket text messages, at `{PATHS[0]}` and `{PATHS[1]}`. Offering the subprotocol `{SUBPROTOCOL}` is optional.
Bare text `ping` is answered with bare text `pong`. A page's `Origin` must be one of `GATEWAY_ORIGINS`, or the upgrade is answered with
HTTP 403, which a browser shows its scripts as a connection that failed; programs that send none are let in. A client to begin with, for
browsers: [client.js](client.js), which signs in, matches replies, comes back and sends again what may be.

## Frames

{{frame}}

`extID` is a string of 1 to {EXT_ID_CHARS_MAX} characters or an integer from -2^63 to 2^63-1; the reply carries the same JSON type
and value. Every frame with a readable `extID` gets exactly one reply. A frame without one is not executed and is answered with
`"extID":null`. Unknown keys beside `data` are ignored; unknown keys inside `data` are refused by name, but for `__access`, which
is dropped unread. `null` for an optional field means omitted (except `ast_json`); `null` for a required one is missing. A number that
is omitted in a new event is 0. Of equal keys the last counts. A wrong message of more than some
{SEARCHED_VALUES_MAX:,} values is refused whole, without the place and whatever its last keys say: search it in smaller ones.

**Replies may overtake each other: match them by `extID`.** Commands of one socket start in the order they arrive, and those that
name the same event take effect in the order sent: a change and then a get of one event may be sent together. Nothing else waits
for what was sent before it, so a filter that shall show an add is sent once the add is answered.

Past `GATEWAY_IN_FLIGHT_MAX` commands of one socket at once, or so many as are twice `GATEWAY_FRAME_BYTES_MAX`, the socket is not read
until one is answered.

A reply of more than {ROWS_AT_ONCE_MAX} events or {BYTES_AT_ONCE_MAX // 2**20} MiB comes in pieces. A manager has one of those at a time, on all sockets together, and a socket has
one; the next waits for its turn, {2 * TURN_SECONDS:g} seconds at most behind the waits of a page (below), then it is answered `NO_SERVICE`. A client that has not
taken one whole within `GATEWAY_STREAM_SECONDS` is closed with 4000, of which it may see 1006; smaller pages (`limit`,
`after`) suit a slow line. Pages of more than a dozen events are read one after the other for each socket, each once
`GATEWAY_OUTBOX_BYTES_MAX` has room for {BYTES_AT_ONCE_MAX // 2**20} MiB, and for replies that come meanwhile, beside what the client has yet to take;
one that waits longer than {ROOM_SECONDS:g} seconds for those before it, or then again for that room, is answered `NO_SERVICE`.

## Sent twice, done once

A calendar write may carry an `idempotencyKey`; other commands refuse it (400). It is done at most once per manager and key, whichever
gateway it is sent to, for `GATEWAY_IDEMPOTENCY_SECONDS`. The same key with the same command and data gets the first reply's `data`
again, with `"replayed":true` beside it, whatever has become of the event since; with another command or other data it gets
`CONFLICT`. Data counts as it was sent, before defaults: order, spaces and escapes make no difference, a field sent with its default
value does. While the first is still running, the second waits for it, and fails where it fails. A refused or failed command stores nothing.

When the database's answer to a keyed write is lost, the gateway itself sends it once more and waits on the key; only if that does not
tell in time is the outcome `unknown`. A write without a key is never sent twice. `not_executed` speaks of the frame it answers: when an
earlier frame with the same key is `unknown`, send again until the answer is 200 or a refusal that is not 5xx.

## Proofs of identity

The same token (a JWT: the gateway's own, or another issuer's that it trusts, SECURITY.md) in any of these; a checked one stops the timer of `GATEWAY_AUTHENTICATION_SECONDS`:

| where | effect |
| --- | --- |
| `MngLogin` | opens a session, which becomes the socket's; the reply carries its token |
| `Authorization: Bearer <token>` on the upgrade | the socket's session; a bad one closes with 4503 |
| subprotocols `["{SUBPROTOCOL}","bearer.<token>"]` | the same, for browsers; only the first is echoed |
| message `{{{{"authorization":"<token>"}}}}` (no `extID`) | the socket's session, or its renewal for the same manager |
| `__token` in a frame | for that frame alone; a bad one is 401 even on a socket with a session (`MngLogin` and `HealthCheck` ignore it, or an expired token would bar signing in) |

The message is answered `{{{{"event":"authorization","success":true}}}}`, or `"success":false` with `"error":"INVALID_TOKEN"`
(`"NO_SERVICE"` or `"TIMEOUT"` while the database cannot say). Claims required: `exp`, `iat`, `iss`, `aud`, `sub` (the manager id
in decimal), `jti`. A good token of another manager is refused like a bad one: a socket stays with its manager, until somebody else
signs in on it by `MngLogin`. A command sent before the answer to `MngLogin` has no session yet (401). `MngLogout` closes the session's
other sockets with 4501; its own stays, to sign in again within `GATEWAY_AUTHENTICATION_SECONDS`, else it closes with 4500. Rights come from the manager's row, never from claims. The calendar is for the session types {{types}}.

## Commands

Each with the line to type for it (`GATEWAY_TOKEN` set to what `gateway token` prints), its frame and its reply.
"""

FAILURES = """\
## Failures

    {"extID":"1","status":400,"error":"INVALID_DATA","message":"end_time must be >= start_time","field":"end_time","outcome":"not_executed"}

`field` is a path into `data`, such as `participants[2].role`. `outcome` is `not_executed` (nothing was written and nothing will be)
or `unknown` (it may have been). Checks happen in this order: frame, command, session, session type, rate, data, replayed key, event (404),
right (403), version (409).

"""

MESSAGES = f"""\
## Messages without a command

| message | when |
| --- | --- |
| `{{"event":"authorization","success":...}}` | answers an `authorization` message |
| `{{"event":"server:drain","data":{{"retry_after_ms":N}}}}` | the gateway stops: commands in flight are still answered, later ones get `NO_SERVICE`, then the socket closes with 1012. Come back after N: 1,000 and a part, by chance, of 1,000 and 1,000 more for each {RETURNS_PER_SECOND} of its sockets, at most of `GATEWAY_DRAIN_SECONDS` |
"""

RIGHTS = """\
## Who sees and changes what

- **A session sees** the events of its manager's brands whose desk its desk mask covers, and those of them that the manager owns, created or
  takes part in. Any other is as if it were not there: 404.
- **It may change** (update, complete, archive, delete) what its manager owns or created; ADMIN and CRM_ADMIN all that they see. Who sees an
  event and may not change it is answered with 403. A change is answered with the event even when the caller no longer sees it.
- **A desk mask** is patterns between commas: `*` is any run of characters, anywhere, and `!` excludes (`DESK_EU*,!DESK_EU_TEST`). A desk is
  covered when some plain pattern matches and no `!` pattern does, in any order; case counts. `*` covers events without a desk as well,
  `DESK_*` does not; a mask without a plain pattern covers nothing. `deskFilter` narrows by the same rules what the session sees, and never widens it.
- **Anybody may name** other managers as owner or participants. Their ids are not looked up, so that nobody can find out which exist: a
  mistyped one is accepted. To name another as `created_by` takes ADMIN or CRM_ADMIN.
"""

MEANINGS = {
    "command": "its name, as below",
    "extID": "the frame's number or name, the client's own; the reply has it too; may repeat",
    "data": "the command's own fields; omitted: none",
    "__token": "proof of identity for this frame alone",
    "idempotencyKey": "makes a write safe to send again",
    "Login.login": "a login that is a number may be sent as one",
    "password": "",
    "id": "of the event",
    "Event.id": "given by the gateway",
    "After.id": "",
    "if_version": "the version that the event must still have, else `CONFLICT`, with the event as it is",
    "title": "kept as sent",
    "start_time": "",
    "end_time": "not before `start_time`; may be equal",
    "brand": "omitted or empty: the manager's first; never changes",
    "UpdateCalendarEvent.brand": "the event's own may be repeated; it never changes",
    "Event.brand": "",
    "GetCalendarEventsByFilter.brand": "of these events alone; omitted: all of the session's",
    "desk": "omitted or empty: none; else one that the session's mask covers",
    "UpdateCalendarEvent.desk": "empty: none; else one that the session's mask covers",
    "Event.desk": "empty: none",
    "owner_manager_id": "organizer; omitted or 0: `created_by`",
    "UpdateCalendarEvent.owner_manager_id": "organizer; 0: stays. The one before stays as a participant, unless participants are sent",
    "Event.owner_manager_id": "organizer",
    "created_by": "omitted or 0: the session's manager",
    "UpdateCalendarEvent.created_by": "0: stays",
    "Event.created_by": "",
    "updated_by": "who changed it last",
    "type": "",
    "status": "any may follow any",
    "Event.status": "",
    "Participant.status": "",
    "ParticipantGiven.status": "omitted: 0, or as it was",
    "SetCalendarParticipantStatus.status": "the answer",
    "priority": "",
    "ast_json": "the visible body: object, array, string or null; comes back as it was sent",
    "all_day": "1: it takes whole days",
    "remind_time": "0: none",
    "remind_before_sec": "reminder before the start; 0: none",
    "reminder_sent_time": "when the reminder was delivered; 0: not yet",
    "customer_id": "0: none",
    "lead_id": "0: none",
    "login": "trading account; 0: none",
    "created_time": "",
    "updated_time": "",
    "version": "1 at first, one more with each change",
    "participant_manager_ids": "those to invite (role 1, status 0); repeats count once; not used beside `participants`, even an empty one",
    "UpdateCalendarEvent.participant_manager_ids": "instead of all participants; who stays keeps role and status; not used beside `participants`",
    "participants": "those who take part, each once; the owner always does (role 0, status 1)",
    "UpdateCalendarEvent.participants": "instead of all participants; who stays keeps what is not sent",
    "Event.participants": "the owner first, then by manager id",
    "manager_id": "",
    "GetCalendarEventsByFilter.manager_id": "owner, creator or participant; 0: anybody",
    "Participant.role": "0: organizer, with no rights by that but for the owner",
    "ParticipantGiven.role": "omitted: 1, or as it was; 0 gives no rights",
    "ParticipantGiven.created_time": "omitted: now, or as it was",
    "ParticipantGiven.updated_time": "omitted: now, or as it was",
    "Participant.event_id": "",
    "ParticipantGiven.event_id": "ignored, so that a list just read can be sent back",
    "from": "of the time to look at; an event that ends just then is not in it",
    "to": "after `from`; an event that starts just then is not in it. One without length counts at its moment",
    "limit": "rows at most, of those by `start_time`, then `id`",
    "offset": "rows to pass over; `after` costs less",
    "deskFilter": "desks to look at (below); `*`: all that the session sees",
    "GetCalendarEventsByFilter.customer_id": "0: any",
    "GetCalendarEventsByFilter.lead_id": "0: any",
    "GetCalendarEventsByFilter.login": "0: any",
    "GetCalendarEventsByFilter.status": "omitted: any",
    "GetCalendarEventsByFilter.type": "omitted: any",
    "after": "the last row of the page before: goes on behind it",
}
"""What each field is for, by its name, or by its Struct and name where it means something else there. Omitted is null or absent."""
