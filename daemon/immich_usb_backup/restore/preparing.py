"""Before anything is written: what is on the disk, what of it is wanted, whether there is room. Only reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from immich_usb_backup.adapters.manifest_temporary import TemporaryManifest
from immich_usb_backup.adapters.placing import Placing
from immich_usb_backup.errors import (
    DumpUnusable,
    ManifestUnusable,
    NoBackupHere,
    RestoreTargetFull,
    RestoreTargetUnusable,
    SourceUnreadable,
    StateDamaged,
)
from immich_usb_backup.policy.disk_state import DiskState
from immich_usb_backup.policy.restore import ORIGINALS, Item, Modes, Owner, Tally, Trouble
from immich_usb_backup.policy.text import counted, printable, size
from immich_usb_backup.restore.dumps import FOLDER, Chosen, choose
from immich_usb_backup.restore.files import Looking, Ways
from immich_usb_backup.restore.listing import Part, contents
from immich_usb_backup.restore.placing import look
from immich_usb_backup.restore.source import Source
from immich_usb_backup.restore.target import Target

EXTRA = "extra"
_BLOCK = 4096
_ROOM_BESIDE = 16 * 1024 * 1024
_NEWER = (
    "Install the newest version of immich-usb-backup and start again. Or restore without the server's names of what has "
    "another on the disk: --by-disk-names"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked for. ``extras`` are places for folders in ``extra/``, by their names; ``dump`` is empty for the newest
    one that is whole. ``by_dump``: photos go where its database looks for them."""

    source: Path
    to: Path
    extras: Mapping[str, Path] = field(default_factory=dict)
    dump: str = ""
    owner: Owner = field(default_factory=Owner)
    modes: Modes = field(default_factory=Modes)
    overwrite: bool = False
    compare: bool = False
    dry_run: bool = False
    by_disk_names: bool = False
    by_dump: bool = True


@dataclass(frozen=True, slots=True)
class Place:
    """A folder that is restored to, with what belongs there."""

    path: Path
    parts: tuple[Part, ...]


@dataclass(slots=True)
class Prepared:
    """A restore that can begin. ``files`` and ``size`` (bytes) are what is to be written, at most. ``moved`` photos lie elsewhere than the
    dump has them; ``placing_problem`` is why that is not known. To be closed."""

    source: Source
    manifest: TemporaryManifest | None
    manifest_problem: str
    state: DiskState | None
    places: tuple[Place, ...]
    dump: Chosen
    by_dump: bool
    files: int = 0
    size: int = 0
    moved: int = 0
    placing: Placing | None = None
    placing_problem: str = ""

    def close(self) -> None:
        """Let the disk be unmounted."""
        if self.placing:
            self.placing.close()
        if self.manifest:
            self.manifest.close()
        self.source.close()

    def items(self, part: Part, beat: Callable[[], None]) -> Iterator[Item | Trouble]:
        """What is in one part, or belongs there. Of what comes from other parts the troubles are told there."""
        found = contents(self.source, self.manifest, part, beat)
        placing = self.placing if self.by_dump and self.moved else None
        return found if placing is None else self._placed(found, part, placing, beat)

    def _placed(
        self, found: Iterator[Item | Trouble], part: Part, placing: Placing, beat: Callable[[], None]
    ) -> Iterator[Item | Trouble]:
        for one in found:
            if isinstance(one, Item):
                yield from placing.placed(one, part.folder, own=True)
            else:
                yield one
        for origin in placing.origins(part.folder):
            for one in contents(self.source, self.manifest, Part(origin, origin), beat):
                if isinstance(one, Item):
                    yield from placing.placed(one, part.folder, own=False)

    def absent(self) -> Iterator[bytes]:
        """The photos that the dump's database would look for in vain."""
        return self.placing.absent() if self.placing and self.by_dump else iter(())


def dump_item(dump: Chosen) -> Item:
    """The dump's way into Immich's own folder."""
    path = os.fsencode(f"{FOLDER}/{dump.name}")
    return Item(os.fsencode(f"backups/{dump.name}"), path, path, dump.size, dump.mtime_ns)


def prepare(wish: Wish, beat: Callable[[], None]) -> Prepared:
    """Read the disk's lists, choose the dump, count, and look for room. Raises ``NoBackupHere``, ``ManifestUnusable`` for a
    newer one, ``DumpUnusable``, ``RestoreTargetUnusable``, ``RestoreTargetFull``, ``BackupUnreadable``, ``StateDamaged``."""
    with ExitStack() as undo:
        source = Source(wish.source)
        undo.callback(source.close)
        places = _places(wish, source)
        _refuse_nested(source, places)
        manifest, problem = _manifest(source, wish, beat)
        if manifest:
            undo.callback(manifest.close)
        dump = choose(source, wish.dump, beat)
        prepared = Prepared(source, manifest, problem, source.state(), places, dump, wish.by_dump)
        _look_for_photos(prepared, wish, beat)
        if prepared.placing:
            undo.callback(prepared.placing.close)
        _count(prepared, wish, beat)
        undo.pop_all()
        return prepared


