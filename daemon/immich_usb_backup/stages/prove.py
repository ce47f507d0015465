"""Files that are on the disk already are read back in turn, those first that were read back longest ago."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from immich_usb_backup.model import Stage, StageReport
from immich_usb_backup.policy.manifest import Change, Known
from immich_usb_backup.policy.reading import Found, Old, Reading, judge_old
from immich_usb_backup.policy.rereading import Line, Turn, pace, portions, turn_of
from immich_usb_backup.policy.text import counted, size
from immich_usb_backup.stages.contents import ignore, immich_sha1s, server_sha1s
from immich_usb_backup.stages.context import Work
from immich_usb_backup.stages.mirror import heal

SUSPECTS_AT_MOST = 1000
"""So many files that do not read back, and no more are looked for: first these are copied again."""

_LINES_AT_ONCE = 10_000


@dataclass(slots=True)
class _Tally:
    """What the reading came to. ``suspects`` are by the server's path; ``passed_over`` is what nothing can prove now: nothing
    is known of it, and the server's cannot be read."""

    turn: Turn
    files: int
    total: int
    began: float
    proven: int = 0
    done: int = 0
    suspects: dict[bytes, Line] = field(default_factory=dict)
    passed_over: set[bytes] = field(default_factory=set)


async def due(work: Work) -> Turn | None:
    """What this run is to read again; None where there is nothing."""
    run = work.run
    turn = turn_of(run.rereading, run.config.verification, now=run.started, verifying=work.record.verifying)
    if turn is None:
        return None
    files, _ = await work.manifest.unproven(before=_seconds(turn))
    return turn if files else None


async def prove(work: Work, turn: Turn, tell: Callable[[StageReport], None], *, wish: asyncio.Event) -> None:
    """Read files back until all that are due have been, the time is up, or ``wish`` is set (somebody wants to unplug the
    disk, or the service is stopped). What does not read back as it was written is copied again.

    The disk must have been settled before: until something is copied again, a pull costs nothing. Raises like ``mirror``.
    """
    await _begin_verifying(work, turn)
    files, total = await work.manifest.unproven(before=_seconds(turn))
    tally = _Tally(turn, files, total, work.run.ports.clock.monotonic())
    _show(work, tally)
    async with aclosing(_portions(work, tally)) as waiting:
        async for portion in waiting:
            if not await _unless(wish, _read(work, tally, portion)) or wish.is_set() or _is_over(work, tally):
                break
    await _end_verifying(work, tally)
    tell(_report(work, tally))
    if tally.suspects:
        await _mend(work, tally.suspects, tell)
    await work.manifest.commit()


def _seconds(turn: Turn) -> int:
    return int(turn.before.timestamp())


# Reading --------------------------------------------------------------------------------------------------


async def _portions(work: Work, tally: _Tally) -> AsyncGenerator[list[Line], None]:
    """What is due, the longest ago first. Suspects stay due, and are passed over, as is what this run has given up."""
    while True:
        known = {*tally.suspects, *tally.passed_over, *work.rotten_on_disk}
        lines = await work.manifest.least_proven(_LINES_AT_ONCE + len(known), before=_seconds(tally.turn))
        fresh = [line for line in lines if line[0] not in known]
        if not fresh:
            return
        for portion in portions(fresh):
            yield portion


async def _read(work: Work, tally: _Tally, lines: Sequence[Line]) -> None:
    """Read a portion, and note durably what is proven."""
    disk, server, old = await _contents(work, tally, lines)
    # Where the clock was set back meanwhile, it must be no longer due all the same.
    now = max(int(work.run.ports.clock.now().timestamp()), _seconds(tally.turn))
    changes = []
    for path, stored, known in lines:
        found = disk.get(stored)
        reading = judge_old(found, server=server.get(path), old=old[path])
        if isinstance(found, bytes) and reading is Reading.PROVEN:
            changes.append(Change(path, known._replace(digest=found, proven=now)))
        elif reading is Reading.WRONG:
            tally.suspects[path] = (path, stored, known)
        else:
            tally.passed_over.add(path)
    tally.proven += len(changes)
    work.changed = work.changed or bool(changes)
    await work.manifest.apply(changes)
    await work.manifest.commit()


