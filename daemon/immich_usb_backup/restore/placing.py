"""Where the database of the dump looks for each photo. Immich's storage template may have moved some between the dump and the
backup: they lie on the disk under their new paths, and the restored database knows the old ones."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from immich_usb_backup.adapters.asset_book import SqliteAssetBook, SqliteAssetBooks
from immich_usb_backup.adapters.manifest_temporary import TemporaryManifest
from immich_usb_backup.adapters.placing import Placing
from immich_usb_backup.adapters.tree import open_file
from immich_usb_backup.adapters.walk import walk
from immich_usb_backup.errors import SourceUnreadable, StateDamaged
from immich_usb_backup.policy.assets import Asset
from immich_usb_backup.policy.manifest import SourceFile
from immich_usb_backup.policy.placing import CANDIDATES_AT_MOST, Candidate, Move, move, placeable, sidecar
from immich_usb_backup.policy.restore import ORIGINALS
from immich_usb_backup.restore.dumps import FOLDER, Chosen
from immich_usb_backup.restore.source import Source

_AT_ONCE = 20_000
"""So many photos that are not in their places are looked for at a time."""

_CHUNK = 1 << 20
_HINT = "Make room for temporary files, or name another folder for them by TMPDIR."


def look(
    source: Source, manifest: TemporaryManifest, dump: Chosen, media_location: Path, beat: Callable[[], None]
) -> Placing:
    """Hold the dump's photos against the backup. Raises ``DumpUnusable``, ``SourceUnreadable``, ``StateDamaged``,
    ``BackupUnreadable``."""
    placing = Placing()
    try:
        with _book(source, dump, media_location, beat) as book:
            _Looking(source, manifest, book, placing, beat).look()
    except BaseException:
        placing.close()
        raise
    return placing


@contextmanager
def _book(source: Source, dump: Chosen, media_location: Path, beat: Callable[[], None]) -> Iterator[SqliteAssetBook]:
    """The dump's photos, sorted, in a folder that goes again."""
    path, sha256 = source.folder / FOLDER / dump.name, _sha256(source, dump, beat)
    with _temporary_folder() as folder:
        books = SqliteAssetBooks(Path(folder))
        book = books.open_now(path, sha256=sha256, media_location=media_location, beat=beat)
        try:
            yield book
        finally:
            book.close_now()


def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="immich-usb-backup-")
    except OSError as error:
        raise StateDamaged(f"The dump cannot be looked into: {error.strerror}", hint=_HINT) from error


def _sha256(source: Source, dump: Chosen, beat: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    try:
        with open_file(source.fd, os.fsencode(f"{FOLDER}/{dump.name}")) as file:
            while chunk := file.read(_CHUNK):
                beat()
                digest.update(chunk)
    except OSError as error:
        source.failed(error)
        raise SourceUnreadable(f"The dump cannot be read: {error.strerror}") from error
    return digest.hexdigest()


class _Looking:
    """Finds out, folder by folder, which photos are not in their places, and looks for them by their SHA-1."""

    def __init__(
        self,
        source: Source,
        manifest: TemporaryManifest,
        book: SqliteAssetBook,
        placing: Placing,
        beat: Callable[[], None],
    ) -> None:
        self._source = source
        self._manifest = manifest
        self._book = book
        self._placing = placing
        self._beat = beat

    def look(self) -> None:
        """All of the dump."""
        missing = self._missing()
        while batch := list(islice(missing, _AT_ONCE)):
            self._look_for(batch)

    def _missing(self) -> Iterator[Asset]:
        for folder, assets in self._book.folders():
            self._beat()
            known = self._manifest.folder(folder)
            gone = {name: asset for name, asset in assets.items() if known is None or name not in known.files}
            if not gone:
                continue
            beside = self._on_disk(known.stored_path if known else folder)
            stored = {file.stored for file in known.files.values()} if known else set()
            yield from (asset for name, asset in gone.items() if name not in beside or name in stored)

    def _on_disk(self, folder: bytes) -> Mapping[bytes, SourceFile]:
        """What lies in a folder of the disk: also what the manifest does not have is restored."""
        if folder.partition(b"/")[0].decode("utf-8", "replace") not in ORIGINALS:
            return {}
        try:
            return next(walk(self._source.fd, folder, beat=self._beat)).files
        except OSError as error:
            self._source.failed(error)
            return {}

    def _look_for(self, missing: list[Asset]) -> None:
        found = self._with_digests({asset.sha1 for asset in missing if asset.sha1})
        for asset in missing:
            self._beat()
            moved = move(asset.path, map(self._candidate, found.get(asset.sha1, ())))
            if moved is not None:
                self._put(moved)
            elif not asset.trashed:
                self._placing.miss(asset.path)

    def _with_digests(self, digests: set[bytes]) -> Mapping[bytes, list[bytes]]:
        found: dict[bytes, list[bytes]] = {}
        for digest, path in self._manifest.with_digests(digests, self._beat) if digests else ():
            paths = found.setdefault(digest, [])
            if len(paths) < CANDIDATES_AT_MOST:
                paths.append(path)
        return found

    def _candidate(self, path: bytes) -> Candidate:
        return Candidate(path, self._book.names(path), self._placing.is_taken(path))

    def _put(self, moved: Move) -> None:
        self._placing.put(moved)
        beside = sidecar(moved)
        free = placeable(beside.goal) and not self._manifest.has(beside.goal)
        if free and self._manifest.has(beside.source):
            self._placing.put(beside)
