"""Enrolled disks, strangers, copies and revoked ones, as the real daemon meets them on real exFAT."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from immich_usb_backup.adapters.enrolments import ENROLMENTS, EnrolmentsFile
from immich_usb_backup.adapters.udisks import UDisks
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.policy.enrolment import Enrolment, digest_of
from immich_usb_backup.policy.marker import ENROLLED_MARKER, MarkerText, decode, encode
from tests.support import host, samples
from tests.support.daemon import DAEMON, DaemonProcess, daemon_process
from tests.support.real_disks import connected, seen_disk
from tests.support.telling import NOON

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(host.unavailable() is not None, reason=str(host.unavailable())),
]

LOOKED = ("disk-not-trusted", "disk-unmarked", "run-ok", "run-partial", "run-failed", "run-interrupted")
SECRET = "5a" * 32
TEMPORARY = ENROLLED_MARKER + ".partial"


class Rig:
    """The daemon, which demands that disks are enrolled, and a person at its command line."""

    def __init__(self, daemon: DaemonProcess, bus: host.Bus) -> None:
        self.daemon = daemon
        self._environment = {**os.environ, **bus.env, "PYTHONPATH": str(DAEMON)}

    async def plug_in(self, disk: host.Disk) -> str:
        """Plug it in (anew); what the daemon made of it."""
        if disk.attached:
            await asyncio.to_thread(disk.detach)
        await asyncio.to_thread(disk.attach)
        entry = await self.daemon.event(*LOOKED)
        return str(entry["code"])

    async def command(self, *arguments: str) -> tuple[int, str]:
        """One of our commands: its exit code, and what it said."""
        command = [sys.executable, "-m", "immich_usb_backup", *arguments]
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=120, env=self._environment, check=False
        )
        return done.returncode, done.stdout + done.stderr


@asynccontextmanager
async def strict_daemon(tmp_path: Path, bus: host.Bus) -> AsyncIterator[Rig]:
    media = tmp_path / "immich"
    if not media.exists():
        samples.make_media_location(media, photos=2)
    config = tmp_path / "config.toml"
    disks = 'transports = ["loop"]\nautomounter_grace_seconds = 0\nreserve_megabytes = 0\ntrust = "enrolled"\n'
    config.write_text(f'media_location = "{media}"\n[disks]\n{disks}')
    async with daemon_process(config, tmp_path / "state", environment=bus.env) as daemon:
        yield Rig(daemon, bus)


@pytest.fixture
def plain() -> Iterator[host.Disk]:
    """A disk without a marker that is not plugged in yet."""
    with host.exfat_disk(128, "Plain", populate=lambda root: (root / "mine.txt").write_text("mine")) as disk:
        disk.detach()
        yield disk


async def test_a_disk_is_enrolled_and_backed_up_and_no_copy_or_revoked_one_is(
    tmp_path: Path, bus: host.Bus, plain: host.Disk
) -> None:
    async with strict_daemon(tmp_path, bus) as rig:
        assert await rig.plug_in(plain) == "disk-unmarked"
        code, said = await rig.command("enroll", str(plain.device), "--name", 'Blue "2"')
        assert (code, "safe to unplug" in said) == (ExitCode.OK, True), (said, rig.daemon.story())
        assert not plain.mount_points()
        with plain.mounted() as root:
            marker = (root / ENROLLED_MARKER).read_bytes()
            assert {path.name for path in root.iterdir()} == {"mine.txt", ENROLLED_MARKER}
        assert decode(marker).name == 'Blue "2"'
        assert await rig.plug_in(plain) in {"run-ok", "run-partial"}, rig.daemon.story()
        await asyncio.to_thread(plain.detach)
    with host.exfat_disk(64, "Thief", populate=lambda root: (root / ENROLLED_MARKER).write_bytes(marker)) as thief:
        thief.detach()
        before = thief.hash()
        async with strict_daemon(tmp_path, bus) as rig:
            assert await rig.plug_in(thief) == "disk-not-trusted"
            assert "copy of that of 'Blue \"2\"'" in rig.daemon.story()
            await asyncio.to_thread(thief.detach)
            assert thief.hash() == before
            code, said = await rig.command("forget", 'Blue "2"')
            assert code == ExitCode.OK, said
            before = plain.hash()
            assert await rig.plug_in(plain) == "disk-not-trusted"
            await asyncio.to_thread(plain.detach)
            assert plain.hash() == before


async def test_a_strangers_disk_is_bit_for_bit_what_it_was(tmp_path: Path, bus: host.Bus) -> None:
    other = encode(MarkerText("Mine", SECRET))

    def populate(root: Path) -> None:
        host.make_marker(root)
        (root / ENROLLED_MARKER).write_bytes(other)

    with host.exfat_disk(64, "Stranger", populate=populate) as disk:
        disk.detach()
        before = disk.hash()
        async with strict_daemon(tmp_path, bus) as rig:
            assert await rig.plug_in(disk) == "disk-not-trusted"
            assert f"enroll {disk.device}" in rig.daemon.story()
            code, said = await rig.command("enroll", str(disk.device), "--name", "Blue")
            assert (code, "It is enrolled already" in said) == (ExitCode.PROBLEM, True), said
            code, said = await rig.command("enroll", str(disk.device), "--name", "two\nlines")
            assert code == ExitCode.PROBLEM, said
            assert (await rig.command("enroll", "Nobody"))[0] == ExitCode.NOT_HERE
        await asyncio.to_thread(disk.detach)
        assert disk.hash() == before


async def test_a_clone_of_the_whole_file_system_passes_as_the_documents_say(
    tmp_path: Path, bus: host.Bus, plain: host.Disk
) -> None:
    async with strict_daemon(tmp_path, bus) as rig:
        await rig.plug_in(plain)
        assert (await rig.command("enroll", str(plain.device), "--name", "Blue"))[0] == ExitCode.OK
        await asyncio.to_thread(plain.detach)
        shutil.copyfile(plain.image, tmp_path / "clone.img")
        plain.image = tmp_path / "clone.img"
        assert await rig.plug_in(plain) in {"run-ok", "run-partial"}


STEPS = {"read_small": "disk_marker", "rename": "disk_marker.os", "syncfs": "disk_marker"}


@pytest.mark.parametrize("before", [None, b'name = "Old"\n'])
def test_a_kill_while_the_marker_is_written_leaves_none_or_a_whole_one(plain: host.Disk, before: bytes | None) -> None:
    """The program ends at each step, on a real exFAT, without a chance to tidy up; the next try tidies up."""
    whole = encode(MarkerText("Blue", SECRET))
    plain.attach()
    with plain.mounted() as root:
        for step, owner in STEPS.items():
            (root / ENROLLED_MARKER).unlink(missing_ok=True)
            if before is not None:
                (root / ENROLLED_MARKER).write_bytes(before)
            code = (
                "import os, sys; from immich_usb_backup.adapters import disk_marker\n"
                f"{owner}.{step} = lambda *_, **__: os._exit(9)\n"
                f"disk_marker.write(os.open(sys.argv[1], os.O_RDONLY), {whole!r}, lambda: None)\n"
            )
            environment = {**os.environ, "PYTHONPATH": str(DAEMON)}
            ended = subprocess.run([sys.executable, "-c", code, root], env=environment, check=False, timeout=60)
            assert ended.returncode == 9
            there = (root / ENROLLED_MARKER).read_bytes() if (root / ENROLLED_MARKER).exists() else None
            assert there == (whole if step == "syncfs" else before), step


async def test_what_a_killed_enrolling_left_is_cleaned_up_at_the_start(
    tmp_path: Path, bus: host.Bus, plain: host.Disk
) -> None:
    await asyncio.to_thread(plain.attach)
    seen = seen_disk(plain)
    (tmp_path / "state").mkdir()
    enrolment = Enrolment(uuid=seen.uuid, name="Blue", time=NOON, digest=digest_of(SECRET, seen.uuid))
    await EnrolmentsFile(tmp_path / "state" / ENROLMENTS).put(enrolment)
    async with connected(bus) as connection:
        disks = UDisks(connection)
        await disks.start()
        mount = await disks.mount(await disks.find(seen), read_only=False)
        Path(mount.path, TEMPORARY).write_bytes(encode(MarkerText("Blue", SECRET))[:20])
    async with strict_daemon(tmp_path, bus) as rig:
        assert "enrolment-cut-off" in rig.daemon.codes(), rig.daemon.story()
        assert not plain.mount_points()
        await rig.daemon.event("disk-unmarked")
        assert (await rig.command("enroll", str(plain.device), "--name", "Blue"))[0] == ExitCode.OK
    with plain.mounted() as root:
        assert {path.name for path in root.iterdir()} == {"mine.txt", ENROLLED_MARKER}
