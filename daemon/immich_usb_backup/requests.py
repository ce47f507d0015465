"""What a person may ask the daemon for: which disk is meant, how a run shall go, and why something is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from immich_usb_backup.errors import BackupError
from immich_usb_backup.model import Disk, Mode, PartitionSeen, PlanReport, Rereading, RunReport, Trigger
from immich_usb_backup.policy.disk_facts import DiskFacts
from immich_usb_backup.policy.text import printable


class Refusal(StrEnum):
    """Why something is not done. On D-Bus this is the last part of the error's name."""

    NO_SUCH_DISK = "NoSuchDisk"
    AMBIGUOUS_DISK = "AmbiguousDisk"
    BAD_MODE = "BadMode"
    BAD_CHOICE = "BadChoice"
    BUSY = "Busy"
    NO_SUCH_RUN = "NoSuchRun"
    NOT_RUNNING = "NotRunning"
    NOT_ALLOWED = "NotAllowed"
    FAILED = "Failed"


class Refused(BackupError):
    """What was asked for is not done."""

    code = "refused"

    def __init__(self, why: Refusal, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.why = why


class Requests(Protocol):
    """Whom a person's requests go to. ``disk`` is a name, a label, a UUID or a device node; an empty ``mode`` means: as it
    is configured. Everything raises ``Refused``, and other ``BackupError`` for what went wrong."""

    async def plan(self, disk: str, mode: str) -> PlanReport:
        """What a run on a disk that is plugged in would do now. Takes minutes where the disk has to be walked."""

    async def backup(self, disk: str, mode: str, *, trigger: Trigger = Trigger.ASKED) -> str:
        """Have a disk that is plugged in backed up to, though it had its run. Returns its name at once."""

    async def verify(self, disk: str, what: str) -> Candidate:
        """Have a backup begin that reads back, however long it takes, what is ``due`` or ``all`` of a disk that is plugged
        in. Returns at once."""

    async def eject(self, disk: str) -> str:
        """Let a disk that is plugged in be unmounted: a run that only reads it back ends early. Returns its name when it
        may be unplugged."""

    async def approve(self, disk: str) -> int:
        """Approve the deletions that are held. Returns how many those are; 0: nothing was held."""

    async def adopt(self, disk: str) -> str:
        """Let the next run take the disk over from another server. Returns its name."""

    async def cancel(self, disk: str) -> str:
        """End the backup or plan that goes on, with an empty ``disk`` on whichever disk that is, or take what waits for its
        turn from the queue. Returns the disk's name at once: the run unmounts the disk and tells its outcome."""

    async def forget(self, disk: str) -> str:
        """Remove what is remembered of a disk. Nothing on the disk changes. Returns its name."""

    async def retry(self, run_id: str) -> str:
        """Have what a run did not do done on its disk, which must be plugged in. Returns its name at once."""

    async def disks(self) -> tuple[DiskFacts, ...]:
        """Every disk that is known or plugged in."""

    async def runs(self, disk: str, number: int, *, failed: bool) -> tuple[RunReport, ...]:
        """The newest runs that are over; with an empty ``disk`` of all; with ``failed`` those that did not end well."""

    async def report(self, run_id: str) -> RunReport:
        """One run that is over."""

    async def enroll(self, device: str, name: str) -> str:
        """Make a disk that is plugged in one of ours. Returns its name."""

    async def remind(self) -> int:
        """Remind of the disks that are due, where that is due. Returns of how many."""

    def going(self, disk: Disk) -> tuple[Mode, Trigger] | None:
        """How the run on this disk that has just begun goes, and why it began."""

    def watch(self, changed: Callable[[], None]) -> None:
        """Have ``changed`` called whenever ``disks`` may have another answer than before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A disk that may be meant. ``seen`` is None for one that is not plugged in."""

    name: str
    uuid: str
    label: str
    seen: PartitionSeen | None = None

    @property
    def shown(self) -> str:
        """How a list of disks speaks of it."""
        node = f"{self.seen.device_node}, " if self.seen else ""
        return f"'{printable(self.name)}' ({node}UUID {printable(self.uuid)})"


def plugged_in(seen: PartitionSeen, name: str | None) -> Candidate:
    """A disk that is here; ``name`` is the one that it was backed up under before."""
    return Candidate(name=name or seen.label.strip() or seen.uuid, uuid=seen.uuid, label=seen.label, seen=seen)


def remembered(reports: Iterable[RunReport]) -> tuple[Candidate, ...]:
    """The disks that earlier runs (the newest first) knew, each by its newest name."""
    disks = (report.disk for report in reports)
    found: dict[str, Candidate] = {}
    for disk in disks:
        found.setdefault(disk.uuid, Candidate(name=disk.name, uuid=disk.uuid, label=disk.label))
    return tuple(found.values())


def choose(wanted: str, candidates: Iterable[Candidate]) -> Candidate | None:
    """The disk that is meant, or None. Raises ``Refused`` where it could be several."""
    found = [candidate for candidate in candidates if _is_meant(wanted, candidate)]
    if len(found) > 1:
        which = ", ".join(candidate.shown for candidate in found)
        by = "the device node" if all(candidate.seen for candidate in found) else "the UUID"
        message = f"'{printable(wanted)}' could be {len(found)} disks: {which}"
        raise Refused(Refusal.AMBIGUOUS_DISK, message, hint=f"Give {by} instead.")
    return found[0] if found else None


def _is_meant(wanted: str, candidate: Candidate) -> bool:
    """A label comes from the disk and may look like a device node: what looks like one means nothing else."""
    if wanted.startswith("/dev/"):
        return candidate.seen is not None and candidate.seen.device_node == wanted
    return bool(wanted) and (wanted in {candidate.name, candidate.label} or wanted.lower() == candidate.uuid.lower())


def not_here(wanted: str, here: Sequence[Candidate]) -> Refused:
    """The refusal for a disk that is not plugged in; it names those that are."""
    others = (
        f"Plugged in: {', '.join(candidate.shown for candidate in here)}" if here else "No exFAT disk is plugged in"
    )
    message = f"No disk '{printable(wanted)}' is plugged in. {others}"
    return Refused(Refusal.NO_SUCH_DISK, message, hint="See: sudo immich-usb-backup disks")


def not_eligible(wanted: str, reasons: Sequence[str]) -> Refused:
    """The refusal for something that is plugged in and is never backed up to."""
    message = f"'{printable(wanted)}' is plugged in, but cannot be backed up to: {'; '.join(reasons)}"
    return Refused(Refusal.NO_SUCH_DISK, message)


def mode_of(text: str) -> Mode | None:
    """The mode that is asked for; None: as it is configured. Raises ``Refused``."""
    if not text:
        return None
    try:
        return Mode(text)
    except ValueError:
        known = ", ".join(Mode)
        raise Refused(Refusal.BAD_MODE, f"There is no mode '{printable(text)}': it is one of {known}") from None


def rereading_of(text: str) -> Rereading:
    """What a verification is asked to read; empty: what is due. Raises ``Refused``."""
    if text in {"", Rereading.DUE}:
        return Rereading.DUE
    if text == Rereading.ALL:
        return Rereading.ALL
    message = f"There is no verification of '{printable(text)}': it is one of {Rereading.DUE}, {Rereading.ALL}"
    raise Refused(Refusal.BAD_CHOICE, message)
