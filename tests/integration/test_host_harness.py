"""The harness proves itself: real parts start, do what the project relies on, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gzip
import hashlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pyudev
from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import MessageType
from dbus_next.message import Message
from dbus_next.signature import Variant

from immich_usb_backup.adapters.bus import close_socket
from tests.support import host, samples

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(host.unavailable() is not None, reason=str(host.unavailable())),
]

FILESYSTEM = "org.freedesktop.UDisks2.Filesystem"
NO_QUESTIONS = {"auth.no_user_interaction": Variant("b", True)}
MOUNT_AS_NOBODY = """polkit.addRule(function(action, subject) {
    if (subject.user == "nobody" && action.id.indexOf("org.freedesktop.udisks2.") == 0) {
        return polkit.Result.YES;
    }
});
"""


class Udisks:
    """Just enough of a client to prove the harness; the project's own adapter is tested elsewhere."""

    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus

    async def call(self, disk: host.Disk, member: str, **options: Variant) -> Message:
        message = Message(
            destination=host.UDISKS_NAME,
            path=f"/org/freedesktop/UDisks2/block_devices/{disk.name}",
            interface=FILESYSTEM,
            member=member,
            signature="a{sv}",
            body=[NO_QUESTIONS | options],
        )
        async with asyncio.timeout(20):
            reply = await self._bus.call(message)
        assert reply is not None
        return reply

    async def mount(self, disk: host.Disk, options: str) -> Path:
        """Mount as soon as UDisks2 has the object, which comes after the udev event."""
        async with asyncio.timeout(20):
            while True:
                reply = await self.call(disk, "Mount", options=Variant("s", options))
                if reply.error_name != "org.freedesktop.DBus.Error.UnknownMethod":
                    return Path(_body(reply)[0])
                await asyncio.sleep(0.05)


def _body(reply: Message) -> list[Any]:
    assert reply.message_type is MessageType.METHOD_RETURN, (reply.error_name, reply.body)
    return list(reply.body)


@pytest.fixture
def disk(bus: host.Bus) -> Iterator[host.Disk]:
    with host.exfat_disk(populate=host.make_marker) as disk:
        yield disk


@pytest.fixture
async def udisks(bus: host.Bus) -> AsyncIterator[Udisks]:
    client = await MessageBus(bus_address=bus.address).connect()
    yield Udisks(client)
    client.disconnect()
    await client.wait_for_disconnect()
    close_socket(client)


def _leftovers(pid: int) -> list[str]:
    """What a process of the harness may not leave: processes, loop devices, mounts, folders."""
    tag = f"{host.FOLDER_PREFIX}{pid}-"
    listed = host.run("losetup", "--list", "--noheadings") + Path("/proc/self/mountinfo").read_text()
    found = [line for line in listed.splitlines() if tag in line]
    found += [str(path) for path in Path(tempfile.gettempdir()).glob(f"{tag}*")]
    return found + [str(path) for path in Path("/proc").glob("[0-9]*") if _mentions(path, tag.encode())]


