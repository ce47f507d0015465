"""The difference between a folder of the library and its copy on the disk, as a value, before a byte moves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from immich_usb_backup.policy.names import fold, path_problem
from immich_usb_backup.policy.text import counted

TIME_TOLERANCE_NS = 2_000_000_000
"""exFAT keeps 10 ms, some writers 2 s."""

_EARLIEST_NS = int(datetime(1980, 1, 1, tzinfo=UTC).timestamp()) * 10**9
_LATEST_NS = int(datetime(2107, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()) * 10**9
_DAY_NS = 86_400 * 10**9


class FileFact(NamedTuple):
    """Size in bytes and modification time in nanoseconds since 1970."""

    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Tree:
    """A folder as it was found. Paths are relative to it, bytes, with ``/``.

    ``others`` are neither files nor folders: path and kind. ``unreadable`` could not be looked into: path and reason.
    """

    files: Mapping[bytes, FileFact] = field(default_factory=dict)
    others: tuple[tuple[bytes, str], ...] = ()
    unreadable: tuple[tuple[bytes, str], ...] = ()

    @property
    def holds_photos(self) -> bool:
        """Whether there is any file but Immich's own mark."""
        return any(path != IMMICH_MARK for path in self.files)


IMMICH_MARK = b".immich"
"""Immich keeps this file in each of its folders; where it is missing the folder is not mounted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorPlan:
    """What must happen to make the disk's copy equal to the source.

    ``copy`` maps each path to its size; ``clearing`` must leave before the copying, because a file stands where a
    folder has to be or the other way round; ``remove`` leaves after it. ``skipped`` cannot be stored: path and reason.
    ``replaced`` has the present sizes of the files on the disk that are copied anew; ``doubted`` are those on the disk
    that look right and are not trusted. ``changed`` are originals on the disk whose size is another now, which Immich
    never does: they are set aside before the copying; ``emptied`` of them have no content any more in the source. ``kept_reason`` tells why nothing may be removed, empty where it may.
    """

    copy: Mapping[bytes, FileFact]
    clearing: tuple[bytes, ...]
    remove: tuple[bytes, ...]
    skipped: tuple[tuple[bytes, str], ...]
    unchanged: int
    replaced: Mapping[bytes, int] = field(default_factory=dict)
    doubted: tuple[bytes, ...] = ()
    changed: tuple[bytes, ...] = ()
    emptied: int = 0
    kept_reason: str = ""

    @property
    def copy_bytes(self) -> int:
        """Bytes to be copied."""
        return sum(fact.size for fact in self.copy.values())

    def space_needed(self, cluster: int) -> int:
        """Bytes on the disk that the copying takes at its worst moment, in whole clusters of ``cluster`` bytes: what is
        new, less what it replaces, and room for one file beside the one that it replaces."""
        new = sum(_clusters(fact.size, cluster) for fact in self.copy.values())
        freed = sum(_clusters(size, cluster) for size in self.replaced.values())
        largest = max((_clusters(self.copy[path].size, cluster) for path in self.replaced), default=0)
        return max(0, new - freed) + largest


def _clusters(size: int, cluster: int) -> int:
    return -(-size // cluster) * cluster


def plan_mirror(source: Tree, target: Tree, *, doubtful: frozenset[bytes] = frozenset()) -> MirrorPlan:
    """Compare by size and modification time; decide which of several colliding names is stored.

    ``doubtful`` files on the disk are not trusted, whatever their size and time: a run that was cut off wrote them.
    """
    chosen, skipped = _choose(source, target)
    on_disk = {fold(path): path for path in target.files}
    in_doubt = {fold(path) for path in doubtful}
    different = {f for f, path in chosen.items() if not _same(source.files[path], target, on_disk.get(f))}
    doubted = (in_doubt & chosen.keys()) - different
    copy = {chosen[folded]: source.files[chosen[folded]] for folded in different | doubted}
    gone = _gone(on_disk, chosen, source)
    changed = {f for f in different if f in on_disk and _is_another(source.files[chosen[f]], target, on_disk[f])}
    clearing = _in_the_way(gone, chosen)
    kept = _why_keep(source, target)
    return MirrorPlan(
        copy=dict(sorted(copy.items())),
        clearing=() if kept else tuple(path for path in gone if path in clearing),
        remove=() if kept else tuple(path for path in gone if path not in clearing),
        skipped=skipped,
        unchanged=len(chosen) - len(copy),
        replaced={chosen[f]: target.files[on_disk[f]].size for f in (different | doubted) - changed if f in on_disk},
        doubted=tuple(sorted(on_disk[f] for f in doubted if f in on_disk)),
        changed=tuple(sorted(on_disk[f] for f in changed)),
        emptied=sum(source.files[chosen[f]].size == 0 for f in changed),
        kept_reason=f"{kept}; {counted(len(gone), 'file')} that it lacks stay on the disk" if kept else "",
    )


def _gone(on_disk: Mapping[str, bytes], chosen: Mapping[str, bytes], source: Tree) -> tuple[bytes, ...]:
    """What lies on the disk and not in the source. What lies behind a link in the source is not gone: it was moved to
    another disk of the server."""
    links = {fold(path) for path, _ in source.others}
    behind = {f for f in on_disk if f in links or any(parent in links for parent in _parents(f))} if links else set()
    return tuple(sorted(path for folded, path in on_disk.items() if folded not in chosen and folded not in behind))


_REWRITTEN = (b".xmp", IMMICH_MARK)
"""What Immich itself writes anew: sidecars and its mark."""


def _is_another(fact: FileFact, target: Tree, stored: bytes) -> bool:
    return target.files[stored].size != fact.size and not stored.lower().endswith(_REWRITTEN)


def _choose(source: Tree, target: Tree) -> tuple[dict[str, bytes], tuple[tuple[bytes, str], ...]]:
    """One path for each folded form (the one that lies on the disk already, else the first), and what is left out."""
    chosen: dict[str, bytes] = {}
    skipped = [(path, f"it is a {kind}, which exFAT cannot hold") for path, kind in source.others]
    for path in sorted(source.files, key=lambda path: (path not in target.files, path)):
        if problem := path_problem(path):
            skipped.append((path, problem))
            continue
        winner = chosen.setdefault(fold(path), path)
        if winner != path:
            skipped.append((path, f"exFAT takes it for the same file as {winner.decode('utf-8', 'replace')}"))
    folders = {parent for folded in chosen for parent in _parents(folded)} & chosen.keys()
    skipped += [(chosen.pop(folder), "exFAT takes it for the same as a folder beside it") for folder in folders]
    return chosen, tuple(sorted(skipped))


def _same(fact: FileFact, target: Tree, stored: bytes | None) -> bool:
    if stored is None:
        return False
    there = target.files[stored]
    return there.size == fact.size and times_agree(fact.mtime_ns, there.mtime_ns)


def times_agree(source_ns: int, stored_ns: int) -> bool:
    """Whether the stored time is the source's, as far as exFAT (1980 to 2107, 10 ms) can tell.

    Beyond its range the driver stores a bound, but shows the time it was given until the file system is mounted again
    (measured): both are right.
    """
    if abs(source_ns - stored_ns) <= TIME_TOLERANCE_NS:
        return True
    if _EARLIEST_NS <= source_ns <= _LATEST_NS:
        return False
    bound = _EARLIEST_NS if source_ns < _EARLIEST_NS else _LATEST_NS
    return abs(stored_ns - bound) <= _DAY_NS


def _in_the_way(gone: tuple[bytes, ...], chosen: Mapping[str, bytes]) -> frozenset[bytes]:
    """The paths on the disk that must go first: a file where a folder comes, or below a file that comes."""
    folders = {parent for folded in chosen for parent in _parents(folded)}
    return frozenset(path for path in gone if _blocks(fold(path), folders, chosen))


def _blocks(folded: str, folders: set[str], chosen: Mapping[str, bytes]) -> bool:
    return folded in folders or any(parent in chosen for parent in _parents(folded))


def _parents(path: str) -> Iterator[str]:
    position = path.find("/")
    while position >= 0:
        yield path[:position]
        position = path.find("/", position + 1)


def _why_keep(source: Tree, target: Tree) -> str:
    """Why nothing may be removed from the disk, or an empty text. Doubt is always resolved towards keeping."""
    if IMMICH_MARK not in source.files:
        return "Immich's mark .immich is missing in the source (is it mounted?)"
    if not source.holds_photos and target.holds_photos:
        return "the source is empty and the copy on the disk is not"
    if source.unreadable:
        return (
            f"{counted(len(source.unreadable), 'folder or file', 'folders or files')} of the source could not be read"
        )
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyCheck:
    """What a look at the disk says about the files that were to be copied.

    ``size`` is in bytes. ``again`` are worth another try: path and reason. ``vanished`` are no longer in the source.
    """

    files: int
    size: int
    again: tuple[tuple[bytes, str], ...]
    vanished: tuple[bytes, ...]


def check_copy(
    planned: Mapping[bytes, FileFact], on_disk: Mapping[bytes, FileFact], source: Mapping[bytes, FileFact]
) -> CopyCheck:
    """Hold what lies on the disk against the source as it is now, whatever the copying program said of itself."""
    good: list[FileFact] = []
    again: list[tuple[bytes, str]] = []
    vanished: list[bytes] = []
    for path in planned:
        now, there = source.get(path), on_disk.get(path)
        if now is None:
            vanished.append(path)
        elif there is not None and there.size == now.size and times_agree(now.mtime_ns, there.mtime_ns):
            good.append(there)
        else:
            again.append((path, "it did not arrive on the disk" if now == planned[path] else "it changed meanwhile"))
    return CopyCheck(files=len(good), size=sum(f.size for f in good), again=tuple(again), vanished=tuple(vanished))


def explain(failed: tuple[tuple[bytes, str], ...], complaints: tuple[str, ...]) -> tuple[tuple[bytes, str], ...]:
    """The failed files, with what the copying program said about each where it said something."""
    return tuple((path, _complaint(path, complaints) or reason) for path, reason in failed)


def _complaint(path: bytes, complaints: tuple[str, ...]) -> str:
    name = path.rpartition(b"/")[2].decode("utf-8", "surrogateescape")
    line = next((line for line in complaints if name in line), "")
    return line.rpartition(" failed: ")[2] if " failed: " in line else line
