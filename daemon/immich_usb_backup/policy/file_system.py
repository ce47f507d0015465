"""What to do about a disk by the health of its file system: write to it, have it repaired, or leave it alone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias

from immich_usb_backup.errors import FileSystemDamaged
from immich_usb_backup.model import Finding, Health, Severity
from immich_usb_backup.policy.outcome import finding_of

Option: TypeAlias = Literal["repair-own", "check", "never"]

EXIT_CODES = {Health.CLEAN: 0, Health.DIRTY: 10, Health.REPAIRED: 11, Health.DAMAGED: 12, Health.UNKNOWN: 13}
"""How ``check-file-system`` tells the daemon. None that a program which cannot be run or crashes would end with."""

_CURE = "To take the mark off, check the disk on a computer (Windows: chkdsk X: /f, Linux: sudo fsck.exfat -p)."


class Step(StrEnum):
    """What comes next."""

    PROCEED = "proceed"
    CHECK = "check"
    REPAIR = "repair"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Decision:
    """The next step, and what the run notes."""

    step: Step
    finding: Finding | None = None


def first_step(option: Option, *, ours: bool) -> Step:
    """How to begin. ``ours``: this server's state on the disk says that it was writing when the disk was pulled. A repair
    looks first itself, so that a check before it would only read everything twice."""
    if option == "never":
        return Step.PROCEED
    return Step.REPAIR if ours and option == "repair-own" else Step.CHECK


def decide(
    health: Health, said: str, *, option: Option, ours: bool, carries_ours: bool = False, repair_tried: bool = False
) -> Decision:
    """What a check's or a repair's answer means. ``said``: the text that came with it. ``carries_ours``: the backup on the
    disk is this server's, whether or not it was writing: a pull after the state says that it is not, and before all that
    is on the medium, leaves damage of our own making. A repair changes nothing but the backup folder."""
    may_repair = option == "repair-own" and not repair_tried
    match health:
        case Health.CLEAN:
            return Decision(Step.PROCEED)
        case Health.REPAIRED:
            return Decision(Step.PROCEED, _repaired(said))
        case Health.UNKNOWN:
            return Decision(Step.PROCEED, _unchecked(said))
        case Health.DIRTY:
            return Decision(Step.REPAIR) if may_repair and ours else Decision(Step.PROCEED, _unclean(said))
        case Health.DAMAGED:
            repairable = may_repair and (ours or carries_ours)
            return Decision(Step.REPAIR) if repairable else Decision(Step.REFUSE, _damaged(said))


def _repaired(said: str) -> Finding:
    message = f"The disk was not unmounted properly; its file system was repaired ({said})"
    return Finding(code="file-system-repaired", severity=Severity.NOTE, message=message)


def _unclean(said: str) -> Finding:
    message = f"The disk is marked as not unmounted properly, or as failing; its file system is sound ({said})"
    return Finding(code="file-system-unclean", severity=Severity.NOTE, message=message, hint=_CURE)


def _unchecked(said: str) -> Finding:
    message = f"The disk's file system could not be checked: {said}"
    return Finding(code="file-system-unchecked", severity=Severity.NOTE, message=message)


def _damaged(said: str) -> Finding:
    return finding_of(FileSystemDamaged(f"The disk's file system is damaged, so no backup was written to it: {said}"))
