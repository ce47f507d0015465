"""The list of files that are being copied, and the portions."""

from __future__ import annotations

import pytest

from immich_usb_backup.policy import in_flight
from immich_usb_backup.policy.manifest import SourceFile
from immich_usb_backup.policy.plan import Item

NAMES = [b"a/b.jpg", b"line\nend", b"caf\xe9"]


@pytest.mark.parametrize("names", [[], NAMES[:1], NAMES])
def test_a_whole_list_comes_back(names: list[bytes]) -> None:
    assert in_flight.decode(in_flight.encode(names)) == frozenset(names)


@pytest.mark.parametrize("length", range(len(in_flight.encode(NAMES))))
def test_a_list_that_was_cut_off_is_not_believed(length: int) -> None:
    assert in_flight.decode(in_flight.encode(NAMES)[:length]) is None


@pytest.mark.parametrize("content", [b"\0" * 4096, b"\0\0", b"a\0\0\0", b"\0a\0\0"])
def test_a_list_of_zeros_is_not_believed(content: bytes) -> None:
    assert in_flight.decode(content) is None


def test_portions_hold_everything_once_and_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "BATCH_BYTES", 10)
    monkeypatch.setattr(in_flight, "BATCH_FILES", 3)
    sizes = [4, 4, 4, 99, 0, 0, 0, 0]
    items = [Item(b"%d" % number, b"", SourceFile(size, 0)) for number, size in enumerate(sizes)]
    portions = [[item.file.size for item in batch] for batch in in_flight.batches(items)]
    assert portions == [[4, 4], [4], [99], [0, 0, 0], [0]]
    assert list(in_flight.batches([])) == []


def test_a_new_list_never_takes_the_name_of_an_old_one() -> None:
    names = ["files.2", "files.10", "files.x", "files.", "other.4", "7", "files.3.tmp"]
    assert in_flight.lists(names) == ("files.2", "files.10")
    assert in_flight.next_list(names) == "files.11"
    assert in_flight.next_list(["7", "other.9"]) == "files.1"
