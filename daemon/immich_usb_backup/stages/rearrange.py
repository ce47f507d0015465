"""What is done on the disk before the copying: files that leave the copy, files that were moved on the server."""

from __future__ import annotations

from collections.abc import Iterable

from immich_usb_backup.model import TEMPORARY
from immich_usb_backup.policy.deletions import DELETED
from immich_usb_backup.policy.manifest import Change, FolderName
from immich_usb_backup.policy.names import fold
from immich_usb_backup.policy.plan import Item, Pair, Present, settled
from immich_usb_backup.policy.text import utc_stamp
from immich_usb_backup.stages.context import Work
from immich_usb_backup.stages.planning import Decision
from immich_usb_backup.stages.state import begin_writing

_WAITING = TEMPORARY.encode() + b"/moved-"


def deleted_folder(work: Work) -> str:
    """Where this run puts what leaves the copy."""
    return f"{DELETED}/{utc_stamp(work.run.started)[:8]}"


async def rearrange(work: Work, decision: Decision) -> tuple[tuple[bytes, str], ...]:
    """Set aside, discard, move, correct times; the manifest follows each step. Returns what could not be set aside: path
    on the disk and reason. A file that cannot be moved is copied instead."""
    steps = decision.steps
    await work.manifest.apply([note for folder in decision.plan.folders for note in folder.inodes])
    if not (steps.touches_disk or steps.notes):
        return ()
    await begin_writing(work)
    work.unsettled = True
    work.copied = work.copied or bool(
        steps.moves or steps.aside or steps.discard
    )  # on the medium before a list of files in flight is
    await _discard(work, steps.discard)
    left = await set_aside(work, steps.aside)
    told = {pair.present.path for pair in decision.plan.changed}
    stuck = {path for path, _ in left}
    work.aside = sum(present.path not in told and present.stored not in stuck for present in steps.aside)
    unmoved = await _move(work, decision, steps.moves)
    left += await set_aside(work, [pair.present for pair in unmoved])
    steps.copy = _without_taken([*steps.copy, *(pair.item for pair in unmoved)], [path for path, _ in left])
    await work.target.set_times(steps.times)
    await note(work, decision, steps.notes)
    return left


def _without_taken(items: Iterable[Item], left: Iterable[bytes]) -> list[Item]:
    """Nothing is copied over, below or above a file that could not be set aside: it would be lost."""
    taken = {fold(path) for path in left}
    if not taken:
        return list(items)
    above = {parent for path in left for parent in map(fold, _parents(path))}
    return [
        item
        for item in items
        if fold(item.stored) not in taken | above and taken.isdisjoint(map(fold, _parents(item.stored)))
    ]


async def note(work: Work, decision: Decision, changes: Iterable[Change]) -> None:
    """Change the manifest; folders that are stored under another name come with their first file."""
    changes = list(changes)
    if not changes:
        return
    names = {path: name for folder in decision.plan.folders for path, name in folder.folder_names.items()}
    leave = [change for change in changes if change.known is None]
    come = [change for change in changes if change.known is not None]
    work.changed = True
    await work.manifest.apply([*leave, *_folder_names(names, come), *come])


def _folder_names(names: dict[bytes, bytes], changes: Iterable[Change]) -> list[FolderName]:
    if not names:
        return []
    wanted = {parent for change in changes if change.known is not None for parent in _parents(change.path)}
    return [FolderName(path, names[path]) for path in sorted(wanted & names.keys())]


def _parents(path: bytes) -> Iterable[bytes]:
    position = path.find(b"/")
    while position >= 0:
        yield path[:position]
        position = path.find(b"/", position + 1)


async def _discard(work: Work, presents: list[Present]) -> None:
    """What a run that was cut off wrote, and is not whole."""
    if presents:
        await work.target.remove_files([present.stored for present in presents])
        await _forget(work, presents)


async def set_aside(work: Work, presents: list[Present]) -> tuple[tuple[bytes, str], ...]:
    """Move files into ``deleted/``. Returns those that could not be: path on the disk and reason."""
    if not presents:
        return ()
    into = deleted_folder(work).encode() + b"/"
    left = await work.target.move([(p.stored, into + p.stored) for p in presents], beside=True)
    if left:  # a file stands there where a folder must be: an earlier run of the day has put it there
        into += work.run.run_id.encode() + b"/"
        left = await work.target.move([(path, into + path) for path, _ in left], beside=True)
    stuck = {path for path, _ in left}
    await _forget(work, [present for present in presents if present.stored not in stuck])
    return left


async def _forget(work: Work, presents: Iterable[Present]) -> None:
    work.changed = True
    await work.manifest.apply([Change(present.path, None) for present in presents])


async def _move(work: Work, decision: Decision, pairs: list[Pair]) -> list[Pair]:
    """Rename on the disk what was renamed on the server. Returns those that could not be."""
    if not pairs:
        return []
    goes = {fold(pair.present.stored) for pair in pairs}
    # Where one goes to the place of another (two files change places), it waits aside until all have left.
    waiting = [p for p in pairs if fold(p.item.stored) in goes and fold(p.item.stored) != fold(p.present.stored)]
    names = {pair.present.stored: _WAITING + str(number).encode() for number, pair in enumerate(waiting)}
    failed = {path for path, _ in await work.target.move(names.items(), beside=False)}
    first = [(p.present.stored, p.item.stored) for p in pairs if p.present.stored not in names]
    then = [(names[p.present.stored], p.item.stored) for p in waiting if p.present.stored not in failed]
    by_name = {name: path for path, name in names.items()}
    moves = [(old, new) for old, new in (*first, *then) if old != new]
    late = [path for path, _ in await work.target.move(moves, beside=False)]
    await work.target.move([(path, by_name[path]) for path in late if path in by_name], beside=False)
    failed |= {by_name.get(path, path) for path in late}
    done = [pair for pair in pairs if pair.present.stored not in failed]
    await note(work, decision, [change for pair in done for change in _moved(pair)])
    return [pair for pair in pairs if pair.present.stored in failed]


def _moved(pair: Pair) -> tuple[Change, Change]:
    there = settled(pair)
    assert there.known is not None
    name = pair.item.stored.rpartition(b"/")[2]
    return Change(pair.present.path, None), Change(there.path, there.known._replace(stored=name))
