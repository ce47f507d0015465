"""The difference between the server's folders and what lies on the disk, as a value, before a byte moves.

The server's tree and the manifest are walked side by side, folder by folder; what is equal leaves nothing behind but a
count, so that a plan over a million files is small.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from immich_usb_backup.model import TEMPORARY, Mode
from immich_usb_backup.policy.exclude import Excludes
from immich_usb_backup.policy.manifest import Change, Folder, Known, KnownFolder, SourceFile
from immich_usb_backup.policy.names import fold
from immich_usb_backup.policy.naming import stored_names
from immich_usb_backup.policy.times import times_agree

IMMICH_MARK = b".immich"
"""Immich keeps this file in each of its folders; where it is missing the folder is not mounted."""

_REWRITTEN = (b".xmp", IMMICH_MARK)
"""What Immich itself writes anew: sidecars and its mark."""

_OURS = frozenset({TEMPORARY.encode()})

Lookup = Callable[[bytes], KnownFolder | None]


class Item(NamedTuple):
    """A file of the server's that is to lie on the disk. Both paths are from the backup folder on (``upload/…``): the
    server's, and the disk's."""

    path: bytes
    stored: bytes
    file: SourceFile


class Present(NamedTuple):
    """A file that lies on the disk, by both paths."""

    path: bytes
    stored: bytes
    known: Known


class Pair(NamedTuple):
    """A file of the server's and what lies on the disk in its place."""

    item: Item
    present: Present


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How one folder with originals is planned. ``name`` is its path on the disk (``upload``, ``extra/pictures``);
    ``source`` its absolute path on the server; ``inside`` the server's folders that links may point into; ``doubtful``
    the disk's paths, folded, of files whose content is not trusted; ``suspects`` those of files that did not read back as
    they were written; ``cluster`` the disk's unit in bytes."""

    name: bytes
    source: bytes
    mode: Mode = Mode.QUICK
    excludes: Excludes = field(default_factory=lambda: Excludes.parse(()))
    inside: tuple[bytes, ...] = ()
    doubtful: frozenset[str] = frozenset()
    altered: frozenset[str] = frozenset()
    suspects: frozenset[str] = frozenset()
    cluster: int = 1


@dataclass(slots=True, kw_only=True)
class FolderPlan:
    """What must happen to make the disk's copy of one folder with originals equal to the server's.

    ``new``: not on the disk. ``changed``: an original whose size is another now, which Immich never does; the disk's copy
    is set aside. ``altered``: the disk's copy is another than it was left; it is set aside. ``rewritten``: replaced where it
    lies (sidecars). ``compare``: of the same
    size, and only the content can tell. ``deleted``: on the disk and no longer on the server. ``notes`` are changes of
    the manifest alone, ``inodes`` of what only the server keeps of it; ``folder_names`` has
    folders that are stored under another name, ``new_folders`` those of them that are new. ``renamed``: stored under another name: the server's path and the disk's. ``kept``: files on the
    disk that stay though the server does not show them (excluded, behind a link, in an unreadable folder).
    """

    rules: Rules
    new: list[Item] = field(default_factory=list)
    changed: list[Pair] = field(default_factory=list)
    rewritten: list[Pair] = field(default_factory=list)
    altered: list[Pair] = field(default_factory=list)
    compare: list[Pair] = field(default_factory=list)
    deleted: list[Present] = field(default_factory=list)
    notes: list[Change] = field(default_factory=list)
    inodes: list[Change] = field(default_factory=list)
    folder_names: dict[bytes, bytes] = field(default_factory=dict)
    new_folders: set[bytes] = field(default_factory=set)
    renamed: list[tuple[bytes, bytes]] = field(default_factory=list)
    links: int = 0
    links_outside: list[tuple[bytes, bytes]] = field(default_factory=list)
    specials: list[tuple[bytes, str]] = field(default_factory=list)
    unreadable: list[tuple[bytes, str]] = field(default_factory=list)
    excluded: int = 0
    excluded_bytes: int = 0
    kept: int = 0
    unchanged: int = 0
    unchanged_bytes: int = 0
    files: int = 0
    size: int = 0
    room: int = 0
    marked: bool = False


def plan_folder(folders: Iterable[Folder], known: Lookup, rules: Rules) -> FolderPlan:
    """Walk the server's ``folders`` (each before those in it) beside the manifest."""
    plan = FolderPlan(rules=rules)
    planner = _Planner(plan, known)
    for folder in folders:
        planner.add(folder)
    return plan


