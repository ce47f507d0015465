"""A plan for people and programs: what a run would do, in kinds, with counts and names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from immich_usb_backup.model import Disk, Finding, Mode, PlanCategory, PlanReport, Severity
from immich_usb_backup.policy import library_findings
from immich_usb_backup.policy.deletions import Approval
from immich_usb_backup.policy.plan import Present
from immich_usb_backup.policy.space import RoomVerdict
from immich_usb_backup.policy.text import printable
from immich_usb_backup.policy.whole_plan import Plan, Steps

ITEMS_KEPT = 5000


def plan_report(
    disk: Disk,
    mode: Mode,
    *,
    plan: Plan,
    steps: Steps,
    removals: Iterable[bytes],
    held: Sequence[str],
    approval: Approval,
    room: RoomVerdict,
    findings: Sequence[Finding],
) -> PlanReport:
    """Put it together. ``findings`` are those of looking at the disk and the server."""
    verdicts = [*findings, *library_findings.of_plan(plan, steps)]
    if held:
        verdicts.append(library_findings.held(disk, removals, held, approval))
    if room.missing:
        verdicts.append(Finding(code="disk-full", severity=Severity.FAILED, message=room.reason, hint=room.hint))
    return PlanReport(disk=disk, mode=mode, categories=tuple(_categories(plan, steps)), findings=tuple(verdicts))


def _categories(plan: Plan, steps: Steps) -> Iterable[PlanCategory]:
    changed = {pair.item.path for pair in plan.changed}
    again = {pair.item.path for folder in plan.folders for pair in folder.rewritten}
    new = [item for item in steps.copy if item.path not in changed and item.path not in again]
    other = [item for item in steps.copy if item.path in changed or item.path in again]
    yield _kind("new", ((i.path, i.file.size) for i in new))
    yield _kind("changed", ((i.path, i.file.size) for i in other))
    yield _kind("moved", ((_arrow(p.present.path, p.item.path), p.item.file.size) for p in steps.moves))
    yield _kind("renamed", ((_arrow(path, stored), 0) for folder in plan.folders for path, stored in folder.renamed))
    yield _kind("deleted", _sizes(_leaving(plan, steps)))
    yield _kind("compared", ((pair.item.path, pair.item.file.size) for pair in plan.compare))
    yield _kind("unrepresentable", ((path, 0) for folder in plan.folders for path, _ in folder.specials))
    yield PlanCategory(code="links", count=sum(folder.links for folder in plan.folders))
    excluded = sum(folder.excluded_bytes for folder in plan.folders)
    yield PlanCategory(code="excluded", count=sum(folder.excluded for folder in plan.folders), bytes=excluded)
    unchanged = sum(folder.unchanged for folder in plan.folders)
    yield PlanCategory(code="unchanged", count=unchanged, bytes=sum(f.unchanged_bytes for f in plan.folders))


def _leaving(plan: Plan, steps: Steps) -> Iterable[Present]:
    """What the server no longer has, whether it may leave or is held."""
    moved = {pair.present.path for pair in steps.moves}
    return (present for present in plan.deleted if present.path not in moved)


def _sizes(presents: Iterable[Present]) -> Iterable[tuple[bytes, int]]:
    return ((present.path, present.known.size) for present in presents)


def _arrow(old: bytes, new: bytes) -> bytes:
    return old + b" -> " + new


def _kind(code: str, entries: Iterable[tuple[bytes, int]]) -> PlanCategory:
    items: list[str] = []
    count = total = 0
    for path, size in entries:
        count, total = count + 1, total + size
        if len(items) < ITEMS_KEPT:
            items.append(printable(path))
    return PlanCategory(code=code, count=count, bytes=total, items=tuple(items))
