"""A Debian guest under QEMU: boot it, run scripts in it, plug disks in and pull them out.

    async with Guest(guest_image()) as guest:
        await guest.plug("blue", exfat_image(folder / "blue.img"), write_bytes_per_second=200_000)
        disk = await guest.device("blue")
        await guest.sh(f"udisksctl mount -b {disk}1")
        await guest.pull("blue")

The guest writes to a throw-away overlay (unless it is to keep what it writes) and reaches no network. TCG only: where these tests run, /dev/kvm hangs.
Every wait has a deadline; the `GuestError` at its end carries the tails of the serial and QEMU logs.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from qemu.qmp import ConnectError, EventListener, ExecuteError, Message, QMPClient

from .image import GuestImage

# The ladder of deadlines, in seconds. A boot takes about 20 on an idle machine, a call to a booted guest 0.1.
QMP_SECONDS = 20.0
CONNECT_SECONDS = 5.0
PULL_SECONDS = 30.0
DEVICE_SECONDS = 180.0
SCRIPT_SECONDS = 120.0
COPY_SECONDS = 300.0
BOOT_SECONDS = 300.0
OFF_SECONDS = 120.0
MARGIN_SECONDS = 15.0  # what ssh itself may take on top of a script's own deadline

TIME_IS_UP = 124  # what timeout(1) and ssh(1) exit with
SSH_FAILED = 255
READY = "guest: ssh is up"
TAIL = 3000
LINE_BYTES = 16 * 2**20


class GuestError(Exception):
    """The guest did not do what was asked of it, or not in time."""


@dataclass(frozen=True)
class Completed:
    """A script that ended in the guest; `returncode` 124 means that its time was up."""

    stdout: str
    stderr: str
    returncode: int


@dataclass(frozen=True)
class _Disk:
    """A disk that is plugged in: its serial number and its names inside QEMU."""

    serial: str
    device: str
    node: str
    throttle: str


@dataclass(frozen=True)
class Fault:
    """A sector (512 bytes, from the start of the disk) that answers `read` or `write` requests with an I/O error."""

    sector: int
    iotype: str


class Guest:
    """One running guest; an asynchronous context manager."""

    def __init__(self, image: GuestImage, *, memory_mib: int = 2048, cpus: int = 2, keep: bool = False) -> None:
        """With ``keep`` the guest writes to the image itself."""
        self.image = image
        self._keep = keep
        self._memory_mib = memory_mib
        self._cpus = cpus
        self._port = _free_port()
        self._plugged: dict[str, _Disk] = {}
        self._plug_count = 0
        self._qmp = QMPClient("guest")
        self._qemu: asyncio.subprocess.Process | None = None
        self._master: asyncio.subprocess.Process | None = None
        self.folder = Path()

    async def __aenter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="guest-"))
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    # --- life -----------------------------------------------------------------------

    async def _start(self) -> None:
        with self._qemu_log.open("wb") as log:
            self._qemu = await asyncio.create_subprocess_exec(*self._qemu_command(), stdout=log, stderr=log)
        await self._connect_qmp()
        async with self._deadline(BOOT_SECONDS, "boot"):
            await self._await_ready_line()
            await self._open_master()
        await self.sh("systemctl is-system-running --wait", check=False, timeout=BOOT_SECONDS)

    async def stop(self) -> None:
        """End the guest at once and forget all that it wrote."""
        for process in (self._master, self._qemu):
            await _end(process)
        with suppress(Exception):
            await self._qmp.disconnect()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def power_off(self) -> None:
        """Shut the guest down as a user would, and wait for its end."""
        assert self._qemu is not None
        await self.sh("systemctl poweroff --no-block")
        async with self._deadline(OFF_SECONDS, "power off"):
            await self._qemu.wait()

    def _qemu_command(self) -> list[str]:
        image = self.image
        kernel = "root=/dev/vda rw rootfstype=ext4 console=ttyS0 quiet net.ifnames=0 fsck.mode=skip mitigations=off"
        # The emulated HPET is slow to ask for the time, and a stick need not be given a second to come to itself.
        kernel += " tsc=reliable usb-storage.delay_use=0"
        network = f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{self._port}-:22"
        snapshot = "off" if self._keep else "on"
        # setpriv: QEMU must not outlive a test run that is killed.
        return [
            *("setpriv", "--pdeathsig", "KILL", "--", "qemu-system-x86_64", "-nodefaults", "-no-reboot"),
            *("-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(self._cpus), "-m", str(self._memory_mib)),
            *("-display", "none", "-vga", "none", "-serial", f"file:{self._serial_log}"),
            *("-qmp", f"unix:{self._qmp_socket},server=on,wait=off"),
            *("-kernel", str(image.kernel), "-initrd", str(image.initrd)),
            *("-append", f"{kernel} audit=0 apparmor=0 printk.devkmsg=on random.trust_cpu=on"),
            *("-drive", f"file={image.disk},if=virtio,format=raw,cache=unsafe,snapshot={snapshot}"),
            *("-netdev", network, "-device", "virtio-net-pci,netdev=net,romfile="),
            *("-device", "qemu-xhci,id=xhci,p2=15,p3=15", "-device", "virtio-scsi-pci,id=scsi"),
        ]

    async def _connect_qmp(self) -> None:
        async with self._deadline(QMP_SECONDS, "QMP connection"):
            while True:
                self._check_alive()
                if self._qmp_socket.exists():
                    with suppress(ConnectError):
                        await self._qmp.connect(str(self._qmp_socket))
                        return
                await asyncio.sleep(0.1)

    async def _await_ready_line(self) -> None:
        while READY not in _tail(self._serial_log, 100_000):
            self._check_alive()
            await asyncio.sleep(0.2)

    async def _open_master(self) -> None:
        """Open the one ssh connection that all later calls share; the network may lag sshd a little."""
        while True:
            self._check_alive()
            command = self._ssh("ssh", "-M", "-N", "-o", f"ConnectTimeout={CONNECT_SECONDS:.0f}", "root@guest")
            with self._ssh_log.open("ab") as log:
                nothing = asyncio.subprocess.DEVNULL
                self._master = await asyncio.create_subprocess_exec(*command, stdin=nothing, stdout=log, stderr=log)
            while self._master.returncode is None:
                if self._control_socket.exists():
                    return
                await asyncio.sleep(0.1)

    def _check_alive(self) -> None:
        if self._qemu is not None and self._qemu.returncode is not None:
            raise self._error(f"QEMU ended with {self._qemu.returncode}")

    # --- scripts and files ----------------------------------------------------------

    async def sh(self, script: str, *, check: bool = True, timeout: float = SCRIPT_SECONDS) -> Completed:
        """Run a bash script in the guest as root, without input; it is killed when its time is up.

        What stays in the background must have its output redirected, or this waits for it.
        """
        command = f'exec timeout --kill-after=5 {timeout} bash -c "$(cat)"'
        done = await self._remote(command, script.encode(), timeout + MARGIN_SECONDS)
        if check and done.returncode in (TIME_IS_UP, SSH_FAILED):
            raise self._error(_describe(script, done, timeout))
        if check and done.returncode:
            raise GuestError(_describe(script, done, timeout))
        return done

    async def until(self, condition: str, *, timeout: float = DEVICE_SECONDS) -> str:
        """Repeat `condition` in the guest until it succeeds; return what it printed then."""
        script = f'until answer=$({{ {condition}\n}} 2>&1); do sleep 0.2; done; echo "$answer"'
        done = await self.sh(script, check=False, timeout=timeout)
        if done.returncode:
            self._check_alive()
            late = f"not within {timeout:.0f} s" if done.returncode == TIME_IS_UP else f"exit {done.returncode}"
            raise self._error(f"{late}: {condition}")
        return done.stdout.strip()

    @asynccontextmanager
    async def lines(self, command: str) -> AsyncIterator[AsyncIterator[str]]:
        """What a command in the guest prints, line by line as it comes; at the end of the block it is ended."""
        pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(
            *self._ssh("ssh", "root@guest", command), stdin=nothing, stdout=pipe, stderr=nothing, limit=LINE_BYTES
        )
        try:
            yield _decoded(process.stdout)
        finally:
            await _end(process)

    async def write(self, path: str, text: str, *, mode: str = "0644") -> None:
        """Write a file in the guest; missing folders are made."""
        target = shlex.quote(path)
        command = f'mkdir -p "$(dirname {target})" && cat > {target} && chmod {mode} {target}'
        done = await self._remote(command, text.encode(), SCRIPT_SECONDS)
        if done.returncode:
            raise self._error(_describe(f"write {path}", done, SCRIPT_SECONDS))

    async def put(self, source: Path, target: str) -> None:
        """Copy a file or a folder to the guest, with modes and times."""
        await self._copy(str(source), f"root@guest:{target}")

    async def get(self, source: str, target: Path) -> None:
        """Copy a file or a folder from the guest."""
        await self._copy(f"root@guest:{source}", str(target))

    async def _copy(self, source: str, target: str) -> None:
        done = await self._local(self._ssh("scp", "-r", "-p", source, target), b"", COPY_SECONDS)
        if done.returncode:
            raise self._error(_describe(f"copy {source} to {target}", done, COPY_SECONDS))

    async def _remote(self, command: str, stdin: bytes, seconds: float) -> Completed:
        return await self._local(self._ssh("ssh", "root@guest", command), stdin, seconds)

    async def _local(self, command: Sequence[str], stdin: bytes, seconds: float) -> Completed:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
        try:
            async with self._deadline(seconds, " ".join(command[-2:])):
                out, err = await process.communicate(stdin)
        finally:
            await _end(process)
        return Completed(out.decode(errors="replace"), err.decode(errors="replace"), process.returncode or 0)

    def _ssh(self, program: str, *arguments: str) -> list[str]:
        options = {
            "BatchMode": "yes",
            "ControlPath": str(self._control_socket),
            "HostName": "127.0.0.1",
            "IdentityFile": str(self.image.key),
            "LogLevel": "ERROR",
            "Port": str(self._port),
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
        }
        return [program, "-F", "none", *(f"-o{name}={value}" for name, value in options.items()), *arguments]

    # --- disks ----------------------------------------------------------------------

    async def plug(
        self,
        name: str,
        image: Path,
        *,
        serial: str | None = None,
        removable: bool = True,
        usb: bool = True,
        read_only: bool = False,
        faults: Sequence[Fault] = (),
        write_bytes_per_second: int | None = None,
    ) -> None:
        """Plug in a disk with the raw `image` in it: a USB stick, or with `usb=False` a SCSI disk."""
        if name in self._plugged:
            raise GuestError(f"{name} is plugged in already")
        self._plug_count += 1
        disk = _Disk(serial or f"SN{name}", f"disk-{name}", f"node{self._plug_count}", f"limit{self._plug_count}")
        await self.qmp("object-add", {"qom-type": "throttle-group", "id": disk.throttle})
        await self.qmp("blockdev-add", _throttled_raw(disk, image, read_only=read_only, faults=faults))
        self._plugged[name] = disk
        if write_bytes_per_second is not None:
            await self.throttle(name, write_bytes_per_second)
        bus = {"driver": "usb-storage", "bus": "xhci.0"} if usb else {"driver": "scsi-hd", "bus": "scsi.0"}
        device = {"id": disk.device, "drive": disk.node, "removable": removable, "serial": disk.serial}
        await self.qmp("device_add", bus | device)

    async def throttle(self, name: str, write_bytes_per_second: int) -> None:
        """Slow the writes to a plugged disk down from now on; 0 is full speed."""
        path = f"/objects/{self._plugged[name].throttle}"
        limits = {"bps-write": write_bytes_per_second}
        await self.qmp("qom-set", {"path": path, "property": "limits", "value": limits})

    async def pull(self, name: str) -> None:
        """Pull a disk without asking anyone; afterwards the host may read its image."""
        disk = self._plugged.pop(name)
        async with self._deadline(PULL_SECONDS, f"pull {name}"):
            with self._qmp.listener("DEVICE_DELETED") as events:
                await self.qmp("device_del", {"id": disk.device})
                await _deleted(events, disk.device)
            await self._release(disk)

    async def pull_all(self) -> None:
        """Pull every disk that is still plugged in; one that will not go keeps no other from going."""
        failed: list[GuestError] = []
        for name in list(self._plugged):
            try:
                await self.pull(name)
            except GuestError as error:
                failed.append(error)
        if failed:
            raise ExceptionGroup("disks that could not be pulled", failed)

    async def device(self, name: str, *, timeout: float = DEVICE_SECONDS) -> str:
        """Wait until the guest's udev is done with a plugged disk; return its node, such as `/dev/sda`."""
        wanted = shlex.quote(self._plugged[name].serial)
        listing = f"lsblk --nodeps --noheadings --raw --output PATH,SERIAL | grep -- ' '{wanted}'$' | cut -d' ' -f1"
        return await self.until(f"udevadm settle && {listing} | grep .", timeout=timeout)

    async def _release(self, disk: _Disk) -> None:
        """Close the image; QEMU may still be ending the device's last requests."""
        while True:
            try:
                await self._qmp.execute("blockdev-del", {"node-name": disk.node})
            except ExecuteError:
                await asyncio.sleep(0.1)
            else:
                break
        await self.qmp("object-del", {"id": disk.throttle})

    async def qmp(self, command: str, arguments: dict[str, object] | None = None) -> object:
        """Run one QMP command and return its answer."""
        async with self._deadline(QMP_SECONDS, command):
            try:
                return await self._qmp.execute(command, arguments)
            except ExecuteError as refused:
                raise self._error(f"QMP {command}: {refused}") from refused

    # --- logs -----------------------------------------------------------------------

    async def save_logs(self, folder: Path) -> None:
        """Save the guest's journal and the serial and QEMU logs in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        for log in self._logs:
            shutil.copy(log, folder)
        journal = await self.sh("journalctl --output=short-precise --no-pager", check=False)
        (folder / "journal.log").write_text(journal.stdout)

    @property
    def _logs(self) -> list[Path]:
        return [log for log in (self._serial_log, self._qemu_log, self._ssh_log) if log.exists()]

    @property
    def _serial_log(self) -> Path:
        return self.folder / "serial.log"

    @property
    def _qemu_log(self) -> Path:
        return self.folder / "qemu.log"

    @property
    def _ssh_log(self) -> Path:
        return self.folder / "ssh.log"

    @property
    def _qmp_socket(self) -> Path:
        return self.folder / "qmp"

    @property
    def _control_socket(self) -> Path:
        return self.folder / "ssh"

    @asynccontextmanager
    async def _deadline(self, seconds: float, what: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError as late:
            raise self._error(f"{what}: not done in {seconds:.0f} s") from late

    def _error(self, message: str) -> GuestError:
        logs = (f"--- end of {log.name} ---\n{_tail(log, TAIL)}" for log in self._logs)
        return GuestError("\n".join([message, *logs]))


def _throttled_raw(disk: _Disk, image: Path, *, read_only: bool, faults: Sequence[Fault]) -> dict[str, object]:
    """A block device on a raw file, behind a throttle that lets everything pass until it is told otherwise."""
    common = {"cache": {"direct": False, "no-flush": True}, "read-only": read_only}
    lowest: dict[str, object] = {"driver": "file", "filename": str(image), **common}
    if faults:
        errors = [{"event": "none", "iotype": fault.iotype, "sector": fault.sector, "errno": 5} for fault in faults]
        lowest = {"driver": "blkdebug", "image": lowest, "inject-error": errors, **common}
    raw = {"driver": "raw", "file": lowest, **common}
    top = {"driver": "throttle", "node-name": disk.node, "throttle-group": disk.throttle, "read-only": read_only}
    return {**top, "file": raw}


async def _deleted(events: EventListener, device: str) -> None:
    def ours(event: Message) -> bool:
        data = event.get("data")
        return isinstance(data, dict) and data.get("device") == device

    while not ours(await events.get()):
        pass


async def _decoded(stream: asyncio.StreamReader | None) -> AsyncIterator[str]:
    assert stream is not None
    async for line in stream:
        yield line.decode(errors="replace")


async def _end(process: asyncio.subprocess.Process | None) -> None:
    if process is None:
        return
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
    await process.wait()


def _describe(script: str, done: Completed, seconds: float) -> str:
    ended = f"its {seconds:.0f} s were up" if done.returncode == TIME_IS_UP else f"exit {done.returncode}"
    return f"{ended}: {script[:500]}\n{done.stdout[-TAIL:]}\n{done.stderr[-TAIL:]}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tail(path: Path, size: int) -> str:
    """The last `size` bytes of a log as text; nothing when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size), os.SEEK_SET)
            return file.read().decode(errors="replace")
    except OSError:
        return ""
