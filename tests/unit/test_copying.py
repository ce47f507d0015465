"""Copying under other names: whole or not at all, with the source's time, and never through a link."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from immich_usb_backup.adapters.copying import copy_in
from immich_usb_backup.adapters.threads import Stopped
from immich_usb_backup.adapters.tree import Descriptor
from immich_usb_backup.model import TEMPORARY

MIB = 1 << 20
OLD_NS = -86_400 * 10**9 + 123


class Both:
    """A folder of the server, and a disk."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "source"
        self.disk = folder / "disk"
        self.counted: list[int] = []
        self.at_count: Callable[[], object] = lambda: None
        self.source.mkdir()
        self.disk.mkdir()

    def put(self, name: str, content: bytes) -> Path:
        """A file of the server's, of old."""
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, ns=(OLD_NS, OLD_NS))
        return path

    def copy(self, files: dict[bytes, bytes], beat: Callable[[], None] = lambda: None) -> dict[bytes, str]:
        """Copy; what failed, and why."""
        with Descriptor.open(self.disk) as disk:
            return dict(copy_in(self.source, disk.fd, files, number=7, beat=beat, count=self._count))

    def _count(self, size: int) -> None:
        self.counted.append(size)
        self.at_count()

    @property
    def on_disk(self) -> dict[str, bytes]:
        """All files, the temporary ones too."""
        files = (path for path in self.disk.rglob("*") if path.is_file())
        return {str(path.relative_to(self.disk)): path.read_bytes() for path in files}


@pytest.fixture
def both(tmp_path: Path) -> Both:
    return Both(tmp_path)


def test_files_are_copied_under_other_names_with_their_times(both: Both) -> None:
    content = os.urandom(2 * MIB + 3)
    both.put("u/12:30.jpg", content)
    both.put("u/empty", b"")
    assert both.copy({b"u/12:30.jpg": b"upload/u/12_30.jpg", b"u/empty": b"upload/v/w/empty"}) == {}
    assert both.on_disk == {"upload/u/12_30.jpg": content, "upload/v/w/empty": b""}
    assert (both.disk / "upload/u/12_30.jpg").stat().st_mtime_ns == OLD_NS
    assert sum(both.counted) == len(content)


def test_what_has_the_name_is_replaced_by_the_whole_file(both: Both) -> None:
    both.put("a", b"new")
    (both.disk / "a").write_bytes(b"old, and longer")
    assert both.copy({b"a": b"a"}) == {}
    assert both.on_disk == {"a": b"new"}


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"shorter"),
        lambda path: path.open("ab").write(b"longer"),
        lambda path: os.utime(path, ns=(1, 1)),
    ],
    ids=["shorter", "longer", "touched"],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_file_that_changes_meanwhile_is_not_taken_for_good(both: Both, change: Callable[[Path], object]) -> None:
    path = both.put("a", b"x" * (2 * MIB))
    both.put("b", b"whole")
    (both.disk / "a").write_bytes(b"the old one")
    both.at_count = lambda: change(path)
    assert both.copy({b"a": b"a", b"b": b"b"}) == {b"a": "it changed meanwhile"}
    assert both.on_disk == {"a": b"the old one", "b": b"whole"}


def test_each_failure_is_told_for_its_file_and_the_others_are_copied(both: Both) -> None:
    both.put("a", b"1")
    both.put("z", b"26")
    both.put("taken", b"x")
    os.mkfifo(both.source / "pipe")
    (both.source / "link").symlink_to("a")
    (both.source / "folder").symlink_to(".")
    (both.disk / "full/of").mkdir(parents=True)
    (both.disk / "file").write_bytes(b"in the way")
    goals = {
        b"a": b"a",
        b"missing": b"1",
        b"pipe": b"2",
        b"link": b"3",
        b"folder/a": b"4",
        b"taken": b"full",
        b"folder": b"5",
        b"z": b"z",
    }
    failed = both.copy(goals)
    assert failed.keys() == goals.keys() - {b"a", b"z"}
    assert failed[b"missing"] == "it went away meanwhile"
    assert failed[b"link"] == "it is a link"
    assert both.copy({b"a": b"file/below"}).keys() == {b"a"}
    assert both.on_disk == {"a": b"1", "z": b"26", "file": b"in the way"}


def test_a_source_that_cannot_be_opened_fails_each_file(both: Both) -> None:
    both.source.rmdir()
    assert both.copy({b"a": b"a", b"b": b"b"}).keys() == {b"a", b"b"}


def test_a_full_disk_ends_it_and_nothing_half_stays(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    both.put("a", b"1")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(OSError, match="No space left"):
        both.copy({b"a": b"a"})
    assert both.on_disk == {}


def test_a_stopped_copy_leaves_nothing_half(both: Both) -> None:
    both.put("a", b"x" * (3 * MIB))

    def beat() -> None:
        if both.counted:
            raise Stopped

    with pytest.raises(Stopped):
        both.copy({b"a": b"a"}, beat)
    assert both.on_disk == {}
    assert both.counted == [MIB]


def test_what_a_crash_left_is_no_trouble(both: Both) -> None:
    both.put("a", b"new")
    (both.disk / TEMPORARY).mkdir()
    (both.disk / TEMPORARY / "7").write_bytes(b"half of something longer")
    assert both.copy({b"a": b"a"}) == {}
    assert both.on_disk == {"a": b"new"}


def test_a_planted_link_is_not_written_through(both: Both) -> None:
    """A disk with links is not exFAT, but a reader of this code should not have to prove that."""
    both.put("a", b"new")
    outside = both.source / "precious"
    outside.write_bytes(b"precious")
    (both.disk / TEMPORARY).mkdir()
    (both.disk / TEMPORARY / "7").symlink_to(outside)
    with pytest.raises(OSError, match="symbolic"):
        both.copy({b"a": b"a"})
    assert outside.read_bytes() == b"precious"
