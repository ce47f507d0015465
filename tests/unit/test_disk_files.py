"""Small deeds on the disk's files: what is missing is fine, what is foreign stays."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from immich_usb_backup.adapters import disk_files, disk_writing
from immich_usb_backup.adapters.tree import Descriptor
from immich_usb_backup.policy.manifest import Fingerprint


def _nothing() -> None:
    """A pulse that nobody feels."""


@pytest.fixture
def at(tmp_path: Path) -> Iterator[int]:
    """The folder, open, with some files in it."""
    for name in ("upload/a/1", "upload/a/2", "upload/b/c/3", "deleted/d/4", ".partial/5", "marker.toml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    with Descriptor.open(tmp_path) as opened:
        yield opened.fd


def _files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


def test_removed_files_take_their_emptied_folders_along(at: int, tmp_path: Path) -> None:
    disk_files.remove_files(
        at, [b"upload/a/1", b"upload/b/c/3", b"upload/gone/x", b"deleted/d/4", b"upload/a"], _nothing
    )
    assert _files(tmp_path) == {"upload/a/2", ".partial/5", "marker.toml"}
    folders = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_dir()}
    assert folders == {"upload", "upload/a", "deleted", ".partial"}


def test_times_are_set_and_links_are_not_followed(at: int, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("marker.toml")
    before = (tmp_path / "marker.toml").stat().st_mtime_ns
    disk_files.set_times(at, {b"upload/a/1": -1, b"missing": 5, b"marker.toml/x": 5, b"link": 5}, _nothing)
    assert (tmp_path / "upload/a/1").stat().st_mtime_ns == -1
    assert (tmp_path / "marker.toml").stat().st_mtime_ns == before


def test_names_are_of_files_or_of_folders(at: int) -> None:
    assert disk_files.names(at, "upload", folders=True) == ("a", "b")
    assert disk_files.names(at, "upload", folders=False) == ()
    assert disk_files.names(at, "upload/a", folders=False) == ("1", "2")
    assert disk_files.names(at, "", folders=False) == ("marker.toml",)
    assert disk_files.names(at, "missing", folders=True) == ()


def test_room_is_counted_in_whole_clusters(at: int, tmp_path: Path) -> None:
    (tmp_path / "upload/a/1").write_bytes(b"x" * 4097)
    (tmp_path / "upload/a/2").write_bytes(b"")
    assert disk_files.room_taken(at, "upload", _nothing, cluster=4096) == 3 * 4096
    assert disk_files.room_taken(at, "missing", _nothing, cluster=4096) == 0


def _fingerprint(at: int) -> Fingerprint:
    return disk_files.fingerprint(at, _nothing)


def test_a_fingerprint_tells_of_other_hands(at: int, tmp_path: Path) -> None:
    for name in ("marker.toml", "upload", "deleted"):
        os.utime(tmp_path / name, ns=(0, 1_999_999_999))
    before = _fingerprint(at).entries
    assert before == (("deleted", True, 0, 0), ("marker.toml", False, 11, 0), ("upload", True, 0, 0))
    (tmp_path / ".partial/6").write_bytes(b"ours")
    assert _fingerprint(at).entries == before
    os.utime(tmp_path / "marker.toml", ns=(0, 2_000_000_000))
    assert _fingerprint(at).entries != before


def test_a_fingerprint_does_not_ask_for_what_makes_the_kernel_read_folders(at: int, tmp_path: Path) -> None:
    before = _fingerprint(at)
    os.utime(tmp_path / "upload", ns=(0, 4_000_000_000))
    assert _fingerprint(at) == before


def test_a_fingerprint_keeps_odd_names(at: int, tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff")).touch()
    assert os.fsdecode(b"\xff") in {name for name, *_ in _fingerprint(at).entries}


def test_a_large_file_is_given_as_a_stream(at: int, tmp_path: Path) -> None:
    content = os.urandom(5 << 20)
    (tmp_path / "upload/large").write_bytes(content)
    beats = []

    def take(stream: IO[bytes]) -> bytes:
        first = stream.readline()
        return first + b"".join(iter(lambda: stream.read(1 << 20), b""))

    assert disk_writing.consume(at, "upload/large", take, lambda: beats.append(1)) == content
    assert len(beats) >= 5
    for nothing in ("upload/missing", "upload", "marker.toml/x"):
        if nothing != "marker.toml/x":
            assert disk_writing.consume(at, nothing, take, _nothing) is None
    (tmp_path / "link").symlink_to("marker.toml")
    assert disk_writing.consume(at, "link", take, _nothing) is None


def test_a_stream_is_closed_whatever_its_reader_does(at: int) -> None:
    def fail(stream: IO[bytes]) -> None:
        stream.read(1)
        raise ValueError("not a manifest")

    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ValueError, match="not a manifest"):
        disk_writing.consume(at, "marker.toml", fail, _nothing)
    assert len(os.listdir("/proc/self/fd")) == before
