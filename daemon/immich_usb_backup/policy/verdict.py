"""What a disk is worth: the dump's assets held against what lies on the disk, folder by folder. Values in, counts and names
out; of a million assets only those are kept that something is wrong with, and of these at most so many at a time."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from itertools import islice

from immich_usb_backup.model import DiskVerdict, Restorable
from immich_usb_backup.policy.assets import Asset
from immich_usb_backup.policy.external import Coverage, Names
from immich_usb_backup.policy.manifest import Known, KnownFolder
from immich_usb_backup.policy.outcome import ITEMS_KEPT
from immich_usb_backup.policy.plan import IMMICH_MARK, Lookup
from immich_usb_backup.policy.text import counted, printable

ROOTS = (b"library", b"upload")
"""The folders whose files are originals of assets; what lies in ``profile`` no asset names."""

MISSING_AT_ONCE = 50_000
"""So many files that are not in their places are collected before they are looked for elsewhere."""

_SIDECAR = b".xmp"

Pairs = Iterator[tuple[bytes, Mapping[bytes, Asset], KnownFolder | None]]


def known_folders(lookup: Lookup, roots: Iterable[bytes] = ROOTS) -> Iterator[KnownFolder]:
    """Every folder that the manifest has below the roots, sorted by path."""
    waiting = sorted(roots)
    while waiting:
        folder = lookup(heapq.heappop(waiting))
        if folder is None:
            continue
        yield folder
        for name in folder.folders:
            heapq.heappush(waiting, folder.path + b"/" + name)


def side_by_side(named: Iterator[tuple[bytes, Mapping[bytes, Asset]]], known: Iterator[KnownFolder]) -> Pairs:
    """The dump's folders and the manifest's, both sorted by path, as one row of pairs."""
    ours, theirs = next(named, None), next(known, None)
    while ours is not None or theirs is not None:
        if theirs is None or (ours is not None and ours[0] < theirs.path):
            assert ours is not None
            yield ours[0], ours[1], None
            ours = next(named, None)
        elif ours is None or theirs.path < ours[0]:
            yield theirs.path, {}, theirs
            theirs = next(known, None)
        else:
            yield ours[0], ours[1], theirs
            ours, theirs = next(named, None), next(known, None)


@dataclass(slots=True, kw_only=True)
class Tally:
    """What was counted so far. ``rotten`` are the server's paths of files that are damaged on the disk.

    ``missing`` are assets that are not in their places, until somebody has looked for them: ``found_elsewhere``, ``absent``
    (the server has it), ``excluded`` (by a pattern) or ``gone`` (the server does not have it either).
    """

    rotten: Set[bytes] = frozenset()
    assets: int = 0
    present: int = 0
    proven: int = 0
    moved: int = 0
    trashed: int = 0
    unknown: int = 0
    missing: list[Asset] = field(default_factory=list)
    changed: Names = field(default_factory=Names)
    absent: Names = field(default_factory=Names)
    excluded: Names = field(default_factory=Names)
    gone: Names = field(default_factory=Names)

    def take(self, pairs: Pairs, beat: Callable[[], None]) -> bool:
        """Count until too many are missing to go on, or to the end. Returns whether there is more."""
        for _, assets, there in pairs:
            beat()
            self._add(assets, there)
            if len(self.missing) >= MISSING_AT_ONCE:
                return True
        return False

    def _add(self, assets: Mapping[bytes, Asset], there: KnownFolder | None) -> None:
        files = there.files if there is not None else {}
        for name, asset in assets.items():
            self._asset(asset, files.get(name))
        if there is not None and not files.keys() <= assets.keys():
            self.unknown += _unknown(files, assets)

    def _asset(self, asset: Asset, known: Known | None) -> None:
        if asset.trashed:
            self.trashed += 1
            return
        self.assets += 1
        if asset.path in self.rotten:
            return  # it may be missing in the manifest as well, where it was copied and never read back right
        if known is None or known.link is not None:
            self.missing.append(asset)
        else:
            self._present(asset, known)

    def _present(self, asset: Asset, known: Known) -> None:
        self.present += 1
        if asset.sha1 and known.digest and asset.sha1 != known.digest:
            self.changed.add(asset.path)
        elif known.proven and known.digest:
            self.proven += 1

    def take_missing(self) -> list[Asset]:
        """Those that nobody has looked for yet; they are not kept any longer."""
        missing, self.missing = self.missing, []
        return missing

    def found_elsewhere(self, path: bytes, known: Known) -> None:
        """A missing one lies on the disk under another path, which the dump does not name."""
        self.present += 1
        self.moved += 1
        self.proven += known.proven > 0
        self.unknown -= path.startswith(tuple(root + b"/" for root in ROOTS))


def _unknown(files: Mapping[bytes, Known], assets: Mapping[bytes, Asset]) -> int:
    """How many files of a folder the dump does not account for."""
    strange = [name for name, known in files.items() if name not in assets and known.link is None]
    sidecars = [name for name in strange if name.lower().endswith(_SIDECAR)]
    bare = {name.rpartition(b".")[0] for name in assets} if sidecars else set()
    beside = sum(name[: -len(_SIDECAR)] in assets or name[: -len(_SIDECAR)] in bare for name in sidecars)
    return len(strange) - beside - (IMMICH_MARK in strange)


def without_assets(blank: DiskVerdict, *, rotten: Set[bytes] = frozenset()) -> DiskVerdict:
    """Of a disk whose dump could not be read, or that has none: nobody can tell whether it brings everything back.
    ``blank`` has the facts that need no counting."""
    reason = (
        "the list of photos in its database dump could not be read, so nobody can tell whether all are there"
        if blank.dump
        else "no good database dump came with this backup"
    )
    return replace(
        blank,
        restorable=Restorable.NO,
        rotten_on_disk=len(rotten),
        reasons=(reason, *_of_rotten(rotten)),
        exceptions=tuple(_rotten_names(rotten)),
        exception_count=len(rotten),
    )


def verdict(tally: Tally, outside: Coverage, blank: DiskVerdict) -> DiskVerdict:
    """The whole of it. ``blank`` has the facts that need no counting."""
    missing = tally.absent.count + tally.excluded.count + tally.gone.count
    exceptions = len(tally.rotten) + missing + outside.missing.count
    return replace(
        blank,
        restorable=_restorable(tally, outside, exceptions),
        assets=tally.assets,
        present=tally.present,
        proven=tally.proven,
        moved=tally.moved,
        missing=missing,
        missing_on_server=tally.gone.count,
        changed=tally.changed.count,
        rotten_on_disk=len(tally.rotten),
        external=outside.assets,
        external_covered=outside.assets - outside.missing.count,
        extra_folders=outside.lines,
        trashed=tally.trashed + outside.trashed,
        unknown=max(0, tally.unknown),
        reasons=tuple(_reasons(tally, outside)),
        exceptions=tuple(islice(_exceptions(tally, outside), ITEMS_KEPT)),
        exception_count=exceptions,
    )


def _restorable(tally: Tally, outside: Coverage, exceptions: int) -> Restorable:
    wanted = tally.assets + outside.assets
    there = tally.present + outside.assets - outside.missing.count
    if wanted and not there:
        return Restorable.NO
    return Restorable.EXCEPT if exceptions else Restorable.YES


def _exceptions(tally: Tally, outside: Coverage) -> Iterator[str]:
    """The names, those first that say most about the disk."""
    yield from _rotten_names(tally.rotten)
    yield from (f"{name}: not on the disk" for name in tally.absent.items)
    yield from (f"{name}: neither on the disk nor on the server" for name in tally.gone.items)
    yield from (f"{name}: left out by [exclude]" for name in tally.excluded.items)
    yield from (f"{name}: external library" for name in outside.missing.items)


def _reasons(tally: Tally, outside: Coverage) -> Iterator[str]:
    yield from _of_rotten(tally.rotten)
    if number := tally.absent.count:
        yield f"{counted(number, 'photo')} {_are(number)} not on the disk"
    if number := tally.gone.count:
        yield f"{counted(number, 'photo')} {_are(number)} neither on the disk nor on the server"
    if number := tally.excluded.count:
        yield f"{counted(number, 'photo')} {_are(number)} left out by the patterns under [exclude]"
    if number := outside.missing.count:
        yield f"{counted(number, 'photo')} of external libraries {_are(number)} not on the disk"


def _rotten_names(rotten: Set[bytes]) -> Iterator[str]:
    return (f"{printable(path)}: damaged on the disk" for path in sorted(rotten)[:ITEMS_KEPT])


def _of_rotten(rotten: Set[bytes]) -> Iterator[str]:
    if rotten:
        yield f"{counted(len(rotten), 'file')} on the disk {_are(len(rotten))} damaged"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"
