"""The real daemon as a process, on real udev, D-Bus, UDisks2, rsync and exFAT, with disks that are loop devices."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import signal
import socket
import zipfile
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from immich_usb_backup import dbus_names
from immich_usb_backup.adapters.bus import Bus, Signal
from tests.integration.buses import until
from tests.support import host, samples
from tests.support.daemon import DaemonProcess, daemon_process

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(host.unavailable() is not None, reason=str(host.unavailable())),
]

OUTCOMES = ("run-ok", "run-partial", "run-failed", "run-interrupted")
STAGES = ("upload", "library", "profile")


@dataclass
class Server:
    """A media location, a configuration, and the daemon that goes with them."""

    folder: Path
    bus: host.Bus
    media: samples.MediaLocation

    def configure(self, more: str = "") -> Path:
        """Write the configuration; ``more`` are further sections."""
        samples.make_config_files(self.folder / "config")
        text = f'media_location = "{self.media.path}"\nconfig_files = ["{self.folder / "config"}"]\n'
        disks = '[disks]\ntransports = ["loop"]\nautomounter_grace_seconds = 0\nreserve_megabytes = 0\n'
        path = self.folder / "config.toml"
        path.write_text(text + disks + more)
        return path

    def daemon(self, more: str = "") -> AbstractAsyncContextManager[DaemonProcess]:
        """The daemon, ready for disks."""
        return daemon_process(self.configure(more), self.folder / "state", environment=self.bus.env)


@pytest.fixture
def server(tmp_path: Path, bus: host.Bus) -> Server:
    return Server(tmp_path, bus, samples.make_media_location(tmp_path / "immich", photos=12))


@pytest.fixture
def disk(bus: host.Bus) -> Iterator[host.Disk]:
    """A marked disk that is not plugged in yet."""
    with host.exfat_disk(128, "Blue", populate=host.make_marker) as found:
        found.detach()
        yield found


async def plug_in(daemon: DaemonProcess, disk: host.Disk) -> dict[str, object]:
    """Plug it in (anew) and wait for the outcome."""
    if disk.attached:
        await asyncio.to_thread(disk.detach)
    await asyncio.to_thread(disk.attach)
    return await daemon.event(*OUTCOMES)


def originals(root: Path) -> dict[str, str]:
    """Hashes of what lies in the three folders."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for stage in STAGES
        for path in (root / stage).rglob("*")
        if path.is_file() and not path.is_symlink()
    }


async def test_everything_lies_on_the_disk_and_a_second_plug_in_copies_nothing(server: Server, disk: host.Disk) -> None:
    dump = samples.real_dump(server.media.path / "backups", location=server.media)
    async with server.daemon() as daemon:
        first = await plug_in(daemon, disk)
        assert first["outcome"] == "ok", daemon.story()
        assert not disk.mount_points()
        second = await plug_in(daemon, disk)
        assert (second["outcome"], second["files"]) == ("ok", 0), daemon.story()
    with disk.mounted() as root:
        backup = root / "immich-server-backups"
        assert originals(backup) == originals(server.media.path)
        assert (backup / "database" / dump.name).read_bytes() == dump.read_bytes()
        (archive,) = (backup / "config").iterdir()
        with zipfile.ZipFile(archive) as opened:
            found = {Path(name).name for name in opened.namelist()}
            assert found == {"readme.txt", ".env", "docker-compose.yml", "hwaccel.yml"}
        assert not list(backup.rglob(".partial"))


async def test_an_unmarked_disk_is_bit_for_bit_what_it_was(server: Server) -> None:
    with host.exfat_disk(64, "Plain") as plain:
        plain.detach()
        before = plain.hash()
        async with server.daemon() as daemon:
            await asyncio.to_thread(plain.attach)
            await daemon.event("disk-unmarked")
        await asyncio.to_thread(plain.detach)
        assert plain.hash() == before


