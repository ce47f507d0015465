"""Bits that flip under the file system, and on the server: the real daemon reads back, on a real exFAT disk."""

from __future__ import annotations

import asyncio
import hashlib
import mmap
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from immich_usb_backup.__main__ import main
from immich_usb_backup.exit_codes import ExitCode
from tests.support import host, samples
from tests.support.daemon import DaemonProcess, daemon_process

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(host.unavailable() is not None, reason=str(host.unavailable())),
]

OUTCOMES = ("run-ok", "run-partial", "run-failed", "run-interrupted")

Command = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture
def media(tmp_path: Path) -> samples.MediaLocation:
    location = samples.make_media_location(tmp_path / "immich", photos=8)
    samples.real_dump(location.path / "backups", location=location)
    return location


@pytest.fixture
def disk(bus: host.Bus) -> Iterator[host.Disk]:
    """A marked disk that is not plugged in yet."""
    with host.exfat_disk(128, "Blue", populate=host.make_marker) as found:
        found.detach()
        yield found


@pytest.fixture
def command(bus: host.Bus, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """One of our commands, as a person gives it: exit code and output."""
    monkeypatch.setenv(bus.variable, bus.address)

    async def run(*arguments: str) -> tuple[int, str]:
        code = await asyncio.to_thread(main, arguments)
        return code, capsys.readouterr().out

    return run


def configure(tmp_path: Path, media: samples.MediaLocation, verification: str) -> Path:
    disks = 'transports = ["loop"]\nautomounter_grace_seconds = 0\nreserve_megabytes = 0'
    path = tmp_path / "config.toml"
    path.write_text(f'media_location = "{media.path}"\n[disks]\n{disks}\n[verification]\n{verification}\n')
    return path


async def plug_in(daemon: DaemonProcess, disk: host.Disk) -> dict[str, object]:
    """Plug it in (anew) and wait for the outcome."""
    if disk.attached:
        await asyncio.to_thread(disk.detach)
    await asyncio.to_thread(disk.attach)
    return await daemon.event(*OUTCOMES)


async def first_backup(daemon: DaemonProcess, disk: host.Disk) -> None:
    """Everything is copied, and nothing is wrong."""
    report = await plug_in(daemon, disk)
    assert report["outcome"] == "ok", daemon.story()


async def a_second_later() -> None:
    """Proofs are dated in seconds, and what is dated like the beginning of a run counts as read by it."""
    now = int(time.time())
    while int(time.time()) == now:
        await asyncio.sleep(0.05)


def original(media: samples.MediaLocation) -> tuple[str, bytes]:
    """A photo: its path below the media location, and its content."""
    path = next(path for path in sorted((media.path / "upload").rglob("*.jpg")) if path.stat().st_size > 500)
    return str(path.relative_to(media.path)), path.read_bytes()


def flip_in_image(image: Path, content: bytes) -> None:
    """Flip one bit of this content where it lies in the image: the file system does not know."""
    with image.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        place = memory.find(content)
        assert place >= 0
        assert memory.find(content, place + 1) < 0
        memory[place + len(content) // 2] ^= 1
        memory.flush()


def flip_on_server(path: Path) -> None:
    """Flip one bit; size and time stay."""
    facts, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


async def test_a_bit_that_flips_on_the_disk_is_found_named_and_healed(
    tmp_path: Path, media: samples.MediaLocation, disk: host.Disk, bus: host.Bus
) -> None:
    config = configure(tmp_path, media, "again_after_days = 0")
    path, content = original(media)
    async with daemon_process(config, tmp_path / "state", environment=bus.env) as daemon:
        await first_backup(daemon, disk)
        await asyncio.to_thread(disk.detach)
        flip_in_image(disk.image, content)
        await a_second_later()
        report = await plug_in(daemon, disk)
        assert report["outcome"] == "partial", daemon.story()
        (finding,) = (entry for entry in daemon.entries if entry.get("finding") == "disk-rotten")
        assert finding["items"] == [path]
        assert (await plug_in(daemon, disk))["outcome"] == "ok", daemon.story()
    with disk.mounted() as root:
        backup = root / "immich-server-backups"
        assert (backup / path).read_bytes() == content
        (kept,) = backup.glob(f"deleted/*/{path}")
        assert kept.read_bytes() == flipped(content)


async def test_a_bit_that_flips_on_the_server_is_named_and_the_good_copy_stays(
    tmp_path: Path, media: samples.MediaLocation, disk: host.Disk, bus: host.Bus
) -> None:
    config = configure(tmp_path, media, "again_after_days = 0")
    config.write_text(config.read_text() + '[disk.Blue]\nmode = "verify"\n')
    path, content = original(media)
    async with daemon_process(config, tmp_path / "state", environment=bus.env) as daemon:
        await first_backup(daemon, disk)
        flip_on_server(media.path / path)
        assert (await plug_in(daemon, disk))["outcome"] == "partial", daemon.story()
        assert "source-suspicious" in [entry.get("finding") for entry in daemon.entries]
    with disk.mounted() as root:
        assert (root / "immich-server-backups" / path).read_bytes() == content


async def test_verify_and_eject_as_a_person_gives_them(
    tmp_path: Path, media: samples.MediaLocation, disk: host.Disk, bus: host.Bus, command: Command
) -> None:
    config = configure(tmp_path, media, "minutes = 0")
    path, content = original(media)
    files = sum(
        path.is_file() for folder in ("upload", "library", "profile") for path in (media.path / folder).rglob("*")
    )
    async with daemon_process(config, tmp_path / "state", environment=bus.env) as daemon:
        await first_backup(daemon, disk)
        await asyncio.to_thread(disk.detach)
        flip_in_image(disk.image, content)
        await a_second_later()
        assert (await plug_in(daemon, disk))["outcome"] == "ok", daemon.story()
        code, said = await command("verify", "Blue", "--all")
        assert code == ExitCode.PROBLEM, daemon.story()
        assert f"Read again from the disk: {files - 1:,} files" in daemon.story()
        assert "copied again from the server, which still has it" in said
        code, said = await command("verify", "Blue", "--all")
        assert code == ExitCode.OK, daemon.story()
        assert "'Blue' is backed up: safe to unplug" in said
        await asyncio.to_thread(host.run, "udisksctl", "mount", "-b", str(disk.device), env=bus.env)
        assert disk.mount_points()
        assert await command("eject", "Blue") == (ExitCode.OK, "'Blue' is unmounted: safe to unplug.\n")
        assert not disk.mount_points()
    assert hashlib.sha1((media.path / path).read_bytes()).digest() == hashlib.sha1(content).digest()
