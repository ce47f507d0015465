"""The folders' plans together: what was moved, what only the content can tell, and what is to be done on the disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import AnyStr, NamedTuple

from immich_usb_backup.policy.manifest import Change, Known
from immich_usb_backup.policy.names import fold
from immich_usb_backup.policy.plan import FolderPlan, Item, Pair, Present, place, same_time, settled


class Digests(NamedTuple):
    """What a look at both sides said of one file: SHA-1 (20 bytes), None where it is not there, or why it cannot be read.
    ``immich`` is the one that Immich's dump has, empty where it has none."""

    server: bytes | str | None
    disk: bytes | str | None
    immich: bytes = b""


@dataclass(slots=True, kw_only=True)
class Plan:
    """Everything that a run is to do. ``moved``: the server's file was found on the disk under the path that it had before;
    ``alike``: it may be (equal in size and time, and the disk's SHA-1 is known); ``compare``: only the content can tell
    whether they are equal; ``changed``: originals that are others now."""

    folders: tuple[FolderPlan, ...]
    new: list[Item]
    deleted: list[Present]
    moved: list[Pair]
    alike: list[Pair]
    compare: list[Pair]
    changed: list[Pair]


def combine(folders: Iterable[FolderPlan]) -> Plan:
    """Find what was moved, from any folder to any other, and what lies in its place under another name already. The
    folders' own lists get the latter."""
    folders = tuple(folders)
    new = [item for folder in folders for item in folder.new]
    deleted = [present for folder in folders for present in folder.deleted]
    replaced = [pair for folder in folders for pair in (*folder.changed, *folder.compare) if _is_another(pair)]
    moved = _match_inodes(
        [*new, *(pair.item for pair in replaced)], _trusted([*deleted, *(pair.present for pair in replaced)], folders)
    )
    come, gone = {pair.item.path for pair in moved}, {pair.present.path for pair in moved}
    new = [item for item in new if item.path not in come]
    deleted = [present for present in deleted if present.path not in gone]
    for pair in (pair for pair in replaced if gone or come):
        if pair.item.path in come and pair.present.path not in gone:
            deleted.append(pair.present)
        elif pair.item.path not in come and pair.present.path in gone:
            new.append(pair.item)
    new, deleted = _in_place(folders, new, deleted)
    alike = _alike(new, _trusted(deleted, folders))

    def stays(pair: Pair) -> bool:
        return pair.item.path not in come and pair.present.path not in gone

    return Plan(
        folders=folders,
        new=new,
        deleted=deleted,
        moved=moved,
        alike=alike,
        compare=[pair for folder in folders for pair in folder.compare if stays(pair)],
        changed=[pair for folder in folders for pair in folder.changed if stays(pair)],
    )


def _is_another(pair: Pair) -> bool:
    """Whether a file has come to the place of another, as when two change their names."""
    return pair.item.file.inode != pair.present.known.inode


def _trusted(presents: list[Present], folders: Iterable[FolderPlan]) -> list[Present]:
    """Without those whose content a run that was cut off may not have written: they cannot be moved unread."""
    doubtful = {path for folder in folders for path in (*folder.rules.doubtful, *folder.rules.suspects)}
    return [p for p in presents if fold(p.stored) not in doubtful] if doubtful else presents


def _match_inodes(new: Iterable[Item], deleted: Iterable[Present]) -> list[Pair]:
    """The same inode, size and time: renamed, as the storage template does it."""
    by_inode = {(p.known.inode, p.known.size, p.known.mtime_ns): p for p in deleted if p.known.inode}
    keys = ((item, (item.file.inode, item.file.size, item.file.mtime_ns)) for item in new) if by_inode else ()
    return [Pair(item, present) for item, key in keys if (present := by_inode.pop(key, None)) is not None]


def _in_place(
    folders: Iterable[FolderPlan], new: list[Item], deleted: list[Present]
) -> tuple[list[Item], list[Present]]:
    """What lies in its place under a name that exFAT takes for the same: the case was changed, or nothing told which name
    it has on the server. It is one of the folder's files then."""
    if not (new and deleted):
        return new, deleted
    by_place = {(fold(p.stored), p.known.size): p for p in deleted}
    found = [Pair(i, p) for i in new if (p := by_place.pop((fold(i.stored), i.file.size), None)) is not None]
    for pair in found:
        place(next(f for f in folders if pair.item.path.startswith(f.rules.name + b"/")), pair)
    come, gone = {pair.item.path for pair in found}, {pair.present.path for pair in found}
    return [i for i in new if i.path not in come], [p for p in deleted if p.path not in gone]