def _mentions(process: Path, tag: bytes) -> bool:
    """Whether a process was started with the tag in its arguments or its environment; a zombie has neither."""
    with contextlib.suppress(OSError):
        return tag in (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
    return False


KILLED = """
import os, signal
from tests.support import host
with host.system_bus(private=True) as bus, host.udev(), host.udisks(bus), host.exfat_disk(16) as disk:
    point = disk.image.with_name("point")
    point.mkdir()
    host.run("mount", "-t", "exfat", str(disk.device), str(point))
    print(os.getpid(), flush=True)
    os.kill(os.getpid(), signal.{signal})
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_nothing_is_left_even_of_a_process_that_was_killed(name: str) -> None:
    """The next user of the harness sweeps up what SIGKILL left."""
    script = KILLED.format(signal=name)
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, check=False, timeout=60)
    assert done.stdout, done.stderr
    assert bool(_leftovers(int(done.stdout))) is (name == "SIGKILL")
    with host.udev(), host.exfat_mounts(), host.exfat_disk(16):
        pass
    host.wait_until(lambda: not _leftovers(int(done.stdout)), "nothing is left")


def test_udev_describes_a_loop_disk(disk: host.Disk) -> None:
    properties = disk.properties()
    assert properties["ID_FS_TYPE"] == "exfat"
    assert properties["ID_FS_LABEL_ENC"] == disk.label
    assert properties["DISKSEQ"] == str(disk.diskseq)
    assert properties["DEVTYPE"] == "disk"
    assert "ID_BUS" not in properties


def test_extra_rules_make_it_look_like_usb(bus: host.Bus) -> None:
    with host.udev_rules({"61-test.rules": host.PRETEND_USB}), host.exfat_disk() as disk:
        assert disk.properties()["ID_BUS"] == "usb"


async def test_a_read_only_mount_through_udisks_changes_no_bit(disk: host.Disk, udisks: Udisks) -> None:
    before = disk.hash()
    path = await udisks.mount(disk, "ro,nosuid,nodev,noexec")
    assert (path / "immich-server-backups").is_dir()
    assert path.stat().st_dev == disk.device_number
    assert disk.mount_points() == [path]
    _body(await udisks.call(disk, "Unmount"))
    assert disk.mount_points() == []
    assert not path.exists()
    assert disk.hash() == before


async def test_what_is_written_through_udisks_is_in_the_image(disk: host.Disk, udisks: Udisks) -> None:
    before = disk.hash()
    path = await udisks.mount(disk, "nosuid,nodev,noexec")
    (path / "photo.jpg").write_bytes(b"x" * 100_000)
    _body(await udisks.call(disk, "Unmount"))
    assert disk.hash() != before
    with disk.mounted() as root:
        assert (root / "photo.jpg").stat().st_size == 100_000


async def test_the_errors_that_the_project_tells_apart(disk: host.Disk, udisks: Udisks) -> None:
    path = await udisks.mount(disk, "ro")
    again = await udisks.call(disk, "Mount")
    assert again.error_name == "org.freedesktop.UDisks2.Error.AlreadyMounted"
    assert f"`{path}'" in again.body[0]
    with _held(path):
        busy = await udisks.call(disk, "Unmount")
    assert busy.error_name == "org.freedesktop.UDisks2.Error.DeviceBusy"
    _body(await udisks.call(disk, "Unmount"))
    assert (await udisks.call(disk, "Unmount")).error_name == "org.freedesktop.UDisks2.Error.NotMounted"


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    """A folder that somebody has open, so that its file system is busy."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield
    finally:
        os.close(descriptor)


def test_every_plug_in_has_a_greater_diskseq(disk: host.Disk) -> None:
    first = disk.diskseq
    disk.detach()
    assert not disk.attached
    disk.attach()
    assert disk.diskseq > first


async def test_udev_tells_of_a_pull_and_of_a_plug_in(disk: host.Disk, udisks: Udisks) -> None:
    monitor = pyudev.Monitor.from_netlink(pyudev.Context(), "udev")
    monitor.filter_by("block")
    monitor.start()
    await udisks.mount(disk, "")
    gone = str(disk.device)
    await asyncio.to_thread(disk.detach, pull=True)
    await asyncio.to_thread(disk.attach)
    events = [(event.action, event.device_node) for event in iter(lambda: monitor.poll(0), None)]
    assert ("remove", gone) in events
    assert [action for action, node in events if node == str(disk.device)][-1] == "change"
    assert disk.mount_points() == []


def test_an_overflown_monitor_recovers_when_its_error_is_read(bus: host.Bus) -> None:
    monitor = pyudev.Monitor.from_netlink(pyudev.Context(), "udev")
    monitor.filter_by("block")
    monitor.start()
    with socket.socket(fileno=os.dup(monitor.fileno())) as netlink:
        netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        host.run("udevadm", "trigger", "--subsystem-match=block")
        host.settle()
        for _ in range(3):
            with pytest.raises(OSError, match="Error while polling"):
                monitor.poll(0)
        assert netlink.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ENOBUFS
        list(iter(lambda: monitor.poll(0), None))  # the few that had room
        netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_000_000)
        host.run("udevadm", "trigger", "--subsystem-match=block")
        host.settle()
        assert monitor.poll(1) is not None


def test_many_disks_at_once(bus: host.Bus) -> None:
    with contextlib.ExitStack() as stack:
        disks = [stack.enter_context(host.exfat_disk(16, f"DISK{number}")) for number in range(6)]
        assert len({disk.device_number for disk in disks}) == 6
        assert [disk.properties()["ID_FS_LABEL"] for disk in disks] == [f"DISK{number}" for number in range(6)]


async def test_in_thread_keeps_the_loop_turning(bus: host.Bus) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.005)

    counting = asyncio.create_task(count())
    async with host.in_thread(host.exfat_disk(16)) as disk:
        assert disk.attached
    counting.cancel()
    assert turns > 5
    assert not disk.attached


async def test_in_thread_cleans_up_when_cancelled_while_entering(bus: host.Bus) -> None:
    async def enter() -> None:
        async with host.in_thread(host.exfat_disk(16)):
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.03):
            await enter()
    assert not _own_loops()


def _own_loops() -> list[str]:
    lines = host.run("losetup", "--list", "--noheadings", "--output", "BACK-FILE").splitlines()
    return [line for line in lines if f"/{host.FOLDER_PREFIX}{os.getpid()}-" in line]


