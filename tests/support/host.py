"""Real parts on this machine, without a VM: system bus, udevd, UDisks2, polkit, exFAT loop disks.

Every part is a plain context manager that cleans up after itself, whatever ends it. They block, so in a
coroutine enter them through `in_thread(...)`, and call a disk's methods through `asyncio.to_thread`.
Only root can run them; `unavailable()` says what is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

UDISKS_NAME = "org.freedesktop.UDisks2"
POLKIT_NAME = "org.freedesktop.PolicyKit1"
SYSTEM_BUS_SOCKET = Path("/run/dbus/system_bus_socket")
UDEV_FOLDER = Path("/run/udev")
RUNTIME_RULES = UDEV_FOLDER / "rules.d"
POLKIT_RULES = Path("/etc/polkit-1/rules.d")
POLKIT_ACTIONS = Path("/usr/share/polkit-1/actions")
SHARED_FOLDER = Path("/run/immich-usb-backup-tests")
FOLDER_PREFIX = "immich-usb-backup-"
COMMAND_DEADLINE = 30.0
START_DEADLINE = 15.0
STOP_DEADLINE = 10.0
LOOP_CTL_ADD, LOOP_CTL_REMOVE = 0x4C80, 0x4C81
FIRST_LOOP = 64  # the numbers below are left to the machine
PRETEND_USB = (  # loop disks have no ID_BUS; this text for `udev_rules` gives it to those of this process
    f'SUBSYSTEM=="block", KERNEL=="loop*", ATTR{{loop/backing_file}}=="*/{FOLDER_PREFIX}{os.getpid()}-*/disk.img", '
    'ENV{ID_BUS}="usb"\n'
)
SYSTEM_FOLDERS = (
    *("/usr/sbin", "/sbin", "/usr/libexec", "/usr/libexec/udisks2", "/usr/lib/udisks2"),
    *("/lib/systemd", "/usr/lib/systemd", "/usr/lib/polkit-1"),
)
BUS_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>{kind}</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
  </policy>
</busconfig>
"""


class HostError(RuntimeError):
    """A real part did not start, did not answer in time, or is not installed."""


# What is missing ------------------------------------------------------------------------------------------


def missing_packages(*, for_tests: bool = False) -> list[str]:
    """Debian packages to install before the harness can run; with for_tests, before all tests can."""
    programs = {
        "dbus": ["dbus-daemon", "dbus-send"],
        "udev": ["systemd-udevd", "udevadm"],
        "udisks2": ["udisksd"],
        "exfatprogs": ["mkfs.exfat"],
        "mount": ["mount", "umount", "losetup"],
        "util-linux": ["setsid", "setpriv", "findmnt"],
        "rsync": ["rsync"],
        "fdisk": ["sfdisk"],
    }
    if not has_kernel_exfat():
        programs["exfat-fuse"] = ["mount.exfat-fuse"]
    if for_tests:
        programs["polkitd"] = ["polkitd"]
        programs["gzip"] = ["gzip"]
    missing = [package for package, names in programs.items() if not all(map(find_program, names))]
    if for_tests and not any(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        missing.append("postgresql")
    return missing


def unavailable() -> str | None:
    """Why the harness cannot run here, in one line; None if it can."""
    if os.geteuid() != 0:
        return "loop disks, udevd and udisksd need root"
    if not Path("/dev/loop-control").exists():
        return "there is no /dev/loop-control"
    missing = missing_packages()
    return f"not installed: apt-get install {' '.join(missing)}" if missing else None


def find_program(name: str) -> str | None:
    """The path of a program, also of those that are kept out of PATH."""
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), *SYSTEM_FOLDERS)))


def has_kernel_exfat() -> bool:
    """Whether the kernel mounts exFAT by itself (else exfat-fuse is needed)."""

    def listed() -> bool:
        return re.search(r"^\s*exfat$", Path("/proc/filesystems").read_text(), re.MULTILINE) is not None

    modprobe = find_program("modprobe")
    if not listed() and modprobe and os.geteuid() == 0:
        subprocess.run([modprobe, "-q", "exfat"], check=False, capture_output=True, timeout=COMMAND_DEADLINE)
    return listed()


