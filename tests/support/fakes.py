"""Honest stand-ins for the ports: they keep state, refuse what the real ones refuse, and write down what was asked.

A `Script` lets a test stop a fake at a named step until the test goes on, or have that step fail.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from immich_usb_backup.adapters.source import ServerFiles
from immich_usb_backup.adapters.watchers import AllWatchers
from immich_usb_backup.errors import BusCallFailed, DiskGone, DiskNotReady, DiskReadOnly, UnmountBusy
from immich_usb_backup.events import Event
from immich_usb_backup.model import (
    BACKUP_FOLDER,
    TEMPORARY,
    DeviceAction,
    Disk,
    Mount,
    Outcome,
    Partition,
    PartitionSeen,
    PlugIn,
    Progress,
    RunReport,
)
from immich_usb_backup.policy.mirror import FileFact, Tree
from immich_usb_backup.ports import CopyResult, Ports, Sink, Target, Written
from tests.support.telling import Recorder, SetClock


class Script:
    """What was asked of the fakes, in order; and what a test wants to happen at a step."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.news = asyncio.Event()
        self._gates: dict[str, tuple[asyncio.Event, asyncio.Event]] = {}
        self._errors: dict[str, list[Exception]] = {}
        self._always: dict[str, Exception] = {}
        self._hooks: dict[str, Callable[[], object]] = {}

    def hold(self, step: str) -> None:
        """Stop there until `go_on`."""
        self._gates[step] = (asyncio.Event(), asyncio.Event())

    async def reached(self, step: str) -> None:
        """Wait until a held step is reached."""
        await self._gates[step][0].wait()

    def go_on(self, step: str) -> None:
        """Let a held step continue, now and in future."""
        self._gates.pop(step)[1].set()

    def fail(self, step: str, *errors: Exception) -> None:
        """The next calls fail, one error each."""
        self._errors.setdefault(step, []).extend(errors)

    def fail_always(self, step: str, error: Exception) -> None:
        """Every call fails."""
        self._always[step] = error

    def do_at(self, step: str, hook: Callable[[], object]) -> None:
        """Call `hook` each time that the step is reached, after a hold and before a failure."""
        self._hooks[step] = hook

    async def at(self, step: str) -> None:
        """Called by the fakes."""
        self.steps.append(step)
        self.news.set()
        if step in self._gates:
            reached, go = self._gates[step]
            reached.set()
            await go.wait()
        self._fail(step)

    def at_once(self, step: str) -> None:
        """Called by the fakes' blocking methods."""
        self.steps.append(step)
        self.news.set()
        self._fail(step)

    def _fail(self, step: str) -> None:
        if step in self._hooks:
            self._hooks[step]()
        if self._errors.get(step):
            raise self._errors[step].pop(0)
        if step in self._always:
            raise self._always[step]


@dataclass
class Stick:
    """A disk: `seen` is its present plug-in, `root` its content, `mounted_by` nobody, us or a desktop."""

    seen: PartitionSeen
    root: Path
    mounted_by: str = ""
    read_only_mount: bool = False
    write_protected: bool = False
    desktop_lets_us_write: bool = False
    connection_bus: str = "usb"
    holders: list[str] = field(default_factory=list)

    @property
    def backups(self) -> Path:
        """The folder that may be written to."""
        return self.root / BACKUP_FOLDER