async def test_names_that_exfat_cannot_hold_come_under_others_and_the_manifest_knows(
    server: Server, disk: host.Disk
) -> None:
    folder = server.media.path / "library/admin"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "IMG_1.jpg").write_bytes(b"one")
    (folder / "img_1.JPG").write_bytes(b"two")
    (folder / "12:30.jpg").write_bytes(b"colon")
    (folder / "trailing.").write_bytes(b"dot")
    (folder / "link.jpg").symlink_to("IMG_1.jpg")
    (folder / "away.jpg").symlink_to("/etc/hostname")
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg")).write_bytes(b"latin-1")
    (folder / "Rome 1.5: on foot").mkdir()
    (folder / "Rome 1.5: on foot/a.jpg").write_bytes(b"in an odd folder")
    (folder / "fine\u00e9 \U0001f600.jpg").write_bytes(b"fine")
    os.utime(folder / "IMG_1.jpg", (0, 0))
    async with server.daemon() as daemon:
        ended = await plug_in(daemon, disk)
        assert ended["findings"] == ["stored-under-another-name", "link-outside", "any-marked-disk"], daemon.story()
        outside = next(entry for entry in daemon.entries if entry.get("finding") == "link-outside")
        assert "away.jpg" in outside["items"][0]
        assert ended["outcome"] == "partial"
        again = await plug_in(daemon, disk)
        assert (again["files"], again["findings"]) == (0, ["link-outside"]), daemon.story()
    with disk.mounted() as root:
        there = root / "immich-server-backups/library/admin"
        contents = sorted(path.read_bytes() for path in there.rglob("*") if path.is_file())
        assert set(contents) >= {b"one", b"two", b"colon", b"dot", b"latin-1", b"in an odd folder", b"fine"}
        assert (there / "IMG_1.jpg").read_bytes() == b"one"
        lines = gzip.decompress((root / "immich-server-backups/manifest.jsonl.gz").read_bytes()).decode()
        for name in ("img_1.JPG", "12:30.jpg", "trailing.", "caf\\udce9.jpg", "Rome 1.5: on foot", "link.jpg"):
            assert name in lines


