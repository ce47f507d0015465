"""Honest stand-ins for the ports: they keep state, refuse what the real ones refuse, and write down what was asked.

A `Script` lets a test stop a fake at a named step until the test goes on, or have that step fail.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from immich_usb_backup.adapters.enrolments import ENROLMENTS, EnrolmentsFile
from immich_usb_backup.adapters.manifest import SqliteManifests
from immich_usb_backup.adapters.source import ServerFiles
from immich_usb_backup.adapters.watchers import AllWatchers
from immich_usb_backup.errors import BusCallFailed, DiskGone, DiskNotReady, UnmountBusy
from immich_usb_backup.events import Event
from immich_usb_backup.model import (
    BACKUP_FOLDER,
    DeviceAction,
    Disk,
    Health,
    KnownDisk,
    Mount,
    Notice,
    Outcome,
    Partition,
    PartitionSeen,
    PlugIn,
    Progress,
    Reminders,
    RunReport,
)
from immich_usb_backup.policy.assets import Asset, DumpFacts
from immich_usb_backup.ports import Ports
from tests.support.fake_devices import FakeDevices, Stick
from tests.support.fake_target import FakeCopier, FakeTarget, FakeTargets, Memory, files_below
from tests.support.script import Script
from tests.support.telling import Recorder, SetClock

__all__ = [
    "FakeCopier",
    "FakeDevices",
    "FakeTarget",
    "FakeTargets",
    "Memory",
    "Script",
    "Stick",
    "World",
    "files_below",
]

T = TypeVar("T")


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

    async def runs(self, limit: int, *, uuid: str = "", failed: bool = False) -> tuple[RunReport, ...]:
        """The newest first."""
        over = reversed(self.finished.values())
        wanted = (one for one in over if uuid in {"", one.disk.uuid} and not (failed and one.outcome is Outcome.OK))
        return tuple(wanted)[:limit]

    async def report(self, run_id: str) -> RunReport | None:
        """One that is over."""
        return self.finished.get(run_id)

    async def disks(self) -> tuple[KnownDisk, ...]:
        """Every disk, the one with the newest run first."""
        await self._script.at("history.disks")
        runs = await self.runs(len(self.finished))
        return tuple(_known([one for one in runs if one.disk.uuid == uuid]) for uuid in {r.disk.uuid: 0 for r in runs})

    async def outcomes(self, newest: int) -> Mapping[str, tuple[Outcome, ...]]:
        """How the newest of each disk ended."""
        found: dict[str, tuple[Outcome, ...]] = {}
        for one in self.finished.values():
            found[one.disk.uuid] = (*found.get(one.disk.uuid, ()), one.outcome)[-newest:]
        return found

    async def forget(self, uuid: str) -> None:
        """Remove its runs."""
        gone = {run_id for run_id, one in self.finished.items() if one.disk.uuid == uuid}
        self.begun = {run_id: one for run_id, one in self.begun.items() if run_id not in gone}
        self.finished = {run_id: one for run_id, one in self.finished.items() if run_id not in gone}


def _known(newest_first: list[RunReport]) -> KnownDisk:
    last = newest_first[0]
    return KnownDisk(
        disk=last.disk,
        last=last,
        first=newest_first[-1].started,
        good=next((one.ended for one in newest_first if one.outcome is Outcome.OK), None),
        verdict=next((one.verdict for one in newest_first if one.verdict is not None), None),
    )


class FakeOutbox:
    """Implements ``ports.Outbox``."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.reports: dict[str, RunReport] = {}
        self.begun: dict[str, RunReport] = {}
        self.notices: dict[str, Notice] = {}

    async def put(self, report: RunReport) -> None:
        """The same run twice is one."""
        await self._script.at("outbox.put")
        self.reports[report.run_id] = report

    async def put_begun(self, report: RunReport) -> None:
        """A run has begun."""
        await self._script.at("outbox.put_begun")
        self.begun[report.run_id] = report

    async def put_notice(self, notice: Notice) -> None:
        """The same notice twice is one."""
        await self._script.at("outbox.put_notice")
        self.notices[notice.notice_id] = notice


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

    def notice(self, notice: Notice) -> None:
        """Something to know outside of a run."""
        self.told.append(f"notice {notice.kind.value}")
        self._script.at_once("watchers.notice")


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


class FakePower:
    """Implements ``ports.Power``. ``battery`` is what the machine runs on; ``say`` is how a change is heard of."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._news = asyncio.Event()
        self.battery = False

    def say(self, *, battery: bool) -> None:
        """It changes, and that is heard of."""
        self.battery = battery
        self._news.set()

    async def on_battery(self) -> bool:
        """What it runs on."""
        self._news.clear()
        await self._script.at("power.on_battery")
        return self.battery

    async def changed(self, *, seconds: float) -> None:
        """Only news ends it: no test waits for time."""
        await self._script.at("power.changed")
        await self._news.wait()


class FakeReminderBook:
    """Implements ``ports.ReminderBook``."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.kept: Reminders | None = None

    async def load(self, now: datetime) -> Reminders:
        """What is kept."""
        await self._script.at("reminders.load")
        return self.kept or Reminders(since=now)

    async def save(self, reminders: Reminders) -> None:
        """Keep it."""
        await self._script.at("reminders.save")
        self.kept = reminders


