"""The backup folder on a real exFAT disk: whole files or none, the marker never lost, full and read-only disks told."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from immich_usb_backup.adapters import disk_writing
from immich_usb_backup.errors import DiskFailing, DiskFull, DiskReadOnly, MarkerUnusable, SourceUnreadable, WrongDevice
from immich_usb_backup.marker_look import read_marker
from immich_usb_backup.model import BACKUP_FOLDER, Mount
from immich_usb_backup.policy.marker import has_folder_name
from immich_usb_backup.ports import Sink, Target
from tests.support import host
from tests.support.real_target import TARGETS, mount_of, opened

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(host.unavailable() is not None, reason=str(host.unavailable())),
]

MIB = 1 << 20


@pytest.fixture(scope="module")
def disk() -> Iterator[host.Disk]:
    with host.udev(), host.exfat_disk(24) as disk:
        yield disk


@pytest.fixture
def mount(disk: host.Disk) -> Iterator[Mount]:
    """The disk, mounted and empty again at the end."""
    with disk.mounted() as root:
        yield mount_of(disk, root)
        host.run("rm", "-rf", *[str(path) for path in root.iterdir()])


def _says(content: bytes) -> Callable[[Sink], None]:
    def produce(sink: Sink) -> None:
        for start in range(0, len(content), MIB):
            sink.write(content[start : start + MIB])

    return produce


async def test_a_file_is_written_whole_and_read_back(mount: Mount) -> None:
    content = os.urandom(3 * MIB + 5)
    async with opened(mount) as target:
        written = await target.write("database", "a.sql.gz", _says(content))
        assert (written.size, written.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        assert await target.sha256("database", "a.sql.gz") == written.sha256
        assert await target.names("database") == ("a.sql.gz",)
        assert await target.names(".partial") == ()
        assert await target.sha256("database", "missing") is None
        assert await target.names("missing") == ()
        await target.flush(lambda _: None)
    assert Path(mount.path, BACKUP_FOLDER, "database/a.sql.gz").read_bytes() == content


async def test_a_file_that_cannot_be_made_whole_leaves_the_old_one(mount: Mount) -> None:
    def half(sink: Sink) -> None:
        sink.write(b"half")
        raise SourceUnreadable("the server's disk fails")

    async with opened(mount) as target:
        await target.write("database", "a", _says(b"old"))
        with pytest.raises(SourceUnreadable):
            await target.write("database", "a", half)
        assert await target.sha256("database", "a") == hashlib.sha256(b"old").hexdigest()
        await target.clear_temporary("")
    assert not Path(mount.path, BACKUP_FOLDER, ".partial").exists()


async def test_what_reads_back_differently_is_not_put_in_place(mount: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(mount) as target:
        await target.write("database", "a", _says(b"old"))
        monkeypatch.setattr(disk_writing, "sha256", lambda *_: "0" * 64)
        with pytest.raises(DiskFailing):
            await target.write("database", "a", _says(b"new"))
    assert Path(mount.path, BACKUP_FOLDER, "database/a").read_bytes() == b"old"


async def test_a_full_disk_is_told_and_the_old_file_intact(mount: Mount) -> None:
    async with opened(mount) as target:
        await target.write("database", "a", _says(b"old"))
        with pytest.raises(DiskFull):
            await target.write("database", "a", _says(b"x" * (30 * MIB)))
        assert await target.sha256("database", "a") == hashlib.sha256(b"old").hexdigest()
        await target.clear_temporary("")
        assert await target.free_bytes() > 15 * MIB
        await target.write("database", "a", _says(b"new"))
    assert Path(mount.path, BACKUP_FOLDER, "database/a").read_bytes() == b"new"


async def test_a_read_only_disk_is_told(mount: Mount) -> None:
    async with opened(mount) as target:
        await target.write("database", "a", _says(b"old"))
    # By the older system call: by the newer one, FUSE lets nobody change a mount.
    older = {**os.environ, "LIBMOUNT_FORCE_MOUNT2": "always"}
    host.run("mount", "-o", "remount,ro", mount.path, env=older)
    try:
        async with opened(mount) as target:
            with pytest.raises(DiskReadOnly):
                await target.check()
            with pytest.raises(DiskReadOnly):
                await target.write("database", "a", _says(b"new"))
    finally:
        host.run("mount", "-o", "remount,rw", mount.path, env=older)


async def test_a_folder_that_is_not_the_disk_is_never_written_to(mount: Mount, tmp_path: Path) -> None:
    """As after a pulled disk: the mount point is a plain folder of the server's disk."""
    elsewhere = Mount(partition=mount.partition, path=str(tmp_path), read_only=False, ours=True)
    for attempt in (TARGETS.open(elsewhere, marker_entry=None), TARGETS.list_root(elsewhere)):
        with pytest.raises(WrongDevice):
            await attempt
    assert not [*tmp_path.iterdir()]


# The marker -----------------------------------------------------------------------------------------------


class PowerFailed(Exception):
    """Nothing after this reaches the disk."""


def _failing(function: Callable[..., Any], at: int, count: list[int]) -> Callable[..., Any]:
    def step(*arguments: Any, **options: Any) -> Any:
        count[0] += 1
        if count[0] == at:
            raise PowerFailed
        return function(*arguments, **options)

    return step


