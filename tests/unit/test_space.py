"""Is there room, to the byte."""

from __future__ import annotations

import pytest

from immich_usb_backup.policy.space import ROOM_FOR_METADATA, Room, judge_room

GB = 10**9


def _room(**values: int) -> Room:
    usual = {"needed": GB, "free": 2 * GB, "library": 5 * GB, "partition": 10 * GB, "reserve": 2 * GB}
    return Room(**(usual | values))


@pytest.mark.parametrize(("partition", "missing"), [(7 * GB, 0), (7 * GB - 1, 1)])
def test_the_partition_must_hold_the_library_and_the_reserve(partition: int, missing: int) -> None:
    verdict = judge_room(_room(partition=partition))
    assert verdict.missing == missing
    assert ("too small" in verdict.reason) is bool(missing)


@pytest.mark.parametrize(
    ("free", "purgeable", "missing", "purge"),
    [
        (GB + ROOM_FOR_METADATA, 0, 0, 0),
        (GB + ROOM_FOR_METADATA - 1, 0, 1, 0),
        (GB + ROOM_FOR_METADATA - 1, 1, 0, 1),
        (GB + ROOM_FOR_METADATA - 5, 4, 1, 0),
        (0, GB + ROOM_FOR_METADATA, 0, GB + ROOM_FOR_METADATA),
        (GB + ROOM_FOR_METADATA, GB, 0, 0),
    ],
)
def test_what_is_missing_is_taken_from_deleted_and_no_more(free: int, purgeable: int, missing: int, purge: int) -> None:
    verdict = judge_room(_room(free=free, purgeable=purgeable))
    assert (verdict.missing, verdict.purge) == (missing, purge)
    assert bool(verdict.reason) is bool(missing)


def test_a_run_with_nothing_to_copy_needs_no_room() -> None:
    assert judge_room(_room(needed=0, free=0, partition=0)).missing == 0


def test_the_message_says_how_much_is_missing() -> None:
    verdict = judge_room(_room(free=0, purgeable=GB // 2, needed=GB - ROOM_FOR_METADATA))
    assert verdict.reason == (
        "The new photos need 1.0 GB, but 0 B are free and 500.0 MB in deleted/ could go: 500.0 MB are missing"
    )
