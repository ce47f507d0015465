"""What the disk is worth now: the dump that lies on it held against the files that lie on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import groupby

from immich_usb_backup.errors import StateDamaged
from immich_usb_backup.events import Event
from immich_usb_backup.model import DiskVerdict, Restorable, RunReport
from immich_usb_backup.policy.assets import Asset
from immich_usb_backup.policy.exclude import Excludes
from immich_usb_backup.policy.external import Coverage, cover
from immich_usb_backup.policy.manifest import Known
from immich_usb_backup.policy.sources import source_folders
from immich_usb_backup.policy.text import printable
from immich_usb_backup.policy.verdict import Pairs, Tally, known_folders, side_by_side, verdict, without_assets
from immich_usb_backup.policy.verdict_findings import of_rotten, of_verdict
from immich_usb_backup.policy.verdict_words import verdict_sentence
from immich_usb_backup.ports import AssetBook
from immich_usb_backup.stages.context import Work

_WHAT = "Holding the database dump against the disk"
_LOOKED_BACK = 50
_LONGEST_NAME = 255
_LONGEST_PATH = 4000


async def judge(work: Work) -> DiskVerdict:
    """Hold the dump's assets against the manifest, look for what is missing, note what a person must know, and say it.
    Raises ``StateDamaged``, ``SourceUnreadable`` and ``DeadlineMissed``."""
    blank = await _blank(work)
    rotten = frozenset(work.rotten_on_disk)
    if work.assets is None:
        found = without_assets(blank, rotten=rotten)
        work.run.note(*of_rotten(rotten))
    else:
        tally, outside = await _count(work, work.assets), await _cover(work, work.assets)
        found = verdict(tally, outside, blank)
        before, container = await _before(work), _container(work, work.assets)
        work.run.note(*of_verdict(tally, outside, found, before, container=container))
    work.run.verdict = found
    _say(work, found)
    return found


def _say(work: Work, found: DiskVerdict) -> None:
    run = work.run
    run.ports.log.say(
        Event.VERDICT,
        message=verdict_sentence(found, run.disk.name, today=run.ports.clock.now()),
        restorable=found.restorable.value,
        assets=found.assets,
        present=found.present,
        proven=found.proven,
        missing=found.missing,
        external_missing=found.external - found.external_covered,
        rotten=found.rotten_on_disk,
    )


async def _blank(work: Work) -> DiskVerdict:
    """The facts that need no counting."""
    files, _ = await work.manifest.totals()
    proven, oldest = await work.manifest.proofs()
    return DiskVerdict(
        restorable=Restorable.NO,
        dump=work.run.dump or "",
        dump_time=work.run.dump_time,
        immich=printable(work.assets.facts.immich) if work.assets is not None else "",
        rotten_on_server=len(work.rotten_on_server),
        files=files,
        files_proven=proven,
        oldest_proof=datetime.fromtimestamp(oldest, UTC) if oldest is not None else None,
    )


async def _before(work: Work) -> RunReport | None:
    """The last report on this disk that has a verdict. Without the history everything counts as new."""
    try:
        reports = await work.run.ports.history.runs(_LOOKED_BACK)
    except StateDamaged:
        return None
    ours = (report for report in reports if report.disk.uuid == work.run.disk.uuid)
    return next((report for report in ours if report.verdict is not None), None)


def _container(work: Work, book: AssetBook) -> bool:
    """Whether Immich sees its files under other paths than the server."""
    location = os.fsencode(work.run.config.media_location)
    return book.facts.media_location.rstrip(b"/") not in {b"", location.rstrip(b"/")}


# Counting -------------------------------------------------------------------------------------------------


async def _count(work: Work, book: AssetBook) -> Tally:
    """In portions, between which is looked for what was missing, so that even a million missing ones need little room."""
    tally = Tally(rotten=frozenset(work.rotten_on_disk))
    pairs = side_by_side(book.folders(), known_folders(work.manifest.folder))
    more = True
    while more:
        more = await work.run.ports.background(_taking(tally, pairs), what=_WHAT)
        await _look_for(work, book, tally)
    return tally


def _taking(tally: Tally, pairs: Pairs) -> Callable[[Callable[[], None]], bool]:
    return lambda beat: tally.take(pairs, beat)


async def _cover(work: Work, book: AssetBook) -> Coverage:
    config = work.run.config
    extra = {name: os.fsencode(path) for name, path in config.extra.items()}
    location = os.fsencode(config.media_location)

    def outside() -> Iterator[Asset]:  # a library of the media location's own is named from there on
        return (asset._replace(path=os.path.join(location, asset.path)) for asset in book.outside())

    return await work.run.ports.background(lambda beat: cover(outside, extra, work.manifest.folder, beat), what=_WHAT)


# What is missing ------------------------------------------------------------------------------------------


async def _look_for(work: Work, book: AssetBook, tally: Tally) -> None:
    """On the disk under another path; on the server; among what is left out by a pattern."""
    missing = tally.take_missing()
    if not missing:
        return
    elsewhere = await _elsewhere(work, book, missing)
    patterns = {one.name.encode(): Excludes.parse(one.exclude) for one in source_folders(work.run.config)}
    left = [asset.path for asset in missing if asset.path not in elsewhere]
    there = await _on_server(work, left)
    for path, known in elsewhere.values():
        tally.found_elsewhere(path, known)
    for path in left:
        if path not in there:
            tally.gone.add(path)
        elif _excluded(path, patterns):
            tally.excluded.add(path)
        else:
            tally.absent.add(path)


async def _elsewhere(work: Work, book: AssetBook, missing: Iterable[Asset]) -> Mapping[bytes, tuple[bytes, Known]]:
    """What lies on the disk with Immich's SHA-1 and under a path that the dump does not name: moved after the dump. By the
    dump's path. Each file is taken once."""
    wanted = [asset for asset in missing if asset.sha1]
    paths = dict(await work.manifest.with_digests({asset.sha1 for asset in wanted})) if wanted else {}
    named = await book.sha1s(paths.values()) if paths else {}
    unnamed = sorted(path for path in paths.values() if path not in named and path not in work.rotten_on_disk)
    lines = await work.run.ports.background(lambda beat: dict(_lines(work, unnamed, beat)), what=_WHAT)
    found: dict[bytes, tuple[bytes, Known]] = {}
    for asset in wanted:
        path = paths.pop(asset.sha1, b"")
        if path in lines:
            found[asset.path] = (path, lines[path])
    return found