async def test_a_source_that_is_not_mounted_removes_nothing(server: Server, disk: host.Disk) -> None:
    async with server.daemon() as daemon:
        assert (await plug_in(daemon, disk))["outcome"] == "ok"
        before = originals(server.media.path)
        for path in sorted((server.media.path / "upload").rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        ended = await plug_in(daemon, disk)
        assert ended["outcome"] == "partial"
        assert "deletions-held" in str(ended["findings"])
    with disk.mounted() as root:
        assert originals(root / "immich-server-backups") == before


async def test_what_immich_deleted_is_moved_aside_and_not_lost(server: Server, disk: host.Disk) -> None:
    gone = server.media.path / server.media.photos[0].path
    content = gone.read_bytes()
    async with server.daemon() as daemon:
        await plug_in(daemon, disk)
        gone.unlink()
        ended = await plug_in(daemon, disk)
        assert ended["outcome"] == "ok", daemon.story()
    with disk.mounted() as root:
        backup = root / "immich-server-backups"
        assert originals(backup) == originals(server.media.path)
        (kept,) = (path for path in (backup / "deleted").rglob("*") if path.is_file())
        assert kept.read_bytes() == content


async def test_a_damaged_newest_dump_gives_way_to_the_newest_good_one(
    tmp_path: Path, bus: host.Bus, disk: host.Disk
) -> None:
    media = samples.make_media_location(
        tmp_path / "immich", photos=3, dumps=samples.DumpPlan(truncated=True, temporary=True, uploaded=True)
    )
    async with Server(tmp_path, bus, media).daemon() as daemon:
        ended = await plug_in(daemon, disk)
        assert ended["outcome"] == "partial"
        assert "newer-dump-bad" in str(ended["findings"])
    with disk.mounted() as root:
        (kept,) = (root / "immich-server-backups/database").iterdir()
        assert kept.read_bytes() == media.dumps[0].read_bytes()


async def test_without_a_dump_the_photos_go_and_the_run_says_so(tmp_path: Path, bus: host.Bus, disk: host.Disk) -> None:
    media = samples.make_media_location(tmp_path / "immich", photos=3, dumps=samples.DumpPlan(dated=0, epoch=0))
    async with Server(tmp_path, bus, media).daemon() as daemon:
        ended = await plug_in(daemon, disk)
    assert (ended["outcome"], ended["findings"]) == ("partial", ["no-good-dump", "any-marked-disk"])
    with disk.mounted() as root:
        assert originals(root / "immich-server-backups") == originals(media.path)


async def test_a_disk_that_is_too_small_gets_the_dump_and_half_of_nothing(tmp_path: Path, bus: host.Bus) -> None:
    media = samples.make_media_location(tmp_path / "immich", photos=3)
    (media.path / "upload/huge.mov").write_bytes(os.urandom(1 << 20) * 90)
    with host.exfat_disk(64, "Small", populate=host.make_marker) as small:
        small.detach()
        async with Server(tmp_path, bus, media).daemon() as daemon:
            ended = await plug_in(daemon, small)
            assert ended["outcome"] == "failed", daemon.story()
            assert "are missing" in str(ended["event"])
        with small.mounted() as root:
            assert list((root / "immich-server-backups/database").iterdir())
            assert not originals(root / "immich-server-backups")


async def test_a_disk_pulled_in_mid_copy_is_interrupted_and_completed_later(server: Server, disk: host.Disk) -> None:
    for number in range(40):
        (server.media.path / f"upload/{number}.jpg").write_bytes(os.urandom(1 << 20))
    async with server.daemon() as daemon:
        await asyncio.to_thread(disk.attach)
        await daemon.event("stage-done")
        await asyncio.to_thread(lambda: disk.detach(pull=True))
        ended = await daemon.event(*OUTCOMES)
        assert ended["outcome"] == "interrupted", daemon.story()
        again = await plug_in(daemon, disk)
        assert again["outcome"] == "ok", daemon.story()
    with disk.mounted() as root:
        assert originals(root / "immich-server-backups") == originals(server.media.path)


async def test_a_new_configuration_with_mistakes_changes_nothing(server: Server, disk: host.Disk) -> None:
    async with server.daemon() as daemon:
        (server.folder / "config.toml").write_text("media_locaton = 1\n")
        daemon.process.send_signal(signal.SIGHUP)
        assert "did you mean media_location?" in (await daemon.event("reload-refused"))["event"]
        assert (await plug_in(daemon, disk))["outcome"] == "ok"
        server.configure('[desktop]\non = ["failed"]\n')
        daemon.process.send_signal(signal.SIGHUP)
        await daemon.event("reloaded")


async def test_systemd_is_told_the_truth(server: Server, disk: host.Disk, tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        said: list[str] = []
        asyncio.get_running_loop().add_reader(
            listener.fileno(), lambda: said.extend(listener.recv(65536).decode().splitlines())
        )
        environment = {**server.bus.env, "NOTIFY_SOCKET": path, "WATCHDOG_USEC": "1000000"}
        async with daemon_process(server.configure(), tmp_path / "state", environment=environment) as daemon:
            await plug_in(daemon, disk)
            assert await daemon.stop() == 0
        await until(lambda: "STOPPING=1" in said)
        asyncio.get_running_loop().remove_reader(listener.fileno())
    assert said.index("READY=1") < said.index("STATUS=Idle: waiting for disks")
    assert "WATCHDOG=1" in said
    flushing = next(number for number, line in enumerate(said) if "writing the last data" in line)
    assert said.index("STATUS=Idle: 'Blue' is backed up: safe to unplug") > flushing


async def test_a_listener_on_the_bus_follows_the_run(
    server: Server, disk: host.Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.bus.env.items():
        monkeypatch.setenv(name, value)
    seen: list[Signal] = []
    bus = await Bus.system()
    await bus.subscribe(seen.append, interface=dbus_names.MANAGER)
    async with server.daemon() as daemon:
        assert (await plug_in(daemon, disk))["outcome"] == "ok"
        await until(lambda: any(signal.member == "RunFinished" for signal in seen))
    await bus.close()
    members = [signal.member for signal in seen]
    assert members[0] == "RunStarted"
    assert "RunProgress" in members
    finished = next(signal.body[0] for signal in seen if signal.member == "RunFinished")
    assert (finished["disk"], finished["outcome"], finished["safe_to_unplug"]) == ("Blue", "ok", True)


async def test_only_one_daemon_runs(server: Server) -> None:
    async with server.daemon():
        config, state = server.configure(), server.folder / "other"
        with pytest.raises(AssertionError, match="taken on the bus"):
            async with daemon_process(config, state, environment=server.bus.env):
                pass
