"""Restoring files: copied, written out, read back and compared, and only then given their names.

That goes in batches: writing out once for many files is what makes a million small ones bearable. While one batch is written
out and read back the next is copied.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import FileIO
from typing import NamedTuple

from immich_usb_backup.adapters.digests import sha1s
from immich_usb_backup.adapters.tree import Descriptor, Opener
from immich_usb_backup.policy.restore import Item, Kind, Tally, Trouble, leads_out
from immich_usb_backup.restore.source import Source
from immich_usb_backup.restore.target import NotPlaced, Target

BATCH_FILES = 500
BATCH_BYTES = 256 * 1024 * 1024
"""A batch ends with the file that reaches one of these; there are two at a time."""

_CHUNK = 1 << 20
_GROWN = "it changed while it was read"
_READ_BACK = "what was read back is not what was written"


Digests = Mapping[bytes, bytes | str | None]


class Unreadable(Exception):
    """One file of the disk cannot be read; the others may be."""


class _Staged(NamedTuple):
    """A file that waits in the staging folder. ``digest`` is of what was read."""

    name: bytes
    item: Item
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """How to restore. ``overwrite`` replaces other files; ``compare`` also looks into those that have the right size and
    time; ``dry_run`` writes nothing. ``beat`` is called at each small step, ``count`` with bytes that were read and files that were written."""

    overwrite: bool = False
    compare: bool = False
    dry_run: bool = False
    beat: Callable[[], None] = lambda: None
    count: Callable[[int, int], None] = lambda _bytes, _files: None


class Looking:
    """Says what is to be done about an item; reads both sides, and writes nothing."""

    def __init__(self, source: Source, target: Target | None, tally: Tally, ways: Ways) -> None:
        self._source = source
        self._target = target
        self._tally = tally
        self._ways = ways

    def wanted(self, item: Item) -> bool:
        """Whether it is to be written. What is there already, or in the way, is kept count of."""
        self._ways.beat()
        try:
            facts = self._target.look(item.goal) if self._target else None
            if facts is None:
                return True
            state = self._link(item) if item.link is not None else self._file(item, facts)
        except NotPlaced as error:
            self._tally.note(Trouble(Kind.IN_THE_WAY, item.shown, str(error)))
            return False
        except Unreadable as error:
            self._tally.note(Trouble(Kind.UNREADABLE, item.shown, str(error)))
            return False
        return self._judge(item, state)

    def seems_wanted(self, item: Item) -> bool:
        """The same at a glance, for counting: no file is read, and nothing is noted."""
        self._ways.beat()
        try:
            facts = self._target.look(item.goal) if self._target else None
        except NotPlaced:
            return False
        if facts is None:
            return True
        differs = facts.st_size != item.size or facts.st_mtime_ns != item.mtime_ns
        return self._ways.overwrite and item.link is None and _is_plain(facts) and differs

    def _judge(self, item: Item, state: Kind | None) -> bool:
        if state is None:
            self._tally.there += 1
            return False
        if state is Kind.OTHER_CONTENT and self._ways.overwrite:
            return True
        self._tally.note(Trouble(state, item.shown))
        return False

    def _link(self, item: Item) -> Kind | None:
        assert self._target is not None
        try:
            return None if self._target.read_link(item.goal) == item.link else Kind.IN_THE_WAY
        except NotPlaced:
            return Kind.IN_THE_WAY

    def _file(self, item: Item, facts: os.stat_result) -> Kind | None:
        if not _is_plain(facts):
            return Kind.IN_THE_WAY
        if facts.st_size != item.size:
            return Kind.OTHER_CONTENT
        if facts.st_mtime_ns == item.mtime_ns and not self._ways.compare:
            return None
        return None if self._same_content(item) else Kind.OTHER_CONTENT

    def _same_content(self, item: Item) -> bool:
        assert self._target is not None
        ours = _sha1(self._target.fd, item.goal, self._ways)
        return ours == (item.digest or self._sha1_of_source(item))

    def _sha1_of_source(self, item: Item) -> bytes:
        try:
            found = _sha1(self._source.fd, item.source, self._ways, fatal=self._fatal)
        except OSError as error:
            self._source.failed(error)
            raise Unreadable(error.strerror or "it cannot be read") from error
        if not isinstance(found, bytes):
            raise Unreadable(found or "it is not there")
        return found

    def _fatal(self, error: OSError) -> bool:
        self._source.failed(error)
        return False


def _is_plain(facts: os.stat_result) -> bool:
    return (facts.st_mode & 0o170000) == 0o100000


def _sha1(
    root: int, path: bytes, ways: Ways, *, fatal: Callable[[OSError], bool] = lambda _: False
) -> bytes | str | None:
    return sha1s(root, (path,), beat=ways.beat, count=lambda _: None, fatal=fatal)[path]


@dataclass(slots=True)
class Restoring:
    """Writes the items of one folder of the target. ``staging`` is on its file system; ``mode`` other permissions than its
    files have as a rule."""

    source: Source
    target: Target
    staging: Descriptor
    opener: Opener
    beside: Executor
    tally: Tally
    ways: Ways
    mode: int | None = None
    number: int = 0
    size: int = 0
    batch: list[_Staged] = field(default_factory=list)
    in_check: list[_Staged] = field(default_factory=list)
    check: Future[Digests] | None = None
    buffer: bytearray = field(default_factory=lambda: bytearray(_CHUNK))

    def add(self, item: Item) -> None:
        """Restore it now or with the batch. Raises ``BackupUnreadable``, ``RestoreTargetFull``, ``RestoreTargetUnusable``."""
        self.ways.beat()
        try:
            if item.link is not None:
                self._link(item, item.link)
            else:
                self._stage(item)
        except NotPlaced as error:
            self.tally.note(Trouble(Kind.NOT_WRITTEN, item.shown, str(error)))
        except Unreadable as error:
            self.tally.note(Trouble(Kind.UNREADABLE, item.shown, str(error)))
        if len(self.batch) >= BATCH_FILES or self.size >= BATCH_BYTES:
            self._hand_over()

    def finish(self) -> None:
        """Bring to an end what was added."""
        self._hand_over()
        self._hand_over()

    def _hand_over(self) -> None:
        """Have the batch written out and read back beside the copying of the next; the one before it gets its names."""
        if self.check is not None:
            self._name(self.in_check, self.check.result())
        self.in_check, self.batch, self.size = self.batch, [], 0
        names = [staged.name for staged in self.in_check]
        self.check = self.beside.submit(self._written, names) if names else None

    def _written(self, names: list[bytes]) -> Digests:
        """Write out, and read back past the page cache. In a thread of its own: it touches nothing but the staging folder."""
        self.target.flush(self.staging.fd)
        return sha1s(self.staging.fd, names, beat=self.ways.beat, count=lambda _: None, from_medium=True)

    def _link(self, item: Item, link: bytes) -> None:
        self.target.link(item.goal, link)
        self.tally.links += 1
        if leads_out(item.goal, link):
            self.tally.note(Trouble(Kind.LINK_OUT, item.shown, f"to {link.decode('utf-8', 'backslashreplace')}"))

    def _stage(self, item: Item) -> None:
        name = b"%d" % self.number
        self.number += 1
        with _reading(self.source):
            original = self.opener.open(item.source)
        with original, self._created(name) as copy:
            digest = self._transfer(original, copy, item.size)
            with self.target.writing(one_file=True):
                _set_time(copy.fileno(), item.mtime_ns)
        if self.ways.overwrite and item.digest not in (b"", digest) and self.target.look(item.goal):
            self._drop(name)
            self.tally.note(Trouble(Kind.OTHER_CONTENT, item.shown, "kept: the disk's copy is damaged"))
            return
        self.source.worked()
        self.batch.append(_Staged(name, item, digest))
        self.size += item.size

    @contextmanager
    def _created(self, name: bytes) -> Iterator[FileIO]:
        """An empty file in the staging folder, which goes where it cannot be filled."""
        with self.target.writing(one_file=True):
            fd = self.target.create(self.staging.fd, name, mode=self.mode)
        try:
            with FileIO(fd, "wb") as copy:
                yield copy
        except BaseException:
            self._drop(name)
            raise

    def _drop(self, name: bytes) -> None:
        with suppress(OSError):  # the next restore clears it
            os.unlink(name, dir_fd=self.staging.fd)

    def _transfer(self, original: FileIO, copy: FileIO, size: int) -> bytes:
        """Copy to the end, and return the SHA-1. Raises ``Unreadable`` where that is not at ``size``, ``NotPlaced``."""
        digest, view, left = hashlib.sha1(usedforsecurity=False), memoryview(self.buffer), size
        while length := self._read(original):
            left -= length
            if left < 0:  # what grows as fast as it is read would never end
                break
            digest.update(view[:length])
            with self.target.writing(one_file=True):
                _write(copy, view[:length])
            self.ways.beat()
            self.ways.count(length, 0)
        if left:
            raise Unreadable(_GROWN)
        return digest.digest()

    def _read(self, original: FileIO) -> int:
        with _reading(self.source):
            return original.readinto(self.buffer)

    def _name(self, batch: list[_Staged], found: Digests) -> None:
        for staged in batch:
            digest = found[staged.name]
            if digest == staged.digest:
                self._place(staged)
            else:
                self._drop(staged.name)
                reason = digest if isinstance(digest, str) else _READ_BACK
                self.tally.note(Trouble(Kind.NOT_WRITTEN, staged.item.shown, reason))

    def _place(self, staged: _Staged) -> None:
        item = staged.item
        try:
            if not self.ways.overwrite and self.target.look(item.goal) is not None:
                raise NotPlaced("something has taken its place meanwhile")
            self.target.place(self.staging.fd, staged.name, item.goal)
        except NotPlaced as error:
            self._drop(staged.name)
            self.tally.note(Trouble(Kind.NOT_WRITTEN, item.shown, str(error)))
            return
        self.tally.files += 1
        self.tally.size += item.size
        self.tally.moved += item.moved
        self.ways.count(0, 1)
        if item.digest == staged.digest:
            self.tally.proven += 1
        elif item.digest:
            self.tally.note(Trouble(Kind.DAMAGED, item.shown, "its SHA-1 is another"))


@contextmanager
def _reading(source: Source) -> Iterator[None]:
    """Raises ``Unreadable`` for one file, ``BackupUnreadable`` where the disk is gone."""
    try:
        yield
    except OSError as error:
        source.failed(error)
        raise Unreadable(error.strerror or "it cannot be read") from error


def _write(copy: FileIO, data: memoryview) -> None:
    while data:
        data = data[copy.write(data) :]


def _set_time(fd: int, mtime_ns: int) -> None:
    with suppress(OverflowError):  # a time that this machine does not know: it is now, then
        os.utime(fd, ns=(mtime_ns, mtime_ns))
