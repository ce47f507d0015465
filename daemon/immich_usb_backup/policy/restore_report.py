"""What a restore tells: how far it is, what is restored, what is not, and what comes next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from immich_usb_backup.policy.restore import NOT_RESTORED, RESTORED_BUT, Kind, Tally
from immich_usb_backup.policy.text import counted, duration, harmless, harmless_lines, size

_NAMES_SHOWN = 20
_NOT_WHOLE = (
    "Look at these before you start Immich. With another disk that has a backup, run the same command from that one:",
    "it adds what is missing, and changes nothing that is there.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the summary is made of. ``stopped`` is why the restore ended early, and ``files_done`` whether that was after the
    files. ``only_files``: the server is said to have its database. ``dump`` is the name in ``backups/``, empty for none; ``database_lines`` what was done with
    the database, None where it was not asked for. ``left`` are further things that were not restored, each a sentence."""

    to: str
    dry_run: bool
    only_files: bool = False
    files_done: bool = True
    everything: bool = False
    stopped: str = ""
    dump: str = ""
    database_lines: tuple[str, ...] | None = None
    left: tuple[str, ...] = ()


def progress_line(*, done: int, total: int, files: int, of_files: int, seconds: float) -> str:
    """``1.2 GB of 3.0 GB (40 %), 410 of 1,025 files, 31.0 MB/s, about 58 s left``. Sizes in bytes."""
    percent = f" ({min(100, 100 * done // total)} %)" if total else ""
    rate = done / seconds if seconds > 0 else 0.0
    left = f", {size(rate)}/s, about {duration(max(0, total - done) / rate)} left" if rate and seconds >= 2 else ""
    return f"{size(done)} of {size(total)}{percent}, {files:,} of {counted(of_files, 'file')}{left}"


def summary(tally: Tally, told: Told) -> Iterator[str]:
    """The whole text at the end, without terminal control characters."""
    if told.stopped:
        yield from harmless_lines(f"Stopped: {told.stopped}")
    yield from _restored(tally, told)
    yield from _database(told)
    shown = None if told.everything else _NAMES_SHOWN
    yield from _kinds("Not restored:", NOT_RESTORED, tally, shown, told.left)
    yield from _kinds("To look at:", RESTORED_BUT, tally, shown, ())
    yield "Next:"
    yield from (f"    {harmless(step)}" for step in _next_steps(tally, told))


def _restored(tally: Tally, told: Told) -> Iterator[str]:
    to = harmless(told.to)
    files = f"{counted(tally.files, 'file')} ({size(tally.size)})"
    if told.dry_run:
        yield f"Would restore to {to}: {files}. Nothing was written."
    elif not tally.files:
        yield f"Nothing was written to {to}."
    else:
        yield f"Restored to {to}: {files}, each read back and compared{_proven(tally)}."
    if tally.links:
        yield f"    {counted(tally.links, 'link')} as well."
    if tally.there:
        yield f"    {counted(tally.there, 'file')} {'was' if tally.there == 1 else 'were'} there already."
    if tally.moved:
        verb, them = ("was", "it") if tally.moved == 1 else ("were", "them")
        verb = "would be" if told.dry_run else verb
        yield (
            f"    {counted(tally.moved, 'photo')} {verb} put where the database expects {them}: "
            f"Immich had moved {them} after the dump."
        )
    if told.dump and told.files_done:
        verb = "would be put into" if told.dry_run else "is in"
        yield f"    The dump {harmless(told.dump)} {verb} backups/, where Immich's own page for restoring finds it."


def _proven(tally: Tally) -> str:
    if not tally.files or not tally.proven:
        return " with the disk"
    if tally.proven == tally.files:
        return " with the SHA-1 of the backup's list"
    return f": {tally.proven:,} with the SHA-1 of the backup's list, {tally.files - tally.proven:,} with the disk"


def _database(told: Told) -> Iterator[str]:
    if told.database_lines is not None:
        yield "Database:"
        yield from (f"    {harmless(line)}" for line in told.database_lines)


def _kinds(
    title: str, words: Mapping[Kind, str], tally: Tally, shown: int | None, left: Iterable[str]
) -> Iterator[str]:
    lines = [line for kind, text in words.items() if kind in tally.counts for line in _kind(kind, text, tally, shown)]
    lines += [f"    {harmless(sentence)}" for sentence in left]
    if lines:
        yield title
        yield from lines


def _kind(kind: Kind, text: str, tally: Tally, shown: int | None) -> Iterator[str]:
    yield f"    {counted(tally.counts[kind], 'file')}: {text}"
    names = tally.named[kind][:shown]
    for path, reason in names:
        name = harmless(path.decode("utf-8", "surrogateescape"))
        yield f"        {name}" + (f": {harmless(reason)}" if reason else "")
    if (more := tally.counts[kind] - len(names)) > 0:
        yield f"        and {more:,} more (--all shows them)"


def _next_steps(tally: Tally, told: Told) -> Iterator[str]:
    if told.stopped and told.files_done:
        yield "When that is put right, run the same command with --only database. Do not start Immich before."
        return
    if told.stopped:
        yield "Run the same command again: it goes on where it stopped. Immich's own marks (.immich) are written last, so that"
        yield "it does not start on half a library."
        return
    if told.dry_run:
        yield "Run the same command without --dry-run."
        return
    if not tally.whole:
        yield from _NOT_WHOLE
    if told.only_files:
        yield "Start Immich, and look at a few photos, old and new. If its database is lost as well, do not start it: run the same"
        yield "command again, without --only files."
        return
    if told.database_lines is None:
        yield "Restore the database before you start Immich for the first time: the same command with --only database, and"
        yield "--docker immich_postgres or --database URL. Or start Immich and choose the dump on its own page (2.5 and newer)."
    yield "Start Immich, in the version that made the dump or a newer one, and look at a few photos, old and new."
    yield "Then let it make thumbnails and videos again: Administration, Jobs, 'missing' for both."