def _alike(new: Iterable[Item], deleted: Iterable[Present]) -> list[Pair]:
    """Equal in size and time: the content tells. Each file on the disk is offered once."""
    by_facts = {(p.known.size, p.known.mtime_ns): p for p in deleted if p.known.digest}
    keys = ((item, (item.file.size, item.file.mtime_ns)) for item in new) if by_facts else ()
    return [Pair(item, present) for item, key in keys if (present := by_facts.pop(key, None)) is not None]


@dataclass(slots=True, kw_only=True)
class Steps:
    """What is to be done on the disk, in this order: ``moves`` within it; ``aside`` into ``deleted/``; ``discard`` what a
    run that was cut off wrote; ``times`` that are other now; ``copy``. ``notes`` change the manifest alone.

    ``same`` counts the files whose content was compared and is equal. The lists of findings: ``rotten`` on the disk (the
    server's is what was once copied), ``suspicious`` on the server (the disk's is what was once copied, and the time is
    the same: it is left alone), ``different`` (nothing tells which one is right), ``unreadable`` on the server.
    ``healed``: what is set aside because something happened to it on the disk, and not on the server.
    ``waiting``: new on the server, and a file that is held has their place on the disk.
    """

    moves: list[Pair] = field(default_factory=list)
    aside: list[Present] = field(default_factory=list)
    discard: list[Present] = field(default_factory=list)
    times: dict[bytes, int] = field(default_factory=dict)
    copy: list[Item] = field(default_factory=list)
    replaced: dict[bytes, int] = field(default_factory=dict)
    notes: list[Change] = field(default_factory=list)
    same: int = 0
    rotten: list[bytes] = field(default_factory=list)
    suspicious: list[bytes] = field(default_factory=list)
    different: list[bytes] = field(default_factory=list)
    unreadable: list[tuple[bytes, str]] = field(default_factory=list)
    waiting: list[bytes] = field(default_factory=list)
    healed: set[bytes] = field(default_factory=set)

    @property
    def copy_bytes(self) -> int:
        """Bytes to be copied."""
        return sum(item.file.size for item in self.copy)

    @property
    def removals(self) -> frozenset[bytes]:
        """The server's paths of files that would leave the disk's copy because of what happened on the server."""
        return frozenset(present.path for present in self.aside) - self.healed

    @property
    def touches_disk(self) -> bool:
        """Whether anything is to be done but to remember."""
        return bool(self.moves or self.aside or self.discard or self.times or self.copy)

    def room(self, cluster: int) -> int:
        """Bytes that the copying takes at its worst moment, in whole clusters: what is new, less what it replaces, and
        room for one file beside the one that it replaces."""
        new = sum(_clusters(item.file.size, cluster) for item in self.copy)
        freed = sum(_clusters(size, cluster) for size in self.replaced.values())
        largest = max((_clusters(i.file.size, cluster) for i in self.copy if i.path in self.replaced), default=0)
        return max(0, new - freed) + largest


