"""What a restore is about: files with their names, what may be wrong with each, and what is kept count of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

FOLDERS = ("backups", "encoded-video", "library", "profile", "thumbs", "upload")
"""What Immich has below its media location. Each holds a file ``IMMICH_MARK``, or Immich does not start."""

ORIGINALS = ("upload", "library", "profile")
"""Those of them that a backup holds."""

IMMICH_MARK = ".immich"
STAGING = ".immich-usb-backup-restoring"
"""Folder for files that are not whole yet, in each folder that is restored to. It is gone at the end."""

NAMES_KEPT = 10_000
_RENAMED = re.compile(rb"~[a-z2-7]{8}(?:-\d+)?(?:\.[^./ ]{1,60})?\Z", re.DOTALL)


class Item(NamedTuple):
    """A file or link to be restored. ``goal`` is its path below the place that is restored to, ``shown`` that on the server,
    ``source`` the disk's, the latter two from the backup folder on. ``size`` (bytes) is the disk's; ``mtime_ns`` the server's where known.
    ``digest``: the SHA-1 that it must have, empty where unknown. ``link``: a symbolic link's target; nothing lies on the disk then.
    ``moved``: a photo that goes where the dump's database looks for it, which is not where it lay on the server."""

    goal: bytes
    shown: bytes
    source: bytes
    size: int
    mtime_ns: int
    digest: bytes = b""
    link: bytes | None = None
    moved: bool = False


class Kind(StrEnum):
    """What a restore has to say of single files."""

    MISSING = "missing"
    ABSENT = "absent"
    UNREADABLE = "unreadable"
    NOT_A_FILE = "not-a-file"
    OTHER_CONTENT = "other-content"
    IN_THE_WAY = "in-the-way"
    NOT_WRITTEN = "not-written"
    DAMAGED = "damaged"
    IN_DOUBT = "in-doubt"
    OTHER_NAME = "other-name"
    LINK_OUT = "link-out"


NOT_RESTORED: Mapping[Kind, str] = {
    Kind.MISSING: "in the backup's list, but not on the disk",
    Kind.ABSENT: "in the database, but not on this disk",
    Kind.UNREADABLE: "cannot be read from the disk",
    Kind.NOT_A_FILE: "on the disk, but neither a file nor a folder",
    Kind.OTHER_CONTENT: "there already with another content (--overwrite replaces it)",
    Kind.IN_THE_WAY: "something else has the place",
    Kind.NOT_WRITTEN: "could not be written",
}
"""Files that are not restored: why."""

RESTORED_BUT: Mapping[Kind, str] = {
    Kind.DAMAGED: "restored, but not what was backed up: damaged, or changed on the disk since",
    Kind.IN_DOUBT: "restored, but a backup was cut off while it wrote them: they may be incomplete",
    Kind.OTHER_NAME: "restored, but under the disk's name: the server may have had another",
    Kind.LINK_OUT: "links that lead out of the folder that they are in",
}
"""Files that are restored and should be looked at: why."""

HARMLESS = frozenset({Kind.LINK_OUT})
"""What leaves a restore a whole one."""


class Trouble(NamedTuple):
    """Something about one file. ``path`` is as on the server."""

    kind: Kind
    path: bytes
    reason: str = ""


@dataclass(slots=True)
class Tally:
    """What a restore has done so far. ``files`` (``size`` bytes) were written, ``proven`` of them have the SHA-1 of the backup's
    list; ``there`` were there before. ``moved`` photos were put where the dump's database looks for them. ``named`` has some thousand of each kind, ``counts`` all."""

    files: int = 0
    size: int = 0
    proven: int = 0
    links: int = 0
    there: int = 0
    moved: int = 0
    counts: dict[Kind, int] = field(default_factory=dict)
    named: dict[Kind, list[tuple[bytes, str]]] = field(default_factory=dict)

    def note(self, trouble: Trouble) -> None:
        """Keep it."""
        self.counts[trouble.kind] = self.counts.get(trouble.kind, 0) + 1
        kept = self.named.setdefault(trouble.kind, [])
        if len(kept) < NAMES_KEPT:
            kept.append((trouble.path, trouble.reason))

    @property
    def whole(self) -> bool:
        """Whether everything is there, as it was backed up."""
        return not self.counts.keys() - HARMLESS


class Modes(NamedTuple):
    """Permissions of what is made."""

    file: int = 0o644
    folder: int = 0o755


class Owner(NamedTuple):
    """Numbers of a user and a group; -1 leaves it as it is."""

    user: int = -1
    group: int = -1


def modes(text: str) -> Modes:
    """From the files' permissions (``640``) those of folders, which let in whoever may read. Raises ``ValueError``."""
    number = int(text, 8)
    if not 0o400 <= number <= 0o777 or number & 0o600 != 0o600:
        raise ValueError("the owner must be able to read and write")
    return Modes(number, number | (number & 0o444) >> 2)


def looks_renamed(name: bytes) -> bool:
    """Whether a backup may have made this name because exFAT could not hold the server's."""
    return _RENAMED.search(name) is not None


def leads_out(path: bytes, link: bytes) -> bool:
    """Whether a link at this path (from the place that is restored to on) leads out of that."""
    if link.startswith(b"/"):
        return True
    depth = path.count(b"/")
    for name in link.split(b"/"):
        depth += -1 if name == b".." else name not in (b"", b".")
        if depth < 0:
            return True
    return False


def member_path(name: str) -> tuple[str, ...] | None:
    """The components of a name in a zip, or None for one that leads out of the folder, or nowhere."""
    parts = tuple(name.rstrip("/").split("/"))
    wrong = any(part in ("", ".", "..") or "\0" in part or len(part.encode("utf-8", "replace")) > 255 for part in parts)
    return None if wrong or len(name) > 4000 else parts
