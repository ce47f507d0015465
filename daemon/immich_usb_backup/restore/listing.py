"""What there is to restore: the disk's folders, held against the manifest. One folder at a time is in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from immich_usb_backup.adapters.manifest_temporary import TemporaryManifest
from immich_usb_backup.adapters.walk import join, walk
from immich_usb_backup.model import TEMPORARY
from immich_usb_backup.policy.manifest import Folder, Known, KnownFolder, SourceFile
from immich_usb_backup.policy.names import claims
from immich_usb_backup.policy.restore import IMMICH_MARK, Item, Kind, Trouble, looks_renamed
from immich_usb_backup.restore.source import Source

_NOTHING: Mapping[bytes, Known] = {}
_CHANGED = "its size on the disk is {} bytes, not {}"


class Part(NamedTuple):
    """A folder of the backup, such as ``upload`` or ``extra/pictures``, and where it goes below the place that is restored to
    (empty: there itself)."""

    folder: bytes
    goal: bytes


class _Step(NamedTuple):
    """A folder that is to be looked at: where it goes, its path on the server and on the disk (None: it is not there).
    ``lost`` is why it, or one above it, cannot be read."""

    goal: bytes
    shown: bytes
    stored: bytes | None
    known: bool
    lost: str = ""


def contents(
    source: Source, manifest: TemporaryManifest | None, part: Part, beat: Callable[[], None]
) -> Iterator[Item | Trouble]:
    """Everything in one part, folder by folder; no marks of Immich's. Raises ``BackupUnreadable``, ``StateDamaged``."""
    yield from _Listing(source, manifest, beat).items(part)


class _Listing:
    """One walk over a part."""

    def __init__(self, source: Source, manifest: TemporaryManifest | None, beat: Callable[[], None]) -> None:
        self._source = source
        self._manifest = manifest
        self._beat = beat
        self._in_doubt = source.in_doubt()

    def items(self, part: Part) -> Iterator[Item | Trouble]:
        """Files, links and troubles of each folder, then those of the folders in it."""
        waiting = [_Step(part.goal, part.folder, part.folder, known=True)]
        while waiting:
            step = waiting.pop()
            known = self._manifest.folder(step.shown) if self._manifest and step.known else None
            found, lost = self._read(step, top=step.shown == part.folder)
            if lost:
                step = step._replace(stored=None, lost=lost)
                yield Trouble(Kind.UNREADABLE, step.shown + b"/", lost)
            yield from self._in_folder(step, found, known)
            waiting += reversed(list(_below(step, found, known)))
            yield from self._renamed_folders(step, found, known)

    def _read(self, step: _Step, *, top: bool) -> tuple[Folder, str]:
        """One folder of the disk, and why it cannot be read. What a backup keeps for itself in the topmost one is passed over."""
        skip = TEMPORARY.encode() if top else None
        try:
            if step.stored is not None:
                return next(walk(self._source.fd, step.stored, beat=self._beat, skip=skip)), ""
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            self._source.failed(error)
            return Folder(b""), error.strerror or "it cannot be read"
        return Folder(b""), ""

    def _in_folder(self, step: _Step, found: Folder, known: KnownFolder | None) -> Iterator[Item | Trouble]:
        mark = b"" if b"/" in step.shown else IMMICH_MARK.encode()
        files = {name: file for name, file in found.files.items() if name != mark}
        other_case = _Lenient(files)
        for name, file in (known.files if known else _NOTHING).items():
            self._beat()
            if name == mark:
                continue
            if file.link is not None:
                yield Item(*_paths(step, name, b""), 0, file.mtime_ns, link=file.link)
            elif (stored := other_case.take(file.stored)) is None:
                kind = Kind.UNREADABLE if step.lost else Kind.MISSING
                yield Trouble(kind, join(step.shown, name), step.lost)
            else:
                yield from self._known(step, file, stored, files[stored])
        for name in other_case.left():
            if known and name in known.files:
                yield Trouble(Kind.IN_THE_WAY, join(step.shown, name), "the backup has another file of this name")
            else:
                yield from self._unknown(step, name, files[name])
        yield from _odd(step, found)

    def _known(self, step: _Step, file: Known, stored: bytes, facts: SourceFile) -> Iterator[Item | Trouble]:
        same = facts.size == file.size
        item = Item(
            *_paths(step, file.name, stored),
            facts.size,
            file.mtime_ns if same else facts.mtime_ns,
            file.digest,
        )
        yield item
        if not same and not file.digest:
            yield Trouble(Kind.DAMAGED, item.shown, _CHANGED.format(facts.size, file.size))
        elif not file.digest:
            yield from self._doubt(item)
        if file.guessed and looks_renamed(file.name):
            yield Trouble(Kind.OTHER_NAME, item.shown)

    def _unknown(self, step: _Step, name: bytes, facts: SourceFile) -> Iterator[Item | Trouble]:
        item = Item(*_paths(step, name, name), facts.size, facts.mtime_ns)
        yield item
        yield from self._doubt(item)
        if looks_renamed(name):
            yield Trouble(Kind.OTHER_NAME, item.shown)

    def _doubt(self, item: Item) -> Iterator[Trouble]:
        if self._in_doubt is None or item.source in self._in_doubt:
            yield Trouble(Kind.IN_DOUBT, item.shown)

    def _renamed_folders(self, step: _Step, found: Folder, known: KnownFolder | None) -> Iterator[Trouble]:
        expected = set(known.folders.values()) if known else set()
        for name in found.folders:
            if name not in expected and looks_renamed(name):
                yield Trouble(Kind.OTHER_NAME, join(step.shown, name) + b"/")


