"""What lies on a disk, as the manifest has it: the values that are planned with, and that are written to the disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

MANIFEST = "manifest.jsonl.gz"
"""The manifest's name on the disk, in the backup folder."""

MANIFEST_VERSION = 1


class SourceFile(NamedTuple):
    """A plain file on the server: size in bytes, modification time in nanoseconds since 1970, inode number."""

    size: int
    mtime_ns: int
    inode: int = 0


@dataclass(frozen=True, slots=True)
class Folder:
    """One folder as it was found, of the server or of the disk. ``path`` is relative to the folder that was walked, ``b""``
    for that itself; names are single components.

    ``links`` maps a symbolic link's name to its target; ``others`` are sockets, FIFOs and devices: name and kind;
    ``unreadable`` are entries that could not be looked at: name and reason (``b""`` for the folder itself).
    """

    path: bytes
    files: Mapping[bytes, SourceFile] = field(default_factory=dict)
    folders: tuple[bytes, ...] = ()
    links: Mapping[bytes, bytes] = field(default_factory=dict)
    others: tuple[tuple[bytes, str], ...] = ()
    unreadable: tuple[tuple[bytes, str], ...] = ()


class Known(NamedTuple):
    """A file that lies on the disk, or a symbolic link that the manifest remembers.

    ``name`` is the server's, ``stored`` the disk's, both single components. ``size`` (bytes) and ``mtime_ns`` are the
    server's file's. ``inode`` is the server's file's, 0 where unknown; it is kept on the server only. ``digest`` is the
    SHA-1 of the content (20 bytes), empty where unknown; ``proven`` is when the file was last read back from the medium
    and found to have it (seconds since 1970, 0 for never). ``link`` is a symbolic link's target: nothing is stored then.
    ``guessed``: the file was found on the disk and nothing tells which name it had on the server.
    """

    name: bytes
    stored: bytes
    size: int
    mtime_ns: int
    inode: int = 0
    digest: bytes = b""
    proven: int = 0
    link: bytes | None = None
    guessed: bool = False


@dataclass(frozen=True, slots=True)
class KnownFolder:
    """One folder as the manifest has it. ``path`` is the server's, ``stored_path`` the disk's, both from the backup
    folder on (``upload/…``). ``files`` are by the server's name; ``folders`` map the server's name to the disk's."""

    path: bytes
    stored_path: bytes
    files: Mapping[bytes, Known] = field(default_factory=dict)
    folders: Mapping[bytes, bytes] = field(default_factory=dict)


class Change(NamedTuple):
    """A change of the manifest. ``path`` is the server's, from the backup folder on. ``known`` takes the place of what the
    manifest had there; None: it is no longer on the disk."""

    path: bytes
    known: Known | None


class FolderName(NamedTuple):
    """A folder that is stored under another name: its path on the server, from the backup folder on, and the disk's name
    for its last component."""

    path: bytes
    stored: bytes


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a disk looks like without walking it: free clusters, and the entries of the backup folder (name, whether it is
    a folder; of files the size in bytes and the modification time in whole units of two seconds, of folders 0), sorted."""

    free_clusters: int
    entries: tuple[tuple[str, bool, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskRecord:
    """What the server remembers of a disk beside its files.

    ``generation`` names the state of the manifest that was last written to the disk, empty for none. ``walked`` is when
    the disk was last walked from end to end. ``proofs`` are small files of ours (dumps, archives) by their path from the
    backup folder on: size and SHA-256 (hex) of what was read back. ``mount_points`` are the folders with originals that
    were mount points on the server. ``adopt``: the disk may be taken over from another server by the next run.
    ``approved``: the deletions that are held may be made. ``verifying`` is when a verification of all files began that is
    not over yet.
    """

    generation: str = ""
    walked: datetime | None = None
    fingerprint: Fingerprint | None = None
    proofs: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    mount_points: tuple[str, ...] = ()
    adopt: bool = False
    approved: bool = False
    verifying: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestHeader:
    """The first line of a manifest on a disk. ``folders`` are those with originals, such as ``upload``."""

    generation: str
    server_id: str
    server_name: str
    run_id: str
    written: datetime