@pytest.mark.parametrize("at", range(1, 9))
async def test_the_marker_is_recognised_whenever_the_power_fails(
    mount: Mount, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Each rename, mkdir and fsync of the move is a moment in which it can."""
    root = Path(mount.path)
    (root / BACKUP_FOLDER).write_bytes(b'name = "Blue"')
    count = [0]
    with monkeypatch.context() as patch:
        for name in ("rename", "mkdir", "fsync"):
            patch.setattr(os, name, _failing(getattr(os, name), at, count))
        cut = False
        try:
            async with opened(mount, BACKUP_FOLDER):
                pass
        except PowerFailed:
            cut = True
    assert cut is (at <= count[0])
    marker = await read_marker(mount, TARGETS)
    assert marker is not None
    assert marker.name == "Blue"
    async with opened(mount, marker.entry if has_folder_name(marker) else None):
        pass
    after = await read_marker(mount, TARGETS)
    assert after is not None
    assert (after.is_folder, after.name) == (True, "Blue")


async def test_the_moves_are_all_of_them_tried(mount: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
    """That the range above has every moment in it."""
    Path(mount.path, BACKUP_FOLDER).write_bytes(b"")
    count = [0]
    for name in ("rename", "mkdir", "fsync"):
        monkeypatch.setattr(os, name, _failing(getattr(os, name), -1, count))
    async with opened(mount, BACKUP_FOLDER):
        pass
    assert 5 <= count[0] <= 8


async def test_several_marker_files_are_left_alone_and_told(mount: Mount) -> None:
    root = Path(mount.path)
    for ending in ("", ".txt", ".toml"):
        (root / f"{BACKUP_FOLDER}{ending}").write_bytes(ending.encode())
    with pytest.raises(MarkerUnusable):
        await TARGETS.open(mount, marker_entry=BACKUP_FOLDER)
    assert (root / BACKUP_FOLDER).read_bytes() == b""


@pytest.mark.parametrize("inside", [None, b"", b"not = toml = ", b'name = "Green"'])
async def test_a_marker_folder_is_looked_into_for_a_name(mount: Mount, inside: bytes | None) -> None:
    """`None`: somebody made a folder of that name."""
    place = Path(mount.path, BACKUP_FOLDER, "marker.toml")
    place.parent.mkdir()
    if inside is None:
        place.mkdir()
    else:
        place.write_bytes(inside)
    marker = await read_marker(mount, TARGETS)
    assert marker is not None
    assert marker.name == ("Green" if inside == b'name = "Green"' else None)


# Moving aside ---------------------------------------------------------------------------------------------

HOSTILE = (
    "a.jpg",
    "sub/b.jpg",
    "Cafe\u0301/\U0001f4f7.jpg",
    "-rf",
    "$(reboot)",
    "a b;c&d",
    " lead",
    "x" * 200 + ".jpg",
    "[x]{y}~#!",
)


def _files(target: Target) -> dict[bytes, int]:
    """Sizes by path below upload/; in its root with a slash before."""
    folders = target.walk(b"upload", lambda: None)
    return {folder.path + b"/" + name: file.size for folder in folders for name, file in folder.files.items()}


async def test_files_are_moved_aside_whatever_they_are_called_and_nothing_is_overwritten(mount: Mount) -> None:
    folder = Path(mount.path, BACKUP_FOLDER)
    async with opened(mount) as target:
        for turn in ("first", "second"):
            for name in HOSTILE:
                (folder / "upload" / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / "upload" / name).write_text(turn)
            names = [b"upload/" + os.fsencode(name) for name in HOSTILE]
            assert await target.move([(name, b"deleted/20261121/" + name) for name in names], beside=True) == ()
            assert _files(target) == {}
    aside = folder / "deleted/20261121/upload"
    texts = sorted(path.read_text() for path in aside.rglob("*") if path.is_file())
    assert texts == ["first"] * len(HOSTILE) + ["second"] * len(HOSTILE)
    assert (aside / "a.jpg").read_text() == "first"
    assert (aside / "a (2).jpg").read_text() == "second"
    assert not (folder / "upload/sub").exists()


async def test_a_walk_sees_every_file_but_the_temporary_ones(mount: Mount) -> None:
    folder = Path(mount.path, BACKUP_FOLDER)
    async with opened(mount) as target:
        assert _files(target) == {}
        for name in ("upload/a/b.jpg", "upload/.partial/half.jpg", "upload/.immich"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"12345")
        assert _files(target) == {b"a/b.jpg": 5, b"/.immich": 5}
        facts = await target.facts("upload", [b"a/b.jpg", b"a/c.jpg", b".immich/x"])
        assert [*facts] == [b"a/b.jpg"]
        await target.clear_temporary("upload")
        assert not (folder / "upload/.partial").exists()
        await target.remove("upload", "missing")


async def test_many_can_wait_at_once_for_the_same_disk(mount: Mount) -> None:
    async with opened(mount) as target:
        await asyncio.gather(*[target.write("config", f"{number}.zip", _says(b"x")) for number in range(8)])
        assert len(await target.names("config")) == 8
