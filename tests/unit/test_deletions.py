"""When files may leave the disk's copy, what an approval covers, and what is kept how long."""

from __future__ import annotations

from datetime import date

import pytest

from immich_usb_backup.policy.deletions import (
    Approval,
    Limits,
    SourceFacts,
    approval_files,
    due_for_purge,
    judge_approval,
    oldest_first,
    reasons_to_hold,
)

LIMITS = Limits(percent=10, files=100)


def _source(*, removals: int = 1, **facts: bool | int) -> SourceFacts:
    usual = {"files": 5, "needs_mark": True, "marked": True, "mount_point": True, "was_mount_point": True}
    return SourceFacts(name="upload", removals=removals, **(usual | facts))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("removals", "known", "held"),
    [
        (100, 100, False),
        (101, 101, True),
        (200, 2000, False),
        (201, 2000, True),
        (200, 2009, False),
        (201, 2010, False),
        (1, 0, False),
    ],
)
def test_more_than_the_share_and_more_than_the_number_is_held(removals: int, known: int, held: bool) -> None:
    assert bool(reasons_to_hold([_source(removals=removals)], known=known, limits=LIMITS)) is held


def test_the_folders_count_together() -> None:
    sources = [_source(removals=60), _source(removals=41)]
    assert reasons_to_hold(sources, known=202, limits=LIMITS) == ("it would be 101 files, 50 % of what the disk holds",)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"marked": False}, "mark .immich is missing in upload"),
        ({"files": 0}, "upload is empty on the server"),
        ({"mount_point": False}, "upload was a mount point"),
    ],
)
def test_one_file_is_held_where_the_server_s_folder_cannot_be_believed(facts: dict[str, int], reason: str) -> None:
    (found,) = reasons_to_hold([_source(**facts)], known=10_000, limits=LIMITS)
    assert reason in found
    assert reasons_to_hold([_source(removals=0, **facts)], known=10_000, limits=LIMITS) == ()


def test_all_the_reasons_are_given() -> None:
    nothing = _source(removals=500, marked=False, files=0, mount_point=False)
    assert len(reasons_to_hold([nothing], known=1000, limits=LIMITS)) == 4


@pytest.mark.parametrize(
    "facts", [{"needs_mark": False, "marked": False}, {"was_mount_point": False, "mount_point": False}]
)
def test_an_extra_folder_needs_no_mark_and_no_mount(facts: dict[str, bool]) -> None:
    assert reasons_to_hold([_source(**facts)], known=10, limits=LIMITS) == ()


@pytest.mark.parametrize(
    ("removals", "held", "approved", "expected"),
    [
        ({b"a", b"b"}, {b"a", b"b"}, True, Approval(given=True)),
        ({b"a"}, {b"a", b"b"}, True, Approval(given=True)),
        ({b"a", b"c"}, {b"a", b"b"}, True, Approval(given=False, too_big=True)),
        ({b"a"}, set(), True, Approval(given=False, too_big=True)),
        ({b"a"}, {b"a"}, False, Approval(given=False)),
    ],
)
def test_an_approval_is_for_what_was_held_when_it_was_given(
    removals: set[bytes], held: set[bytes], approved: bool, expected: Approval
) -> None:
    assert judge_approval(removals, frozenset(held), approved=approved) == expected


def test_a_file_approves_with_any_ending() -> None:
    names = [
        "approve-deletions",
        "Approve-Deletions.TXT",
        "approve-deletions.txt.rtf",
        "approve-deletions2",
        "x.approve-deletions",
    ]
    assert approval_files(names) == tuple(names[:3])


FOLDERS = ["20261121", "20261022", "20261021", "20251231", "20261332", "2026102", "notes", "２０２６１０２１"]


def test_what_was_set_aside_is_kept_for_all_of_its_days() -> None:
    assert due_for_purge(FOLDERS, today=date(2026, 11, 21), keep_days=30) == ("20251231", "20261021")
    assert due_for_purge(FOLDERS, today=date(2026, 11, 21), keep_days=0) == ("20251231", "20261021", "20261022")
    assert due_for_purge(FOLDERS, today=date(2026, 11, 21), keep_days=36_500) == ()


def test_for_room_the_oldest_goes_first_and_today_s_stays() -> None:
    assert oldest_first(FOLDERS, before=date(2026, 11, 21)) == ("20251231", "20261021", "20261022")
