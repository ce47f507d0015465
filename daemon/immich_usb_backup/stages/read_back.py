"""What was copied is read back from the medium, past the page cache, before anybody is told that it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from immich_usb_backup.model import Mode, Stage
from immich_usb_backup.policy.manifest import Change, Known
from immich_usb_backup.policy.plan import Item
from immich_usb_backup.policy.reading import Found, Reading, judge_copy
from immich_usb_backup.policy.sources import source_folders
from immich_usb_backup.stages.contents import ignore, immich_sha1s, server_sha1s
from immich_usb_backup.stages.context import Work
from immich_usb_backup.stages.planning import Decision
from immich_usb_backup.stages.rearrange import note


@dataclass(slots=True)
class ReadBack:
    """What the reading of copies said. ``wrong`` must be copied again; ``moved_on`` changed or went away on the server
    meanwhile: the next pass sees it."""

    proven: int = 0
    size: int = 0
    wrong: list[Item] = field(default_factory=list)
    moved_on: list[bytes] = field(default_factory=list)


def reads_back(work: Work) -> bool:
    """Whether this run reads back what it copies."""
    return work.run.config.verification.read_back or work.run.mode is not Mode.QUICK


async def read_back(work: Work, decision: Decision, items: Sequence[Item]) -> ReadBack:
    """Read copies that are on the medium, and note in the manifest what is proven. The line of one that is wrong is
    spoilt, so that the next run compares it whatever becomes of this one. Raises ``SourceUnreadable``."""
    found = ReadBack()
    disk, server, immich = await _read(work, items)
    lines = await work.run.ports.background(lambda beat: _lines(work, items, beat), what="The manifest")
    now = int(work.run.ports.clock.now().timestamp())
    changes: list[Change] = []
    for item in items:
        known = lines.get(item.path)
        if known is None:
            continue
        digest = disk.get(item.stored)
        reading = judge_copy(digest, server=server.get(item.path), immich=immich.get(item.path, b""))
        if isinstance(digest, bytes) and reading is Reading.PROVEN:
            found.proven += 1
            found.size += known.size
            work.rotten_on_disk.discard(item.path)
            changes.append(Change(item.path, known._replace(digest=digest, proven=now)))
        elif reading is Reading.WRONG and not await _has_moved_on(work, item, known):
            found.wrong.append(item)
            changes.append(Change(item.path, _spoilt(known)))
        else:
            found.moved_on.append(item.path)
    await note(work, decision, changes)
    return found


async def _read(work: Work, items: Sequence[Item]) -> tuple[dict[bytes, Found], dict[bytes, Found], dict[bytes, bytes]]:
    """The disk's files, the server's where only these tell, and Immich's word, each by the path on its side. Both sides are
    read at the same time; the server's have just been read and are in memory."""
    total, done = sum(item.file.size for item in items), 0

    def progress(more: int) -> None:
        nonlocal done
        done += more
        work.run.show(Stage.COMPARE, done=done, total=total)

    progress(0)
    immich = dict(await immich_sha1s(work, [item.path for item in items]))
    disk, server = await asyncio.gather(
        work.target.sha1s([item.stored for item in items], progress),
        server_sha1s(work, [item.path for item in items if item.path not in immich], ignore),
    )
    open_ = [item.path for item in items if item.path in immich and disk.get(item.stored) != immich[item.path]]
    server |= await server_sha1s(work, open_, ignore)
    return dict(disk), server, immich


def _lines(work: Work, items: Iterable[Item], beat: Callable[[], None]) -> dict[bytes, Known]:
    """What the manifest has of them, folder by folder: they are sorted."""
    found: dict[bytes, Known] = {}
    for path, inside in groupby(items, lambda item: item.path.rpartition(b"/")[0]):
        beat()
        folder = work.manifest.folder(path)
        files = folder.files if folder else {}
        found.update((item.path, files[name]) for item in inside if (name := item.path.rpartition(b"/")[2]) in files)
    return found


async def _has_moved_on(work: Work, item: Item, known: Known) -> bool:
    """Whether the server's file is another by now than the one that was copied."""
    source = next(s for s in source_folders(work.run.config) if item.path.startswith(s.name.encode() + b"/"))
    path = item.path[len(source.name.encode()) + 1 :]
    now = (await work.run.ports.source.facts(source.path, [path])).get(path)
    return now is None or (now.size, now.mtime_ns) != (known.size, known.mtime_ns)


def _spoilt(known: Known) -> Known:
    return known._replace(mtime_ns=known.mtime_ns + 1, inode=0, digest=b"", proven=0)