def _program(name: str) -> str:
    """The path of a program that must be there."""
    if path := find_program(name):
        return path
    raise HostError(f"{name} is not installed; missing packages: {' '.join(missing_packages()) or 'none known'}")


# Commands, waits, processes -------------------------------------------------------------------------------


def run(*command: str, timeout: float = COMMAND_DEADLINE, env: Mapping[str, str] | None = None) -> str:
    """Run a command to its end and return what it wrote; HostError if it fails."""
    argv = [_program(command[0]), *command[1:]]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, env=env, check=False)
    except subprocess.TimeoutExpired as error:
        raise HostError(f"no end after {timeout:g} s: {' '.join(command)}") from error
    if done.returncode != 0:
        raise HostError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def wait_until(met: Callable[[], bool], what: str, *, deadline: float = START_DEADLINE) -> None:
    """Poll until the condition is met; HostError with `what` at the deadline."""
    end = time.monotonic() + deadline
    while not met():
        if time.monotonic() > end:
            raise HostError(f"after {deadline:g} s still not so: {what}")
        time.sleep(0.02)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder whose name says which process owns it, readable by other users' daemons."""
    folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{os.getpid()}-"))
    try:
        folder.chmod(0o711)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def daemon(command: Sequence[str], ready: Callable[[], bool], env: Mapping[str, str]) -> Iterator[int]:
    """A daemon in the foreground of its own session: ready when yielded, ended on exit."""
    argv = [*_dies_with_us(), _program(command[0]), *command[1:]]
    with temporary_folder() as folder, open(folder / "log", "w+b") as log:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True
        )

        def alive_and_ready() -> bool:
            if process.poll() is not None:
                raise HostError(f"{command[0]} ended with {process.returncode}")
            return ready()

        try:
            wait_until(alive_and_ready, f"{command[0]} is ready")
            yield process.pid
        except HostError as error:
            error.add_note(f"log of {command[0]}:\n{(folder / 'log').read_text(errors='replace')[-2000:]}")
            raise
        finally:
            _end(process)


def _dies_with_us() -> list[str]:
    """A prefix so that even SIGKILL leaves no daemon; it is bound to the thread, so only for the main one."""
    is_main = threading.current_thread() is threading.main_thread()
    return [_program("setpriv"), "--pdeathsig", "TERM"] if is_main else []


def _end(process: subprocess.Popen[bytes]) -> None:
    """Terminate, then kill; reaped in any case."""
    try:
        process.terminate()
        process.wait(STOP_DEADLINE)
    except subprocess.TimeoutExpired:
        pass
    finally:
        process.kill()
        process.wait()


