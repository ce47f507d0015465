"""Where the files of a dump's assets lie: below the media location, and where there, or outside of it."""

from __future__ import annotations

KNOWN = (b"/usr/src/app/upload/", b"/data/", b"/var/lib/immich/", b"upload/")
"""Media locations of Immich's images and of NixOS. The last one is that of paths before 1.136, which were relative."""

REGENERABLE = (b"encoded-video/", b"thumbs/")
"""Folders with files that Immich makes again: no originals, and not in the backup."""

_IMMICHS = (b"upload/", b"library/", b"profile/", b"backups/", *REGENERABLE)


class MediaLocations:
    """The media location under all the names that a dump may have for it.

    ``told`` is what the dump itself says (empty where it says nothing), ``server`` the one on the server that is backed up.
    """

    def __init__(self, *, told: bytes, server: bytes) -> None:
        self._sure = _with_slash(told or server)
        self._guesses = tuple(dict.fromkeys((_with_slash(server), *KNOWN)))

    def below(self, path: bytes) -> bytes | None:
        """The path from the media location on; None where it does not lie below it, or is not a plain path."""
        if b"/." in path and {b".", b".."} & set(path.split(b"/")):
            return None
        if path.startswith(self._sure):
            return path[len(self._sure) :]
        for root in self._guesses:
            if path.startswith(root) and path.startswith(_IMMICHS, len(root)):
                return path[len(root) :]
        return None


def _with_slash(location: bytes) -> bytes:
    return location.rstrip(b"/") + b"/"