class FakeDevices:
    """Implements ``ports.Devices``."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._events: asyncio.Queue[PartitionSeen] = asyncio.Queue()
        self.plugged: dict[PlugIn, Stick] = {}

    async def start(self) -> None:
        """Begin."""
        await self._script.at("devices.start")

    async def events(self) -> AsyncIterator[PartitionSeen]:
        """What the test lets happen."""
        while True:
            yield await self._events.get()

    def present(self, plug_in: PlugIn) -> bool:
        """As the kernel has it."""
        return plug_in in self.plugged

    async def gone(self, plug_in: PlugIn, *, seconds: float) -> bool:
        """A test lets it vanish at this step where it wants to."""
        await self._script.at("devices.gone")
        return not self.present(plug_in)

    def plug(self, stick: Stick, action: DeviceAction = DeviceAction.ADD) -> None:
        """Plug it in."""
        self.plugged[stick.seen.plug_in] = stick
        self.say(stick, action)

    def pull(self, stick: Stick, *, tell: bool = True) -> None:
        """Pull it; its mount goes with it."""
        self.plugged.pop(stick.seen.plug_in, None)
        stick.mounted_by = ""
        if tell:
            self.say(stick, DeviceAction.REMOVE)

    def plug_again(self, stick: Stick) -> None:
        """Plug it in anew: the kernel counts on."""
        plug_in = replace(stick.seen.plug_in, disk_sequence=stick.seen.plug_in.disk_sequence + 100)
        stick.seen = replace(stick.seen, plug_in=plug_in)
        self.plug(stick)

    def say(self, stick: Stick, action: DeviceAction) -> None:
        """Only the event."""
        self._events.put_nowait(replace(stick.seen, action=action))


class FakeDisks:
    """Implements ``ports.Disks`` on the sticks that are plugged in."""

    def __init__(self, script: Script, devices: FakeDevices) -> None:
        self._script = script
        self._devices = devices

    def _stick(self, number: int) -> Stick | None:
        sticks = self._devices.plugged.values()
        return next((stick for stick in sticks if stick.seen.plug_in.device_number == number), None)

    def _there(self, partition: Partition) -> Stick:
        stick = self._stick(partition.device_number)
        if stick is None:
            raise DiskGone(f"{partition.device_node} is gone")
        return stick

    async def find(self, seen: PartitionSeen) -> Partition:
        """The partition. Raises ``DiskNotReady``."""
        await self._script.at("disks.find")
        stick = self._stick(seen.plug_in.device_number)
        if stick is None:
            raise DiskNotReady(f"{seen.device_node} is not there")
        return partition_of(stick)

    async def wait_for_automounter(self, partition: Partition, *, seconds: float) -> Partition:
        """Nobody mounts anything here but the test."""
        await self._script.at("disks.wait_for_automounter")
        return partition_of(self._there(partition))

    async def mount(self, partition: Partition, *, read_only: bool) -> Mount:
        """Mount it, or the mount that is there. As with UDisks2, that goes on though nobody waits for it any more."""
        return await asyncio.shield(asyncio.ensure_future(self._mount(partition, read_only)))

    async def _mount(self, partition: Partition, read_only: bool) -> Mount:
        await self._script.at("disks.mount ro" if read_only else "disks.mount rw")
        stick = self._there(partition)
        ours = not stick.mounted_by
        if ours:
            stick.mounted_by, stick.read_only_mount = "us", read_only
        return Mount(partition=partition, path=str(stick.root), read_only=stick.read_only_mount, ours=ours)

    async def unmount(self, partition: Partition) -> None:
        """Unmount it. Raises ``UnmountBusy``, ``DiskGone``."""
        await self._script.at("disks.unmount")
        stick = self._there(partition)
        if stick.mounted_by and stick.holders:
            raise UnmountBusy(f"{partition.device_node} is in use by {', '.join(stick.holders)}")
        stick.mounted_by = ""

    async def is_mounted(self, uuid: str) -> bool:
        """Whether anybody has it mounted."""
        await self._script.at("disks.is_mounted")
        return any(s.mounted_by for s in self._devices.plugged.values() if s.seen.uuid == uuid)

    async def left_mounted(self, uuid: str) -> Partition | None:
        """What a cut-off run left."""
        await self._script.at("disks.left_mounted")
        found = (s for s in self._devices.plugged.values() if s.seen.uuid == uuid and s.mounted_by == "us")
        return next(map(partition_of, found), None)

    def writable(self, mount: Mount) -> bool:
        """Whether the desktop's mount lets us write."""
        return self._there(mount.partition).desktop_lets_us_write

    async def power_off(self, partition: Partition) -> None:
        """The disk vanishes, as a real one does."""
        await self._script.at("disks.power_off")
        stick = self._there(partition)
        if stick.connection_bus == "loop":
            raise BusCallFailed("no-drive", f"{partition.device_node} belongs to no drive")
        self._devices.pull(stick)


def partition_of(stick: Stick) -> Partition:
    """As UDisks2 has it."""
    seen = stick.seen
    return Partition(
        block_path=f"/org/freedesktop/UDisks2/block_devices/{Path(seen.device_node).name}",
        drive_path="/org/freedesktop/UDisks2/drives/Stick",
        device_node=seen.device_node,
        device_number=seen.plug_in.device_number,
        file_system=seen.file_system,
        uuid=seen.uuid,
        label=seen.label,
        connection_bus=stick.connection_bus,
        size=seen.size,
        read_only=stick.write_protected,
        mount_points=(str(stick.root),) if stick.mounted_by else (),
    )


