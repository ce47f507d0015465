"""Sticks that are full, write-protected, broken or asleep: each run ends in a named outcome, the next good one repairs."""

from __future__ import annotations

from pathlib import Path

import pytest_asyncio

from tests.vm.backup import COMMAND, MEDIA, OURS, Backup, everything_else, marked_image
from tests.vm.guest import Fault
from tests.vm.image import SECTOR, filesystem_offset, image_hash, mounted_exfat

OWNERS = {"holiday.txt": b"mine", "Photos/old.jpg": bytes(range(256)) * 1000}
STICK = f"/media/immich-usb-backup/Blue/{OURS}"


@pytest_asyncio.fixture(loop_scope="session")
async def backup(server: Backup) -> Backup:
    """The service with the library as it was, on a system that writes out early."""
    await server.ready()
    await server.guest.sh("sysctl -q vm.dirty_bytes=2097152")
    return server


async def _is_repaired(backup: Backup, image: Path, before: dict[str, str]) -> None:
    """The next plug-in of a stick that works makes everything good."""
    ended = await backup.plug_in(image)
    assert ended.outcome == "ok", ended.story
    assert await backup.differences(image) == []
    assert everything_else(image) == before


async def test_a_write_protected_stick_is_named_as_such(backup: Backup, tmp_path: Path) -> None:
    image = marked_image(tmp_path / "blue.img")
    before = image_hash(image)
    ended = await backup.plug_in(image, read_only=True)
    assert (ended.outcome, ended.findings) == ("failed", ("disk-read-only",)), ended.story
    assert "write-protected" in ended.one("run-failed")["MESSAGE"]
    assert image_hash(image) == before


async def test_a_stick_that_others_fill_meanwhile_ends_full_and_true_to_what_it_holds(
    backup: Backup, tmp_path: Path
) -> None:
    image = marked_image(tmp_path / "blue.img", size_mib=64, extra=OWNERS)
    before = everything_else(image)
    assert (await backup.plug_in(image)).outcome == "ok"
    await backup.make_photos("upload/new", range(60), seed=1, kib=900)
    await backup.guest.plug("blue", image, write_bytes_per_second=2_000_000)
    await backup.event("plan-made")
    await backup.guest.sh("systemctl kill --signal=SIGSTOP immich-usb-backup.service")
    try:
        await backup.guest.throttle("blue", 0)
        fill = f"cat /dev/zero > {STICK}/../filler; truncate -s -3M {STICK}/../filler; sync"
        await backup.guest.sh(fill, check=False)
    finally:
        await backup.guest.sh("systemctl kill --signal=SIGCONT immich-usb-backup.service")
    full = await backup.ended()
    assert (full.outcome, "disk-full" in full.findings) == ("failed", True), full.story
    await backup.guest.pull("blue")
    still = await backup.plug_in(image)
    assert (still.outcome, still.findings, still.walked) == ("failed", ("disk-full",), False), still.story
    assert "missing" in still.texts("disk-full") or "missing" in still.one("run-failed")["MESSAGE"]
    with mounted_exfat(image, writable=True) as root:
        (root / "filler").unlink()
    await _is_repaired(backup, image, before)


async def test_a_sector_that_cannot_be_written_fails_the_run(backup: Backup, tmp_path: Path) -> None:
    image = marked_image(tmp_path / "blue.img", extra=OWNERS)
    before = everything_else(image)
    assert (await backup.plug_in(image)).outcome == "ok"
    await backup.make_photos("upload/new", range(40), seed=2, kib=400)
    bad = [Fault(_data_sector(image, 8 * 2**20 + number * 2**20), "write") for number in range(2)]
    failed = await backup.plug_in(image, faults=bad)
    assert failed.outcome == "failed", failed.story
    assert {"flush-failed", "disk-failing"} & set(failed.findings), failed.story
    await _is_repaired(backup, image, before)


async def test_a_file_that_cannot_be_read_back_is_named_by_verify(backup: Backup, tmp_path: Path) -> None:
    image = marked_image(tmp_path / "blue.img", extra=OWNERS)
    before = everything_else(image)
    await backup.guest.sh(f"yes immich | head -c 300000 > {MEDIA}/upload/unreadable.jpg")
    assert (await backup.plug_in(image)).outcome == "ok"
    at = image.read_bytes().index(b"immich\nimmich\n" * 100) // SECTOR + 100
    await backup.guest.plug("blue", image, faults=[Fault(at, "read")])
    assert (await backup.ended()).outcome == "ok", "quick does not read the originals"
    await backup.guest.sh(f"{COMMAND} backup --mode verify Blue")
    found = await backup.ended()
    await backup.guest.pull("blue")
    assert found.outcome in {"partial", "failed"}, found.story
    assert "unreadable.jpg" in found.story
    await _is_repaired(backup, image, before)


async def test_a_stick_that_hangs_is_given_up(backup: Backup, tmp_path: Path) -> None:
    image = marked_image(tmp_path / "blue.img", extra=OWNERS)
    before = everything_else(image)
    assert (await backup.plug_in(image)).outcome == "ok"
    await backup.make_photos("upload/new", range(40), seed=3, kib=400)
    deadlines = (
        ("adapters/rsync.py", "STALL_SECONDS", 15),
        ("adapters/threads.py", "STALL_SECONDS", 15),
        ("adapters/disk_flush.py", "_STALL_SECONDS", 15),
        ("adapters/udisks.py", "UNMOUNT_SECONDS", 15),
        ("release.py", "BUSY_SECONDS", 5),
    )
    async with backup.altered(*deadlines):
        await backup.guest.sh("systemctl restart immich-usb-backup.service")
        await backup.guest.plug("blue", image)
        await backup.event("plan-made")
        # QEMU stands still when the kernel loses patience and resets a stick that has a request under way.
        await backup.guest.sh("for timeout in /sys/block/sd*/device/timeout; do echo 3600 > $timeout; done")
        await backup.guest.throttle("blue", 1)
        hung = await backup.ended()
        assert hung.outcome == "failed", hung.story
        assert {"deadline-missed", "disk-failing", "flush-failed", "disk-gone"} & set(hung.findings), hung.story
        await backup.guest.throttle("blue", 0)
        await backup.guest.pull("blue")
    await _is_repaired(backup, image, before)


def _data_sector(image: Path, offset: int) -> int:
    """The disk's sector so many bytes into the part of its file system that holds content."""
    start = filesystem_offset(image)
    with image.open("rb") as file:
        file.seek(start + 88)
        heap = int.from_bytes(file.read(4), "little")
    return (start + offset) // SECTOR + heap