class FakeFileSystems:
    """Implements ``ports.FileSystems``. ``health`` is what a check finds, ``repaired`` what a repair ends with."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.health = Health.CLEAN
        self.repaired = Health.REPAIRED

    async def check(self, partition: Partition) -> tuple[Health, str]:
        """Look."""
        await self._script.at("file_systems.check")
        return self.health, f"{partition.device_node} was looked at"

    async def repair(self, partition: Partition) -> tuple[Health, str]:
        """Look and repair."""
        await self._script.at("file_systems.repair")
        return self.repaired, f"{partition.device_node} was repaired"


class FakeBackground:
    """Implements ``ports.Background`` in the loop itself, so that nothing else happens meanwhile."""

    def __init__(self, script: Script) -> None:
        self._script = script

    async def __call__(self, work: Callable[[Callable[[], None]], T], *, what: str) -> T:
        """Do it now."""
        await self._script.at("background")
        return work(lambda: None)


class Journal(Recorder):
    """Implements ``ports.Log``, and wakes who waits for news."""

    def __init__(self, script: Script) -> None:
        super().__init__()
        self._script = script

    def say(self, event: Event, **fields: Any) -> None:
        """Remember."""
        super().say(event, **fields)
        self._script.news.set()


class FakeAssetBook:
    """Implements ``ports.AssetBook`` on a dictionary."""

    def __init__(self, assets: Iterable[Asset]) -> None:
        self._assets = sorted(assets)
        self.closed = False
        self.facts = DumpFacts(
            cluster=False,
            server_version="15.8",
            dump_version="15.8",
            restricted=False,
            table="asset",
            media_location=b"/data",
            immich="2.5.0",
            assets=len(self._assets),
            external=sum(asset.external for asset in self._assets),
            trashed=sum(asset.trashed for asset in self._assets),
            unhashed=sum(not asset.sha1 for asset in self._assets),
        )

    def folders(self) -> Iterator[tuple[bytes, Mapping[bytes, Asset]]]:
        """Every folder with its assets."""
        for path in sorted({asset.path.rpartition(b"/")[0] for asset in self._assets if not asset.external}):
            yield path, self.folder(path)

    def folder(self, path: bytes) -> Mapping[bytes, Asset]:
        """One folder's assets."""
        inside = [asset for asset in self._assets if not asset.external and asset.path.rpartition(b"/")[0] == path]
        return {asset.path.rpartition(b"/")[2]: asset for asset in inside}

    def outside(self) -> Iterator[Asset]:
        """The external ones."""
        return iter([asset for asset in self._assets if asset.external])

    async def sha1s(self, paths: Iterable[bytes]) -> Mapping[bytes, bytes]:
        """Immich's SHA-1s."""
        known = {asset.path: asset.sha1 for asset in self._assets if asset.sha1}
        return {path: known[path] for path in paths if path in known}

    async def close(self) -> None:
        """Let go of it."""
        self.closed = True


class FakeAssetBooks:
    """Implements ``ports.AssetBooks``: every dump names the same ``assets``."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.assets: list[Asset] = []

    async def open(self, dump: Path, *, sha256: str, media_location: Path) -> FakeAssetBook:
        """The assets that the test has set."""
        await self._script.at("asset_books.open")
        return FakeAssetBook(self.assets)


class FakeDumpMaker:
    """Implements ``ports.DumpMaker``. ``makes`` puts a dump where the test wants it; ``problem`` is why there is none."""

    def __init__(self, script: Script, folder: Path) -> None:
        self._script = script
        self.folder = folder
        self.makes: Callable[[], object] = lambda: None
        self.problem: str | None = None
        self.asked: list[float] = []

    async def make(self, *, seconds: float) -> str | None:
        """Make it."""
        self.asked.append(seconds)
        await self._script.at("dump_maker.make")
        self.makes()
        return self.problem


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
        self.power = FakePower(self.script)
        self.reminder_book = FakeReminderBook(self.script)
        self.state = folder / "state"
        self.manifests = SqliteManifests(self.state)
        self.enrolments = EnrolmentsFile(self.state / ENROLMENTS)
        self.asset_books = FakeAssetBooks(self.script)
        self.dump_maker = FakeDumpMaker(self.script, self.state / "dumps")
        self.background = FakeBackground(self.script)
        self.file_systems = FakeFileSystems(self.script)
        self.ports = Ports(
            log=self.log,
            devices=self.devices,
            disks=self.disks,
            targets=self.targets,
            source=ServerFiles(),
            copier=self.copier,
            history=self.history,
            manifests=self.manifests,
            enrolments=self.enrolments,
            asset_books=self.asset_books,
            dump_maker=self.dump_maker,
            background=self.background,
            file_systems=self.file_systems,
            outbox=self.outbox,
            watchers=AllWatchers([self.watchers], self.log),
            inhibitor=self.inhibitor,
            power=self.power,
            reminder_book=self.reminder_book,
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
