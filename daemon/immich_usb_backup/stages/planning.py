"""What is to be done, decided before a byte moves: the plan, the content where only that can tell, the verdicts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from immich_usb_backup.errors import SourceUnreadable
from immich_usb_backup.model import Finding, Mode, Severity, Stage
from immich_usb_backup.policy.deletions import (
    Approval,
    Limits,
    SourceFacts,
    judge_approval,
    reasons_to_hold,
)
from immich_usb_backup.policy.outcome import finding_of
from immich_usb_backup.policy.plan import FolderPlan, Pair, plan_folder
from immich_usb_backup.policy.sources import SourceFolder, rules_for, source_folders
from immich_usb_backup.policy.whole_plan import Digests, Plan, Steps, combine, settle
from immich_usb_backup.stages.contents import immich_sha1s, server_sha1s
from immich_usb_backup.stages.context import Work

_COMPARED_AT_ONCE = 64 * 1024 * 1024
_FILES_AT_ONCE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The plan with its verdicts. ``removals``: the server's paths of files that would leave the disk's copy; ``held``:
    why they stay; ``sources``: the folders that could be read."""

    plan: Plan
    steps: Steps
    sources: tuple[SourceFolder, ...]
    removals: frozenset[bytes]
    held: tuple[str, ...]
    approval: Approval
    mount_points: tuple[str, ...]
    findings: tuple[Finding, ...]
    cluster: int


async def decide(work: Work, *, compare: bool = True, mode: Mode | None = None) -> Decision:
    """Read the server's folders, plan, compare, judge. Without ``compare`` (a dry run) what only the content can tell
    counts as equal; ``mode`` is another than the run's. Raises ``SourceUnreadable`` where not one of Immich's folders is there."""
    run = work.run
    mode = mode or run.mode
    run.show(Stage.PLAN)
    cluster = await work.target.cluster_bytes()
    sources: list[SourceFolder] = []
    plans: list[FolderPlan] = []
    findings: list[Finding] = []
    for source in source_folders(run.config):
        try:
            plans.append(await _plan_one(work, source, cluster, mode))
        except SourceUnreadable as error:
            findings.append(replace(finding_of(error), severity=Severity.PARTIAL))
        else:
            sources.append(source)
    if not any(source.immichs for source in sources):
        raise SourceUnreadable(f"{run.config.media_location} holds none of Immich's folders: no photo was backed up")
    plan = combine(plans)
    digests = await _compare(work, plan) if compare else _as_if_equal(plan)
    again = mode is Mode.FULL
    return await _judge(work, plan, digests, tuple(sources), tuple(findings), cluster, again=again)


async def _plan_one(work: Work, source: SourceFolder, cluster: int, mode: Mode) -> FolderPlan:
    run = work.run
    rules = rules_for(
        source,
        run.config,
        mode=mode,
        doubtful=work.doubtful,
        altered=work.altered,
        suspects=work.suspects,
        cluster=cluster,
    )

    def plan(beat: Callable[[], None]) -> FolderPlan:
        return plan_folder(run.ports.source.walk(source.path, beat), work.manifest.folder, rules)

    return await run.ports.background(plan, what=f"Reading {source.path}")


# Comparing ------------------------------------------------------------------------------------------------


def _as_if_equal(plan: Plan) -> dict[bytes, Digests]:
    found = {pair.item.path: Digests(b"=", b"=") for pair in plan.compare}
    return found | {pair.item.path: Digests(pair.present.known.digest, None) for pair in plan.alike}


async def _compare(work: Work, plan: Plan) -> dict[bytes, Digests]:
    """Read what only the content can tell: both sides of a pair; of what may have been moved, the server's."""
    run = work.run
    run.bytes_planned = sum(p.item.file.size for p in (*plan.compare, *plan.alike)) + sum(
        p.item.file.size for p in plan.compare
    )
    run.bytes_done = 0
    found: dict[bytes, Digests] = {}
    for pairs in _portions(plan.compare):
        paths = [pair.item.path for pair in pairs]
        immich = await immich_sha1s(work, paths)
        server, disk = await asyncio.gather(
            server_sha1s(work, paths, lambda n: _progress(work, n)),
            work.target.sha1s([pair.present.stored for pair in pairs], lambda n: _progress(work, n)),
        )
        for pair in pairs:
            path = pair.item.path
            found[path] = Digests(server.get(path), disk.get(pair.present.stored), immich.get(path, b""))
    for pairs in _portions(plan.alike):
        server = await server_sha1s(work, [pair.item.path for pair in pairs], lambda n: _progress(work, n))
        found.update((pair.item.path, Digests(server.get(pair.item.path), None)) for pair in pairs)
    run.bytes_planned = run.bytes_done = 0
    return found


def _progress(work: Work, done: int) -> None:
    work.run.bytes_done += done
    work.run.show(Stage.COMPARE, done=work.run.bytes_done, total=work.run.bytes_planned)


def _portions(pairs: list[Pair]) -> Iterator[list[Pair]]:
    """So many at once that it is worth the while, and so few that it can be shown how far it is."""
    portion: list[Pair] = []
    size = 0
    for pair in pairs:
        portion.append(pair)
        size += pair.item.file.size
        if size >= _COMPARED_AT_ONCE or len(portion) >= _FILES_AT_ONCE:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


# Verdicts -------------------------------------------------------------------------------------------------


async def _judge(
    work: Work,
    plan: Plan,
    digests: dict[bytes, Digests],
    sources: tuple[SourceFolder, ...],
    findings: tuple[Finding, ...],
    cluster: int,
    *,
    again: bool,
) -> Decision:
    now = int(work.run.ports.clock.now().timestamp())
    steps = settle(plan, digests, held=False, doubtful=work.doubtful, now=now, again=again)
    removals = steps.removals
    mounted = tuple([source.name for source in sources if await work.run.ports.source.is_mount_point(source.path)])
    held, approval = await _hold(work, plan, steps, sources, mounted)
    if held and not approval.given:
        steps = settle(plan, digests, held=True, doubtful=work.doubtful, now=now, again=again)
    return Decision(
        plan=plan,
        steps=steps,
        sources=sources,
        removals=removals,
        held=() if approval.given else held,
        approval=approval,
        mount_points=mounted,
        findings=findings,
        cluster=cluster,
    )


async def _hold(
    work: Work, plan: Plan, steps: Steps, sources: tuple[SourceFolder, ...], mounted: tuple[str, ...]
) -> tuple[tuple[str, ...], Approval]:
    """Why what would leave the disk's copy must wait, and whether somebody has approved it."""
    if not steps.removals:
        return (), Approval(given=False)
    files, _ = await work.manifest.totals()
    limits = work.run.config.deletions
    facts = [_facts(work, *one, steps, mounted) for one in zip(plan.folders, sources, strict=True)]
    reasons = reasons_to_hold(facts, known=files, limits=Limits(percent=limits.hold_percent, files=limits.hold_files))
    if not reasons:
        return (), Approval(given=False)
    approved = work.record.approved or bool(work.approval_files)
    return reasons, judge_approval(steps.removals, await work.manifest.held(), approved=approved)


def _facts(work: Work, folder: FolderPlan, source: SourceFolder, steps: Steps, mounted: tuple[str, ...]) -> SourceFacts:
    prefix = folder.rules.name + b"/"
    return SourceFacts(
        name=source.name,
        files=folder.files - folder.marked,
        removals=sum(path.startswith(prefix) for path in steps.removals),
        needs_mark=source.immichs,
        marked=folder.marked,
        mount_point=source.name in mounted,
        was_mount_point=source.name in work.record.mount_points,
    )
