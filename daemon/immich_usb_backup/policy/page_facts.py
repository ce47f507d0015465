"""What the page on the disk is made from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from immich_usb_backup.model import DiskVerdict, Finding, Outcome
from immich_usb_backup.policy.archives import newest_archive
from immich_usb_backup.policy.dumps import newest_first


class PastRun(NamedTuple):
    """A run of this disk: when it ended, and how."""

    ended: datetime
    outcome: Outcome


class ProvenFile(NamedTuple):
    """A dump or zip that was read back from the disk: its path from the backup folder on, its size in bytes, and its
    SHA-256 (hex)."""

    path: str
    size: int
    sha256: str


def in_order(proofs: Iterable[ProvenFile]) -> tuple[ProvenFile, ...]:
    """The routine dumps, then the zips of the configuration, both with the newest first."""
    by_name = {proof.path.rpartition("/")[2]: proof for proof in proofs}
    dumps = [dump.name for dump in newest_first(by_name)]
    zips = sorted((name for name in by_name if newest_archive([name])), reverse=True)
    newest = newest_archive(zips)
    zips.sort(key=lambda name: name != newest)  # a further zip of one day sorts before the first one
    return tuple(by_name[name] for name in (*dumps, *zips))


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFacts:
    """``written`` is now, at the end of a run. ``size`` and ``free`` are the disk's room, ``files`` and ``bytes`` what of
    the originals lies on it, ``copied_files`` and ``copied_bytes`` what this run added. ``dump`` is the newest dump's
    name, empty where the disk has none; ``cluster``: it was made by ``pg_dumpall``, None where that is not known.
    ``folders`` are those of the originals that are there, ``extra`` the names of those in ``extra/``. ``runs`` are the
    last ones, oldest first, this one included. ``private`` are places on the server that the page does not tell."""

    disk: str
    server: str
    written: datetime
    outcome: Outcome
    findings: tuple[Finding, ...]
    copied_files: int
    copied_bytes: int
    files: int
    bytes: int
    size: int
    free: int | None
    dump: str
    dump_time: datetime | None
    cluster: bool | None
    verdict: DiskVerdict | None
    runs: tuple[PastRun, ...]
    proofs: tuple[ProvenFile, ...]
    folders: tuple[str, ...]
    extra: tuple[str, ...]
    private: tuple[str, ...] = ()
