"""MngAddCalendarEvent over the wire and in the tables."""

from __future__ import annotations

DOCUMENT = (
    '{"command":"MngAddCalendarEvent","extID":"1","data":{"brand":"default","desk":"DESK_RETENTION","owner_manager_id":10,'
    '"title":"Retention sync","type":3,"priority":1,"start_time":1710000000,"end_time":1710003600,'
    '"ast_json":{"type":"doc","content":[]},"participant_manager_ids":[10,11,12]}}'
)


async def test_add_answers_the_documents_exchange(gateway, connect, db):
    """The document's frame gets event 1 with its three participants, and the tables hold the same."""
    client = await connect(gateway)
    reply = await client.exchange(DOCUMENT, "1")
    event = reply["data"]["event"]
    assert [200, 1, 10, 10] == [reply["status"], event["id"], event["owner_manager_id"], event["created_by"]]
    shown = [(row["event_id"], row["manager_id"], row["role"], row["status"]) for row in event["participants"]]
    assert [(1, 10, 0, 1), (1, 11, 1, 0), (1, 12, 1, 0)] == shown
    stored = await db.fetch("SELECT event_id, manager_id, role, status FROM calendar_participant ORDER BY manager_id")
    assert shown == [tuple(row) for row in stored]
