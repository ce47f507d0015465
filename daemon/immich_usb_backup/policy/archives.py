"""Names of the configuration zips on the disk, and the words that go into each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime

_NAME = re.compile(r"config-(\d{4}-\d{2}-\d{2})(?:-(\d{6}))?\.zip", re.ASCII)

README_NAME = "readme.txt"

_README = """\
The configuration of an Immich server, saved by immich-usb-backup.

This zip holds these files and folders of the server, under their old places without the first /:

{paths}

To bring Immich back on a new machine:

1. Install Immich in the same version or a newer one, and do not start it yet. The version stands in the name of the
   database dump, for example v2.5.2 in immich-db-backup-20261121T020000-v2.5.2-pg14.19.sql.gz.
2. Put the files of this zip back where they belong (or take over what they say: paths, passwords, settings).
3. Copy the folders upload, library and profile, which lie beside the folder of this zip, to Immich's media location,
   with their files called .immich. Make the folders thumbs, encoded-video and backups beside them, each with a file
   called .immich.
4. Restore the newest dump from the folder database, as Immich's own documents say for your version.
5. Start Immich. Thumbnails and converted videos are made anew: start their jobs in Immich's administration.

Keep this disk safe: these files and the database dump hold passwords in plain text.
"""


def archive_name(now: datetime, taken: Iterable[str]) -> str:
    """The name for a new zip: by the day, and by the second where the day has one already. ``now`` is local time."""
    plain = f"config-{now:%Y-%m-%d}.zip"
    return plain if plain not in set(taken) else f"config-{now:%Y-%m-%d-%H%M%S}.zip"


def readme(paths: Sequence[str]) -> str:
    """What a person who opens the zip should know. The same for the same paths, so that equal zips stay equal."""
    return _README.format(paths="\n".join(f"    {path}" for path in sorted(paths)))


def archives_newest_first(names: Iterable[str]) -> list[str]:
    """The zips of ours among ``names``."""
    found = [(match[1], match[2] or "", match[0]) for name in names if (match := _NAME.fullmatch(name))]
    return [name for _, _, name in sorted(found, reverse=True)]


def newest_archive(names: Iterable[str]) -> str | None:
    """The newest zip of ours, or None."""
    return next(iter(archives_newest_first(names)), None)


def superfluous_archives(names: Iterable[str], *, keep: int, never: str) -> tuple[str, ...]:
    """The zips of ours that may go when the newest ``keep`` stay; ``never``, which has just been written, stays."""
    others = [name for name in archives_newest_first(names) if name != never]
    return tuple(others[max(0, keep - 1) :])
