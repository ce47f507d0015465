"""What each stage is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from immich_usb_backup.config import Config
from immich_usb_backup.model import Disk, Finding, Progress, Stage, StageReport
from immich_usb_backup.ports import Ports, Target


@dataclass(slots=True, kw_only=True)
class RunContext:
    """One run: what is fixed, and what it collects on its way."""

    run_id: str
    disk: Disk
    started: datetime
    config: Config
    ports: Ports
    findings: list[Finding] = field(default_factory=list)
    stages: list[StageReport] = field(default_factory=list)
    dump: str | None = None
    dump_time: datetime | None = None
    free_bytes: int | None = None
    beyond_doubt: set[Stage] = field(default_factory=set)
    """Folders of which nothing is in doubt once everything has been flushed; their lists may then leave the disk."""
    bytes_planned: int = 0
    bytes_done: int = 0
    bytes_copied: int = 0

    def note(self, *findings: Finding) -> None:
        """Keep what was noticed."""
        self.findings.extend(findings)

    def show_flush(self, written: int) -> None:
        """Tell the watchers how much is left to be written out, by the bytes that the device has written."""
        self.show(Stage.FLUSH, done=min(written, self.bytes_copied), total=self.bytes_copied)

    def show(self, stage: Stage, *, done: int = 0, total: int = 0, current: str = "") -> None:
        """Tell the watchers how far the run is."""
        percent = min(100, 100 * done // total) if total else None
        self.ports.watchers.progress(
            Progress(
                run_id=self.run_id,
                disk_name=self.disk.name,
                stage=stage,
                done=done,
                total=total,
                percent=percent,
                current=current,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A run with its disk open."""

    run: RunContext
    target: Target
