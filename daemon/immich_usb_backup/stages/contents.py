"""The contents of files, as SHA-1: the server's, by paths from the backup folder on, and those that Immich's dump has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from immich_usb_backup.errors import SourceUnreadable
from immich_usb_backup.policy.reading import Found
from immich_usb_backup.policy.sources import SourceFolder, source_folders
from immich_usb_backup.stages.context import Work


async def server_sha1s(work: Work, paths: Iterable[bytes], progress: Callable[[int], None]) -> dict[bytes, Found]:
    """Read files on the server; ``progress`` gets bytes. A file that is in none of the configured folders is not there; those
    of a folder that cannot be opened cannot be read."""
    roots = {source.name.encode(): source for source in source_folders(work.run.config)}
    by_root: dict[bytes, list[bytes]] = defaultdict(list)
    for path in paths:
        root = next((root for root in roots if path.startswith(root + b"/")), None)
        if root is not None:
            by_root[root].append(path[len(root) + 1 :])
    found: dict[bytes, Found] = {}
    for root, below in by_root.items():
        digests = await _sha1s(work, roots[root], below, progress)
        found.update((root + b"/" + path, digest) for path, digest in digests.items())
    return found


async def _sha1s(
    work: Work, source: SourceFolder, paths: list[bytes], progress: Callable[[int], None]
) -> Mapping[bytes, Found]:
    try:
        return await work.run.ports.source.sha1s(source.path, paths, progress)
    except SourceUnreadable as error:
        return dict.fromkeys(paths, error.message)


async def immich_sha1s(work: Work, paths: Iterable[bytes]) -> Mapping[bytes, bytes]:
    """The SHA-1s of uploads, of those files that the dump on the disk has one for."""
    return {} if work.assets is None else await work.assets.sha1s(paths)


def ignore(_: int) -> None:
    """For who does not want to know how far a reading is."""
