"""Many files at once on a real exFAT disk: copied, moved, hashed and walked; and what the disk looks like from outside."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from immich_usb_backup.adapters.target import DiskTarget
from immich_usb_backup.errors import DiskFull, DiskGone
from immich_usb_backup.model import BACKUP_FOLDER, Mount
from immich_usb_backup.policy.manifest import Fingerprint
from immich_usb_backup.ports import Sink
from tests.support import host
from tests.support.real_target import mount_of, opened

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(host.unavailable() is not None, reason=str(host.unavailable())),
]

MIB = 1 << 20
SECOND = 10**9
WINTER_1970 = 86_400 * SECOND
YEAR_2150 = 5_680_281_600 * SECOND


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


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of the server's with odd times in it."""
    for number, (name, time) in enumerate(TIMES.items()):
        (tmp_path / name).write_bytes(b"x" * number)
        os.utime(tmp_path / name, ns=(time, time))
    return tmp_path


TIMES = {
    "usual.jpg": 1_700_000_000 * SECOND + 123_456_789,
    "odd second.jpg": 1_700_000_001 * SECOND + 999_999_999,
    "1970.jpg": WINTER_1970,
    "1969.jpg": -WINTER_1970,
    "2150.jpg": YEAR_2150,
}


async def test_files_arrive_whole_whatever_their_time(mount: Mount, source: Path) -> None:
    files = {name.encode(): b"upload/u/" + name.encode() for name in TIMES}
    async with opened(mount) as target:
        assert await target.copy_in(source, files, lambda _: None) == ()
        await target.flush(lambda _: None)
        on_disk = await target.sha1s(files.values(), lambda _: None)
    folder = Path(mount.path, BACKUP_FOLDER)
    for number, name in enumerate(TIMES):
        assert on_disk[b"upload/u/" + name.encode()] == hashlib.sha1(b"x" * number).digest()
    assert abs((folder / "upload/u/usual.jpg").stat().st_mtime_ns - TIMES["usual.jpg"]) < 2 * SECOND
    assert [*(folder / ".partial").iterdir()] == []


async def test_a_folder_that_is_not_there_has_no_files(mount: Mount) -> None:
    async with opened(mount) as target:
        assert await target.facts("config", [b"config.zip"]) == {}


async def test_names_that_the_disk_does_not_take_fail_alone(mount: Mount, source: Path) -> None:
    files = {b"usual.jpg": b"upload/a?b.jpg", b"1970.jpg": b"upload/" + b"n" * 300, b"1969.jpg": b"upload/fine.jpg"}
    async with opened(mount) as target:
        failed = await target.copy_in(source, files, lambda _: None)
        assert {path for path, _ in failed} == {b"usual.jpg", b"1970.jpg"}
        assert await target.names("upload") == ("fine.jpg",)


async def test_a_disk_that_fills_up_is_told_and_has_its_room_back(mount: Mount, tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"x" * (30 * MIB))
    async with opened(mount) as target:
        await target.make_folder(".partial")
        before = await target.free_bytes()
        with pytest.raises(DiskFull):
            await target.copy_in(tmp_path, {b"film.mp4": b"upload/film.mp4"}, lambda _: None)
        assert await target.free_bytes() == before


async def test_only_the_case_of_a_name_changes(mount: Mount) -> None:
    """For exFAT both are one name: renaming it to itself would change nothing."""
    upload = Path(mount.path, BACKUP_FOLDER, "upload")
    upload.mkdir(parents=True)
    (upload / "IMG_1.JPG").write_bytes(b"1")
    (upload / "ÄÖ.jpg").write_bytes(b"2")
    (upload / "IMG_2.JPG").write_bytes(b"other")
    async with opened(mount) as target:
        pairs = [(b"upload/IMG_1.JPG", b"upload/img_1.jpg"), ("upload/ÄÖ.jpg".encode(), "upload/äö.jpg".encode())]
        assert await target.move(pairs, beside=False) == ()
        assert await target.names("upload") == ("IMG_2.JPG", "img_1.jpg", "äö.jpg")
        left = await target.move([(b"upload/img_1.jpg", b"upload/img_2.jpg")], beside=False)
        assert left == ((b"upload/img_1.jpg", "its new name is taken"),)
        assert await target.names("upload") == ("IMG_2.JPG", "img_1.jpg", "äö.jpg")
    assert (upload / "img_1.jpg").read_bytes() == b"1"
    assert (upload / "IMG_2.JPG").read_bytes() == b"other"


async def test_only_the_case_of_a_folder_changes(mount: Mount) -> None:
    """The folder keeps its name, which is the same one for exFAT; no file is lost on the way."""
    folder = Path(mount.path, BACKUP_FOLDER, "upload/Album")
    folder.mkdir(parents=True)
    (folder / "a.jpg").write_bytes(b"1")
    async with opened(mount) as target:
        assert await target.move([(b"upload/Album/a.jpg", b"upload/album/a.jpg")], beside=False) == ()
        assert await target.names("upload/album") == ("a.jpg",)


