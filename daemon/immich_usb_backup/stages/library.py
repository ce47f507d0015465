"""The originals: what each folder lacks on the disk is planned as a value, judged, copied, and looked at again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from immich_usb_backup.errors import CommandFailed, DiskFull, SourceUnreadable
from immich_usb_backup.model import IN_FLIGHT, LIBRARY_STAGES, Severity, Stage, StageReport
from immich_usb_backup.policy import in_flight, library_findings
from immich_usb_backup.policy.mirror import CopyCheck, FileFact, MirrorPlan, Tree, check_copy, explain, plan_mirror
from immich_usb_backup.policy.outcome import finding_of
from immich_usb_backup.policy.text import counted, size, utc_stamp
from immich_usb_backup.ports import CopyResult, Sink
from immich_usb_backup.stages.context import Work

ATTEMPTS = 2
"""A file that did not arrive, or changed under the copying, is tried once more in the same run."""

_ROOM_FOR_METADATA = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What lies on the disk before the copying, folder by folder."""

    on_disk: Mapping[Stage, Tree]
    doubtful: Mapping[Stage, frozenset[bytes]]


async def survey(work: Work) -> Survey:
    """Look at everything before a byte moves: how much is to be copied, and does it fit? Raises ``DiskFull``,
    and ``SourceUnreadable`` where not one of the folders is there: a wrong or unmounted media location."""
    run = work.run
    on_disk: dict[Stage, Tree] = {}
    doubtful: dict[Stage, frozenset[bytes]] = {}
    needed = unreadable = 0
    cluster = await work.target.cluster_bytes()
    for stage in LIBRARY_STAGES:
        on_disk[stage] = await work.target.scan(stage.value)
        doubtful[stage] = await _in_doubt(work, stage, on_disk[stage])
        if not doubtful[stage]:
            run.beyond_doubt.add(stage)
        try:
            source = await run.ports.source.scan(run.config.media_location / stage.value)
        except SourceUnreadable:
            unreadable += 1  # the stage itself reports it
            continue
        plan = plan_mirror(source, on_disk[stage], doubtful=doubtful[stage])
        run.bytes_planned += plan.copy_bytes
        needed += plan.space_needed(cluster)
    if unreadable == len(LIBRARY_STAGES):
        raise SourceUnreadable(f"{run.config.media_location} holds none of Immich's folders: no photo was backed up")
    await _judge_room(work, needed)
    return Survey(on_disk=on_disk, doubtful=doubtful)


async def _in_doubt(work: Work, stage: Stage, there: Tree) -> frozenset[bytes]:
    """The files that a run was copying when it was cut off; all of them where its list is not whole."""
    found: frozenset[bytes] = frozenset()
    for name in in_flight.lists_of(stage.value, await work.target.names(IN_FLIGHT)):
        listed = in_flight.decode(await work.target.read(IN_FLIGHT, name) or b"")
        found |= frozenset(there.files) if listed is None else listed
    return found


async def _judge_room(work: Work, needed: int) -> None:
    free = await work.target.free_bytes()
    if needed and needed + _ROOM_FOR_METADATA > free:
        missing = needed + _ROOM_FOR_METADATA - free
        raise DiskFull(
            f"The new photos need {size(needed)}, but {size(free)} are free: {size(missing)} are missing",
            hint="Make room on the disk (its folder deleted/ holds what Immich no longer has), or use a larger disk.",
        )


async def back_up_folder(work: Work, stage: Stage, seen: Survey) -> StageReport:
    """Make the disk's copy of one folder equal to the source, as far as exFAT can hold it."""
    run = work.run
    source_folder = run.config.media_location / stage.value
    began = run.ports.clock.monotonic()
    try:
        source = await run.ports.source.scan(source_folder)
    except SourceUnreadable as error:
        run.note(replace(finding_of(error), severity=Severity.PARTIAL))
        return StageReport(stage=stage, seconds=0.0, summary=f"{stage.value}: not backed up, it cannot be read")
    plan = plan_mirror(source, seen.on_disk[stage], doubtful=seen.doubtful[stage])
    run.note(*library_findings.of_plan(stage, source, seen.on_disk[stage], plan))
    await work.target.make_folder(stage.value)
    aside = f"deleted/{utc_stamp(run.started)[:8]}/{stage.value}"
    cleared = await work.target.set_aside(stage.value, (*plan.clearing, *plan.changed), into=aside)
    await work.target.distrust(stage.value, plan.doubted)
    check = await _copy(work, stage, source_folder, plan, seen.doubtful[stage])
    if not (plan.kept_reason and seen.doubtful[stage] - plan.copy.keys()):
        run.beyond_doubt.add(stage)  # else the source lacks what is in doubt, and may only be away
    moved = cleared - len(plan.changed) + await work.target.set_aside(stage.value, plan.remove, into=aside)
    wanted = len(plan.clearing) + len(plan.remove)
    run.note(*library_findings.of_copy(stage, check), *library_findings.of_removal(stage, moved, wanted, aside))
    return StageReport(
        stage=stage,
        seconds=run.ports.clock.monotonic() - began,
        files=check.files,
        bytes=check.size,
        summary=_summary(stage, plan, check),
    )