async def _contents(
    work: Work, tally: _Tally, lines: Sequence[Line]
) -> tuple[Mapping[bytes, Found], Mapping[bytes, Found], Mapping[bytes, Old]]:
    """The disk's files; the server's of those of which nothing is known; and what is known."""

    def progress(more: int) -> None:
        tally.done += more
        _show(work, tally)

    unknown = [path for path, _, known in lines if not known.digest]
    immich = await immich_sha1s(work, unknown) if unknown else {}
    old = {path: Old(known.digest, immich.get(path, b"")) for path, _, known in lines}
    disk, server = await asyncio.gather(
        work.target.sha1s([stored for _, stored, _ in lines], progress),
        server_sha1s(work, [path for path in unknown if not old[path].is_known], ignore),
    )
    return disk, server, old


async def _unless(wish: asyncio.Event, reading: Coroutine[Any, Any, None]) -> bool:
    """Whether ``reading`` got to its end; it is stopped where the wish comes first."""
    read, wished = asyncio.ensure_future(reading), asyncio.ensure_future(wish.wait())
    try:
        await asyncio.wait({read, wished}, return_when=asyncio.FIRST_COMPLETED)
        if read.done():
            read.result()
        return read.done()
    finally:
        read.cancel()
        wished.cancel()
        await asyncio.wait({read, wished})


def _is_over(work: Work, tally: _Tally) -> bool:
    elapsed = work.run.ports.clock.monotonic() - tally.began
    timed_out = tally.turn.seconds is not None and elapsed >= tally.turn.seconds
    return timed_out or len(tally.suspects) >= SUSPECTS_AT_MOST or len(tally.passed_over) >= _LINES_AT_ONCE


def _show(work: Work, tally: _Tally) -> None:
    """Where the time is limited, nobody waits for all that is due."""
    elapsed, limit = work.run.ports.clock.monotonic() - tally.began, tally.turn.seconds
    speed = pace(done=tally.done, total=tally.total, seconds=elapsed, limit=limit)
    work.run.show_reading(done=tally.done, total=tally.total if limit is None else 0, pace=speed)


def _report(work: Work, tally: _Tally) -> StageReport:
    left = tally.files - tally.proven - len(tally.suspects)
    text = f"Read again from the disk: {counted(tally.proven, 'file')} ({size(tally.done)}) as they were written"
    parts = [text]
    parts += [f"{len(tally.suspects):,} not"] if tally.suspects else []
    parts += [f"{counted(left, 'file')} left for the next time"] if left > 0 else []
    seconds = work.run.ports.clock.monotonic() - tally.began
    return StageReport(stage=Stage.PROVE, seconds=seconds, summary=", ".join(parts))


# A verification of everything goes on where it was cut off ------------------------------------------------


async def _begin_verifying(work: Work, turn: Turn) -> None:
    if turn.verifying is not None:
        await _remember(work, verifying=True, turn=turn)


async def _end_verifying(work: Work, tally: _Tally) -> None:
    verifying = tally.turn.verifying is not None
    if verifying and tally.proven + len(tally.suspects) + len(tally.passed_over) >= tally.files:
        await _remember(work, verifying=False, turn=tally.turn)


async def _remember(work: Work, *, verifying: bool, turn: Turn) -> None:
    work.record = replace(work.record, verifying=turn.verifying if verifying else None)
    await work.manifest.save(work.record)
    await work.manifest.commit()


# Mending --------------------------------------------------------------------------------------------------


async def _mend(work: Work, suspects: Mapping[bytes, Line], tell: Callable[[StageReport], None]) -> None:
    """Copy again what the server still has. What is left is read first at the next plug-in, and the verdict names it."""
    decision = await heal(work, [stored for _, stored, _ in suspects.values()], tell)
    copied = {item.path for item in decision.steps.copy}
    left = []
    for path, _, before in suspects.values():
        known = await work.manifest.file(path)
        if known == before and path not in copied and path not in work.rotten_on_server:
            left.append((path, known))
    await _leave(work, left)


async def _leave(work: Work, left: Iterable[tuple[bytes, Known]]) -> None:
    lines = list(left)
    work.rotten_on_disk.update(path for path, _ in lines)
    work.changed = work.changed or bool(lines)
    await work.manifest.apply([Change(path, known._replace(proven=0)) for path, known in lines])