def _is_running(pid: int) -> bool:
    """Whether the process lives; a zombie does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def _end_stranger(pid: int, name: str) -> None:
    """Terminate, then kill, a process that is not our child, if it still is what it was."""
    with contextlib.suppress(OSError):
        if Path(f"/proc/{pid}/comm").read_text().strip() != name[:15]:
            return
        os.kill(pid, signal.SIGTERM)
        try:
            wait_until(lambda: not _is_running(pid), f"{name} has ended", deadline=STOP_DEADLINE)
        except HostError:
            os.kill(pid, signal.SIGKILL)


@contextlib.asynccontextmanager
async def in_thread(manager: AbstractContextManager[T]) -> AsyncIterator[T]:
    """Enter and leave a blocking context manager without blocking the loop, also when cancelled."""
    entering = asyncio.ensure_future(asyncio.to_thread(manager.__enter__))
    try:
        yield await asyncio.shield(entering)
    finally:
        await asyncio.wait([entering])
        if entering.exception() is None:
            leaving = asyncio.ensure_future(asyncio.to_thread(manager.__exit__, None, None, None))
            await asyncio.shield(leaving)


# Parts that all test processes of the machine share --------------------------------------------------------


@contextlib.contextmanager
def _shared(name: str, *, start: Callable[[], str | None], stop: Callable[[str], None]) -> Iterator[None]:
    """The first user starts the part, the last one stops it, over all processes, killed ones included.

    `start` returns a note for `stop`, or None if there is nothing to start.
    """
    SHARED_FOLDER.mkdir(mode=0o755, exist_ok=True)
    users, note = SHARED_FOLDER / f"{name}.users", SHARED_FOLDER / f"{name}.started"
    with open(users, "a") as users_file:
        with _gate(name):
            fcntl.flock(users_file, fcntl.LOCK_SH)
            if (started := start()) is not None:
                note.write_text(started)
        try:
            yield
        finally:
            with _gate(name), contextlib.suppress(BlockingIOError):
                fcntl.flock(users_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if note.exists():
                    stop(note.read_text())
                    note.unlink()


@contextlib.contextmanager
def _gate(name: str) -> Iterator[None]:
    """One process at a time; the deadline is for a holder that hangs."""
    with open(SHARED_FOLDER / f"{name}.gate", "a") as gate:

        def taken() -> bool:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            return False

        wait_until(taken, f"another test process has let go of {gate.name}", deadline=60)
        yield


# Buses ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bus:
    """A running message bus."""

    address: str
    variable: str  # DBUS_SYSTEM_BUS_ADDRESS or DBUS_SESSION_BUS_ADDRESS
    private: bool

    @property
    def env(self) -> dict[str, str]:
        """The environment for children that shall use this bus."""
        return {**os.environ, self.variable: self.address}

    def has_owner(self, name: str) -> bool:
        """Whether somebody owns the name; starts nobody."""
        reply = self._call("org.freedesktop.DBus", "org.freedesktop.DBus.NameHasOwner", f"string:{name}")
        return "boolean true" in reply

    def activate(self, name: str) -> bool:
        """Have the bus start the owner of a name; False if it knows of none."""
        with contextlib.suppress(HostError):
            self._call(name, "org.freedesktop.DBus.Peer.Ping")
        return self.has_owner(name)

    def _call(self, destination: str, member: str, *arguments: str) -> str:
        options = [f"--bus={self.address}", "--print-reply", f"--dest={destination}"]
        return run("dbus-send", *options, "/org/freedesktop/DBus", member, *arguments)


@contextlib.contextmanager
def system_bus(*, private: bool = False) -> Iterator[Bus]:
    """The machine's system bus where systemd runs it, else (or if private) a permissive one of our own."""
    if not private and _is_systemd() and _accepts(SYSTEM_BUS_SOCKET, socket.SOCK_STREAM):
        yield Bus(f"unix:path={SYSTEM_BUS_SOCKET}", "DBUS_SYSTEM_BUS_ADDRESS", private=False)
        return
    with _own_bus("system", "DBUS_SYSTEM_BUS_ADDRESS") as bus:
        yield bus


@contextlib.contextmanager
def session_bus() -> Iterator[Bus]:
    """A private session bus, for desktop notifications."""
    with _own_bus("session", "DBUS_SESSION_BUS_ADDRESS") as bus:
        yield bus


@contextlib.contextmanager
def _own_bus(kind: str, variable: str) -> Iterator[Bus]:
    with temporary_folder() as folder:
        path, config = folder / "socket", folder / "bus.conf"
        config.write_text(BUS_CONFIG.format(kind=kind, socket=path))
        command = ["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile"]
        with daemon(command, lambda: _accepts(path, socket.SOCK_STREAM), dict(os.environ)):
            yield Bus(f"unix:path={path}", variable, private=True)


def _is_systemd() -> bool:
    return Path("/proc/1/comm").read_text().strip() == "systemd"


def _accepts(path: Path, kind: socket.SocketKind) -> bool:
    """Whether somebody listens: a socket file alone may be a dead one's."""
    with socket.socket(socket.AF_UNIX, kind) as client, contextlib.suppress(OSError):
        client.connect(str(path))
        return True
    return False


# udevd, UDisks2, polkit -----------------------------------------------------------------------------------


@contextlib.contextmanager
def udev() -> Iterator[None]:
    """A running udevd: the machine's, or one that test processes share and the last one ends."""
    with _shared("udev", start=_start_udevd, stop=_stop_udevd):
        yield


