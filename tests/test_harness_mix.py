"""The mix of `gateway load` names events of which every status is known, whatever is sent again later."""

from __future__ import annotations

from collections import Counter

import pytest

from gateway.errors import StartupError
from gateway.harness.credentials import Member
from gateway.harness.kinds import Job, Kinds
from gateway.harness.mix import STEPS, Mix

ADDED = b'{"extID":1,"status":200,"data":{"event":{"id":7,"brand":""}}}'


def taken(mix: Mix, command: str) -> Job:
    """The next command of that name; adds on the way to it are never answered."""
    while (job := mix.take(0)) is not None and job.kind.name != command:
        continue
    assert job is not None
    return job


@pytest.mark.parametrize("lost", [False, True])
def test_mix_deletes_nothing_that_is_still_worked_with(lost):
    """A get that is under way, or put off, holds up the delete of its event until it is answered or lost."""
    mix = Mix(Kinds(), {"add": 1, "get": 1, "delete": 1}, 1, [Member(10, "")], 1)
    mix.answered(taken(mix, "MngAddCalendarEvent"), ADDED, ok=True)
    gets = [job for _ in range(100) if (job := mix.take(0)) is not None and job.kind.name != "MngAddCalendarEvent"]
    assert {"MngGetCalendarEvent"} == {job.kind.name for job in gets}
    for get in gets:
        if lost:
            mix.lost(get)
        else:
            mix.answered(get, b"", ok=True)
    assert b',"data":{"id":7}}' == taken(mix, "MngDeleteCalendarEvent").tail


def sent_by(connection: int, mix: Mix, commands: int) -> Counter[str]:
    """What a connection sends, by name."""
    return Counter(job.kind.name for _ in range(commands) if (job := mix.take(connection)) is not None)


def test_mix_has_those_sign_in_and_out_who_can():
    """One without a password, or without sessions to end, takes adds in these places; nobody else does without."""
    anna, one_more = Member(10, "", "anna", "a password", spare_tokens=["a token"]), Member(21, "", "one more")
    mix = Mix(Kinds(), {"login": 1, "logout": 1}, 1, [anna, one_more], 2)
    assert {"MngLogin": STEPS // 2, "MngLogout": 1, "MngAddCalendarEvent": STEPS // 2 - 1} == sent_by(0, mix, STEPS)
    assert {"MngAddCalendarEvent": STEPS} == sent_by(1, mix, STEPS)


@pytest.mark.parametrize(
    ("weights", "folder", "managers", "told"),
    [
        ({"login": 1}, ".data/passwords", [21], "login: manager 21 has no password file in .data/passwords"),
        ({"login": 1}, ".data/passwords", [21, 10], "login: managers 10 and 21 have no password file in .data/passwords"),
        ({"login": 1}, "", [21], "login: passwords are known on the embedded default alone, and not beside a token"),
        ({"logout": 1}, "", [21], "logout: sessions to end are opened with the signing key, and not beside a token"),
    ],
)
def test_mix_that_nobody_can_send_says_who_lacks_what(weights, folder, managers, told):
    """Of those who act; one that has no connection lacks nothing."""
    members = [Member(manager, "", passwords=folder) for manager in managers]
    with pytest.raises(StartupError) as refused:
        Mix(Kinds(), weights, 1, [*members, Member(30, "", "idle", "a password", spare_tokens=["a token"])], len(members))
    assert f"--mix names only what nobody can send ({told}): give another command a weight, like add=1" == str(refused.value)