class _Planner:
    """The state of one walk. ``_stored`` maps the folders that are still to come to their paths on the disk."""

    def __init__(self, plan: FolderPlan, known: Lookup) -> None:
        self.plan = plan
        self.rules = plan.rules
        self.known = known
        self._stored: dict[bytes, bytes] = {b"": plan.rules.name}

    def add(self, folder: Folder) -> None:
        stored = self._stored.pop(folder.path, None)
        if stored is None:
            return  # it lies below an excluded folder
        path = _join(self.rules.name, folder.path)
        there = self.known(path) or KnownFolder(path, stored)
        if folder.unreadable:
            self.plan.unreadable += [(_join(path, name), reason) for name, reason in folder.unreadable]
            if any(name == b"" for name, _ in folder.unreadable):
                return
        _OneFolder(self, folder, there, path, stored).plan()

    def descend(self, folder: bytes, names: Mapping[bytes, bytes], stored: bytes) -> None:
        for name, stored_name in names.items():
            self._stored[_join(folder, name)] = stored + b"/" + stored_name


class _OneFolder:
    """One folder of the server's and its counterpart on the disk."""

    def __init__(self, planner: _Planner, folder: Folder, there: KnownFolder, path: bytes, stored: bytes) -> None:
        self.planner = planner
        self.into = planner.plan
        self.rules = planner.rules
        self.folder = folder
        self.there = there
        self.path = path
        self.stored = stored
        self.files: Mapping[bytes, SourceFile] = folder.files
        self.folders: tuple[bytes, ...] = folder.folders

    def plan(self) -> None:
        if self.rules.excludes:
            self._leave_out()
        names = self._names()
        self._files(names)
        self._links()
        self._gone()
        self.into.specials += [(_join(self.path, name), kind) for name, kind in self.folder.others]
        folders = {name: names[name] for name in self.folders}
        self.into.folder_names.update((_join(self.path, n), stored) for n, stored in folders.items() if n != stored)
        self.planner.descend(self.folder.path, folders, self.stored)

    def _leave_out(self) -> None:
        """What the patterns exclude is counted; a folder counts as one."""
        out = {name for name in self.folder.files if self._excluded(name, folder=False)}
        self.into.excluded += len(out)
        self.into.excluded_bytes += sum(self.folder.files[name].size for name in out)
        self.files = {name: file for name, file in self.folder.files.items() if name not in out}
        self.folders = tuple(name for name in self.folder.folders if not self._excluded(name, folder=True))
        self.into.excluded += len(self.folder.folders) - len(self.folders)

    def _excluded(self, name: bytes, *, folder: bool) -> bool:
        return bool(self.rules.excludes) and self.rules.excludes.matches(_join(self.folder.path, name), folder=folder)

    def _names(self) -> dict[bytes, bytes]:
        """The disk's name for each file and folder. What lies there and stays keeps its name; what leaves gives its place
        free, and a folder takes the spelling of the one in whose place it comes."""
        there = self.there
        known = {name: known.stored for name, known in there.files.items() if name in self.files and known.link is None}
        known.update((name, stored) for name, stored in there.folders.items() if name in self.folder.folders)
        if len(known) == len(self.files) + len(self.folders) and not self.rules.excludes:
            return known
        staying = [
            k.stored
            for name, k in there.files.items()
            if name not in self.files and k.link is None and self._stays(name)
        ]
        staying += [s for name, s in there.folders.items() if name not in self.folder.folders and self._stays(name)]
        reserved = _OURS if not self.folder.path else frozenset()
        names = stored_names((*self.files, *self.folders), known, staying, reserved=reserved)
        self._respell(names)
        return names

    def _respell(self, names: dict[bytes, bytes]) -> None:
        leaving = {fold(s): s for name, s in self.there.folders.items() if name not in self.folder.folders}
        for name in self.folders:
            if name not in self.there.folders:
                if leaving and (spelling := leaving.get(fold(names[name]))) is not None:
                    names[name] = spelling
                if names[name] != name:
                    path = _join(self.path, name)
                    self.into.new_folders.add(path)
                    self.into.renamed.append((path, self.stored + b"/" + names[name]))

    def _stays(self, name: bytes) -> bool:
        """Whether what the manifest has under this name stays on the disk though it was not met on the server."""
        if name in self.folder.links or any(name == bad for bad, _ in self.folder.unreadable):
            return True
        return self._excluded(name, folder=name in self.there.folders)

    def _files(self, names: Mapping[bytes, bytes]) -> None:
        into, there, cluster = self.into, self.there.files, self.rules.cluster
        trusting = self.rules.mode is Mode.QUICK and not (self.rules.doubtful or self.rules.suspects)
        unchanged = size = room = 0
        for name, file in self.files.items():
            size += file.size
            room += -(-file.size // cluster)
            known = there.get(name)
            if (
                trusting
                and known is not None
                and (known.size, known.mtime_ns, known.inode, known.stored)
                == (file.size, file.mtime_ns, file.inode, name)
            ):
                unchanged += 1
                into.unchanged_bytes += file.size
                continue
            self._file(name, file, known, names[name])
        into.files += len(self.files)
        into.size += size
        into.room += room * cluster
        into.unchanged += unchanged
        if not self.folder.path:
            into.marked = IMMICH_MARK in self.folder.files

    def _file(self, name: bytes, file: SourceFile, known: Known | None, stored: bytes) -> None:
        path = self.path + b"/" + name
        # One object for both where they are equal: of a million new files that is the third part of the memory.
        item = Item(path, path if stored == name and self.path == self.stored else self.stored + b"/" + stored, file)
        if stored != name:
            self.into.renamed.append((path, item.stored))
        if known is None or known.link is not None:
            self.into.new.append(item)
        else:
            present = Present(item.path, self.stored + b"/" + known.stored, known)
            place(self.into, Pair(item, present))

    def _links(self) -> None:
        for name, target in self.folder.links.items():
            if self._excluded(name, folder=False):
                self.into.excluded += 1
                continue
            path = _join(self.path, name)
            self.into.links += 1
            if not self._inside(target):
                self.into.links_outside.append((path, target))
            known = self.there.files.get(name)
            if known is None or known.link != target:
                if known is not None and known.link is None:
                    self.into.deleted.append(Present(path, self.stored + b"/" + known.stored, known))
                self.into.notes.append(Change(path, Known(name, b"", 0, 0, link=target)))

    def _inside(self, target: bytes) -> bool:
        here = _join(self.rules.source, self.folder.path)
        goal = posixpath.normpath(posixpath.join(here, target))
        return any(goal == folder or goal.startswith(folder.rstrip(b"/") + b"/") for folder in self.rules.inside)

    def _gone(self) -> None:
        """What lies on the disk and was not met on the server."""
        if not self.there.files.keys() <= self.files.keys():
            for name, known in self.there.files.items():
                if name not in self.files and name not in self.folder.links:
                    self._gone_file(name, known)
        for name in self.there.folders:
            if name not in self.folders:
                self._gone_folder(name)

    def _gone_file(self, name: bytes, known: Known) -> None:
        path = _join(self.path, name)
        if self._stays(name):
            self.into.kept += 1
        elif known.link is not None:
            self.into.notes.append(Change(path, None))
        else:
            self.into.deleted.append(Present(path, self.stored + b"/" + known.stored, known))

    def _gone_folder(self, name: bytes) -> None:
        stays = self._stays(name)
        for present in below(self.planner.known, _join(self.path, name)):
            if stays:
                self.into.kept += 1
            elif present.known.link is not None:
                self.into.notes.append(Change(present.path, None))
            else:
                self.into.deleted.append(present)


def place(plan: FolderPlan, pair: Pair) -> None:
    """Put a file that lies on the disk, and may not be the server's, into the list of what is to be done about it."""
    item, known, rules = pair.item, pair.present.known, plan.rules
    rewritten = item.path.lower().endswith(_REWRITTEN)
    doubtful = bool(rules.doubtful) and fold(pair.present.stored) in rules.doubtful
    suspect = bool(rules.suspects) and fold(pair.present.stored) in rules.suspects
    touched = not same_time(pair)
    if known.size != item.file.size and rules.altered and fold(pair.present.stored) in rules.altered:
        plan.altered.append(pair)
    elif known.size != item.file.size and (rewritten or not doubtful):
        (plan.rewritten if rewritten else plan.changed).append(pair)
    elif rewritten and touched:
        plan.rewritten.append(pair)
    elif touched or rules.mode is not Mode.QUICK or doubtful or suspect:
        plan.compare.append(pair)
    else:
        _same(plan, pair)


def same_time(pair: Pair) -> bool:
    """Whether both have one time; of a file whose server's time nobody remembers, as far as exFAT can tell."""
    server, known = pair.item.file.mtime_ns, pair.present.known
    return known.mtime_ns == server or (known.guessed and times_agree(server, known.mtime_ns))


def _same(plan: FolderPlan, pair: Pair) -> None:
    plan.unchanged += 1
    plan.unchanged_bytes += pair.item.file.size
    note = settled(pair)
    if note.path != pair.present.path:
        plan.notes.append(Change(pair.present.path, None))
    known = pair.present.known._replace(inode=pair.item.file.inode)
    if note != Change(pair.present.path, known):
        plan.notes.append(note)
    elif known != pair.present.known:
        plan.inodes.append(note)


def below(known: Lookup, path: bytes) -> Iterator[Present]:
    """Everything that the manifest has below one folder of the server's."""
    waiting = [path]
    while waiting:
        folder = known(waiting.pop())
        if folder is None:
            continue
        for name, file in folder.files.items():
            yield Present(_join(folder.path, name), _join(folder.stored_path, file.stored), file)
        waiting += [_join(folder.path, name) for name in folder.folders]


def settled(pair: Pair, *, digest: bytes = b"", proven: int = 0) -> Change:
    """The manifest's line for a file that lies on the disk as it is on the server."""
    known, item = pair.present.known, pair.item
    return Change(
        item.path,
        Known(
            item.path.rpartition(b"/")[2],
            pair.present.stored.rpartition(b"/")[2],
            item.file.size,
            item.file.mtime_ns,
            item.file.inode,
            digest or known.digest,
            proven or known.proven,
        ),
    )


def _join(folder: bytes, name: bytes) -> bytes:
    if not folder:
        return name
    return folder + b"/" + name if name else folder
