"""After the copying: only what lies on the disk as it is on the server counts."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from immich_usb_backup.policy.copy_check import FileFact, check_copy, explain
from immich_usb_backup.policy.times import times_agree

DAY = 86_400 * 10**9
NOW = 1_700_000_000 * 10**9
OLD, NEW = FileFact(10, NOW), FileFact(20, NOW + 60 * 10**9)


def test_what_arrived_counts() -> None:
    check = check_copy({b"a": OLD, b"b": OLD}, {b"a": OLD, b"b": OLD}, {b"a": OLD, b"b": OLD})
    assert (check.good, check.files, check.size, check.again, check.vanished) == ((b"a", b"b"), 2, 20, (), ())


def test_what_is_missing_or_short_on_the_disk_is_tried_again() -> None:
    check = check_copy({b"a": OLD, b"b": OLD}, {b"b": FileFact(9, NOW)}, {b"a": OLD, b"b": OLD})
    assert check.files == 0
    assert check.again == ((b"a", "it did not arrive on the disk"), (b"b", "it did not arrive on the disk"))


def test_a_file_that_changed_while_it_was_copied_is_tried_again() -> None:
    check = check_copy({b"a": OLD}, {b"a": OLD}, {b"a": NEW})
    assert check.again == ((b"a", "it changed meanwhile"),)


def test_a_file_that_changed_before_it_was_copied_is_good() -> None:
    assert check_copy({b"a": OLD}, {b"a": NEW}, {b"a": NEW}).size == 20


def test_a_file_that_immich_deleted_meanwhile_is_no_failure() -> None:
    check = check_copy({b"a": OLD}, {}, {})
    assert (check.vanished, check.again) == ((b"a",), ())


def test_an_old_copy_of_the_same_size_does_not_count() -> None:
    check = check_copy({b"a": FileFact(10, NOW + 10**11)}, {b"a": OLD}, {b"a": FileFact(10, NOW + 10**11)})
    assert check.files == 0


def test_what_rsync_said_of_a_file_is_its_reason() -> None:
    complaints = ('rsync: [receiver] mkstemp "/x/b.jpg" failed: Invalid argument (22)', "rsync error: some files")
    failed = ((b"a/b.jpg", "it did not arrive"), (b"a/c.jpg", "it did not arrive"))
    assert explain(failed, complaints) == ((b"a/b.jpg", "Invalid argument (22)"), (b"a/c.jpg", "it did not arrive"))


def _ns(year: int) -> int:
    return int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * 10**9


@pytest.mark.parametrize(
    ("source", "stored", "agree"),
    [
        (0, _ns(1980), True),
        (0, 0, True),
        (-5 * DAY, _ns(1980), True),
        (_ns(2200), _ns(2108) - 10**9, True),
        (0, _ns(1981), False),
        (0, _ns(2020), False),
        (_ns(2200), _ns(2020), False),
        (_ns(2020), _ns(1980), False),
        (NOW, NOW + 10**7, True),
        (NOW, NOW - 2 * 10**9, True),
        (NOW, NOW - 2 * 10**9 - 1, False),
        (NOW, NOW + 3600 * 10**9, False),
    ],
)
def test_times_beyond_what_exfat_knows_agree_with_its_bounds_only(source: int, stored: int, agree: bool) -> None:
    assert times_agree(source, stored) is agree
