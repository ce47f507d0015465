"""After the copying: only what lies on the disk as it is in the source counts."""

from __future__ import annotations

from immich_usb_backup.policy.mirror import FileFact, check_copy

NOW = 1_700_000_000 * 10**9
OLD, NEW = FileFact(10, NOW), FileFact(20, NOW + 60 * 10**9)


def test_what_arrived_counts() -> None:
    check = check_copy({b"a": OLD, b"b": OLD}, {b"a": OLD, b"b": OLD}, {b"a": OLD, b"b": OLD})
    assert (check.files, check.size, check.again, check.vanished) == (2, 20, (), ())


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