def _manifest(source: Source, wish: Wish, beat: Callable[[], None]) -> tuple[TemporaryManifest | None, str]:
    """The manifest, or why there is none."""
    if wish.by_disk_names:
        return None, "you asked for the disk's names (--by-disk-names)"
    try:
        found = source.manifest(beat)
    except ManifestUnusable as error:
        if error.newer:
            raise ManifestUnusable(error.message, newer=True, hint=_NEWER) from error
        return None, error.message
    return found, "" if found else "there is none on the disk"


def _look_for_photos(prepared: Prepared, wish: Wish, beat: Callable[[], None]) -> None:
    """Hold the dump's photos against the backup. Where that cannot be, the files are restored all the same."""
    if not prepared.dump.name or prepared.manifest is None:
        return
    try:
        prepared.placing = look(prepared.source, prepared.manifest, prepared.dump, wish.to, beat)
        prepared.moved = prepared.placing.photos()
    except (DumpUnusable, SourceUnreadable, StateDamaged) as error:
        prepared.placing_problem = f"{error.message}. {error.hint}".removesuffix(". ")


def _places(wish: Wish, source: Source) -> tuple[Place, ...]:
    here = set(source.names("", folders=True))
    parts = tuple(Part(os.fsencode(name), os.fsencode(name)) for name in ORIGINALS)
    if not here.intersection(ORIGINALS):
        raise NoBackupHere(f"There are no photos in {source.folder}: none of {', '.join(ORIGINALS)} is there")
    extras = source.names(EXTRA, folders=True)
    for name in wish.extras:
        if name not in extras:
            there = ", ".join(map(printable, extras)) or "none"
            raise NoBackupHere(f"There is no extra folder '{printable(name)}' on the disk", hint=f"There are: {there}")
    more = (Place(path, (Part(os.fsencode(f"{EXTRA}/{name}"), b""),)) for name, path in wish.extras.items())
    return (Place(wish.to, parts), *more)


def _refuse_nested(source: Source, places: tuple[Place, ...]) -> None:
    """A restore into the backup would write on the disk that it must only read."""
    backup = source.folder.resolve()
    for place in places:
        path = place.path.resolve()
        if path.is_relative_to(backup) or backup.is_relative_to(path):
            raise RestoreTargetUnusable(
                f"{place.path} and the backup lie one in the other", hint="Restore to a place outside the backup."
            )


def _count(prepared: Prepared, wish: Wish, beat: Callable[[], None]) -> None:
    """Add up what is to be written, and look for room on each file system."""
    needed: dict[int, tuple[Path, int, int]] = {}
    for place in prepared.places:
        files, total, room = _sizes(prepared, place, wish, beat)
        prepared.files += files
        prepared.size += total
        there = place.path if place.path.exists() else place.path.absolute().parent
        device = _device(there)
        _, files_before, room_before = needed.get(device, (there, 0, 0))
        needed[device] = (there, files_before + files, room_before + room)
    for there, files, room in needed.values():
        _look_for_room(there, files, room)


def _sizes(prepared: Prepared, place: Place, wish: Wish, beat: Callable[[], None]) -> tuple[int, int, int]:
    """How many files are to be written to a place, their bytes, and those in whole blocks."""
    ways = Ways(overwrite=wish.overwrite, beat=beat)
    with ExitStack() as closing:
        looking = Looking(prepared.source, _existing(place.path, closing), Tally(), ways)
        files = total = room = 0
        for item in filter(looking.seems_wanted, _items(prepared, place, beat)):
            files += 1
            total += item.size
            room += -(-item.size // _BLOCK) * _BLOCK
    return files, total, room


def _items(prepared: Prepared, place: Place, beat: Callable[[], None]) -> Iterator[Item]:
    """The files of a place; the dump is the first one's."""
    for part in place.parts:
        found = prepared.items(part, beat)
        yield from (item for item in found if isinstance(item, Item) and item.link is None)
    if prepared.dump.name and place is prepared.places[0]:
        yield dump_item(prepared.dump)


def _existing(path: Path, closing: ExitStack) -> Target | None:
    if not os.path.lexists(path):
        return None
    target = Target(path, owner=Owner(), modes=Modes(), make=False)
    closing.callback(target.close)
    return target


def _device(there: Path) -> int:
    try:
        return there.stat().st_dev
    except OSError as error:
        hint = f"Is it mounted, and written as you meant? Else: mkdir -p '{there}'"
        raise RestoreTargetUnusable(f"{there} cannot be restored to: {error.strerror}", hint=hint) from error


def _look_for_room(there: Path, files: int, room: int) -> None:
    facts = os.statvfs(there)
    free = facts.f_bavail * facts.f_frsize
    if files and room + _ROOM_BESIDE > free:
        message = f"There is not enough room at {there}: {size(room + _ROOM_BESIDE)} are needed, {size(free)} are free"
        raise RestoreTargetFull(message)
    if facts.f_files and files > facts.f_favail:
        message = (
            f"There is no room for {counted(files, 'file')} at {there}: the file system takes {facts.f_favail:,} more"
        )
        raise RestoreTargetFull(message)
