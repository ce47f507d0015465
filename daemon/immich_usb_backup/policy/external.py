"""Immich's external libraries: whether the configured extra folders hold their files, and which lines of the configuration
would have the rest backed up.

A container sees a folder under another path than the server. So the end of each path is held against what lies below
``extra/NAME`` on the disk; where more than half of all files below one folder are found so, that folder is taken for it.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from immich_usb_backup.config import LIBRARY_FOLDERS
from immich_usb_backup.policy.assets import Asset
from immich_usb_backup.policy.outcome import ITEMS_KEPT
from immich_usb_backup.policy.plan import Lookup
from immich_usb_backup.policy.text import harmless, printable

LINES_AT_MOST = 10
"""So many folders are named in the configuration that would cover the rest."""

_CANDIDATES = 20
_REMEMBERED = 100
_SHARED = frozenset({b"mnt", b"media", b"srv", b"home", b"usr", b"var", b"opt", b"run"})
"""Folders in which things lie that have nothing to do with each other."""


@dataclass(slots=True)
class Names:
    """Files of one kind: how many there are, and the first of their names."""

    count: int = 0
    items: list[str] = field(default_factory=list)

    def add(self, path: bytes) -> None:
        """One more."""
        self.count += 1
        if len(self.items) < ITEMS_KEPT:
            self.items.append(printable(path))


@dataclass(slots=True, kw_only=True)
class Coverage:
    """Of the assets outside the media location: how many there are, those whose files are not on the disk, and the lines of
    configuration that would change that. What lies in the trash is counted apart."""

    assets: int = 0
    trashed: int = 0
    missing: Names = field(default_factory=Names)
    lines: tuple[str, ...] = ()


class Rule(NamedTuple):
    """What Immich has below ``prefix`` lies below ``extra/NAME`` on the disk. Neither ends with a slash."""

    prefix: bytes
    folder: bytes


def cover(
    outside: Callable[[], Iterable[Asset]], extra: Mapping[str, bytes], lookup: Lookup, beat: Callable[[], None]
) -> Coverage:
    """Hold the assets against the manifest. ``extra`` has the server's paths of the configured folders by their names.
    ``outside`` gives the assets sorted by path, and is asked twice."""
    shelf = _Shelf(lookup)
    rules = [Rule(path.rstrip(b"/"), b"extra/" + name.encode()) for name, path in extra.items()]
    if extra:
        rules += _learned(outside(), rules, shelf, beat)
    found = Coverage()
    parents: dict[bytes, bytes] = {}
    for asset in outside():
        beat()
        if asset.trashed:
            found.trashed += 1
            continue
        found.assets += 1
        if not any(shelf.has(rule, asset.path) for rule in rules):
            found.missing.add(asset.path)
            if not any(_below(asset.path, rule.prefix) for rule in rules):
                _widen(parents, asset.path)
    found.lines = tuple(_lines(parents.values(), taken=extra))
    return found


class _Shelf:
    """What the manifest has below the extra folders; the folders that were asked for last are remembered."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._last: dict[bytes, frozenset[bytes]] = {}

    def names(self, path: bytes) -> frozenset[bytes]:
        """The files of one folder."""
        if path not in self._last:
            if len(self._last) >= _REMEMBERED:
                self._last.clear()
            folder = self._lookup(path)
            files = folder.files.items() if folder is not None else ()
            self._last[path] = frozenset(name for name, known in files if known.link is None)
        return self._last[path]

    def has(self, rule: Rule, path: bytes) -> bool:
        """Whether a file is where the rule has it."""
        folder, _, name = path.rpartition(b"/")
        return _below(path, rule.prefix) and name in self.names(rule.folder + folder[len(rule.prefix) :])


def _learned(assets: Iterable[Asset], known: Sequence[Rule], shelf: _Shelf, beat: Callable[[], None]) -> list[Rule]:
    """Which folders of Immich's the extra folders are, by what most paths end with. One for each extra folder, and none for
    those that Immich has under the server's path."""
    folders: Counter[bytes] = Counter()
    votes: Counter[Rule] = Counter()
    settled: set[bytes] = set()
    last, guesses = b"", _guesses(b"", known, shelf)
    for asset in assets:
        beat()
        direct = [rule.folder for rule in known if _below(asset.path, rule.prefix)]
        settled.update(direct)
        if asset.trashed or direct:
            continue
        folder, _, name = asset.path.rpartition(b"/")
        if folder != last:
            last, guesses = folder, _guesses(folder, known, shelf)
        folders[folder] += 1
        votes.update(rule for rule, names in guesses if name in names)
    return list(_elected(votes, folders, settled))


def _elected(votes: Counter[Rule], folders: Mapping[bytes, int], settled: set[bytes]) -> Iterator[Rule]:
    for rule, number in votes.most_common(_CANDIDATES):
        below = sum(files for folder, files in folders.items() if _below(folder + b"/", rule.prefix))
        if rule.folder not in settled and 2 * number > below:
            settled.add(rule.folder)
            yield rule


def _guesses(folder: bytes, known: Iterable[Rule], shelf: _Shelf) -> list[tuple[Rule, frozenset[bytes]]]:
    """Each folder from this one upwards might be each of the extra ones: what would then lie beside each other."""
    parts = folder.split(b"/")
    prefixes = [b"/".join(parts[:length]) for length in range(1, len(parts) + 1)]
    rules = [Rule(prefix, rule.folder) for prefix in prefixes for rule in known]
    found = [(rule, shelf.names(rule.folder + folder[len(rule.prefix) :])) for rule in rules]
    return [(rule, names) for rule, names in found if names]


def _below(path: bytes, prefix: bytes) -> bool:
    return path.startswith(prefix + b"/")


def _widen(parents: dict[bytes, bytes], path: bytes) -> None:
    """Keep the folder that is common to all paths which begin alike; ``parents`` is by how they begin."""
    folder = b"/" + path.rpartition(b"/")[0].lstrip(b"/")
    parts = folder.split(b"/")
    begins = b"/".join(parts[: 3 if parts[1] in _SHARED else 2])
    if begins in parents:
        parents[begins] = posixpath.commonpath([parents[begins], folder])
    elif len(parents) < LINES_AT_MOST:
        parents[begins] = folder


def _lines(folders: Iterable[bytes], *, taken: Iterable[str]) -> Iterator[str]:
    names = {name.lower() for name in (*LIBRARY_FOLDERS, *taken)}
    for folder in folders:
        path = folder.decode("utf-8", "surrogateescape")
        name = _free_name(path, names)
        names.add(name.lower())
        yield f"extra.{name} = {harmless(json.dumps(path, ensure_ascii=False))}"


def _free_name(path: str, taken: set[str]) -> str:
    base = re.sub(r"[^A-Za-z0-9_-]+", "-", path.rpartition("/")[2]).strip("-")[:36] or "external"
    numbered = (f"{base}-{number}" for number in range(2, len(taken) + 3))
    return next(name for name in (base, *numbered) if name.lower() not in taken)