def settle() -> None:
    """Wait until udevd has handled every event."""
    run("udevadm", "settle", f"--timeout={START_DEADLINE:.0f}")


def _udevd_runs() -> bool:
    return _accepts(UDEV_FOLDER / "control", socket.SOCK_SEQPACKET)


def _start_udevd() -> str | None:
    if _udevd_runs():
        return None
    UDEV_FOLDER.mkdir(exist_ok=True)
    pid_file = SHARED_FOLDER / "udev.pid"
    script = f'echo $$ >{pid_file}; exec "$0" </dev/null >/dev/null 2>&1'
    run("setsid", "--fork", "sh", "-c", script, _program("systemd-udevd"))
    wait_until(_udevd_runs, "systemd-udevd listens on /run/udev/control")
    pid = pid_file.read_text().strip()
    pid_file.unlink()
    run("udevadm", "trigger", "--subsystem-match=block")
    settle()
    return pid


def _stop_udevd(pid: str) -> None:
    _end_stranger(int(pid), "systemd-udevd")
    shutil.rmtree(UDEV_FOLDER, ignore_errors=True)  # its database and its dead socket


@contextlib.contextmanager
def udev_rules(rules: Mapping[str, str]) -> Iterator[None]:
    """More udev rules for a while, text by file name: the project's own, or PRETEND_USB. Needs `udev()`."""
    with contextlib.ExitStack() as stack, temporary_folder() as folder:
        stack.callback(_reload_rules)
        RUNTIME_RULES.mkdir(exist_ok=True)
        for name, text in rules.items():
            (folder / name).write_text(text)
            unique = name.replace(".rules", f"-{os.getpid()}.rules")
            stack.enter_context(_installed(folder / name, RUNTIME_RULES / unique))
        _reload_rules()
        yield


def _reload_rules() -> None:
    """udevd turns a request away while it serves another."""

    def reloaded() -> bool:
        with contextlib.suppress(HostError):
            run("udevadm", "control", "--reload")
            return True
        return False

    wait_until(reloaded, "udevd reloads its rules")


@contextlib.contextmanager
def udisks(bus: Bus) -> Iterator[None]:
    """UDisks2 on the bus: the machine's, or one of our own. Needs `udev()`, and exFAT mounts work."""
    with exfat_mounts():
        if bus.has_owner(UDISKS_NAME) or (not bus.private and bus.activate(UDISKS_NAME)):
            yield
            return
        with daemon(["udisksd"], lambda: bus.has_owner(UDISKS_NAME), bus.env):
            yield


@contextlib.contextmanager
def polkit(bus: Bus, *, rules: Sequence[Path] = (), actions: Sequence[Path] = ()) -> Iterator[None]:
    """polkitd on the bus with extra rules and actions; start it before `udisks`. Without it only root may mount.

    They lie in folders of the machine's, so one test process at a time can be in here.
    """
    SHARED_FOLDER.mkdir(mode=0o755, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_gate("polkit"))
        for rule in rules:
            stack.enter_context(_installed(rule, POLKIT_RULES / f"00-{FOLDER_PREFIX}{os.getpid()}-{rule.name}"))
        for action in actions:
            stack.enter_context(_installed(action, POLKIT_ACTIONS / f"{FOLDER_PREFIX}{os.getpid()}-{action.name}"))
        if not bus.has_owner(POLKIT_NAME) and (bus.private or not bus.activate(POLKIT_NAME)):
            ready = daemon(["polkitd", "--no-debug"], lambda: bus.has_owner(POLKIT_NAME), bus.env)
            stack.enter_context(ready)
        yield


@contextlib.contextmanager
def _installed(source: Path, target: Path) -> Iterator[None]:
    """A file at a system path for a while."""
    try:
        shutil.copyfile(source, target)
        target.chmod(0o644)
        yield
    finally:
        target.unlink(missing_ok=True)


@contextlib.contextmanager
def exfat_mounts() -> Iterator[None]:
    """mount(8) and UDisks2 can mount exFAT: by the kernel, or by FUSE and a link that is removed again."""
    with _shared("exfat", start=_link_exfat_fuse, stop=lambda link: Path(link).unlink(missing_ok=True)):
        yield


