"""What a walk over the disk says about its manifest: what is missing, what is another, what nobody knows of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field

from immich_usb_backup.policy.manifest import Change, Folder, FolderName, Known, KnownFolder, SourceFile
from immich_usb_backup.policy.names import fold
from immich_usb_backup.policy.times import times_agree

Lookup = Callable[[bytes], KnownFolder | None]


@dataclass(slots=True)
class Walked:
    """What differs. ``changes`` make the manifest true. ``altered`` have another size or time than the manifest says;
    ``unknown`` are not in it. Paths are the disk's, from the backup folder on. ``files`` were met."""

    changes: list[Change | FolderName] = field(default_factory=list)
    missing: list[bytes] = field(default_factory=list)
    altered: list[bytes] = field(default_factory=list)
    unknown: int = 0
    files: int = 0
    unreadable: list[tuple[bytes, str]] = field(default_factory=list)

    def add(self, other: Walked) -> None:
        """Take another walk's results in."""
        self.changes += other.changes
        self.missing += other.missing
        self.altered += other.altered
        self.unknown += other.unknown
        self.files += other.files
        self.unreadable += other.unreadable


def reconcile(root: bytes, folders: Iterable[Folder], stored: Lookup) -> Walked:
    """Hold the disk's ``folders`` below ``root`` against the manifest. ``stored`` looks folders up by the disk's path."""
    walk = _Walk(stored)
    met = False
    for folder in folders:
        met = True
        walk.add(_join(root, folder.path), folder)
    if not met:
        walk.drop(root)
    return walk.found


class _Walk:
    """The state of one walk. ``_names`` has the server's paths of folders that the manifest does not know; ``_places`` the
    manifest's paths of those that are spelt in another case on the disk."""

    def __init__(self, stored: Lookup) -> None:
        self.found = Walked()
        self._stored = stored
        self._names: dict[bytes, bytes] = {}
        self._places: dict[bytes, bytes] = {}

    def add(self, path: bytes, folder: Folder) -> None:
        """One folder; ``path`` is the disk's."""
        place = self._places.pop(path, path)
        server = self._names.pop(path, None)
        known = (self._stored(place) if server is None else None) or KnownFolder(server or place, place)
        if folder.unreadable:
            self.found.unreadable += [(_join(path, name), reason) for name, reason in folder.unreadable]
            if any(name == b"" for name, _ in folder.unreadable):
                return
        _OneFolder(self.found, folder, known, path).files()
        self._folders(path, folder, known)

    def _folders(self, path: bytes, folder: Folder, known: KnownFolder) -> None:
        names = {stored: name for name, stored in known.folders.items()}
        met = _spelt(folder.folders, names)
        taken = {*known.files, *known.folders}
        for name in folder.folders:
            if name not in met:
                key = _free(name, taken)
                self._names[_join(path, name)] = _join(known.path, key)
                if key != name:
                    self.found.changes.append(FolderName(_join(known.path, key), name))
                continue
            if (place := _join(known.stored_path, met[name])) != _join(path, name):
                self._places[_join(path, name)] = place
            if met[name] != name:
                self.found.changes.append(FolderName(_join(known.path, names[met[name]]), name))
        there = {*met.values(), *(name for name, _ in folder.unreadable)}
        for stored in names:
            if stored not in there:
                self.drop(_join(known.stored_path, stored))

    def drop(self, path: bytes) -> None:
        """A folder is not on the disk any more."""
        for change, stored in _below(self._stored, path):
            self.found.missing.append(stored)
            self.found.changes.append(change)


class _OneFolder:
    """The files of one folder of the disk's; ``path`` is as it is spelt there."""

    def __init__(self, found: Walked, folder: Folder, known: KnownFolder, path: bytes) -> None:
        self._found = found
        self._folder = folder
        self._known = known
        self._path = path

    def files(self) -> None:
        """Hold each against the manifest."""
        found, folder = self._found, self._folder
        files = {k.stored: k for k in self._known.files.values() if k.link is None}
        met = _spelt(folder.files, files)
        taken = {*self._known.files, *self._known.folders} if len(met) < len(folder.files) else set()
        found.files += len(folder.files)
        for name, file in folder.files.items():
            if name in met:
                self._compare(name, file, files.pop(met[name]))
            else:
                self._unknown(name, file, _free(name, taken))
        unreadable = {name for name, _ in folder.unreadable}
        for name, lost in files.items():
            if name not in unreadable:
                found.missing.append(_join(self._path, name))
                found.changes.append(Change(_join(self._known.path, lost.name), None))

    def _unknown(self, name: bytes, file: SourceFile, key: bytes) -> None:
        self._found.unknown += 1
        guess = Known(key, name, file.size, file.mtime_ns, guessed=True)
        self._found.changes.append(Change(_join(self._known.path, key), guess))

    def _compare(self, name: bytes, file: SourceFile, known: Known) -> None:
        now = known._replace(stored=name)
        if known.size != file.size or not times_agree(known.mtime_ns, file.mtime_ns):
            self._found.altered.append(_join(self._path, name))
            now = now._replace(size=file.size, mtime_ns=file.mtime_ns, inode=0, proven=0)
        if now != known:
            self._found.changes.append(Change(_join(self._known.path, known.name), now))


def _spelt(names: Collection[bytes], stored: Collection[bytes]) -> dict[bytes, bytes]:
    """Those of the disk's ``names`` that the manifest knows, with its spelling: exFAT takes every case for the same."""
    met = {name: name for name in names if name in stored}
    if len(met) < len(names) and len(met) < len(stored):
        others = {fold(name): name for name in stored if name not in met}
        met.update((name, others[fold(name)]) for name in names if name not in met and fold(name) in others)
    return met


def _free(name: bytes, taken: set[bytes]) -> bytes:
    """A name on the server for what nobody knows, that nothing else has."""
    while name in taken:
        name += b"~"
    taken.add(name)
    return name


def _below(lookup: Lookup, path: bytes) -> Iterator[tuple[Change, bytes]]:
    waiting = [path]
    while waiting:
        folder = lookup(waiting.pop())
        if folder is None:
            continue
        for known in folder.files.values():
            if known.link is None:
                yield Change(_join(folder.path, known.name), None), _join(folder.stored_path, known.stored)
        waiting += [_join(folder.stored_path, stored) for stored in folder.folders.values()]


def _join(folder: bytes, name: bytes) -> bytes:
    if not folder:
        return name
    return folder + b"/" + name if name else folder