def _summary(stage: Stage, plan: MirrorPlan, check: CopyCheck) -> str:
    done = f"{counted(check.files, 'file')} copied ({size(check.size)})" if plan.copy else "nothing new"
    return f"{stage.value}: {done}, {plan.unchanged:,} unchanged"


async def _copy(
    work: Work, stage: Stage, source_folder: Path, plan: MirrorPlan, doubtful: frozenset[bytes]
) -> CopyCheck:
    """Copy what is planned, in portions; before the next one, what was copied is on the medium. The list on the disk
    always has what is being copied, and what an earlier run left in doubt and has not had its turn."""
    whole = CopyCheck(files=0, size=0, again=(), vanished=())
    for number, batch in enumerate(in_flight.batches(plan.copy)):
        if number:
            await work.target.flush(work.run.show_flush)
        await _list_in_flight(work, stage, batch.keys() | doubtful)
        check = await _copy_batch(work, stage, source_folder, batch)
        doubtful -= batch.keys()
        whole = CopyCheck(
            files=whole.files + check.files,
            size=whole.size + check.size,
            again=whole.again + check.again,
            vanished=whole.vanished + check.vanished,
        )
    return whole


async def _list_in_flight(work: Work, stage: Stage, paths: Iterable[bytes]) -> None:
    """Put a new list beside the old ones, and then remove these."""
    there = await work.target.names(IN_FLIGHT)
    content = in_flight.encode(sorted(paths))
    await work.target.write(IN_FLIGHT, in_flight.next_list(stage.value, there), lambda sink: _write(sink, content))
    for name in in_flight.lists_of(stage.value, there):
        await work.target.remove(IN_FLIGHT, name)


def _write(sink: Sink, content: bytes) -> None:
    sink.write(content)


async def _copy_batch(work: Work, stage: Stage, source_folder: Path, batch: Mapping[bytes, FileFact]) -> CopyCheck:
    """Copy a portion, look at what arrived, and try once more what did not."""
    waiting = batch
    files = copied = 0
    vanished: tuple[bytes, ...] = ()
    again: tuple[tuple[bytes, str], ...] = ()
    for _ in range(ATTEMPTS):
        if not waiting:
            break
        result = await _copy_once(work, stage, source_folder, waiting)
        check = await _look(work, stage, source_folder, waiting)
        files, copied, vanished = files + check.files, copied + check.size, vanished + check.vanished
        again = explain(check.again, result.complaints)
        waiting = {path: batch[path] for path, _ in again}
    work.run.bytes_done += sum(fact.size for fact in batch.values())
    work.run.bytes_copied += copied
    return CopyCheck(files=files, size=copied, again=again, vanished=vanished)


async def _copy_once(work: Work, stage: Stage, source_folder: Path, waiting: Mapping[bytes, FileFact]) -> CopyResult:
    run = work.run

    def progress(done: int) -> None:
        run.show(stage, done=run.bytes_done + done, total=run.bytes_planned)

    progress(0)
    result = await run.ports.copier.copy(source_folder, work.target, stage.value, waiting, progress)
    await work.target.check()
    if result.full:
        raise DiskFull("The disk filled up while photos were copied to it")
    if not result.finished:
        said = result.complaints[-1] if result.complaints else "it said nothing"
        raise CommandFailed(f"rsync ended with {result.exit_code}: {said}", hint="Plug the disk in again.")
    return result


async def _look(work: Work, stage: Stage, source_folder: Path, planned: Mapping[bytes, FileFact]) -> CopyCheck:
    on_disk = await work.target.facts(stage.value, planned)
    return check_copy(planned, on_disk, await work.run.ports.source.facts(source_folder, planned))