def _link_exfat_fuse() -> str | None:
    if has_kernel_exfat() or find_program("mount.exfat"):
        return None
    link = Path("/sbin/mount.exfat")
    link.symlink_to(_program("mount.exfat-fuse"))
    return str(link)


# Disks ----------------------------------------------------------------------------------------------------


class Disk:
    """An exFAT image that can be plugged in as a loop device and pulled."""

    def __init__(self, image: Path, label: str) -> None:
        self.image = image
        self.label = label
        self._number: int | None = None

    @property
    def attached(self) -> bool:
        return self._number is not None

    @property
    def name(self) -> str:
        """The kernel's name, `loop64`."""
        if self._number is None:
            raise HostError(f"{self.image} is not attached")
        return f"loop{self._number}"

    @property
    def device(self) -> Path:
        return Path("/dev", self.name)

    @property
    def device_number(self) -> int:
        """As in st_rdev, as in UDisks2's DeviceNumber, as in st_dev of what is mounted from it."""
        return self.device.stat().st_rdev

    @property
    def diskseq(self) -> int:
        return int(Path("/sys/class/block", self.name, "diskseq").read_text())

    def properties(self) -> dict[str, str]:
        """What udev's database says of the device."""
        lines = run("udevadm", "info", "--query=property", f"--name={self.device}").splitlines()
        return dict(line.split("=", 1) for line in lines)

    def mount_points(self) -> list[Path]:
        return _mount_points(self.device_number)

    def hash(self) -> str:
        """SHA-256 of the image, with what the kernel still held of the device written to it."""
        if self.attached:
            self._wait_for_unmount()
            run("blockdev", "--flushbufs", str(self.device))
        with self.image.open("rb") as image:
            return hashlib.file_digest(image, "sha256").hexdigest()

    def attach(self) -> None:
        """Plug in: a new loop device, hence a new DISKSEQ; returns when udev has seen the file system."""
        if self.attached:
            raise HostError(f"{self.image} is attached as {self.name}")
        self._number = _add_loop()
        run("losetup", str(self.device), str(self.image))
        settle()
        wait_until(lambda: self.properties().get("ID_FS_TYPE") == "exfat", f"udev sees exFAT on {self.device}")

    def detach(self, *, pull: bool = False) -> None:
        """Take out; `pull` does so under a mount: its FUSE server dies first, unwritten data is lost."""
        if pull:
            _tear_down_mounts(self.device_number, self.device)
        elif points := self.mount_points():
            raise HostError(f"{self.device} is mounted at {points}; pull=True takes it out all the same")
        _remove_loop(self.device)
        self._number = None
        settle()

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Path]:
        """Mounted by us, not by UDisks2, for preparing and looking at the content."""
        with exfat_mounts(), temporary_folder() as folder:
            self._wait_for_unmount()
            run("mount", "-t", "exfat", "-o", "nosuid,nodev", str(self.device), str(folder))
            try:
                yield folder
            finally:
                _unmount(folder)
                self._wait_for_unmount()

    def _wait_for_unmount(self) -> None:
        """A FUSE server may hold the device for a moment after its unmount."""
        if not self.mount_points():
            _wait_for_fuse_server(self.device)


@contextlib.contextmanager
def exfat_disk(
    size_mib: int = 64, label: str = "IMMICH", *, populate: Callable[[Path], object] | None = None
) -> Iterator[Disk]:
    """A freshly formatted disk, plugged in. `populate` gets its mounted root first. Needs `udev()`."""
    if len(label.encode("utf-16-le")) > 22:
        raise HostError(f"an exFAT label has 11 characters at most: {label!r}")
    _sweep()
    with temporary_folder() as folder:
        disk = Disk(folder / "disk.img", label)
        _format(disk.image, size_mib, label)
        try:
            disk.attach()
            if populate:
                _populate(disk, populate)
            yield disk
        finally:
            if disk.attached:
                disk.detach(pull=True)


def make_marker(root: Path) -> None:
    """For `populate`: the folder that makes a disk a backup disk."""
    (root / "immich-server-backups").mkdir()


