"""Which database dump is restored: the newest of the disk that is whole, or the one that was asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from immich_usb_backup.adapters.source import gzip_problem
from immich_usb_backup.adapters.tree import NotAFile, open_file
from immich_usb_backup.errors import DumpUnusable, NoBackupHere
from immich_usb_backup.policy.dumps import newest_first
from immich_usb_backup.policy.text import printable
from immich_usb_backup.restore.source import Source

FOLDER = "database"
_OTHERS = "Choose another one by --dump. On the disk are: {}"


class Chosen(NamedTuple):
    """A dump that is whole, with its size (bytes) and time; empty ``name`` for none. ``passed_over`` are newer ones that are
    not: name and reason."""

    name: str
    size: int = 0
    mtime_ns: int = 0
    passed_over: tuple[tuple[str, str], ...] = ()


def choose(source: Source, wanted: str, beat: Callable[[], None]) -> Chosen:
    """Read dumps to their ends until one is whole. Raises ``NoBackupHere``, ``DumpUnusable`` for the one that was asked for,
    ``BackupUnreadable``."""
    names = source.names(FOLDER, folders=False)
    if wanted and wanted not in names:
        raise NoBackupHere(f"There is no dump '{printable(wanted)}' on the disk", hint=_others(names))
    passed_over: list[tuple[str, str]] = []
    for name in [wanted] if wanted else [dump.name for dump in newest_first(names)]:
        problem, facts = _look(source, name, beat)
        if problem is None:
            return Chosen(name, facts[0], facts[1], tuple(passed_over))
        if wanted:
            raise DumpUnusable(f"The dump {printable(name)} cannot be restored: {problem}", hint=_others(names))
        passed_over.append((name, problem))
    return Chosen("", passed_over=tuple(passed_over))


def _others(names: tuple[str, ...]) -> str:
    return _OTHERS.format(", ".join(map(printable, names)) or "none")


def _look(source: Source, name: str, beat: Callable[[], None]) -> tuple[str | None, tuple[int, int]]:
    """What is wrong with a dump, or None; its size and time."""
    try:
        with open_file(source.fd, os.fsencode(f"{FOLDER}/{name}")) as file:
            facts = os.fstat(file.fileno())
            return gzip_problem(file, beat), (facts.st_size, facts.st_mtime_ns)
    except NotAFile as error:
        return error.strerror, (0, 0)
    except OSError as error:
        source.failed(error)
        return f"it cannot be read: {error.strerror}", (0, 0)
