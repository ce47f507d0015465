"""Unpacking the configuration: into a folder of its own, never to where it came from. A zip from a disk is hostile input."""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from immich_usb_backup.adapters.tree import open_file
from immich_usb_backup.errors import NoBackupHere, RestoreTargetFull, RestoreTargetUnusable
from immich_usb_backup.policy.archives import archives_newest_first
from immich_usb_backup.policy.restore import Modes, Owner, member_path
from immich_usb_backup.policy.text import size
from immich_usb_backup.restore.source import Source
from immich_usb_backup.restore.target import NotPlaced, Target

FOLDER = "config"
_CHUNK = 1 << 20
_MEMBERS = 200_000
_ZIP_BYTES = 4 * 2**30
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)
"""What ``zipfile`` says of a damaged zip, or of one that is encrypted or packed in another way."""


class Unpacked(NamedTuple):
    """``passed_over`` are newer zips that are damaged, ``refused`` the names in the zip that were left out: with reasons."""

    name: str
    folder: Path
    files: int
    refused: tuple[tuple[str, str], ...]
    passed_over: tuple[tuple[str, str], ...]


def unpack(source: Source, to: Path, *, owner: Owner, dry_run: bool, beat: Callable[[], None]) -> Unpacked:
    """Unpack the newest zip that is whole into a new folder of its name below ``to``. Raises ``NoBackupHere``,
    ``RestoreTargetUnusable`` also where that folder is there, ``RestoreTargetFull``, ``BackupUnreadable``."""
    passed_over: list[tuple[str, str]] = []
    for name in archives_newest_first(source.names(FOLDER, folders=False)):
        folder = to / name.removesuffix(".zip")
        if os.path.lexists(folder):
            hint = "It is never overwritten: move it away, or name another place by --to."
            raise RestoreTargetUnusable(f"{folder} is there already", hint=hint)
        try:
            with _opened(source, name) as archive:
                _whole(archive, beat)
                files, refused = _into(archive, to, folder, owner=owner, dry_run=dry_run, beat=beat)
        except _BROKEN as error:
            passed_over.append((name, str(error) or "it is damaged"))
            continue
        except OSError as error:
            source.failed(error)
            passed_over.append((name, error.strerror or "it cannot be read"))
            continue
        return Unpacked(name, folder, files, tuple(refused), tuple(passed_over))
    bad = "; ".join(f"{name}: {reason}" for name, reason in passed_over)
    raise NoBackupHere(f"There is no configuration on the disk that is whole{': ' if bad else ''}{bad}", hint="")


@contextmanager
def _opened(source: Source, name: str) -> Iterator[zipfile.ZipFile]:
    with open_file(source.fd, os.fsencode(f"{FOLDER}/{name}")) as file:
        if os.fstat(file.fileno()).st_size > _ZIP_BYTES:
            raise zipfile.BadZipFile("it is too large to be a configuration")
        with zipfile.ZipFile(file) as archive:
            yield archive


def _whole(archive: zipfile.ZipFile, beat: Callable[[], None]) -> None:
    """Read it all once, so that a damaged one writes nothing. Raises one of ``_BROKEN``."""
    members = archive.infolist()
    total = sum(member.file_size for member in members)
    if len(members) > _MEMBERS or total > _ZIP_BYTES:
        raise zipfile.BadZipFile("it is too large to be a configuration")
    for member in members:
        with archive.open(member) as packed:
            while packed.read(_CHUNK):
                beat()


def _into(
    archive: zipfile.ZipFile, to: Path, folder: Path, *, owner: Owner, dry_run: bool, beat: Callable[[], None]
) -> tuple[int, list[tuple[str, str]]]:
    wanted, refused = _sorted_out(archive)
    if dry_run:
        return len(wanted), refused
    _look_for_room(to, sum(member.file_size for member, _ in wanted))
    target = Target(folder, owner=owner, modes=Modes(0o600, 0o700), make=True)
    try:
        files = 0
        for member, path in wanted:
            beat()
            try:
                _write(archive, member, target, path)
                files += 1
            except NotPlaced as error:
                refused.append((member.filename, str(error)))
        target.flush(target.fd)
        return files, refused
    finally:
        target.close()


def _sorted_out(archive: zipfile.ZipFile) -> tuple[list[tuple[zipfile.ZipInfo, bytes]], list[tuple[str, str]]]:
    """The files with the paths that they get, and what is refused."""
    wanted: list[tuple[zipfile.ZipInfo, bytes]] = []
    refused: list[tuple[str, str]] = []
    for member in archive.infolist():
        parts = member_path(member.filename)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if parts is None:
            refused.append((member.filename, "its path leads out of the folder"))
        elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            refused.append((member.filename, "it is a link, or stranger"))
        elif not member.is_dir():
            wanted.append((member, "/".join(parts).encode("utf-8", "replace")))
    return wanted, refused


def _look_for_room(to: Path, needed: int) -> None:
    try:
        facts = os.statvfs(to)
    except OSError as error:
        raise RestoreTargetUnusable(f"{to} cannot be used: {error.strerror}", hint=f"mkdir -p '{to}'") from error
    if needed > facts.f_bavail * facts.f_frsize:
        raise RestoreTargetFull(f"There is not enough room at {to}: {size(needed)} are needed")


def _write(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Target, path: bytes) -> None:
    """The zip has been read once without an error, so what fails now is the target."""
    above, _, name = path.rpartition(b"/")
    folder = target.folder(above)
    executable = (member.external_attr >> 16) & 0o100
    with (
        target.writing(one_file=True),
        archive.open(member) as packed,
        open(target.create(folder, name, mode=0o600 | executable), "wb") as copy,
    ):
        while chunk := packed.read(_CHUNK):
            copy.write(chunk)
