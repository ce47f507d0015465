"""Walking: every file once, in order, whatever it is called; no link is followed; what goes away meanwhile is no error."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from immich_usb_backup.adapters.source import ServerFiles
from immich_usb_backup.adapters.threads import Stopped
from immich_usb_backup.adapters.tree import Descriptor
from immich_usb_backup.adapters.walk import walk
from immich_usb_backup.errors import SourceUnreadable
from immich_usb_backup.policy.manifest import Folder, SourceFile

HOSTILE = (
    b"-rf",
    b"$(reboot)",
    b"new\nline",
    b"\xff\xfe not UTF-8",
    b" lead",
    b"Cafe\xcc\x81",
    b"\xf0\x9f\x93\xb7",
    b"x" * 255,
)


def _nothing() -> None:
    """A pulse that nobody feels."""


def _walk(root: Path, **options: Any) -> Iterator[Folder]:
    with Descriptor.open(root) as opened:
        yield from walk(opened.fd, **{"beat": _nothing, **options})


def _make(root: Path, *paths: bytes) -> None:
    for path in paths:
        file = root / os.fsdecode(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(path)


def _open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_is_met_as_a_file_a_folder_and_a_link(tmp_path: Path, name: bytes) -> None:
    _make(tmp_path, b"files/" + name, name + b"/inner")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / os.fsdecode(name)).symlink_to(os.fsdecode(name))
    found = {folder.path: folder for folder in _walk(tmp_path)}
    assert [*found[b"files"].files] == [name]
    assert [*found[name].files] == [b"inner"]
    assert found[b"links"].links == {name: name}


def test_a_file_is_told_with_its_size_time_and_inode(tmp_path: Path) -> None:
    _make(tmp_path, b"a.jpg")
    os.utime(tmp_path / "a.jpg", ns=(-5, -1_000_000_001))
    (folder,) = _walk(tmp_path)
    assert folder.files == {b"a.jpg": SourceFile(5, -1_000_000_001, (tmp_path / "a.jpg").stat().st_ino)}


def test_each_folder_comes_before_those_in_it_and_siblings_in_byte_order(tmp_path: Path) -> None:
    _make(tmp_path, b"b/x", b"a b/x", b"a/z/x", b"a/\xff/x", b"a/Z/x", b"B/x", b"a.b/x")
    expected = [b"", b"B", b"a", b"a/Z", b"a/z", b"a/\xff", b"a b", b"a.b", b"b"]
    assert [folder.path for folder in _walk(tmp_path)] == expected
    assert next(_walk(tmp_path)).folders == (b"B", b"a", b"a b", b"a.b", b"b")


def test_files_are_in_byte_order_too(tmp_path: Path) -> None:
    _make(tmp_path, *(b"%c" % number for number in (200, 100, 65, 97, 50)))
    (folder,) = _walk(tmp_path)
    assert [*folder.files] == [b"2", b"A", b"a", b"d", b"\xc8"]


def test_what_is_neither_file_nor_folder_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        (folder,) = _walk(tmp_path)
    assert folder.others == ((b"pipe", "FIFO"), (b"socket", "socket"))
    assert folder.files == {}


def test_links_are_told_and_not_followed(tmp_path: Path) -> None:
    _make(tmp_path, b"outside/secret", b"root/inside/a")
    for name, goal in (("up", "../outside"), ("file", "inside/a"), ("loop", "loop"), ("dead", b"\xff/gone")):
        (tmp_path / "root" / name).symlink_to(os.fsdecode(goal))
    found = [*_walk(tmp_path / "root")]
    assert [folder.path for folder in found] == [b"", b"inside"]
    assert found[0].links == {b"dead": b"\xff/gone", b"file": b"inside/a", b"loop": b"loop", b"up": b"../outside"}
    assert [*found[0].files] == []


def test_a_folder_that_becomes_a_link_before_it_is_opened_is_not_followed(tmp_path: Path) -> None:
    _make(tmp_path, b"outside/secret", b"outside/deep/secret", b"root/a/deep/x", b"root/b/x")
    walking = _walk(tmp_path / "root")
    assert next(walking).folders == (b"a", b"b")
    assert next(walking).path == b"a"
    for name in ("a", "b"):
        (tmp_path / "root" / name).rename(tmp_path / name)
        (tmp_path / "root" / name).symlink_to(tmp_path / "outside")
    assert [*walking] == []


def test_what_goes_away_during_the_walk_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _make(tmp_path, b"gone/x", b"still/x", b"kept")

    class Vanishing(os.PathLike[str]):
        """Stands for a file that is deleted between the reading of its name and the look at it."""

        name = "was-here"

        def __fspath__(self) -> str:
            return self.name

        def is_dir(self, *, follow_symlinks: bool) -> bool:
            return False

        def stat(self, *, follow_symlinks: bool) -> os.stat_result:
            raise FileNotFoundError(errno.ENOENT, "gone")

    _add_entries(monkeypatch, Vanishing())
    walking = _walk(tmp_path)
    assert [*next(walking).files] == [b"kept"]
    (tmp_path / "gone/x").unlink()
    (tmp_path / "gone").rmdir()
    rest = [*walking]
    assert [folder.path for folder in rest] == [b"still"]
    assert rest[0].unreadable == ()


def _add_entries(monkeypatch: pytest.MonkeyPatch, *more: Any) -> None:
    """Have every folder hold these too."""
    scandir = os.scandir

    class Scan:
        def __init__(self, fd: int) -> None:
            self._real = scandir(fd)

        def __enter__(self) -> Iterator[Any]:
            yield from self._real
            yield from more

        def __exit__(self, *_: object) -> None:
            self._real.close()

    monkeypatch.setattr(os, "scandir", Scan)


def _refuse(monkeypatch: pytest.MonkeyPatch, name: bytes, error: OSError) -> None:
    """Opening a folder of this name fails; tests run as root, whom no mode keeps out."""
    real = os.open

    def refusing(path: Any, *arguments: Any, **options: Any) -> int:
        if path == name:
            raise error
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refusing)


def test_a_folder_that_cannot_be_opened_is_told_and_the_rest_walked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make(tmp_path, b"a/x", b"locked/x", b"z/x")
    _refuse(monkeypatch, b"locked", PermissionError(errno.EACCES, "Permission denied"))
    found = [*_walk(tmp_path)]
    assert [folder.path for folder in found] == [b"", b"a", b"locked", b"z"]
    assert found[2] == Folder(b"locked", unreadable=((b"", "Permission denied"),))


def test_an_error_that_concerns_everything_ends_the_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead disk: else the walk would tell of a disk with nothing readable on it."""
    _make(tmp_path, b"a/x", b"b/x")
    _refuse(monkeypatch, b"a", OSError(errno.ENODEV, "No such device"))
    walking = _walk(tmp_path, fatal=lambda error: error.errno == errno.ENODEV)
    next(walking)
    with pytest.raises(OSError, match="No such device"):
        next(walking)


