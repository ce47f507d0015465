"""Everything that is told of one disk: what earlier runs left, what is plugged in, and what is to come."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from immich_usb_backup.model import DiskVerdict, KnownDisk, Outcome, PartitionSeen, RunReport
from immich_usb_backup.policy.verdict_words import restorable_line, verdict_sentence

STRIP = 20
"""How many of the newest runs a disk's strip shows."""


class DiskState(StrEnum):
    """What goes on with a disk: it is not plugged in, nothing, its turn has not come yet, or a backup (or a look at what one
    would do) is under way."""

    ABSENT = "absent"
    IDLE = "idle"
    WAITING = "waiting"
    RUNNING = "running"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskFacts:
    """A disk that is known from earlier runs or plugged in. ``device`` is empty for one that is not here; ``reasons`` are
    why one that is here may not be backed up to. ``last``, ``good`` (the newest that ended well), ``due`` and ``next_run``
    are None where there is none; ``strip`` has a letter for the outcome of each of the newest runs, the oldest first."""

    uuid: str
    name: str
    label: str
    model: str
    size: int
    device: str = ""
    state: DiskState = DiskState.ABSENT
    reasons: tuple[str, ...] = ()
    last: RunReport | None = None
    good: datetime | None = None
    due: datetime | None = None
    late: bool = False
    verdict: DiskVerdict | None = None
    next_run: datetime | None = None
    trusted: bool = True
    strip: str = ""

    @property
    def held_deletions(self) -> int:
        """How many files the last run did not remove from the backup, because nobody has approved it."""
        return held_deletions(self.last) if self.last is not None else 0

    @property
    def verdict_line(self) -> str:
        """What the disk is worth, in one line; empty where that is not known."""
        if self.verdict is None:
            return ""
        return f"{verdict_sentence(self.verdict, self.name)} {restorable_line(self.verdict)}"


def held_deletions(report: RunReport) -> int:
    """How many removals a run held back. (What waits for their places has the same code, and no hint.)"""
    return sum(finding.count for finding in report.findings if finding.code == "deletions-held" and finding.hint)


def strip_of(outcomes: Iterable[Outcome]) -> str:
    """One letter for each: ``o``, ``p``, ``f``, ``i``."""
    return "".join(outcome.value[0] for outcome in outcomes)


def facts_of(
    known: KnownDisk | None,
    seen: PartitionSeen | None,
    *,
    state: DiskState = DiskState.ABSENT,
    reasons: tuple[str, ...] = (),
    due: datetime | None = None,
    now: datetime,
    next_run: datetime | None = None,
    trusted: bool = True,
    strip: str = "",
) -> DiskFacts:
    """One of ``known`` and ``seen`` must be there. What is plugged in says how the disk looks now."""
    disk = known.disk if known is not None else None
    here = seen if seen is not None else disk
    assert here is not None
    label = here.label
    return DiskFacts(
        uuid=here.uuid,
        name=disk.name if disk is not None else label.strip() or here.uuid,
        label=label,
        model=here.model,
        size=here.size or (disk.size if disk is not None else 0),
        device=seen.device_node if seen is not None else "",
        state=state,
        reasons=reasons,
        last=known.last if known is not None else None,
        good=known.good if known is not None else None,
        due=due,
        late=due is not None and due <= now,
        verdict=known.verdict if known is not None else None,
        next_run=next_run,
        trusted=trusted,
        strip=strip,
    )
