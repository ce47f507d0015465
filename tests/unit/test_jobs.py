"""A backup that waits, and is asked for again: it is one, and does the most that was asked for."""

from __future__ import annotations

import pytest
from tests.support.fakes import seen_stick

from immich_usb_backup.jobs import Job, JobQueue
from immich_usb_backup.model import Mode, Rereading, Trigger

NONE, TURN, DUE, ALL = Rereading


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [(TURN, ALL, ALL), (ALL, TURN, ALL), (ALL, DUE, DUE), (NONE, TURN, TURN), (TURN, NONE, TURN), (DUE, NONE, DUE)],
)
async def test_what_is_read_again_is_what_was_asked_for_last_if_it_is_more(
    first: Rereading, second: Rereading, together: Rereading
) -> None:
    queue = JobQueue()
    for rereading in (first, second):
        queue.add(Job(seen_stick(), rereading=rereading))
    assert len(queue) == 1
    job = queue.take()
    assert job is not None
    assert job.rereading is together


async def test_why_it_begins_is_who_asked_for_it_last() -> None:
    queue = JobQueue()
    for mode, trigger in ((None, Trigger.PLUG_IN), (Mode.FULL, Trigger.ASKED), (None, Trigger.PLUG_IN)):
        queue.add(Job(seen_stick(), mode, trigger=trigger))
    job = queue.take()
    assert job is not None
    assert (job.mode, job.trigger) == (Mode.FULL, Trigger.ASKED)
