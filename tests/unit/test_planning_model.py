"""The planning as a whole: whatever happens on the server and on the disk, the next run makes the disk equal.

A server and a disk as values, the manifest's own tables in memory, and the steps of a run in their order. The disk takes
names for one as exFAT does, keeps a folder's first spelling, rounds times to 10 ms and knows none before 1980.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immich_usb_backup.adapters.disk_moves import TAKEN
from immich_usb_backup.adapters.manifest_tables import SCHEMA, Tables
from immich_usb_backup.model import Mode
from immich_usb_backup.policy.manifest import Change, DiskRecord, Folder, FolderName, Known, SourceFile
from immich_usb_backup.policy.names import can_be_kept, fold
from immich_usb_backup.policy.plan import Rules, plan_folder
from immich_usb_backup.policy.reconcile import reconcile
from immich_usb_backup.policy.times import times_agree
from immich_usb_backup.policy.whole_plan import Digests, Plan, Steps, combine, known_after_copy, settle
from immich_usb_backup.stages.context import Work
from immich_usb_backup.stages.rearrange import note, rearrange

ROOTS = (b"upload", b"library")
_1980 = 315_532_800 * 10**9
_TICK = 10_000_000
SIDECARS = (b".xmp", b".immich")


class Node(NamedTuple):
    """A file of the server's. ``content`` stands for what is in it."""

    size: int
    mtime_ns: int
    inode: int
    content: bytes


class Stored(NamedTuple):
    """A file on the disk."""

    name: bytes
    size: int
    mtime_ns: int
    content: bytes


def _sha1(content: bytes) -> bytes:
    return hashlib.sha1(content).digest()


def _split(path: bytes) -> tuple[bytes, bytes]:
    above, _, name = path.rpartition(b"/")
    return above, name


def _above(path: bytes) -> Iterator[bytes]:
    while b"/" in path:
        path = path.rpartition(b"/")[0]
        yield path


