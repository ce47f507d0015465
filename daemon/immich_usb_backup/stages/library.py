"""The originals: what the plan says is copied, looked at again, and written into the manifest."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from immich_usb_backup.errors import CommandFailed, DiskFull
from immich_usb_backup.model import IN_FLIGHT, Mode, Stage, StageReport
from immich_usb_backup.policy import in_flight
from immich_usb_backup.policy.copy_check import CopyCheck, FileFact, check_copy, explain
from immich_usb_backup.policy.manifest import Change
from immich_usb_backup.policy.plan import Item
from immich_usb_backup.policy.sources import SourceFolder
from immich_usb_backup.policy.text import counted, size
from immich_usb_backup.policy.whole_plan import known_after_copy
from immich_usb_backup.ports import CopyResult
from immich_usb_backup.stages.context import Work
from immich_usb_backup.stages.planning import Decision
from immich_usb_backup.stages.rearrange import note
from immich_usb_backup.stages.state import begin_writing

PAUSES_SECONDS = (0.0, 1.0, 5.0)
"""Before each attempt: a file that did not arrive, or changed under the copying, is tried again in the same run."""


@dataclass(slots=True)
class Copied:
    """What the copying of one folder came to."""

    files: int = 0
    size: int = 0
    seconds: float = 0.0
    failed: list[tuple[bytes, str]] = field(default_factory=list)
    vanished: list[bytes] = field(default_factory=list)


async def copy_everything(work: Work, decision: Decision) -> dict[str, Copied]:
    """Copy what is planned, in portions; before the next one, what was copied is on the medium. By the folders' names.
    Raises ``DiskFull``, ``CommandFailed``."""
    run = work.run
    order = {source.name.encode(): number for number, source in enumerate(decision.sources)}
    roots = dict(zip(order, decision.sources, strict=True))
    totals = {source.name: Copied() for source in decision.sources}
    items = sorted(decision.steps.copy, key=lambda item: (order[_root(item, roots)], item.path))
    run.bytes_planned, run.bytes_done = sum(item.file.size for item in items), 0
    for batch in in_flight.batches(items):
        await begin_writing(work)
        if work.copied:
            await checkpoint(work)
        await _list_in_flight(work, {item.stored for item in batch} | work.unresolved)
        work.copied = True
        for root, part in _by_root(batch, roots).items():
            await _copy_part(work, decision, roots[root], part, totals[roots[root].name])
    return totals


def _root(item: Item, roots: Iterable[bytes]) -> bytes:
    return next(root for root in roots if item.path.startswith(root + b"/"))


def _by_root(items: Iterable[Item], roots: Iterable[bytes]) -> dict[bytes, list[Item]]:
    found: dict[bytes, list[Item]] = defaultdict(list)
    for item in items:
        found[_root(item, roots)].append(item)
    return found


async def checkpoint(work: Work) -> None:
    """Have everything so far on the medium, and in the server's manifest."""
    await work.target.flush(work.run.show_flush)
    work.copied = False
    await work.manifest.commit()


async def _list_in_flight(work: Work, stored: Iterable[bytes]) -> None:
    """Put a new list beside the old ones, and then remove these."""
    there = await work.target.names(IN_FLIGHT)
    content = in_flight.encode(sorted(stored))
    await work.target.write(IN_FLIGHT, in_flight.next_list(there), lambda sink: _put(sink, content))
    work.in_flight = True
    for name in in_flight.lists(there):
        await work.target.remove(IN_FLIGHT, name)


def _put(sink: object, content: bytes) -> None:
    sink.write(content)  # type: ignore[attr-defined]


async def _copy_part(work: Work, decision: Decision, source: SourceFolder, items: list[Item], into: Copied) -> None:
    """Copy a portion of one folder, look at what arrived, and try again what did not."""
    clock = work.run.ports.clock
    began = clock.monotonic()
    waiting = items
    again: tuple[tuple[bytes, str], ...] = ()
    for pause in PAUSES_SECONDS:
        if not waiting:
            break
        await asyncio.sleep(pause if again else 0)
        complaints, full = await _copy_once(work, source, waiting)
        check, good = await _look(work, source, waiting)
        into.files += check.files
        into.size += check.size
        into.vanished += check.vanished
        work.run.bytes_copied += check.size
        await note(work, decision, good)
        work.unsettled = False
        if full:
            raise DiskFull("The disk filled up while photos were copied to it")
        again = explain(check.again, complaints)
        failed = {path for path, _ in again}
        waiting = [item for item in waiting if item.path in failed]
    into.failed += again
    work.run.bytes_done += sum(item.file.size for item in items)
    into.seconds += clock.monotonic() - began


