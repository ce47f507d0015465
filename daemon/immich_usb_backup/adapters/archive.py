"""The configuration as a zip that any computer opens: the same bytes whenever the content is the same."""

from __future__ import annotations

import os
import stat
import time
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, cast

from immich_usb_backup.policy.archives import README_NAME, readme
from immich_usb_backup.policy.text import printable
from immich_usb_backup.ports import ArchiveResult, Sink

_CHUNK = 1 << 20
_FILES_AT_MOST = 100_000
_ZIP_EARLIEST = (1980, 1, 1, 0, 0, 0)
_ZIP_LATEST = (2107, 12, 31, 23, 59, 58)
_LATEST_SECONDS = 1 << 33
_NIX_STORE = Path("/nix/store")


def write_archive(paths: Iterable[Path], sink: Sink) -> ArchiveResult:
    """Zip files and folders under their absolute paths without the first ``/``, and a readme. Links are followed, each
    folder once; but not one to a folder that Nix has built, such as ``result``: that may be a whole system.

    What cannot be read is left out and named. Raises what ``sink`` raises.
    """
    files = 0
    unreadable: list[tuple[bytes, str]] = []
    with zipfile.ZipFile(cast("IO[bytes]", sink), "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        wanted = tuple(paths)
        archive.writestr(_readme_info(), readme([printable(os.fsencode(path)) for path in wanted]))
        for path, problem in _walk(wanted):
            reason = problem or _add(archive, path)
            files += not reason
            if reason:
                unreadable.append((os.fsencode(path), reason))
    return ArchiveResult(files=files, unreadable=tuple(unreadable))


def _walk(paths: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """The files to pack in a fixed order, and what is wrong with those that cannot be."""
    seen: set[tuple[int, int]] = set()
    waiting = sorted(paths, reverse=True)
    count = 0
    while waiting:
        path = waiting.pop()
        try:
            facts = path.stat()
            children = sorted(_children(path), reverse=True) if stat.S_ISDIR(facts.st_mode) else None
        except OSError as error:
            yield path, error.strerror or "cannot be read"
            continue
        if (facts.st_dev, facts.st_ino) in seen:
            continue
        seen.add((facts.st_dev, facts.st_ino))
        if children is not None:
            waiting += children
            continue
        count += 1
        if count > _FILES_AT_MOST:
            yield path, f"there are more than {_FILES_AT_MOST} files"
            return
        yield path, "" if stat.S_ISREG(facts.st_mode) else "it is no plain file"


def _children(folder: Path) -> Iterator[Path]:
    """Raises ``OSError``."""
    here = _nix_object(folder)
    for path in folder.iterdir():
        built = _nix_object(path) if path.is_symlink() else ""
        if built in {"", here} or not path.is_dir():
            yield path


def _nix_object(path: Path) -> str:
    """Its name in Nix' store, where it leads there."""
    real = Path(os.path.realpath(path))
    return real.relative_to(_NIX_STORE).parts[0] if _NIX_STORE in real.parents else ""


def _add(archive: zipfile.ZipFile, path: Path) -> str:
    """Pack one file. Returns why it could not be read, or an empty text."""
    try:
        file = path.open("rb")
    except OSError as error:
        return error.strerror or "cannot be read"
    with file:
        info = _info(path, os.fstat(file.fileno()))
        with archive.open(info, "w", force_zip64=info.file_size > 1 << 31) as packed:
            while True:
                try:
                    chunk = file.read(_CHUNK)
                except OSError as error:
                    return f"could be read only in part: {error.strerror}"
                if not chunk:
                    return ""
                packed.write(chunk)


def _readme_info() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(README_NAME, _ZIP_EARLIEST)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o100644 << 16
    return info


def _info(path: Path, facts: os.stat_result) -> zipfile.ZipInfo:
    name = os.fsencode(path).decode("utf-8", "backslashreplace").lstrip("/")
    moment = time.gmtime(min(max(0, facts.st_mtime), _LATEST_SECONDS))[:6]
    info = zipfile.ZipInfo(name, min(max(moment, _ZIP_EARLIEST), _ZIP_LATEST))
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = (facts.st_mode & 0xFFFF) << 16
    info.file_size = facts.st_size
    return info