def _populate(disk: Disk, populate: Callable[[Path], object]) -> None:
    """Fill the disk, then plug it in anew, so that nobody takes our mount for the disk's arrival."""
    with disk.mounted() as root:
        populate(root)
    disk.detach()
    disk.attach()


def _format(image: Path, size_mib: int, label: str) -> None:
    with image.open("wb") as file:
        file.truncate(size_mib * 1024 * 1024)
    run("mkfs.exfat", "-L", label, str(image))


def _add_loop() -> int:
    """A loop device that nobody else has: the kernel refuses a number twice."""
    with open("/dev/loop-control", "rb") as control:
        for number in range(FIRST_LOOP, FIRST_LOOP + 1000):
            with contextlib.suppress(FileExistsError):
                fcntl.ioctl(control, LOOP_CTL_ADD, number)
                return number
    raise HostError("no loop device is free")


def _remove_loop(device: Path) -> None:
    """Let go of the image, then remove the device, which udev sees as an unplug."""
    backing = Path("/sys/class/block", device.name, "loop", "backing_file")
    if backing.exists():
        run("losetup", "--detach", str(device))
    wait_until(lambda: not backing.exists(), f"nobody holds {device} any more", deadline=STOP_DEADLINE)

    def removed() -> bool:
        with open("/dev/loop-control", "rb") as control, contextlib.suppress(BlockingIOError, OSError):
            fcntl.ioctl(control, LOOP_CTL_REMOVE, int(device.name.removeprefix("loop")))
        return not Path("/sys/class/block", device.name).exists()

    wait_until(removed, f"{device} is removed", deadline=STOP_DEADLINE)


def _mount_points(device_number: int) -> list[Path]:
    """Where the device is mounted, the latest last."""
    wanted = f"{os.major(device_number)}:{os.minor(device_number)}"
    rows = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [Path(_unescape(row[4])) for row in rows if row[2] == wanted]


def _unescape(text: str) -> str:
    """mountinfo writes space, tab, newline and backslash as octal."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _unmount(folder: Path) -> None:
    """Orderly; if it is busy lazily, so that nothing deletes the disk's content with the folder."""
    try:
        run("umount", str(folder))
    except HostError:
        run("umount", "--lazy", str(folder))
        raise


def _fuse_servers(device: Path) -> list[int]:
    """The mount.exfat processes that serve the device."""
    servers = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            argv = path.read_bytes().split(b"\0")
            if b"mount.exfat" in argv[0] and os.fsencode(device) in argv:
                servers.append(int(path.parent.name))
    return servers


def _wait_for_fuse_server(device: Path) -> None:
    wait_until(lambda: not _fuse_servers(device), f"the FUSE server of {device} has ended")


def _tear_down_mounts(device_number: int, device: Path) -> None:
    """Unmount at any price, and remove the folders that UDisks2 made for the mounts."""
    points = _mount_points(device_number)
    for server in _fuse_servers(device):
        with contextlib.suppress(ProcessLookupError):
            os.kill(server, signal.SIGKILL)
    for point in reversed(points):
        with contextlib.suppress(HostError):  # udisksd may have been faster
            run("umount", "--lazy", str(point))
    _wait_for_fuse_server(device)
    for point in points:
        if point.is_relative_to("/media") or point.is_relative_to("/run/media"):
            with contextlib.suppress(OSError):
                point.rmdir()


def _sweep() -> None:
    """Clean up the loop disks and folders of processes that were killed before they could."""
    _sweep_loops()
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*-*"):
        owner = re.fullmatch(rf"{FOLDER_PREFIX}(\d+)-.*", folder.name)
        if owner and not _is_running(int(owner[1])):
            shutil.rmtree(folder, ignore_errors=True)


def _sweep_loops() -> None:
    for backing in Path("/sys/class/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError, HostError):
            image = backing.read_text().strip()
            device = Path("/dev", backing.parent.parent.name)
            owner = re.search(rf"/{FOLDER_PREFIX}(\d+)-[^/]*/disk\.img", image)
            if owner and not _is_running(int(owner[1])):
                _tear_down_mounts(device.stat().st_rdev, device)
                _remove_loop(device)
