"""A backup folder as a run leaves it on a disk, made by hand from a media location: no disk, no root, no service."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from immich_usb_backup.adapters import manifest_file
from immich_usb_backup.adapters.archive import write_archive
from immich_usb_backup.adapters.manifest_file import Content
from immich_usb_backup.adapters.walk import join, walk
from immich_usb_backup.model import BACKUP_FOLDER, TEMPORARY
from immich_usb_backup.policy.disk_state import STATE, DiskState, encode
from immich_usb_backup.policy.dumps import newest_first
from immich_usb_backup.policy.manifest import MANIFEST, Known, ManifestHeader
from immich_usb_backup.policy.naming import stored_names
from immich_usb_backup.policy.restore import ORIGINALS

NOW = datetime(2026, 11, 21, 14, 2, tzinfo=UTC)


def make_backup(
    root: Path,
    media: Path,
    *,
    extras: dict[str, Path] | None = None,
    config: tuple[Path, ...] = (),
    digests: bool = True,
) -> Path:
    """Back ``media`` up to the folder that stands for a disk's root. Returns the backup folder."""
    folder = root / BACKUP_FOLDER
    folder.mkdir(parents=True)
    places = {name: media / name for name in ORIGINALS}
    places |= {f"extra/{name}": path for name, path in (extras or {}).items()}
    folders = [Content(b"extra", b"extra", [])] if extras else []
    for name, path in sorted(places.items()):
        folders += _copied(path, folder, os.fsencode(name), digests=digests)
    folders.sort(key=lambda content: content.path.split(b"/"))
    write_manifest(folder, folders)
    _put_beside(folder, media, config)
    return folder


def write_manifest(folder: Path, folders: list[Content]) -> None:
    """The list of it all."""
    header = ManifestHeader(
        generation="6f1c9c1be0f35d02", server_id="3b" * 16, server_name="nas", run_id="run", written=NOW
    )
    files = sum(len(list(content.files)) for content in folders)
    with (folder / MANIFEST).open("wb") as sink:
        manifest_file.write(header, files, folders, sink)


def _put_beside(folder: Path, media: Path, config: tuple[Path, ...]) -> None:
    (folder / "database").mkdir()
    for dump in newest_first(os.listdir(media / "backups")):
        shutil.copy2(media / "backups" / dump.name, folder / "database" / dump.name)
    if config:
        (folder / "config").mkdir()
        with (folder / "config/config-2026-11-21.zip").open("wb") as sink:
            write_archive(config, sink)
    state = DiskState(
        server_id="3b" * 16, server_name="nas", generation="6f1c9c1be0f35d02", run_id="run", since=NOW, writing=False
    )
    (folder / STATE).write_bytes(encode(state))


def _copied(source: Path, backup: Path, part: bytes, *, digests: bool) -> Iterator[Content]:
    """Copy one folder with all below it, names changed as exFAT needs it; what the manifest says of each folder."""
    stored_paths = {b"": part}
    fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for found in walk(fd, beat=lambda: None):
            reserved = frozenset() if found.path else frozenset({TEMPORARY.encode()})
            names = stored_names([*found.files, *found.folders], {}, reserved=reserved)
            above = stored_paths[found.path]
            (backup / os.fsdecode(above)).mkdir(parents=True, exist_ok=True)
            stored_paths |= {join(found.path, name): above + b"/" + names[name] for name in found.folders}
            lines: list[Known] = []
            for name, facts in found.files.items():
                original = Path(os.fsdecode(os.fsencode(source) + b"/" + join(found.path, name)))
                shutil.copy2(original, backup / os.fsdecode(above + b"/" + names[name]))
                digest = hashlib.sha1(original.read_bytes(), usedforsecurity=False).digest() if digests else b""
                lines.append(Known(name, names[name], facts.size, facts.mtime_ns, 0, digest))
            lines += [Known(name, b"", 0, 0, link=link) for name, link in found.links.items()]
            if lines or found.folders:
                yield Content(join(part, found.path), above, sorted(lines))
    finally:
        os.close(fd)
