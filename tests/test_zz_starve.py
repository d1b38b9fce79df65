import asyncio, msgspec, collections
from tests.test_concurrent_changes import *
for n in [n for n in dir() if n.startswith("test_")]: del globals()[n]
async def many(person, event_id, field):
    for number in range(300):
        await person.client.socket.send(msgspec.json.encode({"command": "MngUpdateCalendarEvent", "extID": number, "__token": person.token, "data": {"id": event_id, field: number+1}}).decode())
    return [await person.client.receive() for _ in range(300)]
async def test_starve(start, connect, db):
    running = [await start(**PATIENT) for _ in range(2)]
    tokens = await add_managers(db, [Manager(21, 11)] * 2)
    clients = [await connect(r, None) for r in running]
    one, other = (Person(client, Manager(21, 11), token) for client, token in zip(clients, tokens, strict=True))
    event = await one.add()
    a, b = await asyncio.gather(many(one, event["id"], "login"), many(other, event["id"], "lead_id"))
    print("RESULT", [collections.Counter((r["status"], r.get("message")) for r in x) for x in (a, b)])
