"""The restore of the files, from top to bottom."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain

from immich_usb_backup.adapters.tree import Opener, open_file
from immich_usb_backup.errors import BackupError, BackupUnreadable
from immich_usb_backup.policy.placing import placeable
from immich_usb_backup.policy.restore import FOLDERS, IMMICH_MARK, Item, Kind, Tally, Trouble
from immich_usb_backup.restore.dumps import Chosen
from immich_usb_backup.restore.files import Looking, Restoring, Ways
from immich_usb_backup.restore.listing import Part
from immich_usb_backup.restore.preparing import Place, Prepared, Wish, dump_item
from immich_usb_backup.restore.source import Source
from immich_usb_backup.restore.target import NotPlaced, Target

_BACKUPS = Part(b"database", b"backups")
_PRIVATE = 0o600
_MARK_BYTES = 64


def restore_files(prepared: Prepared, wish: Wish, tally: Tally, ways: Ways) -> None:
    """Write everything that is not there yet; ``tally`` grows meanwhile, so that it tells also of a restore that is
    stopped. Immich's marks come last: without them it does not start on half a library. Raises ``BackupUnreadable``,
    ``RestoreTargetFull``, ``RestoreTargetUnusable``, ``StateDamaged``."""
    for number, place in enumerate(prepared.places):
        with _target(place, wish) as target:
            files = _Files(prepared.source, target, tally, ways)
            for part in place.parts:
                files.restore(part, prepared.items(part, ways.beat))
            if number == 0:
                _absent(prepared, target, tally, ways)
                _dump(files, prepared.dump)
            if target and not ways.dry_run:
                target.flush(target.fd)
    if not ways.dry_run:
        with _target(prepared.places[0], wish) as target:
            if target:
                _marks(prepared.source, target, tally)


@contextmanager
def _target(place: Place, wish: Wish) -> Iterator[Target | None]:
    """The folder that is restored to; None where a dry run does not make it."""
    if wish.dry_run and not os.path.lexists(place.path):
        yield None
        return
    target = Target(place.path, owner=wish.owner, modes=wish.modes, make=not wish.dry_run)
    try:
        yield target
    finally:
        target.close()


def _absent(prepared: Prepared, target: Target | None, tally: Tally, ways: Ways) -> None:
    """What the dump's database looks for in vain. Another disk may have brought it before."""
    for path in prepared.absent():
        ways.beat()
        try:
            there = target is not None and placeable(path) and target.look(path) is not None
        except NotPlaced:
            there = False
        if not there:
            tally.note(Trouble(Kind.ABSENT, path))


def _dump(files: _Files, dump: Chosen) -> None:
    """Closed to others: it has all of Immich's secrets in it."""
    if dump.name:
        files.restore(_BACKUPS, (dump_item(dump),), mode=_PRIVATE)


@dataclass(frozen=True, slots=True)
class _Files:
    """Restores folder by folder to one place; None where a dry run does not make it."""

    source: Source
    target: Target | None
    tally: Tally
    ways: Ways

    def restore(self, part: Part, items: Iterable[Item | Trouble], *, mode: int | None = None) -> None:
        """Those of the items that are not there yet."""
        wanted = _wanted(items, Looking(self.source, self.target, self.tally, self.ways), self.tally)
        if self.target is None or self.ways.dry_run:
            for item in wanted:
                _pretend(item, self.tally)
        elif (first := next(wanted, None)) is not None:
            self._write(self.target, part, chain((first,), wanted), mode)

    def _write(self, target: Target, part: Part, wanted: Iterable[Item], mode: int | None) -> None:
        try:
            staging = target.staging(part.goal)
        except NotPlaced as error:
            for item in wanted:
                self.tally.note(Trouble(Kind.NOT_WRITTEN, item.shown, str(error)))
            return
        try:
            with staging, Opener(self.source.fd) as opener, ThreadPoolExecutor(1) as beside:
                self._copy(Restoring(self.source, target, staging, opener, beside, self.tally, self.ways, mode), wanted)
                target.flush(staging.fd)
        finally:
            with suppress(NotPlaced, BackupError):  # the next restore removes it
                target.unstage(part.goal)

    def _copy(self, work: Restoring, wanted: Iterable[Item]) -> None:
        try:
            for item in wanted:
                work.add(item)
        except BackupUnreadable:
            work.finish()  # what was read until then is whole
            raise
        work.finish()


def _wanted(items: Iterable[Item | Trouble], looking: Looking, tally: Tally) -> Iterator[Item]:
    for item in items:
        if isinstance(item, Trouble):
            tally.note(item)
        elif looking.wanted(item):
            yield item


def _pretend(item: Item, tally: Tally) -> None:
    if item.link is not None:
        tally.links += 1
    else:
        tally.files += 1
        tally.size += item.size
        tally.moved += item.moved


def _marks(source: Source, target: Target, tally: Tally) -> None:
    for name in FOLDERS:
        path = os.fsencode(f"{name}/{IMMICH_MARK}")
        try:
            if target.look(path) is None:
                target.put(path, _mark(source, path))
        except NotPlaced as error:
            tally.note(Trouble(Kind.IN_THE_WAY, path, str(error)))
    target.flush(target.fd)


def _mark(source: Source, path: bytes) -> bytes:
    """As the disk has it, else as Immich writes one: a time in milliseconds, which means nothing to it."""
    with suppress(OSError), open_file(source.fd, path) as file:
        content = file.read(_MARK_BYTES)
        if content.strip().isdigit():
            return content
    return b"%d" % (time.time_ns() // 1_000_000)