def test_one_name_is_passed_over_at_the_top_only(tmp_path: Path) -> None:
    _make(tmp_path, b".partial/half", b"a/.partial/x", b"x")
    paths = [folder.path for folder in _walk(tmp_path, skip=b".partial")]
    assert paths == [b"", b"a", b"a/.partial"]
    assert next(_walk(tmp_path, skip=b".partial")).folders == (b"a",)


def test_a_walk_can_begin_further_down(tmp_path: Path) -> None:
    _make(tmp_path, b"upload/u/a", b"other/x")
    assert [folder.path for folder in _walk(tmp_path, start=b"upload")] == [b"", b"u"]
    with pytest.raises(FileNotFoundError):
        next(_walk(tmp_path, start=b"missing"))


def test_very_many_folders_in_each_other_are_no_trouble(tmp_path: Path) -> None:
    """Deeper than there may be descriptors, or than Python may recurse."""
    depth = 1100
    at = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    try:
        assert sum(1 for _ in _walk(tmp_path)) == depth + 1
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)  # Python's own would recurse


def test_nothing_stays_open_when_a_walk_is_stopped_half_way(tmp_path: Path) -> None:
    _make(tmp_path, b"a/b/x", b"c/x")
    before = _open_descriptors()
    with Descriptor.open(tmp_path) as root:
        walking = walk(root.fd, beat=_nothing)
        next(walking)
        next(walking)
        assert _open_descriptors() == before + 1
    walking = ServerFiles().walk(tmp_path, _nothing)
    next(walking)
    walking.close()  # type: ignore[attr-defined]
    assert _open_descriptors() == before


def _stopping_after(beats: int) -> Callable[[], None]:
    left = [beats]

    def beat() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Stopped

    return beat


def test_a_walk_can_be_stopped_within_a_large_folder(tmp_path: Path) -> None:
    _make(tmp_path, *(b"%d" % number for number in range(50)))
    before = _open_descriptors()
    with pytest.raises(Stopped):
        [*ServerFiles().walk(tmp_path, _stopping_after(20))]
    assert _open_descriptors() == before


# The server's side ----------------------------------------------------------------------------------------


def test_the_folder_to_be_walked_may_be_a_link(tmp_path: Path) -> None:
    _make(tmp_path, b"real/a/x")
    (tmp_path / "link").symlink_to("real")
    assert [folder.path for folder in ServerFiles().walk(tmp_path / "link", _nothing)] == [b"", b"a"]


@pytest.mark.parametrize("name", ["missing", "file"])
def test_a_folder_that_is_none_is_said(tmp_path: Path, name: str) -> None:
    _make(tmp_path, b"file")
    with pytest.raises(SourceUnreadable, match=name):
        next(ServerFiles().walk(tmp_path / name, _nothing))
