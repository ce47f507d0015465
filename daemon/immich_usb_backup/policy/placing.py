"""Which file of a backup belongs where the dump's database looks for a photo, when it does not lie there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from immich_usb_backup.policy.restore import IMMICH_MARK, ORIGINALS, STAGING

CANDIDATES_AT_MOST = 16
"""So many files with the same content are looked at for one photo; two users who have the same photo are two."""

_OURS = {b"", b".", b"..", IMMICH_MARK.encode(), STAGING.encode()}
_LONGEST_PATH = 4000
_LONGEST_NAME = 255
_SIDECAR = b".xmp"
_EXTRA = b"extra"


class Candidate(NamedTuple):
    """A file with a photo's content. ``named``: the dump's database looks for it where it lies. ``taken``: it is to be put into
    another photo's place already."""

    path: bytes
    named: bool
    taken: bool


class Move(NamedTuple):
    """A file that goes to ``goal`` instead of ``source``, or (``keep``) to both. Both are paths on the server, from the media
    location on; ``origin`` is the part of the backup in which it lies, such as ``b"library"`` or ``b"extra/pictures"``.
    ``photo``: it is not a file that goes with one."""

    source: bytes
    goal: bytes
    origin: bytes
    keep: bool
    photo: bool = True


def move(path: bytes, candidates: Iterable[Candidate]) -> Move | None:
    """What is put into the place ``path`` of a photo; None where there is nothing. One that nobody else needs is moved, so that
    it does not lie there twice; else it is copied."""
    best = min(candidates, key=lambda one: (one.taken, one.named, one.path), default=None)
    if best is None or not placeable(path):
        return None
    origin = _origin(best.path)
    return Move(best.path, path, origin, keep=best.named or origin.startswith(_EXTRA))


def sidecar(moved: Move) -> Move:
    """The same for the file with a photo's edits beside it, as Immich names it."""
    return moved._replace(source=moved.source + _SIDECAR, goal=moved.goal + _SIDECAR, photo=False)


def placeable(path: bytes) -> bool:
    """Whether a dump's path may be written to: below Immich's folders of originals, not too long, and no name of our
    own or Immich's mark."""
    top, *below = path.split(b"/")
    if top.decode("utf-8", "replace") not in ORIGINALS or not below or b"\0" in path or len(path) > _LONGEST_PATH:
        return False
    return not _OURS.intersection(below) and all(len(name) <= _LONGEST_NAME for name in below)


def _origin(path: bytes) -> bytes:
    parts = path.split(b"/")
    return b"/".join(parts[: 2 if parts[0] == _EXTRA else 1])