class FakeTargets:
    """Implements ``ports.Targets`` on the sticks' folders."""

    def __init__(self, script: Script, devices: FakeDevices) -> None:
        self._script = script
        self._devices = devices
        self.opened = 0

    async def list_root(self, mount: Mount) -> tuple[tuple[str, bool], ...]:
        """The root's files and folders."""
        await self._script.at("targets.list_root")
        return tuple((entry.name, entry.is_dir()) for entry in sorted(Path(mount.path).iterdir()))

    async def read_root_file(self, mount: Mount, path: str, limit: int) -> bytes | None:
        """A file below the root."""
        await self._script.at("targets.read_root_file")
        file = Path(mount.path, path)
        return file.read_bytes()[:limit] if file.is_file() else None

    async def open(self, mount: Mount, *, marker_entry: str | None) -> Target:
        """The backup folder."""
        await self._script.at("targets.open")
        if mount.read_only:
            raise DiskReadOnly(f"{mount.partition.device_node} is read-only")
        root = Path(mount.path)
        content = None
        if marker_entry is not None:
            content = (root / marker_entry).read_bytes()
            (root / marker_entry).unlink()
        folder = root / BACKUP_FOLDER
        folder.mkdir(exist_ok=True)
        if content is not None:
            (folder / "marker.toml").write_bytes(content)
        self.opened += 1
        return FakeTarget(self._script, self._devices, mount, folder, self)


class FakeTarget:
    """Implements ``ports.Target`` on a folder. Every step asks whether the stick is still there."""

    def __init__(self, script: Script, devices: FakeDevices, mount: Mount, folder: Path, owner: FakeTargets) -> None:
        self._script = script
        self._devices = devices
        self._number = mount.partition.device_number
        self._folder = folder
        self._owner = owner
        self.working_folder = str(folder)

    async def _at(self, step: str) -> None:
        await self._script.at(f"target.{step}")
        self._check()

    def _check(self) -> None:
        if all(plug_in.device_number != self._number for plug_in in self._devices.plugged):
            raise DiskGone("the disk was unplugged")

    async def check(self) -> None:
        """Raise ``DiskGone``."""
        await self._at("check")

    async def make_folder(self, path: str) -> None:
        """Make it."""
        await self._at("make_folder")
        (self._folder / path).mkdir(parents=True, exist_ok=True)

    async def names(self, folder: str) -> tuple[str, ...]:
        """The names in it."""
        await self._at("names")
        path = self._folder / folder
        return tuple(sorted(entry.name for entry in path.iterdir() if entry.is_file())) if path.is_dir() else ()

    async def scan(self, folder: str) -> Tree:
        """All files below it."""
        await self._at("scan")
        return Tree(files=files_below(self._folder / folder))

    async def write(self, folder: str, name: str, produce: Callable[[Sink], None]) -> Written:
        """Write it whole or not at all."""
        await self._at(f"write {folder}")
        content = Memory()
        produce(content)
        (self._folder / folder).mkdir(exist_ok=True)
        (self._folder / folder / name).write_bytes(content.data)
        return Written(len(content.data), hashlib.sha256(content.data).hexdigest())

    async def sha256(self, folder: str, name: str) -> str | None:
        """A file's hash."""
        await self._at("sha256")
        file = self._folder / folder / name
        return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else None

    async def read(self, folder: str, name: str) -> bytes | None:
        """A file's content."""
        await self._at("read")
        file = self._folder / folder / name
        return file.read_bytes() if file.exists() else None

    async def clear(self, folder: str) -> None:
        """Remove a folder."""
        await self._at("clear")
        shutil.rmtree(self._folder / folder, ignore_errors=True)

    async def distrust(self, folder: str, paths: Iterable[bytes]) -> None:
        """Give them a time that no original has."""
        await self._at("distrust")
        for path in map(os.fsdecode, paths):
            os.utime(self._folder / folder / path, (981_173_106, 981_173_106))

    async def remove(self, folder: str, name: str) -> None:
        """Remove it."""
        await self._at("remove")
        (self._folder / folder / name).unlink(missing_ok=True)

    async def set_aside(self, folder: str, paths: Iterable[bytes], *, into: str) -> int:
        """Move files."""
        await self._at("set_aside")
        moved = [*map(os.fsdecode, paths)]
        for path in moved:
            goal = self._folder / into / path
            goal.parent.mkdir(parents=True, exist_ok=True)
            (self._folder / folder / path).rename(goal)
        return len(moved)

    async def clear_temporary(self, folder: str) -> None:
        """Remove what is not whole."""
        await self._at("clear_temporary")
        shutil.rmtree(self._folder / folder / TEMPORARY, ignore_errors=True)

    async def facts(self, folder: str, paths: Iterable[bytes]) -> Mapping[bytes, FileFact]:
        """Those that are there."""
        await self._at("facts")
        there = files_below(self._folder / folder)
        return {path: there[path] for path in paths if path in there}

    async def free_bytes(self) -> int:
        """Plenty."""
        await self._at("free_bytes")
        return 10**12

    async def cluster_bytes(self) -> int:
        """As exFAT has it."""
        await self._at("cluster_bytes")
        return 131_072

    async def flush(self, progress: Callable[[int], None]) -> None:
        """Nothing is buffered."""
        await self._at("flush")
        progress(1)

    async def close(self) -> None:
        """Let go."""
        self._owner.opened -= 1


