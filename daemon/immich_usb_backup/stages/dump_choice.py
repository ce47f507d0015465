"""Which of the server's dumps goes to the disk: one that is made for this backup, where that is wanted, else the newest."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from immich_usb_backup.errors import BackupError, SourceUnreadable
from immich_usb_backup.policy.dumps import DumpName, newest_first
from immich_usb_backup.ports import Source
from immich_usb_backup.stages.context import RunContext

_SLACK_SECONDS = 120.0
"""How much later than the unit's own deadline this one is."""


@dataclass(frozen=True, slots=True)
class ServerDump:
    """A routine dump on the server. ``fresh``: it was made for this backup."""

    dump: DumpName
    folder: Path
    fresh: bool = False

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.folder / self.dump.name

    @property
    def time(self) -> datetime:
        """When it was made, by its name."""
        return self.dump.time


@dataclass(frozen=True, slots=True)
class Choice:
    """The dump that is wanted most of those that are whole, and those before it that are not: name and reason. ``unreadable``:
    folders that could not be looked into. ``not_made``: why there is no fresh one, None where all is well."""

    good: ServerDump | None
    bad: tuple[tuple[str, str], ...]
    unreadable: tuple[tuple[str, str], ...]
    not_made: str | None


async def choose(run: RunContext) -> Choice:
    """Have a fresh dump made, where that is configured, and read dumps to their ends until one is whole."""
    before, _ = await _look(run)
    not_made = await _make(run)
    found, unreadable = await _look(run)
    known = {dump.path for dump in before}
    wants_fresh = run.config.database.mode != "latest"
    dumps = [ServerDump(each.dump, each.folder, wants_fresh and each.path not in known) for each in found]
    if wants_fresh and not_made is None and not any(dump.fresh for dump in dumps):
        not_made = "it is said to be there, but no new dump lies where dumps are looked for"
    good, bad = await _first_good(run.ports.source, sorted(dumps, key=_wish, reverse=True))
    return Choice(good, bad, unreadable, not_made)


def _wish(dump: ServerDump) -> tuple[bool, DumpName]:
    """A fresh one first, whatever its name says: the clocks behind two names may be hours apart."""
    return dump.fresh, dump.dump


async def _make(run: RunContext) -> str | None:
    """Why there is no fresh dump, or None."""
    database = run.config.database
    if database.mode == "latest":
        return None
    try:
        return await run.ports.dump_maker.make(seconds=database.fresh_minutes * 60 + _SLACK_SECONDS)
    except BackupError as error:
        return error.message


async def _look(run: RunContext) -> tuple[list[ServerDump], tuple[tuple[str, str], ...]]:
    """The routine dumps in Immich's folder, and in ours where a program makes them; folders that cannot be read."""
    found: list[ServerDump] = []
    unreadable: list[tuple[str, str]] = []
    ours = [run.ports.dump_maker.folder] if run.config.database.mode in {"pg_dump", "command"} else []
    for folder in (run.config.dumps, *ours):
        try:
            names = await run.ports.source.names(folder)
        except SourceUnreadable as error:
            unreadable.append((str(folder), error.message))
        else:
            found.extend(ServerDump(dump, folder) for dump in newest_first(names))
    return found, tuple(unreadable)


async def _first_good(source: Source, dumps: list[ServerDump]) -> tuple[ServerDump | None, tuple[tuple[str, str], ...]]:
    bad: list[tuple[str, str]] = []
    for dump in dumps:
        try:
            problem = await source.dump_problem(dump.path)
        except SourceUnreadable as error:
            problem = error.message
        if problem is None:
            return dump, tuple(bad)
        bad.append((dump.dump.name, problem))
    return None, tuple(bad)
