"""What Immich's database dump says of the originals: their places and the SHA-1 that each had when it was uploaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Asset(NamedTuple):
    """One row of the dump's table ``asset`` (``assets`` before Immich 1.136).

    ``path`` is from the media location on (``b"upload/…"``) where the row's path lies below it, else as the dump has it.
    ``sha1`` (20 bytes) is that of the file as uploaded, empty where Immich has none of the content (external libraries,
    ``sha1-path``). ``external``: it belongs to an external library, or lies outside the media location. ``trashed``: it is
    in Immich's trash, so its file may be gone.
    """

    path: bytes
    sha1: bytes
    external: bool = False
    trashed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpFacts:
    """What a dump says of itself. ``cluster``: made by ``pg_dumpall``. ``restricted``: it has ``\\restrict`` lines, which an
    older ``psql`` does not know. ``media_location`` is Immich's own word for it, empty where the dump has none (before
    1.136). ``immich`` is the Immich version that the database was last used with, empty where unknown. Counts are rows;
    ``assets`` are all, ``external`` and ``trashed`` among them; ``unhashed`` those without a SHA-1 of their content."""

    cluster: bool
    server_version: str
    dump_version: str
    restricted: bool
    table: str
    media_location: bytes
    immich: str
    assets: int
    external: int
    trashed: int
    unhashed: int
