"""Hashing many files: no link is followed, nothing that is no file hangs, one bad file does not spoil the others."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections.abc import Callable
from io import FileIO
from pathlib import Path

import pytest

from immich_usb_backup.adapters import tree
from immich_usb_backup.adapters.digests import sha1s
from immich_usb_backup.adapters.source import ServerFiles
from immich_usb_backup.adapters.threads import Stopped
from immich_usb_backup.adapters.tree import Descriptor
from immich_usb_backup.errors import SourceUnreadable

MIB = 1 << 20
FILES = {b"a.jpg": b"1", b"u/aa/b.jpg": os.urandom(2 * MIB + 7), b"u/aa/c\xff.jpg": b"", b"u/d.jpg": os.urandom(MIB)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the files in it."""
    for path, content in FILES.items():
        file = tmp_path / "media" / os.fsdecode(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return tmp_path / "media"


async def _sha1s(folder: Path, *paths: bytes) -> dict[bytes, bytes | str | None]:
    return dict(await ServerFiles().sha1s(folder, paths, lambda _: None))


async def test_each_file_has_its_sha_1_and_all_bytes_are_told(folder: Path) -> None:
    read: list[int] = []
    found = await ServerFiles().sha1s(folder, FILES, read.append)
    assert found == {path: hashlib.sha1(content).digest() for path, content in FILES.items()}
    assert sum(read) == sum(map(len, FILES.values()))


async def test_what_is_no_plain_file_has_none_and_nothing_waits_for_it(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("a.jpg")
    async with asyncio.timeout(20):  # a FIFO without a writer would hang for ever
        found = await _sha1s(folder, b"missing", b"a.jpg/below", b"pipe", b"link", b"u", b"no/folder/x", b"a.jpg")
    assert {path for path, digest in found.items() if digest is not None} == {b"a.jpg"}


async def test_a_link_among_the_folders_is_not_followed(folder: Path) -> None:
    (folder / "way").symlink_to("u")
    assert await _sha1s(folder, b"way/d.jpg", b"way/aa/b.jpg") == {b"way/d.jpg": None, b"way/aa/b.jpg": None}


async def test_no_descriptor_is_left(folder: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    os.mkfifo(folder / "pipe")
    await _sha1s(folder, b"pipe", b"u", *FILES)
    assert len(os.listdir("/proc/self/fd")) == before


class _Bad(FileIO):
    """A file on a scratched place."""

    def readinto(self, buffer: object, /) -> int:
        raise OSError(errno.EIO, "Input/output error")


async def test_a_file_that_cannot_be_read_does_not_spoil_the_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tree.open_file

    def open_file(at: int, name: bytes) -> FileIO:
        file = real(at, name)
        if name != b"d.jpg":
            return file
        with file:
            return _Bad(os.dup(file.fileno()))

    monkeypatch.setattr(tree, "open_file", open_file)
    found = await _sha1s(folder, *FILES)
    assert found.pop(b"u/d.jpg") == "Input/output error"
    assert all(isinstance(digest, bytes) for digest in found.values())
    with Descriptor.open(folder) as opened, pytest.raises(OSError, match="Input/output error"):
        sha1s(opened.fd, FILES, beat=lambda: None, count=lambda _: None, fatal=lambda _: True)


def test_a_file_that_grows_as_fast_as_it_is_read_comes_to_an_end(folder: Path) -> None:
    def grow(_: int) -> None:
        with (folder / "a.jpg").open("ab") as file:
            file.write(b"more")

    with Descriptor.open(folder) as opened:
        found = sha1s(opened.fd, [b"a.jpg", b"u/d.jpg"], beat=lambda: None, count=grow)
    assert found[b"a.jpg"] == "it changed meanwhile"
    assert isinstance(found[b"u/d.jpg"], bytes)


async def test_a_folder_that_is_none_is_said(folder: Path) -> None:
    with pytest.raises(SourceUnreadable):
        await _sha1s(folder / "missing", b"x")


def test_it_can_be_stopped_within_a_large_file(folder: Path) -> None:
    def beat() -> None:
        if counted:
            raise Stopped

    counted: list[int] = []
    stop: Callable[[], None] = beat
    with Descriptor.open(folder) as opened, pytest.raises(Stopped):
        sha1s(opened.fd, [b"u/aa/b.jpg"], beat=stop, count=counted.append)
    assert counted == [MIB]