@pytest.mark.parametrize("how", [KeyboardInterrupt, ValueError])
def test_an_exception_leaves_no_disk(bus: host.Bus, how: type[BaseException], tmp_path: Path) -> None:
    with pytest.raises(how):
        _leave_mounted_and_raise(how, tmp_path)
    assert not _own_loops()
    assert not tmp_path.is_mount()


def _leave_mounted_and_raise(how: type[BaseException], point: Path) -> None:
    with host.exfat_disk(16) as disk:
        host.run("mount", "-t", "exfat", str(disk.device), str(point))
        raise how


def test_without_a_rule_polkit_lets_no_stranger_mount_and_with_one_it_does(tmp_path: Path) -> None:
    if not host.find_program("polkitd"):
        pytest.skip("polkitd is not installed")
    rule = tmp_path / "test.rules"
    rule.write_text(MOUNT_AS_NOBODY)
    assert "NotAuthorized" in _mount_as_nobody(())
    assert "Mounted /dev/loop" in _mount_as_nobody((rule,))


def _mount_as_nobody(rules: tuple[Path, ...]) -> str:
    with (
        host.system_bus(private=True) as bus,
        host.udev(),
        host.polkit(bus, rules=rules),
        host.udisks(bus),
        host.exfat_disk(16) as disk,
    ):
        command = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "udisksctl", "mount"]
        command += ["--no-user-interaction", "--block-device", str(disk.device)]

        def attempt() -> str:
            done = subprocess.run(command, env=bus.env, capture_output=True, text=True, check=False, timeout=30)
            return done.stdout + done.stderr

        host.wait_until(lambda: "Error looking up object" not in attempt(), "UDisks2 has the disk")
        return attempt() if not disk.mount_points() else f"Mounted {disk.device}"


def test_a_session_bus(bus: host.Bus) -> None:
    with host.session_bus() as session:
        assert session.variable == "DBUS_SESSION_BUS_ADDRESS"
        assert session.address != bus.address
        assert not session.has_owner("org.freedesktop.Notifications")


def test_a_part_that_does_not_start_says_why() -> None:
    with (
        pytest.raises(host.HostError, match=r"dbus-daemon ended with 1") as caught,
        host.daemon(["dbus-daemon", "--config-file=/nowhere"], lambda: False, dict(os.environ)),
    ):
        pass
    assert "/nowhere" in caught.value.__notes__[0]


# Samples --------------------------------------------------------------------------------------------------


def test_a_media_location_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    one = samples.make_media_location(tmp_path / "1", photos=12, seed=3)
    two = samples.make_media_location(tmp_path / "2", photos=12, seed=3)
    assert one.photos == two.photos
    assert one.files == two.files
    assert {folder.name for folder in one.path.iterdir()} == set(samples.FOLDERS)
    assert all((one.path / folder / ".immich").read_text().isdigit() for folder in samples.FOLDERS)
    assert all(_sha1(one.path / photo.path) == photo.sha1 for photo in one.photos)


def test_dumps_that_are_no_good_are_not_listed(tmp_path: Path) -> None:
    plan = samples.DumpPlan(truncated=True, temporary=True, uploaded=True, restore_point=True)
    location = samples.make_media_location(tmp_path, photos=4, hostile_names=True, dumps=plan)
    assert len(location.dumps) == 3
    assert len(list((tmp_path / "backups").iterdir())) == 8
    assert all(_ends_well(dump) for dump in location.dumps)
    newest = max((tmp_path / "backups").glob("immich-db-backup-2*.gz"))
    with pytest.raises(EOFError):
        gzip.decompress(newest.read_bytes())


def test_a_real_dump_holds_the_checksums(tmp_path: Path) -> None:
    if "postgresql" in host.missing_packages(for_tests=True):
        pytest.skip("postgresql is not installed")
    location = samples.make_media_location(tmp_path / "media", photos=8)
    dump = samples.real_dump(tmp_path, location=location)
    text = gzip.decompress(dump.read_bytes()).decode()
    assert _ends_well(dump)
    assert all(rf"\\x{photo.sha1}" in text for photo in location.photos)
    assert not list(tmp_path.glob("*.tmp"))


def test_config_files(tmp_path: Path) -> None:
    assert [path.name for path in samples.make_config_files(tmp_path)] == [
        "docker-compose.yml",
        ".env",
        "hwaccel.yml",
    ]


def _sha1(path: Path) -> str:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()


def _ends_well(dump: Path) -> bool:
    return " dump complete\n" in gzip.decompress(dump.read_bytes()).decode()[-200:]