async def test_a_name_that_the_disk_does_not_take_is_left(mount: Mount) -> None:
    folder = Path(mount.path, BACKUP_FOLDER)
    (folder / "upload/a").mkdir(parents=True)
    for name in ("1", "2", "3"):
        (folder / "upload/a" / name).write_bytes(name.encode())
    async with opened(mount) as target:
        moves = [(b"upload/a/1", b"library/what?"), (b"upload/a/2", b"library/2"), (b"upload/a/gone", b"library/4")]
        assert {path for path, _ in await target.move(moves, beside=True)} == {b"upload/a/1", b"upload/a/gone"}
        assert await target.names("upload/a") == ("1", "3")
        assert await target.names("library") == ("2",)
        await target.remove_files([b"upload/a/1", b"upload/a/3", b"upload/a/what?"])
        assert await target.folders("") == ("library", "upload")
        assert await target.folders("upload") == ()


async def test_a_walk_leaves_out_what_is_not_whole(mount: Mount) -> None:
    folder = Path(mount.path, BACKUP_FOLDER)
    for name in ("upload/a/b.jpg", "upload/.partial/half.jpg", "upload/.immich"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"12345")
    async with opened(mount) as target:
        found = [(one.path, sorted(one.files), one.folders) for one in target.walk(b"upload", lambda: None)]
        assert found == [(b"", [b".immich"], (b"a",)), (b"a", [b"b.jpg"], ())]
        assert [*target.walk(b"missing", lambda: None)] == []
        assert await target.room_taken("upload") == 3 * await target.cluster_bytes()


async def test_a_walk_that_is_left_half_way_does_not_keep_the_disk_busy(disk: host.Disk) -> None:
    with disk.mounted() as root:
        async with opened(mount_of(disk, root)) as target:
            for path in ("upload/a", "upload/b"):
                await target.make_folder(path)
            walking = target.walk(b"upload", lambda: None)
            next(walking)
            next(walking)
        # the way out unmounts, while the walk is still there
    assert walking is not None


async def test_a_dead_disk_is_no_missing_file(mount: Mount) -> None:
    for name in ("upload/a/b.jpg", "upload/c/d.jpg"):
        path = Path(mount.path, BACKUP_FOLDER, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    there = [True]
    async with opened(mount) as opened_one:
        target = DiskTarget(opened_one._folder, mount, lambda: there[0])
        walking = target.walk(b"upload", lambda: None)
        next(walking)
        there[0] = False
        os.unlink(Path(mount.path, BACKUP_FOLDER, "upload/a/b.jpg"))
        os.rmdir(Path(mount.path, BACKUP_FOLDER, "upload/a"))
        with pytest.raises(DiskGone):
            list(walking)
        with pytest.raises(DiskGone):
            await target.sha1s([b"upload/missing"], lambda _: None)


async def test_hashes_come_from_the_medium(mount: Mount, disk: host.Disk) -> None:
    """The page cache still has what was written; a block on the disk has something else."""
    content = os.urandom(2 * MIB)
    path = Path(mount.path, BACKUP_FOLDER, "upload/a.jpg")
    path.parent.mkdir(parents=True)
    async with opened(mount) as target:
        path.write_bytes(content)
        await target.flush(lambda _: None)
        assert path.read_bytes() == content  # now in the cache
        _spoil(disk, content[:512])
        (found,) = (await target.sha1s([b"upload/a.jpg"], lambda _: None)).values()
        assert isinstance(found, bytes)
        assert found != hashlib.sha1(content).digest()


def _spoil(disk: host.Disk, beginning: bytes) -> None:
    """Overwrite the block that begins so."""
    host.run("blockdev", "--flushbufs", str(disk.device))
    with disk.device.open("r+b", buffering=0) as device:
        position = device.read(24 * MIB).index(beginning)
        device.seek(position)
        device.write(bytes(512))
        os.fsync(device.fileno())
    host.run("blockdev", "--flushbufs", str(disk.device))


# The fingerprint ------------------------------------------------------------------------------------------


def _says(content: bytes) -> Callable[[Sink], None]:
    def produce(sink: Sink) -> None:
        sink.write(content)

    return produce


async def _look(disk: host.Disk) -> Fingerprint:
    with disk.mounted() as root:
        async with opened(mount_of(disk, root)) as target:
            return await target.fingerprint()


async def test_a_fingerprint_is_the_same_after_unmount_and_mount(disk: host.Disk, source: Path) -> None:
    with disk.mounted() as root:
        async with opened(mount_of(disk, root)) as target:
            files = {name.encode(): b"upload/u/" + name.encode() for name in TIMES}
            await target.copy_in(source, files, lambda _: None)
            await target.write("database", "dump.gz", _says(b"x" * 100_000))
            await target.write(".", "manifest.jsonl.gz", _says(b"y" * 100_000))
            await target.move([(b"upload/u/1970.jpg", b"library/1970.jpg")], beside=False)
            await target.clear_temporary("")
            await target.flush(lambda _: None)
            before = await target.fingerprint()
    assert {name for name, *_ in before.entries} == {"upload", "database", "library", "manifest.jsonl.gz"}
    assert await _look(disk) == before
    disk.detach()
    disk.attach()
    assert await _look(disk) == before


async def test_a_fingerprint_tells_of_other_hands(disk: host.Disk) -> None:
    before = await _look(disk)
    with disk.mounted() as root:
        (root / BACKUP_FOLDER / "approve-deletions.txt").touch()
        (root / "holiday.odt").write_bytes(b"mine")
    after = await _look(disk)
    assert {*after.entries} - {*before.entries} == {("approve-deletions.txt", False, 0, after.entries[0][3])}
    assert after.free_clusters < before.free_clusters
    assert replace(after, entries=()) != replace(before, entries=())