class Memory:
    """Implements ``ports.Sink``."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes, /) -> int:
        """Keep it."""
        self.data += data
        return len(data)

    def flush(self) -> None:
        """Nothing to do."""


def files_below(folder: Path) -> dict[bytes, FileFact]:
    """Size and time of every file, but those in a temporary folder."""
    found: dict[bytes, FileFact] = {}
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if path.is_file() and TEMPORARY not in relative.parts:
            found[os.fsencode(relative)] = FileFact(path.stat().st_size, path.stat().st_mtime_ns)
    return found


class FakeCopier:
    """Implements ``ports.Copier``."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.copied: list[bytes] = []
        self.refuses: set[bytes] = set()

    async def copy(
        self, source: Path, target: Target, folder: str, paths: Iterable[bytes], progress: Callable[[int], None]
    ) -> CopyResult:
        """Copy the files with their times."""
        await self._script.at(f"copier.copy {folder}")
        for path in set(paths) - self.refuses:
            goal = Path(target.working_folder, folder, os.fsdecode(path))
            goal.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / os.fsdecode(path), goal)
            self.copied.append(path)
        progress(1)
        return CopyResult(finished=True, full=False, complaints=(), exit_code=0)


class FakeHistory:
    """Implements ``ports.History`` in memory; survives a daemon's restart as a test's object does."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.begun: dict[str, RunReport] = {}
        self.finished: dict[str, RunReport] = {}
        self.told: set[str] = set()
        self.plug_ins: set[PlugIn] = set()

    async def begin(self, report: RunReport, plug_in: PlugIn) -> None:
        """Keep both."""
        await self._script.at("history.begin")
        self.begun[report.run_id] = report
        self.plug_ins.add(plug_in)

    async def finish(self, report: RunReport) -> None:
        """As an UPDATE does: only what was begun."""
        await self._script.at("history.finish")
        if report.run_id in self.begun:
            self.finished[report.run_id] = report

    async def announced(self, run_id: str) -> None:
        """Keep it."""
        await self._script.at("history.announced")
        self.told.add(run_id)

    async def unannounced(self) -> tuple[RunReport, ...]:
        """Over and not handed on."""
        return tuple(report for run_id, report in self.finished.items() if run_id not in self.told)

    async def cut_off(self) -> tuple[RunReport, ...]:
        """Begun and not over."""
        await self._script.at("history.cut_off")
        return tuple(report for run_id, report in self.begun.items() if run_id not in self.finished)

    async def handled(self, plug_in: PlugIn) -> bool:
        """Whether it had its run."""
        await self._script.at("history.handled")
        return plug_in in self.plug_ins

    async def disk_name(self, uuid: str) -> str | None:
        """The newest name."""
        await self._script.at("history.disk_name")
        names = [report.disk.name for report in self.begun.values() if report.disk.uuid == uuid]
        return names[-1] if names else None

    async def runs(self, limit: int) -> tuple[RunReport, ...]:
        """The newest first."""
        return tuple(reversed(self.finished.values()))[:limit]


class FakeOutbox:
    """Implements ``ports.Outbox``."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.reports: dict[str, RunReport] = {}

    async def put(self, report: RunReport) -> None:
        """The same run twice is one."""
        await self._script.at("outbox.put")
        self.reports[report.run_id] = report