def _kept_time(mtime_ns: int) -> int:
    return max(_1980, mtime_ns // _TICK * _TICK)


# The two sides -------------------------------------------------------------------------------------------


@dataclass
class Server:
    """Files by their path, with the root; folders are there because of them."""

    files: dict[bytes, Node] = field(default_factory=dict)
    clock: int = 1_700_000_000
    inode: int = 10

    def node(self, size: int, *, dated: bool = True) -> Node:
        self.clock += 60
        self.inode += 1
        mtime_ns = self.clock * 10**9 + 123_456_789 if dated else 0
        content = f"{size} of {mtime_ns}".encode()  # equal facts, equal content: else no quick look could tell
        return Node(size, mtime_ns, self.inode, content)

    def free(self, path: bytes) -> bool:
        """Whether a file may come into being there."""
        return not (
            path in self.files
            or any(above in self.files for above in _above(path))
            or any(other.startswith(path + b"/") for other in self.files)
        )

    def walk(self, root: bytes) -> Iterator[Folder]:
        yield from _folders(root, {path: SourceFile(n.size, n.mtime_ns, n.inode) for path, n in self.files.items()})


class Disk:
    """exFAT: one name in any case; a folder keeps the spelling that it was made with, and goes when it is empty."""

    def __init__(self) -> None:
        self.files: dict[str, Stored] = {}
        self.spelling: dict[str, bytes] = {}

    def exists(self, path: bytes) -> bool:
        return fold(path) in self.files or fold(path) in self.spelling

    def put(self, path: bytes, file: Stored) -> bool:
        """Write a file, in the place of the one that is there. False where it cannot have its place."""
        assert can_be_kept(_split(path)[1]), path
        if fold(path) in self.spelling or any(fold(above) in self.files for above in _above(path)):
            return False
        for above in _above(path):
            self.spelling.setdefault(fold(above), _split(above)[1])
        self.files[fold(path)] = file._replace(name=_split(path)[1])
        return True

    def take(self, path: bytes) -> Stored | None:
        return self.files.pop(fold(path), None)

    def tidy(self) -> None:
        there = {fold(above) for path in self.paths() for above in _above(path)}
        self.spelling = {folded: name for folded, name in self.spelling.items() if folded in there}

    def spelt(self, folded: str) -> bytes:
        above, _, _ = folded.rpartition("/")
        name = self.files[folded].name if folded in self.files else self.spelling[folded]
        return self.spelt(above) + b"/" + name if above else name

    def paths(self) -> list[bytes]:
        return [self.spelt(folded) for folded in self.files]

    def live(self) -> dict[bytes, Stored]:
        """What is not in ``deleted/``."""
        return {p: self.files[fold(p)] for p in self.paths() if p.startswith(tuple(root + b"/" for root in ROOTS))}

    def walk(self, root: bytes) -> Iterator[Folder]:
        files = {path: SourceFile(f.size, f.mtime_ns, 0) for path, f in self.live().items()}
        if any(path.startswith(root + b"/") for path in files):
            yield from _folders(root, files)

    # What ``Target`` has, as far as it is needed.

    async def move(self, pairs: Iterable[tuple[bytes, bytes]], *, beside: bool) -> tuple[tuple[bytes, str], ...]:
        waiting, left = [pair for pair in pairs if pair[0] != pair[1]], dict[bytes, str]()
        while waiting:
            taken = [(old, new) for old, new in waiting if self._move(old, new, left, beside=beside) == TAKEN]
            if len(taken) == len(waiting):
                break
            waiting = taken
        self.tidy()
        return tuple(left.items())

    def _move(self, old: bytes, new: bytes, left: dict[bytes, str], *, beside: bool) -> str:
        reason = self._try(old, new, beside=beside)
        if reason:
            left[old] = reason
        else:
            left.pop(old, None)
        return reason

    def _try(self, old: bytes, new: bytes, *, beside: bool) -> str:
        if fold(old) not in self.files:
            return "No such file or directory"
        if self.exists(new) and fold(old) != fold(new):
            if not beside:
                return TAKEN
            while self.exists(new):
                new += b" (2)"
        if any(fold(above) in self.files for above in _above(new)):
            if not beside:
                return "Not a directory"
            new = new.replace(b"/20261121/", b"/20261121 (2)/")
            while self.exists(new) or any(fold(above) in self.files for above in _above(new)):
                new = new.replace(b"/20261121 (2)", b"/20261121 (2) (2)")
        file = self.take(old)
        assert file is not None
        assert self.put(new, file)
        return ""

    async def remove_files(self, paths: Iterable[bytes]) -> None:
        for path in paths:
            self.take(path)
        self.tidy()

    async def set_times(self, times: Mapping[bytes, int]) -> None:
        for path, mtime_ns in times.items():
            if (file := self.files.get(fold(path))) is not None:
                self.files[fold(path)] = file._replace(mtime_ns=_kept_time(mtime_ns))


def _folders(root: bytes, files: Mapping[bytes, SourceFile]) -> Iterator[Folder]:
    """Each folder before those in it, as the walks give them."""
    found: dict[bytes, tuple[dict[bytes, SourceFile], set[bytes]]] = {root: ({}, set())}
    for path, file in files.items():
        if path.startswith(root + b"/"):
            for above in (path, *_above(path)):
                if above != root:
                    parent, name = _split(above)
                    entry = found.setdefault(parent, ({}, set()))
                    entry[0].update({name: file} if above == path else {})
                    entry[1].update(set() if above == path else {name})
    for path in sorted(found, key=lambda path: path.split(b"/")):
        names, below = found[path]
        yield Folder(path[len(root) + 1 :], dict(sorted(names.items())), tuple(sorted(below)))


class Manifest:
    """The real tables, in memory."""

    def __init__(self) -> None:
        self.database = sqlite3.connect(":memory:", isolation_level=None)
        weakref.finalize(self, self.database.close)
        self.database.executescript(SCHEMA)
        self.tables = Tables(self.database)

    async def apply(self, changes: Iterable[Change | FolderName]) -> None:
        self.tables.apply(changes, lambda: None)

    def lines(self) -> list[Change | FolderName]:
        """All of it, as changes of an empty one."""
        self.tables.prune()
        found: list[Change | FolderName] = []
        for content in self.tables.in_order():
            if content.path != content.stored_path and b"/" in content.path:
                found.append(FolderName(content.path, _split(content.stored_path)[1]))
            found += [Change(content.path + b"/" + known.name, known) for known in content.files]
        return found

    def become(self, lines: Iterable[Change | FolderName]) -> None:
        self.tables.clear()
        self.tables.apply(lines, lambda: None)

    def stored(self) -> dict[bytes, bytes]:
        """The disk's path of each file, by the server's."""
        self.tables.prune()
        return {
            content.path + b"/" + known.name: content.stored_path + b"/" + known.stored
            for content in self.tables.in_order()
            for known in content.files
        }

    def known(self) -> dict[bytes, Known]:
        return {line.path: line.known for line in self.lines() if isinstance(line, Change) and line.known is not None}


# A run ---------------------------------------------------------------------------------------------------


class World:
    """Server, disk, manifest, and the runs."""

    def __init__(self) -> None:
        self.server = Server()
        self.disk = Disk()
        self.manifest = Manifest()
        self.walk = False
        self.doubtful: frozenset[bytes] = frozenset()

    def plan(self, mode: Mode) -> Plan:
        folders = []
        for root in ROOTS:
            doubtful = frozenset(map(fold, self.doubtful))
            rules = Rules(name=root, source=b"/srv/" + root, mode=mode, doubtful=doubtful)
            folders.append(plan_folder(self.server.walk(root), self.manifest.tables.folder, rules))
        return combine(folders)

    def digests(self, plan: Plan) -> dict[bytes, Digests]:
        found = {}
        for pair in (*plan.compare, *plan.alike):
            there = self.disk.files.get(fold(pair.present.stored))
            server = self.server.files[pair.item.path].content
            found[pair.item.path] = Digests(_sha1(server), None if there is None else _sha1(there.content))
        return found

    def steps(self, *, mode: Mode = Mode.QUICK, held: bool = False) -> tuple[Plan, Steps]:
        if self.walk or mode is not Mode.QUICK:
            for root in ROOTS:
                found = reconcile(root, self.disk.walk(root), self.manifest.tables.stored_folder)
                self.manifest.tables.apply(found.changes, lambda: None)
        plan = self.plan(mode)
        again = mode is Mode.FULL
        digests = self.digests(plan)
        return plan, settle(plan, digests, held=held, doubtful=self.doubtful, now=1, again=again)

    def run(self, *, mode: Mode = Mode.QUICK, held: bool = False, copies: int | None = None) -> Steps:
        """A whole run; ``copies``: it is cut off after so many files."""
        plan, steps = self.steps(mode=mode, held=held)
        planned = replace(steps, copy=list(steps.copy))
        asyncio.run(self._carry_out(plan, steps, copies))
        if copies is None:
            self.walk, self.doubtful = False, frozenset()
        return planned

    async def _carry_out(self, plan: Plan, steps: Steps, copies: int | None) -> None:
        decision = cast(Any, SimpleNamespace(plan=plan, steps=steps, held=()))
        work = Work(
            run=cast(Any, SimpleNamespace(started=datetime(2026, 11, 21, tzinfo=UTC))),
            target=cast(Any, self.disk),
            manifest=cast(Any, self.manifest),
            server_id="",
            state=None,
            generation="",
            record=DiskRecord(),
            walk_because=(),
            writing=True,
        )
        left = await rearrange(work, decision)
        assert left == (), left
        for item in steps.copy[:copies]:
            node = self.server.files[item.path]
            assert (node.size, node.mtime_ns) == (item.file.size, item.file.mtime_ns)
            assert self.disk.put(item.stored, Stored(b"", node.size, _kept_time(node.mtime_ns), node.content)), item
            known = known_after_copy(item, size=node.size, mtime_ns=node.mtime_ns)
            await note(work, decision, [Change(item.path, known)])
        if copies is not None:
            self.doubtful = frozenset(item.stored for item in steps.copy)


def _is_equal(world: World) -> None:
    """The disk holds the server's files and nothing else, and the manifest leads from each to its own."""
    live, stored = world.disk.live(), world.manifest.stored()
    assert stored.keys() == world.server.files.keys()
    assert {fold(path) for path in stored.values()} == {fold(path) for path in live}
    assert len({fold(path) for path in stored.values()}) == len(stored)
    for path, node in world.server.files.items():
        there = world.disk.files[fold(stored[path])]
        assert (there.content, there.size) == (node.content, node.size), path
        assert times_agree(node.mtime_ns, there.mtime_ns), path


def _nothing_is_left_to_do(world: World) -> None:
    for walk in (False, True):
        world.walk = walk
        _, steps = world.steps()
        assert not steps.touches_disk, steps
        assert not steps.notes, steps.notes
        assert (steps.rotten, steps.suspicious, steps.different) == ([], [], [])
    world.walk = False


def _nothing_was_lost(before: Mapping[bytes, Stored], world: World) -> None:
    """What lay on the disk lies there still, in its place or in ``deleted/``; sidecars are replaced, and junk may go."""
    after = {file.content for file in world.disk.files.values()}
    lost = {
        path: file
        for path, file in before.items()
        if file.content not in after
        and not file.content.startswith(b"junk")
        and not file.name.lower().endswith(SIDECARS)
    }
    assert lost == {}


def _nothing_was_copied_that_is_there(before: Mapping[bytes, Known], steps: Steps) -> None:
    """What the server has renamed is moved on the disk. Sidecars are small, and written anew in their places."""
    there = {
        (k.inode, k.size, k.mtime_ns) for path, k in before.items() if k.inode and not path.lower().endswith(SIDECARS)
    }
    again = [i for i in steps.copy if (i.file.inode, i.file.size, i.file.mtime_ns) in there]
    assert [item for item in again if not item.path.lower().endswith(SIDECARS) and item.file.mtime_ns] == []


# What happens --------------------------------------------------------------------------------------------

NAMES = (
    "a",
    "A",
    "b",
    "B",
    "a?",
    "A?",
    "con",
    "x.",
    "X.",
    "\u00e4",
    "a\u0308",
    ".partial",
    "s.xmp",
    "S.xmp",
    ".immich",
)
NAME = st.sampled_from([b"\xff", *(name.encode() for name in NAMES)])
PATH = st.builds(
    lambda root, names: b"/".join((root, *names)), st.sampled_from(ROOTS), st.lists(NAME, min_size=1, max_size=3)
)
PICK = st.integers(0, 30)


def _pick(things: Iterable[bytes], number: int) -> bytes | None:
    found = sorted(things)
    return found[number % len(found)] if found else None


def _add(world: World, path: bytes, number: int) -> None:
    if world.server.free(path):
        world.server.files[path] = world.server.node(number % 4, dated=number % 7 != 0)


def _delete(world: World, path: bytes, number: int) -> None:
    if (gone := _pick(world.server.files, number)) is not None:
        del world.server.files[gone]


def _rename(world: World, path: bytes, number: int) -> None:
    old = _pick(world.server.files, number)
    if old is not None:
        node = world.server.files.pop(old)
        world.server.files[path if world.server.free(path) else old] = node


def _swap(world: World, path: bytes, number: int) -> None:
    files = world.server.files
    one, other = _pick(files, number), _pick(files, number // 5)
    if one is not None and other is not None:
        files[one], files[other] = files[other], files[one]


def _change_case(world: World, path: bytes, number: int) -> None:
    if (old := _pick(world.server.files, number)) is not None:
        above, name = _split(old)
        _rename(world, above + b"/" + name.swapcase(), number)


def _rename_folder(world: World, path: bytes, number: int) -> None:
    files = world.server.files
    folder = _pick({above for file in files for above in _above(file)} - set(ROOTS), number)
    if folder is None:
        return
    new = _split(folder)[0] + b"/" + _split(folder)[1].swapcase() if number % 2 else path
    inside = {old: node for old, node in files.items() if old.startswith(folder + b"/")}
    for old in inside:
        del files[old]
    free = world.server.free(new)
    files.update({(new if free else folder) + old[len(folder) :]: node for old, node in inside.items()})


def _edit(world: World, path: bytes, number: int) -> None:
    """Another content, another time; the same size or another."""
    if (old := _pick(world.server.files, number)) is not None:
        inode = world.server.files[old].inode
        world.server.files[old] = world.server.node(number % 4)._replace(inode=inode)


def _touch(world: World, path: bytes, number: int) -> None:
    if (old := _pick(world.server.files, number)) is not None:
        node = world.server.files[old]
        world.server.files[old] = node._replace(mtime_ns=world.server.node(0).mtime_ns)


ON_THE_SERVER = [_add, _add, _add, _delete, _rename, _swap, _change_case, _rename_folder, _edit, _touch]


def _disk_loses(world: World, path: bytes, number: int) -> None:
    if (gone := _pick(world.disk.live(), number)) is not None:
        world.disk.take(gone)
        world.disk.tidy()
        world.walk = True


def _disk_gets(world: World, path: bytes, number: int) -> None:
    """A foreign file."""
    name = b"/".join(part if can_be_kept(part) else b"f" for part in path.split(b"/"))
    node = world.server.node(number % 4)
    if not world.disk.exists(name):
        world.disk.put(name, Stored(b"", node.size, node.mtime_ns, b"junk " + node.content))
        world.walk = True


def _disk_changes(world: World, path: bytes, number: int) -> None:
    if (old := _pick(world.disk.live(), number)) is not None:
        node = world.server.node(number % 4)
        file = world.disk.files[fold(old)]
        content = file.content if number % 3 else b"junk " + node.content
        world.disk.files[fold(old)] = file._replace(
            mtime_ns=node.mtime_ns, content=content, size=file.size if number % 3 else node.size
        )
        world.walk = True


def _disk_renames(world: World, path: bytes, number: int) -> None:
    old = _pick(world.disk.live(), number)
    name = b"/".join(part if can_be_kept(part) else b"f" for part in path.split(b"/"))
    if old is not None and not world.disk.exists(name):
        file = world.disk.take(old)
        assert file is not None
        if not world.disk.put(name, file):
            world.disk.put(old, file)
        world.disk.tidy()
        world.walk = True


def _disk_respells(world: World, path: bytes, number: int) -> None:
    """Somebody renames a file or folder to another case."""
    folded = sorted({*world.disk.files, *world.disk.spelling})
    folded = [f for f in folded if "/" in f and f.startswith(("UPLOAD", "LIBRARY"))]
    if not folded:
        return
    one = folded[number % len(folded)]
    if one in world.disk.files:
        file = world.disk.files[one]
        world.disk.files[one] = file._replace(name=file.name.swapcase())
    else:
        world.disk.spelling[one] = world.disk.spelling[one].swapcase()
    world.walk = True


def _manifest_is_lost(world: World, path: bytes, number: int) -> None:
    world.manifest.tables.clear()
    world.walk = True


def _manifest_of_the_disk(world: World, path: bytes, number: int) -> None:
    """Read from the disk: it has no inodes."""
    lines = world.manifest.lines()
    world.manifest.become(
        line._replace(known=line.known._replace(inode=0)) if isinstance(line, Change) and line.known else line
        for line in lines
    )
    world.walk = True


FAULTS = [
    _disk_loses,
    _disk_gets,
    _disk_changes,
    _disk_renames,
    _disk_respells,
    _manifest_is_lost,
    _manifest_of_the_disk,
]


def _believed(world: World) -> dict[bytes, Stored]:
    """What lies on the disk, but for what a run that was cut off was writing."""
    doubtful = set(map(fold, world.doubtful))
    return {path: file for path, file in world.disk.live().items() if fold(path) not in doubtful}


def _runs(world: World, path: bytes, number: int) -> None:
    mode = (Mode.VERIFY, Mode.QUICK, Mode.QUICK, Mode.FULL, Mode.QUICK)[number % 5]
    before = _believed(world)
    known, faulty = world.manifest.known(), world.walk
    steps = world.run(mode=mode)
    _is_equal(world)
    _nothing_was_lost(before, world)
    if not faulty and mode is not Mode.FULL:
        _nothing_was_copied_that_is_there(known, steps)
    _nothing_is_left_to_do(world)


def _runs_held(world: World, path: bytes, number: int) -> None:
    """Nothing may leave the disk's copy."""
    before = _believed(world)
    world.run(held=True)
    live = {file.content for file in world.disk.live().values()}
    kept = {f.content for f in before.values() if not f.name.lower().endswith(SIDECARS)}
    assert {content for content in kept if not content.startswith(b"junk")} <= live
    stored = world.manifest.stored()
    assert {fold(place) for place in stored.values()} == {fold(place) for place in world.disk.live()}
    assert len({fold(place) for place in stored.values()}) == len(stored)


def _is_pulled(world: World, path: bytes, number: int) -> None:
    """The run is cut off while it copies; what it was writing may be anything."""
    lines = world.manifest.lines()
    before = world.disk.live()
    world.run(copies=number % 5)
    for at, stored in enumerate(sorted(world.doubtful)):
        file = world.disk.files.get(fold(stored))
        if file is not None and file.content not in {f.content for f in before.values()} and (at + number) % 2:
            size = 0 if (at + number) % 3 else file.size
            world.disk.files[fold(stored)] = file._replace(content=b"junk", size=size)
    world.manifest.become(lines)
    world.walk = True


def _live(world: World, events: Iterable[Any]) -> None:
    for event, path, number in events:
        event(world, path, number)
    _runs(world, b"", 1)


def _events(*kinds: Any) -> st.SearchStrategy[list[tuple[Any, bytes, int]]]:
    return st.lists(st.tuples(st.sampled_from(kinds), PATH, PICK), min_size=3, max_size=24)


@settings(max_examples=200)
@given(_events(*ON_THE_SERVER, _runs))
def test_after_a_run_the_disk_is_equal_and_what_was_renamed_was_moved(events: list[Any]) -> None:
    _live(World(), events)


@settings(max_examples=200)
@given(_events(*ON_THE_SERVER, *FAULTS, _runs))
def test_whatever_is_done_to_the_disk_the_next_run_makes_it_equal(events: list[Any]) -> None:
    _live(World(), events)


@settings(max_examples=200)
@given(_events(*ON_THE_SERVER, _runs, _runs_held))
def test_what_is_held_stays_until_a_run_that_may_let_it_go(events: list[Any]) -> None:
    _live(World(), events)


@settings(max_examples=200)
@given(_events(*ON_THE_SERVER, _runs, _is_pulled))
def test_after_a_pull_nothing_is_believed_that_was_being_written(events: list[Any]) -> None:
    _live(World(), events)


@settings(max_examples=200)
@given(_events(*ON_THE_SERVER, *FAULTS, _runs, _runs_held, _is_pulled))
def test_all_of_it_together(events: list[Any]) -> None:
    _live(World(), events)


def _world(*paths: str) -> World:
    """A server with these files, all on the disk."""
    world = World()
    for number, path in enumerate(paths, start=1):
        world.server.files[path.encode()] = world.server.node(number)
    world.run()
    return world


def test_an_album_that_changes_its_case_is_moved_and_its_names_stay() -> None:
    world = _world("upload/foo/a.jpg", "upload/foo/sub/b.jpg")
    files = world.server.files
    world.server.files = {path.replace(b"/foo/", b"/Foo/"): node for path, node in files.items()}
    steps = world.run()
    assert (steps.copy, steps.aside, len(steps.moves)) == ([], [], 2)
    assert sorted(world.disk.paths()) == [b"upload/foo/a.jpg", b"upload/foo/sub/b.jpg"]
    _is_equal(world)


def test_without_inodes_an_album_that_changes_its_case_stays_where_it_is() -> None:
    world = _world("upload/foo/a.jpg", "upload/foo/sub/b.jpg")
    _manifest_of_the_disk(world, b"", 0)
    world.server.files = {path.replace(b"/foo/", b"/Foo/"): node for path, node in world.server.files.items()}
    assert not world.run().touches_disk
    _is_equal(world)
    _nothing_is_left_to_do(world)


def test_two_files_that_change_their_names_are_not_copied() -> None:
    world = _world("upload/a.jpg", "upload/b.jpg", "library/C.jpg", "library/d.jpg")
    a, b, c, d = (world.server.files[path] for path in sorted(world.server.files, key=lambda p: p.lower()[-5:]))
    world.server.files = {b"upload/a.jpg": b, b"upload/b.jpg": a, b"library/D.jpg": c, b"library/c.jpg": d}
    steps = world.run()
    assert (steps.copy, steps.aside, len(steps.moves)) == ([], [], 4)
    _is_equal(world)


def test_while_files_are_held_nothing_is_written_over_them() -> None:
    world = _world("upload/IMG.JPG", "upload/album", "upload/x/one.jpg", "upload/far.jpg")
    far = world.server.files[b"upload/far.jpg"]
    world.server.files = {
        b"upload/img.jpg": world.server.node(9),
        b"upload/album/new.jpg": world.server.node(9),
        b"upload/X": far,
        b"upload/other.jpg": world.server.node(9),
    }
    before = world.disk.live()
    steps = world.run(held=True)
    assert sorted(steps.waiting) == [b"upload/X", b"upload/album/new.jpg", b"upload/img.jpg"]
    assert [item.path for item in steps.copy] == [b"upload/other.jpg"]
    assert before.items() <= world.disk.live().items()
    world.run()
    _is_equal(world)


def test_a_lost_manifest_of_odd_names_costs_no_copy() -> None:
    world = _world("upload/12:30.jpg", "upload/what?/a.jpg", "upload/IMG.jpg", "upload/img.jpg", "library/con/x.")
    _manifest_is_lost(world, b"", 0)
    steps = world.run()
    assert not steps.touches_disk
    _is_equal(world)
    _nothing_is_left_to_do(world)


@pytest.mark.parametrize("mode", [Mode.FULL, Mode.VERIFY])
def test_a_lost_manifest_leaves_no_second_line_for_a_file(mode: Mode) -> None:
    world = _world("upload/12:30.xmp", "upload/12:30.jpg")
    _manifest_is_lost(world, b"", 0)
    world.run(mode=mode)
    _is_equal(world)
    _nothing_is_left_to_do(world)


def test_after_a_pull_files_of_any_size_are_written_again_and_nothing_is_held() -> None:
    world = _world("upload/old.jpg")
    for number in range(4):
        world.server.files[b"upload/%d.jpg" % number] = world.server.node(5)
    world.run(copies=4)
    for number, size in enumerate([0, 3, 5]):
        key = fold(b"upload/%d.jpg" % number)
        world.disk.files[key] = world.disk.files[key]._replace(content=b"junk", size=size)
    _manifest_of_the_disk(world, b"", 0)
    steps = world.run()
    assert (steps.aside, len(steps.discard), len(steps.copy)) == ([], 3, 3)
    _is_equal(world)


def test_a_folder_comes_to_the_place_of_a_file_that_was_moved() -> None:
    world = _world("library/a?", "library/A?")
    one, other = world.server.files[b"library/a?"], world.server.files[b"library/A?"]
    world.server.files = {b"library/a?": other, b"library/A?/A/a": one}
    world.run()
    _is_equal(world)