async def _copy_once(work: Work, source: SourceFolder, items: list[Item]) -> tuple[tuple[str, ...], bool]:
    """rsync for those that keep their names, ourselves for the others. Returns what was complained about, and whether the
    disk is full."""
    run = work.run
    done = 0

    def show(more: int) -> None:
        nonlocal done
        done += more
        run.show(source.stage, done=run.bytes_done + done, total=run.bytes_planned)

    def progress(total: int) -> None:
        run.show(source.stage, done=run.bytes_done + total, total=run.bytes_planned)

    progress(0)
    work.unsettled = True
    strip = len(source.name.encode()) + 1
    complaints: list[str] = []
    if plain := [item.path[strip:] for item in items if item.path == item.stored]:
        result = await run.ports.copier.copy(source.path, work.target, source.name, plain, progress)
        await work.target.check()
        _judge_end(result)
        if result.full:
            return result.complaints, True
        complaints += result.complaints
    if renamed := {item.path[strip:]: item.stored for item in items if item.path != item.stored}:
        try:
            failed = await work.target.copy_in(source.path, renamed, show)
        except DiskFull:
            return tuple(complaints), True
        complaints += [f"{path.decode('utf-8', 'surrogateescape')} failed: {reason}" for path, reason in failed]
    return tuple(complaints), False


def _judge_end(result: CopyResult) -> None:
    if not (result.finished or result.full):
        said = result.complaints[-1] if result.complaints else "it said nothing"
        raise CommandFailed(f"rsync ended with {result.exit_code}: {said}", hint="Plug the disk in again.")


async def _look(work: Work, source: SourceFolder, items: list[Item]) -> tuple[CopyCheck, list[Change]]:
    """Hold what lies on the disk against the server as it is now; the manifest's lines for what is good."""
    strip = len(source.name.encode()) + 1
    on_disk = await work.target.facts(".", [item.stored for item in items])
    now = await work.run.ports.source.facts(source.path, [item.path[strip:] for item in items])
    by_path = {item.path: item for item in items}
    planned = {item.path: FileFact(item.file.size, item.file.mtime_ns) for item in items}
    there = {item.path: on_disk[item.stored] for item in items if item.stored in on_disk}
    server = {item.path: now[item.path[strip:]] for item in items if item.path[strip:] in now}
    check = check_copy(planned, there, server)
    facts = {path: server[path] for path in check.good}
    facts |= {
        path: planned[path] for path in check.vanished if path in there
    }  # it lies there now: the next pass sees it
    good = [
        Change(path, known_after_copy(by_path[path], size=fact.size, mtime_ns=fact.mtime_ns))
        for path, fact in facts.items()
    ]
    return check, good


async def compare_copied(work: Work, decision: Decision, totals: Mapping[str, Copied]) -> None:
    """In the modes that compare, what was copied is read back from the medium as well."""
    if work.run.mode is Mode.QUICK or not decision.steps.copy:
        return
    await checkpoint(work)
    for source in decision.sources:
        prefix = source.name.encode() + b"/"
        items = [item for item in decision.steps.copy if item.path.startswith(prefix)]
        await _compare_part(work, decision, source, items, totals[source.name])


async def _compare_part(work: Work, decision: Decision, source: SourceFolder, items: list[Item], into: Copied) -> None:
    if not items:
        return
    strip = len(source.name.encode()) + 1
    work.run.show(Stage.COMPARE)
    server, disk = await asyncio.gather(
        work.run.ports.source.sha1s(source.path, [item.path[strip:] for item in items], _ignore),
        work.target.sha1s([item.stored for item in items], _ignore),
    )
    proven = int(work.run.ports.clock.now().timestamp())
    changes = []
    for item in items:
        digest = server.get(item.path[strip:])
        known = await work.manifest.file(item.path)
        if known is None or not isinstance(digest, bytes):
            continue
        if digest == disk.get(item.stored):
            changes.append(Change(item.path, known._replace(digest=digest, proven=proven)))
        else:
            into.failed.append((item.path, "it reads back from the disk differently than it is on the server"))
            changes.append(
                Change(item.path, known._replace(mtime_ns=known.mtime_ns + 1, inode=0))
            )  # the next run compares it again
    await note(work, decision, changes)


def _ignore(_: int) -> None:
    pass


def reports(decision: Decision, totals: Mapping[str, Copied]) -> list[StageReport]:
    """What each folder came to, in the order of the folders."""
    found = []
    for source, plan in zip(decision.sources, decision.plan.folders, strict=True):
        copied = totals.get(source.name, Copied())
        done = f"{counted(copied.files, 'file')} copied ({size(copied.size)})" if copied.files else "nothing new"
        moved = sum(pair.item.path.startswith(source.name.encode() + b"/") for pair in decision.steps.moves)
        parts = [done, *([f"{moved:,} moved on the disk"] if moved else []), f"{plan.unchanged:,} unchanged"]
        found.append(
            StageReport(
                stage=source.stage,
                seconds=copied.seconds,
                files=copied.files,
                bytes=copied.size,
                summary=f"{source.name}: {', '.join(parts)}",
            )
        )
    return found
