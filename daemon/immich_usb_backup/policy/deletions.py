"""Whether files may leave the disk's copy, and what of ``deleted/`` may go for good."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from immich_usb_backup.policy.text import counted

DELETED = "deleted"
"""Folder on the disk with what left the copy, in folders by date (``deleted/20261121``)."""

APPROVE = "approve-deletions"
"""A file of this name, with any ending, in the backup folder approves the deletions that the run before had held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFacts:
    """What speaks for or against believing one folder of the server's. ``removals``: files that would leave the disk's
    copy. ``needs_mark``: it is one of Immich's, which hold a file ``.immich``."""

    name: str
    files: int
    removals: int
    needs_mark: bool
    marked: bool
    mount_point: bool
    was_mount_point: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """More than ``percent`` of what the disk holds, and more than ``files``, is held."""

    percent: int
    files: int


def reasons_to_hold(sources: Iterable[SourceFacts], *, known: int, limits: Limits) -> tuple[str, ...]:
    """Why removals must wait for an approval, in words; none: they may go. ``known`` files lie on the disk."""
    sources = tuple(sources)
    reasons = [reason for source in sources if source.removals for reason in _of_source(source)]
    removals = sum(source.removals for source in sources)
    if removals > max(limits.files, known * limits.percent // 100):
        share = 100 * removals // max(known, 1)
        reasons.append(f"it would be {counted(removals, 'file')}, {share} % of what the disk holds")
    return tuple(reasons)


def _of_source(source: SourceFacts) -> Iterable[str]:
    if source.needs_mark and not source.marked:
        yield f"Immich's mark .immich is missing in {source.name} on the server (is it mounted?)"
    if source.files == 0:
        yield f"{source.name} is empty on the server and the copy on the disk is not"
    if source.was_mount_point and not source.mount_point:
        yield f"{source.name} was a mount point on the server and is none now"


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """Whether the removals are approved; ``too_big``: an approval is there, but for fewer files."""

    given: bool
    too_big: bool = False


def judge_approval(removals: Collection[bytes], held: frozenset[bytes], *, approved: bool) -> Approval:
    """An approval holds for what was held when it was given, and for nothing beyond that."""
    if not approved:
        return Approval(given=False)
    covered = held.issuperset(removals)
    return Approval(given=covered, too_big=not covered)


def approval_files(names: Iterable[str]) -> tuple[str, ...]:
    """The files among ``names`` by which a person approves, whatever ending an editor gave them."""
    return tuple(name for name in names if name.lower().split(".")[0] == APPROVE)


def due_for_purge(folders: Iterable[str], *, today: date, keep_days: int) -> tuple[str, ...]:
    """The folders in ``deleted/`` whose time is over, the oldest first."""
    limit = today - timedelta(days=keep_days)
    return tuple(name for day, name in sorted(_dated(folders)) if day < limit)


def oldest_first(folders: Iterable[str], *, before: date) -> tuple[str, ...]:
    """The folders in ``deleted/`` of days before ``before``, the oldest first."""
    return tuple(name for day, name in sorted(_dated(folders)) if day < before)


def _dated(folders: Iterable[str]) -> Iterable[tuple[date, str]]:
    for name in folders:
        if len(name) == 8 and name.isascii() and name.isdecimal():
            try:
                yield datetime.strptime(name, "%Y%m%d").date(), name  # noqa: DTZ007  # a day, no time
            except ValueError:
                continue
