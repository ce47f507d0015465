"""The list of files that are being copied, and the portions."""

from __future__ import annotations

import pytest

from immich_usb_backup.policy import in_flight
from immich_usb_backup.policy.mirror import FileFact, Tree, plan_mirror

NAMES = [b"a/b.jpg", b"line\nend", b"caf\xe9"]


@pytest.mark.parametrize("names", [[], NAMES[:1], NAMES])
def test_a_whole_list_comes_back(names: list[bytes]) -> None:
    assert in_flight.decode(in_flight.encode(names)) == frozenset(names)


@pytest.mark.parametrize("length", range(len(in_flight.encode(NAMES))))
def test_a_list_that_was_cut_off_is_not_believed(length: int) -> None:
    assert in_flight.decode(in_flight.encode(NAMES)[:length]) is None


def test_portions_hold_everything_once_and_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "BATCH_BYTES", 10)
    monkeypatch.setattr(in_flight, "BATCH_FILES", 3)
    copy = {b"%d" % number: FileFact(size, 0) for number, size in enumerate([4, 4, 4, 99, 0, 0, 0, 0])}
    portions = [[fact.size for fact in batch.values()] for batch in in_flight.batches(copy)]
    assert portions == [[4, 4], [4], [99], [0, 0, 0], [0]]


def test_copying_in_place_of_old_files_needs_room_for_one_of_them_only() -> None:
    files = {b".immich": FileFact(1, 0)} | {b"%d" % number: FileFact(4096, 0) for number in range(100)}
    plan = plan_mirror(Tree(files=files), Tree(files=files), doubtful=frozenset(files))
    assert (len(plan.copy), len(plan.doubted), plan.unchanged) == (101, 101, 0)
    assert plan.space_needed(4096) == 4096


def test_a_list_of_zeros_is_not_believed() -> None:
    assert in_flight.decode(b"\0" * 4096) is None


def test_a_new_list_never_takes_the_name_of_an_old_one() -> None:
    names = ["upload.2", "upload.10", "library.3", "upload.x", "uploads.4"]
    assert in_flight.lists_of("upload", names) == ("upload.2", "upload.10")
    assert in_flight.next_list("upload", names) == "upload.11"
    assert in_flight.next_list("profile", names) == "profile.1"
