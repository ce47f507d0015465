"""The originals: what the plan says is copied, looked at again, and written into the manifest."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from immich_usb_backup.errors import CommandFailed, DiskFull
from immich_usb_backup.model import IN_FLIGHT, Stage, StageReport
from immich_usb_backup.policy import in_flight
from immich_usb_backup.policy.copy_check import CopyCheck, FileFact, check_copy, explain
from immich_usb_backup.policy.manifest import Change
from immich_usb_backup.policy.plan import Item
from immich_usb_backup.policy.sources import SourceFolder
from immich_usb_backup.policy.text import counted, size
from immich_usb_backup.policy.whereabouts import Whereabouts, in_copying_order
from immich_usb_backup.policy.whole_plan import known_after_copy
from immich_usb_backup.ports import CopyResult
from immich_usb_backup.stages.context import Work
from immich_usb_backup.stages.planning import Decision
from immich_usb_backup.stages.read_back import ReadBack, read_back, reads_back
from immich_usb_backup.stages.rearrange import note
from immich_usb_backup.stages.state import begin_writing

PAUSES_SECONDS = (0.0, 1.0, 5.0)
"""Before each attempt: a file that did not arrive, or changed under the copying, is tried again in the same run."""


COPIES_AT_MOST = 3
"""A file that does not read back as it must is copied again so often."""

_DIFFERENT = "it reads back from the disk differently than it is on the server"


@dataclass(slots=True)
class Copied:
    """What the copying of one folder came to."""

    files: int = 0
    size: int = 0
    seconds: float = 0.0
    failed: list[tuple[bytes, str]] = field(default_factory=list)
    vanished: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class Copying:
    """What the copying came to: ``totals`` by the folders' names, and of the reading back the files and bytes that are
    proven and its seconds; ``moved_on`` as in ``ReadBack``."""

    totals: dict[str, Copied]
    proven: int = 0
    size: int = 0
    seconds: float = 0.0
    moved_on: list[bytes] = field(default_factory=list)

    def take(self, found: ReadBack, seconds: float) -> None:
        """Add what was read."""
        self.proven += found.proven
        self.size += found.size
        self.seconds += seconds
        self.moved_on += found.moved_on


async def copy_everything(work: Work, decision: Decision) -> Copying:
    """Copy what is planned, in portions; before the next one, what was copied is on the medium, and read back from it.
    Raises ``DiskFull``, ``CommandFailed``, ``SourceUnreadable``."""
    run = work.run
    order = {source.name.encode(): number for number, source in enumerate(decision.sources)}
    roots = dict(zip(order, decision.sources, strict=True))
    into = Copying({source.name: Copied() for source in decision.sources})
    items = sorted(decision.steps.copy, key=lambda item: (order[_root(item, roots)], item.path))
    run.bytes_planned, run.bytes_done = sum(item.file.size for item in items), 0
    for batch in in_flight.batches(items):
        await begin_writing(work)
        if work.copied:
            await checkpoint(work)
        await _list_in_flight(work, {item.stored for item in batch} | work.unresolved)
        arrived = await _copy(work, decision, batch, roots, into)
        if reads_back(work):
            await _prove(work, decision, arrived, roots, into)
    return into


async def _copy(
    work: Work, decision: Decision, items: list[Item], roots: Mapping[bytes, SourceFolder], into: Copying
) -> list[Item]:
    """Returns those that arrived."""
    arrived: list[Item] = []
    for root, part in _by_root(items, roots).items():
        work.copied = True
        arrived += await _copy_part(work, decision, roots[root], part, into.totals[roots[root].name])
    return arrived


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


async def _copy_part(
    work: Work, decision: Decision, source: SourceFolder, items: list[Item], into: Copied
) -> list[Item]:
    """Copy a portion of one folder, look at what arrived, and try again what did not. Returns what did."""
    clock = work.run.ports.clock
    began = clock.monotonic()
    waiting, arrived = items, set[bytes]()
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
        arrived.update(change.path for change in good)
        work.unsettled = False
        if full:
            raise DiskFull("The disk filled up while photos were copied to it")
        again = explain(check.again, complaints)
        failed = {path for path, _ in again}
        waiting = [item for item in waiting if item.path in failed]
    into.failed += again
    work.run.bytes_done += sum(item.file.size for item in items)
    into.seconds += clock.monotonic() - began
    return [item for item in items if item.path in arrived]


async def _copy_once(work: Work, source: SourceFolder, items: list[Item]) -> tuple[tuple[str, ...], bool]:
    """rsync for those that keep their names, ourselves for the others. Returns what was complained about, and whether the
    disk is full."""
    run = work.run
    kept = in_copying_order([item for item in items if item.path == item.stored])
    others = [item for item in items if item.path != item.stored]
    whereabouts = Whereabouts((*kept, *others))
    done = sum(item.file.size for item in kept)

    def show(more: int) -> None:
        nonlocal done
        done += more
        progress(done)

    def progress(total: int) -> None:
        current = whereabouts.after(total)
        run.show(source.stage, done=run.bytes_done + total, total=run.bytes_planned, current=current)

    progress(0)
    work.unsettled = True
    strip = len(source.name.encode()) + 1
    complaints: list[str] = []
    if plain := [item.path[strip:] for item in kept]:
        result = await run.ports.copier.copy(source.path, work.target, source.name, plain, progress)
        await work.target.check()
        _judge_end(result)
        if result.full:
            return result.complaints, True
        complaints += result.complaints
    if renamed := {item.path[strip:]: item.stored for item in others}:
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


async def _prove(
    work: Work, decision: Decision, items: list[Item], roots: Mapping[bytes, SourceFolder], into: Copying
) -> None:
    """Read back what was copied; what is wrong is copied again, and given up at last."""
    clock = work.run.ports.clock
    for copies_left in reversed(range(COPIES_AT_MOST)):
        if not items:
            break
        await checkpoint(work)
        began = clock.monotonic()
        found = await read_back(work, decision, items)
        into.take(found, clock.monotonic() - began)
        for root, part in _by_root(found.wrong, roots).items():
            _take_back(work, part, into.totals[roots[root].name], for_good=not copies_left)
        items = await _copy(work, decision, found.wrong, roots, into) if copies_left else []
    await work.manifest.commit()


def _take_back(work: Work, items: list[Item], into: Copied, *, for_good: bool) -> None:
    """They do not count as copied."""
    taken = sum(item.file.size for item in items)
    into.files -= len(items)
    into.size -= taken
    work.run.bytes_copied -= taken
    work.run.bytes_done -= 0 if for_good else taken
    if for_good:
        into.failed += [(item.path, _DIFFERENT) for item in items]
        work.rotten_on_disk.update(item.path for item in items)


def reports(decision: Decision, copying: Copying) -> list[StageReport]:
    """What each folder came to, in the order of the folders, and the reading back."""
    found, totals = [], copying.totals
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
    return [*found, *_of_reading(copying)]


def _of_reading(copying: Copying) -> list[StageReport]:
    if not copying.proven:
        return []
    text = f"Read back from the disk: {counted(copying.proven, 'file')} ({size(copying.size)}) as they were copied"
    return [StageReport(stage=Stage.COMPARE, seconds=copying.seconds, summary=text)]
