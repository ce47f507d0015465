"""What each stage is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from immich_usb_backup.config import Config
from immich_usb_backup.model import (
    COPY_STAGES,
    Disk,
    DiskVerdict,
    Finding,
    Mode,
    Progress,
    Rereading,
    RunReport,
    Stage,
    StageReport,
)
from immich_usb_backup.policy.disk_state import DiskState
from immich_usb_backup.policy.manifest import DiskRecord
from immich_usb_backup.policy.rereading import Pace, pace
from immich_usb_backup.ports import AssetBook, Manifest, Ports, Target

PACE_SECONDS = 3.0
"""How long something goes on before it is said how fast: at first the disk's cache takes everything."""


@dataclass(slots=True, kw_only=True)
class RunContext:
    """One run: what is fixed, and what it collects on its way."""

    run_id: str
    disk: Disk
    started: datetime
    config: Config
    ports: Ports
    mode: Mode = Mode.QUICK
    rereading: Rereading = Rereading.TURN
    findings: list[Finding] = field(default_factory=list)
    stages: list[StageReport] = field(default_factory=list)
    dump: str | None = None
    dump_time: datetime | None = None
    dump_path: Path | None = None
    """The server's copy of the dump that lies on the disk."""
    free_bytes: int | None = None
    verdict: DiskVerdict | None = None
    bytes_planned: int = 0
    bytes_done: int = 0
    bytes_copied: int = 0
    began: dict[tuple[bool, int], tuple[float, int]] = field(default_factory=dict)
    """When comparing (or copying) so many bytes in all began, by the clock's seconds, and with how many done already."""

    def note(self, *findings: Finding) -> None:
        """Keep what was noticed."""
        self.findings.extend(findings)

    def show_flush(self, written: int) -> None:
        """Tell the watchers how much is left to be written out, by the bytes that the device has written."""
        self.show(Stage.FLUSH, done=min(written, self.bytes_copied), total=self.bytes_copied)

    def show_reading(self, *, done: int, total: int, pace: Pace) -> None:
        """Tell the watchers how far the reading in turn is, and how fast."""
        self.ports.watchers.progress(
            Progress(
                run_id=self.run_id,
                disk_name=self.disk.name,
                stage=Stage.PROVE,
                done=done,
                total=total,
                percent=pace.percent,
                rate=pace.rate,
                seconds_left=pace.seconds_left,
            )
        )

    def show(self, stage: Stage, *, done: int = 0, total: int = 0, current: str = "") -> None:
        """Tell the watchers how far the run is."""
        percent = min(100, 100 * done // total) if total else None
        speed = self._pace(stage, done, total)
        self.ports.watchers.progress(
            Progress(
                run_id=self.run_id,
                disk_name=self.disk.name,
                stage=stage,
                done=done,
                total=total,
                percent=percent,
                current=current,
                rate=speed.rate,
                seconds_left=speed.seconds_left,
            )
        )

    def _pace(self, stage: Stage, done: int, total: int) -> Pace:
        """Over all the folders that are copied together, with the flushes and the reading back in between."""
        if stage not in COPY_STAGES or not total:
            return Pace(None, None, None)
        now = self.ports.clock.monotonic()
        began, before = self.began.setdefault((stage is Stage.COMPARE, total), (now, done))
        if now - began < PACE_SECONDS:
            return Pace(None, None, None)
        return pace(done=done - before, total=total - before, seconds=now - began, limit=None)


@dataclass(slots=True, kw_only=True)
class Work:
    """A run with its disk open, and what is known of that disk.

    ``state`` is what the disk said of itself when it was opened, ``generation`` that of the manifest on it now; ``record`` what the server remembers of it, kept up to
    date on the way; ``walk_because`` why the manifest cannot be believed, empty where it can; ``doubtful`` the disk's
    paths of files that a run was writing when it was cut off.
    """

    run: RunContext
    target: Target
    manifest: Manifest
    server_id: str
    state: DiskState | None
    generation: str
    record: DiskRecord
    walk_because: tuple[str, ...]
    doubtful: frozenset[bytes] = frozenset()
    altered: frozenset[bytes] = frozenset()
    """The disk's paths of files that are not as they were left."""
    suspects: frozenset[bytes] = frozenset()
    """The disk's paths of files that did not read back as they were written."""
    unresolved: set[bytes] = field(default_factory=set)
    """Those of the doubtful files that have not had their turn yet."""
    changed: bool = False
    """Whether the manifest on the disk is no longer true."""
    writing: bool = False
    """Whether this run has written to the disk."""
    aside: int = 0
    """Files that have just been moved into ``deleted/``, without the originals that changed in size."""
    copied: bool = False
    """Whether anything has been copied since the last flush."""
    unfinished: RunReport | None = None
    """The run that left the disk unfinished, where the history knows it."""
    approval_files: tuple[str, ...] = ()
    """Files on the disk by which a person approves held deletions."""
    unsettled: bool = False
    """Whether the manifest may not be true to the disk: it was not walked yet, or something ended in the middle."""
    in_flight: bool = False
    """Whether lists of files in flight lie on the disk."""
    assets: AssetBook | None = None
    """What the newest dump on the disk names, where it could be read."""
    rotten_on_server: set[bytes] = field(default_factory=set)
    """The server's paths of files that have changed by themselves there; the disk's copies are good and were kept."""
    rotten_on_disk: set[bytes] = field(default_factory=set)
    """The server's paths of files that the disk no longer has as they were, and that could not be mended."""

    @property
    def believed(self) -> bool:
        """Whether what the server remembers of the disk may be taken for what lies there."""
        return not self.walk_because