def _lines(work: Work, paths: Iterable[bytes], beat: Callable[[], None]) -> Iterator[tuple[bytes, Known]]:
    """The manifest's lines of files, by their paths; each folder is read once where these are sorted."""
    for above, inside in groupby(paths, key=lambda path: path.rpartition(b"/")[0]):
        beat()
        folder = work.manifest.folder(above)
        files = folder.files if folder is not None else {}
        yield from ((path, files[path.rpartition(b"/")[2]]) for path in inside if path.rpartition(b"/")[2] in files)


async def _on_server(work: Work, paths: Iterable[bytes]) -> frozenset[bytes]:
    """Those that the server has. Where it answers with errors, nothing is called gone."""
    source, folder = work.run.ports.source, work.run.config.media_location
    asked = [path for path in paths if _can_be(path)]
    try:
        return frozenset(await source.facts(folder, asked))
    except OSError:
        return frozenset(asked)


def _can_be(path: bytes) -> bool:
    """Whether a path of the dump's can be a file's below the media location; else the system would be asked in vain."""
    parts = path.split(b"/")
    strange = {b"", b".", b".."}.intersection(parts) or b"\0" in path or len(path) > _LONGEST_PATH
    return not strange and all(len(part) <= _LONGEST_NAME for part in parts)


def _excluded(path: bytes, patterns: Mapping[bytes, Excludes]) -> bool:
    root, _, below = path.partition(b"/")
    excludes = patterns.get(root)
    if not excludes:
        return False
    parts = below.split(b"/")
    above = (b"/".join(parts[:length]) for length in range(1, len(parts)))
    return excludes.matches(below, folder=False) or any(excludes.matches(one, folder=True) for one in above)