def _paths(step: _Step, name: bytes, stored: bytes) -> tuple[bytes, bytes, bytes]:
    return join(step.goal, name), join(step.shown, name), join(step.stored or b"", stored) if stored else b""


def _below(step: _Step, found: Folder, known: KnownFolder | None) -> Iterator[_Step]:
    """The folders in a folder: those of the manifest, whether they are on the disk or not, and those that it has not."""
    folders = _Lenient(dict.fromkeys(found.folders))
    for name, wanted in (known.folders if known else {}).items():
        stored = folders.take(wanted)
        yield _step(step, name, stored, known=True)
    for name in folders.left():
        yield _step(step, name, name, known=False)


def _step(above: _Step, name: bytes, stored: bytes | None, *, known: bool) -> _Step:
    path = None if stored is None or above.stored is None else join(above.stored, stored)
    return _Step(join(above.goal, name), join(above.shown, name), path, known, above.lost)


def _odd(step: _Step, found: Folder) -> Iterator[Trouble]:
    for name in found.links:
        yield Trouble(Kind.NOT_A_FILE, join(step.shown, name), "it is a link")
    for name, kind in found.others:
        yield Trouble(Kind.NOT_A_FILE, join(step.shown, name), f"it is a {kind}")
    for name, reason in found.unreadable:
        yield Trouble(Kind.UNREADABLE, join(step.shown, name), reason)


class _Lenient:
    """Names of one folder of the disk. A copy of it made on another system may spell them in another case, or with other
    accents."""

    def __init__(self, names: Mapping[bytes, object]) -> None:
        self._left = dict.fromkeys(names)
        self._claimed: dict[str, bytes] | None = None

    def take(self, name: bytes) -> bytes | None:
        """The name that this one has here, once; None where there is none."""
        if name in self._left:
            del self._left[name]
            return name
        if self._claimed is None:
            self._claimed = {claim: here for here in self._left for claim in claims(here)}
        other = next((self._claimed[claim] for claim in claims(name) if claim in self._claimed), None)
        if other is None or other not in self._left:
            return None
        del self._left[other]
        return other

    def left(self) -> tuple[bytes, ...]:
        """Those that were not taken."""
        return tuple(self._left)
