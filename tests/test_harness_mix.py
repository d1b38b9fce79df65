"""The mix of `gateway load` names events of which every status is known, whatever is sent again later."""

from __future__ import annotations

import pytest

from gateway.harness.credentials import Member
from gateway.harness.kinds import Job, Kinds
from gateway.harness.mix import Mix

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