def _clusters(size: int, cluster: int) -> int:
    return -(-size // cluster) * cluster


def settle(
    plan: Plan,
    digests: Mapping[bytes, Digests],
    *,
    held: bool,
    doubtful: frozenset[bytes],
    now: int,
    again: bool = False,
) -> Steps:
    """From the plan and what the contents said to what is to be done. ``digests`` are by the server's path; ``held``: no
    file may leave the disk's copy; ``now`` in seconds since 1970; ``again``: what is equal is copied all the same."""
    steps = Steps(notes=[note for folder in plan.folders for note in folder.notes])
    steps.moves = list(plan.moved)
    for pair in plan.alike:
        if digests[pair.item.path].server == pair.present.known.digest:
            steps.moves.append(pair)
    moved = {pair.item.path for pair in steps.moves}
    gone = {pair.present.path for pair in steps.moves}
    steps.copy = [item for item in plan.new if item.path not in moved]
    for pair in (pair for folder in plan.folders for pair in folder.rewritten):
        _rename_line(pair, steps)
        steps.copy.append(pair.item)
        steps.replaced[pair.item.path] = pair.present.known.size
    judge = _Judge(steps, held=held, doubtful=frozenset(map(fold, doubtful)), now=now, again=again)
    for pair in (pair for folder in plan.folders for pair in folder.altered):
        _replace(pair, steps)
        steps.healed.add(pair.present.path)
    for pair in plan.compare:
        judge.judge(pair, digests[pair.item.path])
    leaving = [present for present in plan.deleted if present.path not in gone]
    if held:
        _Held(leaving).step_aside(steps)
    else:
        steps.aside += leaving
        for pair in plan.changed:
            _replace(pair, steps)
    return steps


def _replace(pair: Pair, steps: Steps) -> None:
    steps.aside.append(pair.present)
    steps.copy.append(pair.item)


def _rename_line(pair: Pair, steps: Steps) -> None:
    """The manifest has the file under another name, which it will not have any more."""
    if pair.present.path != pair.item.path:
        steps.notes.append(Change(pair.present.path, None))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judge:
    """What the contents of both sides mean."""

    steps: Steps = field(kw_only=False)
    held: bool
    doubtful: frozenset[str]
    now: int
    again: bool

    def judge(self, pair: Pair, found: Digests) -> None:
        """One file that has its place on both sides."""
        steps = self.steps
        if not isinstance(found.server, bytes):
            if found.server is not None:  # else it went away meanwhile
                steps.unreadable.append((pair.item.path, found.server))
        elif found.server == found.disk:
            self._same(pair, found.server)
        elif found.disk is None:
            _rename_line(pair, steps)
            steps.copy.append(pair.item)
        elif self._never_whole(pair.present, found.disk):
            steps.discard.append(pair.present)
            steps.copy.append(pair.item)
        else:
            self._differs(pair, found)

    def _same(self, pair: Pair, digest: bytes) -> None:
        _rename_line(pair, self.steps)
        if self.again:
            self.steps.copy.append(pair.item)
            self.steps.replaced[pair.item.path] = pair.present.known.size
            return
        self.steps.same += 1
        self.steps.notes.append(settled(pair, digest=digest, proven=self.now))
        if not same_time(pair):
            self.steps.times[pair.present.stored] = pair.item.file.mtime_ns

    def _never_whole(self, present: Present, disk: bytes | str) -> bool:
        """A run that was cut off wrote it; but what has the content of an earlier copy was not touched."""
        return fold(present.stored) in self.doubtful and not (present.known.digest and disk == present.known.digest)

    def _differs(self, pair: Pair, found: Digests) -> None:
        path, known = pair.item.path, pair.present.known
        right = {known.digest, found.immich} - {b""}
        edited = known.mtime_ns != pair.item.file.mtime_ns
        disk_good = found.disk in right
        rotten = isinstance(found.disk, str) or (found.server in right and not disk_good)
        if rotten:
            self.steps.rotten.append(path)
            self.steps.healed.add(pair.present.path)
        elif disk_good and found.server != found.immich and not edited:
            self.steps.suspicious.append(path)
            return
        elif not (edited or disk_good):
            self.steps.different.append(path)
        if not self.held or rotten:
            _replace(pair, self.steps)


class _Held:
    """Files that stay on the disk though the server no longer has them: nothing may come to their places. ``_folders`` has
    the server's paths of their folders, by the disk's folded ones."""

    def __init__(self, presents: Iterable[Present]) -> None:
        self._paths: set[bytes] = set()
        self._places: set[str] = set()
        self._folders: dict[str, bytes] = {}
        self._add(presents)

    def _add(self, presents: Iterable[Present]) -> None:
        for present in presents:
            folded = fold(present.stored)
            self._paths.add(present.path)
            self._places.add(folded)
            self._folders.update(zip(_above(folded, "/"), _above(present.path, b"/"), strict=True))

    def step_aside(self, steps: Steps) -> None:
        """Take out of the steps what has to wait. What is not moved stays in its own place, too."""
        while blocked := [pair for pair in steps.moves if self._in_the_way(pair.item)]:
            steps.waiting += [pair.item.path for pair in blocked]
            steps.moves = [pair for pair in steps.moves if not self._in_the_way(pair.item)]
            self._add(pair.present for pair in blocked)
        steps.waiting += [item.path for item in steps.copy if self._in_the_way(item)]
        steps.copy = [item for item in steps.copy if not self._in_the_way(item)]
        steps.notes = [note for note in steps.notes if note.known is None or not self._has_line(note.path)]

    def _in_the_way(self, item: Item) -> bool:
        folded = fold(item.stored)
        return folded in self._places or folded in self._folders or self._in_another(item, folded)

    def _in_another(self, item: Item, folded: str) -> bool:
        """Whether a file, or another folder of the server's, has the place of one of its folders, or the manifest its line."""
        folders = zip(_above(folded, "/"), _above(item.path, b"/"), strict=True)
        return self._has_line(item.path) or any(
            place in self._places or self._folders.get(place, path) != path for place, path in folders
        )

    def _has_line(self, path: bytes) -> bool:
        """Whether the manifest has, and keeps, another file under this path or one above it."""
        return path in self._paths or any(above in self._paths for above in _above(path, b"/"))


def _above(path: AnyStr, slash: AnyStr) -> Iterator[AnyStr]:
    """The folders above a path."""
    while slash in path:
        path = path.rpartition(slash)[0]
        yield path


def known_after_copy(item: Item, *, size: int, mtime_ns: int) -> Known:
    """The manifest's line for a file that has just been copied, with the facts that it has on the server now."""
    name, stored = item.path.rpartition(b"/")[2], item.stored.rpartition(b"/")[2]
    as_planned = (size, mtime_ns) == (item.file.size, item.file.mtime_ns)
    return Known(name, stored, size, mtime_ns, item.file.inode if as_planned else 0)