class FakeWatchers:
    """Implements ``ports.Watchers``: what a person would have seen."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.told: list[str] = []
        self.reports: list[RunReport] = []

    def started(self, run_id: str, disk: Disk) -> None:
        """A run begins."""
        self.told.append(f"started {disk.name}")
        self._script.at_once("watchers.started")

    def progress(self, progress: Progress) -> None:
        """A run goes on."""
        self.told.append(f"progress {progress.stage.value}")
        self._script.at_once("watchers.progress")

    def finished(self, report: RunReport) -> None:
        """A run is over."""
        self.told.append(f"finished {report.outcome.value}")
        self.reports.append(report)
        self._script.at_once("watchers.finished")

    def disk_removed(self, uuid: str, disk_name: str) -> None:
        """A disk was unplugged."""
        self.told.append(f"removed {disk_name}")
        self._script.at_once("watchers.disk_removed")


class FakeInhibitor:
    """Implements ``ports.Inhibitor``."""

    def __init__(self) -> None:
        self.held_now = False
        self.times = 0

    @asynccontextmanager
    async def held(self, why: str) -> AsyncIterator[None]:
        """Held while inside."""
        self.held_now, self.times = True, self.times + 1
        try:
            yield
        finally:
            self.held_now = False


class Journal(Recorder):
    """Implements ``ports.Log``, and wakes who waits for news."""

    def __init__(self, script: Script) -> None:
        super().__init__()
        self._script = script

    def say(self, event: Event, **fields: Any) -> None:
        """Remember."""
        super().say(event, **fields)
        self._script.news.set()


class TickingClock(SetClock):
    """Implements ``ports.Clock``: each look at it takes half a minute, so that patience ends after some looks."""

    def monotonic(self) -> float:
        """Later each time."""
        self.move_on(seconds=30)
        return super().monotonic()


class World:
    """All fakes together, and sticks to plug in."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.script = Script()
        self.log = Journal(self.script)
        self.devices = FakeDevices(self.script)
        self.disks = FakeDisks(self.script, self.devices)
        self.targets = FakeTargets(self.script, self.devices)
        self.copier = FakeCopier(self.script)
        self.history = FakeHistory(self.script)
        self.outbox = FakeOutbox(self.script)
        self.watchers = FakeWatchers(self.script)
        self.inhibitor = FakeInhibitor()
        self.ports = Ports(
            log=self.log,
            devices=self.devices,
            disks=self.disks,
            targets=self.targets,
            source=ServerFiles(),
            copier=self.copier,
            history=self.history,
            outbox=self.outbox,
            watchers=AllWatchers([self.watchers], self.log),
            inhibitor=self.inhibitor,
            clock=TickingClock(),
            server="nas",
        )

    def stick(self, number: int = 1, *, marked: bool = True, label: str = "") -> Stick:
        """A stick with a marker folder, not plugged in yet."""
        root = self._folder / f"stick-{number}"
        root.mkdir()
        (root / "holiday.odt").write_bytes(b"mine")
        if marked:
            (root / BACKUP_FOLDER).mkdir()
        return Stick(seen=seen_stick(number, label=label or f"STICK{number}"), root=root)

    @property
    def outcomes(self) -> list[Outcome]:
        """How the runs ended, as the history has them."""
        return [report.outcome for report in self.history.finished.values()]

    @property
    def report(self) -> RunReport:
        """The last run's."""
        return next(reversed(self.history.finished.values()))


def seen_stick(number: int = 1, *, label: str = "STICK") -> PartitionSeen:
    """What udev says of a stick's only partition."""
    return PartitionSeen(
        action=DeviceAction.ADD,
        device_node=f"/dev/sd{chr(ord('a') + number)}1",
        plug_in=PlugIn(boot_id="boot", disk_sequence=number, device_number=os.makedev(8, 16 * number + 1)),
        transport="usb",
        file_system="exfat",
        uuid=f"ABCD-{number:04}",
        label=label,
        model="Stick",
        serial="S1",
        size=64_000_000_000,
    )
