"""``immich-usb-backup restore``: from a disk, or a copy of its folder, back to a server. It needs no service and no configuration."""

from __future__ import annotations

import argparse
import asyncio
import grp
import pwd
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from immich_usb_backup.adapters.threads import Pulse, in_thread
from immich_usb_backup.errors import BackupError, NoBackupHere
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.policy.restore import Modes, Owner, Tally, modes
from immich_usb_backup.policy.restore_report import Told, summary
from immich_usb_backup.policy.text import counted, harmless, moment, printable, size
from immich_usb_backup.restore import config_files, dumps
from immich_usb_backup.restore.database import DatabasePlan, DatabaseTarget, check_target, restore_database
from immich_usb_backup.restore.files import Ways
from immich_usb_backup.restore.preparing import EXTRA, Prepared, Wish, prepare
from immich_usb_backup.restore.progress import Progress
from immich_usb_backup.restore.restoring import restore_files
from immich_usb_backup.restore.source import Source

T = TypeVar("T")

STALL_SECONDS = 600.0
"""Writing out waits for whatever else this machine has to write."""

_STOPPED = "you stopped it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    add = parser.add_argument
    add(
        "--from",
        dest="source",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="where the disk is mounted, or a copy of its folder",
    )
    add(
        "--to",
        type=Path,
        metavar="FOLDER",
        help="Immich's media location (UPLOAD_LOCATION), empty or not; with --only config any folder",
    )
    add(
        "--only",
        choices=("files", "database", "config"),
        help="default: files and dump, and the database where --database or --docker names one; "
        "'files' is for a server that still has its database, 'config' unpacks the configuration files",
    )
    add(
        "--dump",
        default="",
        metavar="NAME",
        help="a dump in the disk's folder database; default: the newest one that is whole",
    )
    add(
        "--database",
        default="",
        metavar="URL",
        help="restore the database, too, into this empty one, such as postgresql:///immich",
    )
    add(
        "--docker",
        default="",
        metavar="CONTAINER",
        help="restore the database, too, in this container, such as immich_postgres",
    )
    add(
        "--extra",
        action="append",
        default=[],
        type=_extra,
        metavar="NAME=PATH",
        help="restore the disk's folder extra/NAME to PATH, too; may be given several times",
    )
    add(
        "--owner",
        type=_owner,
        default=Owner(),
        metavar="USER:GROUP",
        help="who owns what is made; default: whoever owns the folder --to",
    )
    add("--mode", type=_modes, default=Modes(), metavar="OCTAL", help="permissions of files; default: 644")
    add(
        "--overwrite",
        action="store_true",
        help="replace files that are there with another content; never by a damaged one",
    )
    add(
        "--compare",
        action="store_true",
        help="also read files that are there with the right size and time, which are believed else",
    )
    add(
        "--by-disk-names",
        action="store_true",
        help="do not use the manifest: files keep the names that they have on the disk",
    )
    add("--dry-run", action="store_true", help="write nothing, only say what would be done")
    add("--all", action="store_true", help="name every file at the end, not only the first few of each kind")
    parser.set_defaults(refuse=parser.error)


def _extra(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError("should be NAME=PATH")
    return name, Path(path)


def _modes(text: str) -> Modes:
    try:
        return modes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"should be something like 640: {error}") from error


def _owner(text: str) -> Owner:
    """``USER:GROUP``, ``USER`` (with their own group) or numbers."""
    user, colon, group = text.partition(":")
    try:
        number = int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid
        if colon:
            return Owner(number, int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid)
        return Owner(number, -1 if user.isdecimal() else pwd.getpwnam(user).pw_gid)
    except KeyError as error:
        raise argparse.ArgumentTypeError(f"there is no such user or group here: {text}") from error


def run(arguments: argparse.Namespace) -> int:
    """0: everything is restored; 1: not everything, each file is named; 69: it could not begin."""
    _check_usage(arguments)
    if arguments.only == "config":
        return _config(arguments)
    if arguments.only == "database":
        return _database(arguments)
    return _files(arguments)


def _check_usage(arguments: argparse.Namespace) -> None:
    if arguments.database and arguments.docker:
        arguments.refuse("--database and --docker: only one of them")
    named = bool(arguments.database or arguments.docker)
    if arguments.only == "database" and not named:
        arguments.refuse("--only database needs --database or --docker")
    if arguments.only in ("files", "config") and named:
        arguments.refuse(f"--only {arguments.only} does not touch the database: leave --database and --docker out")
    if arguments.only != "database" and arguments.to is None:
        arguments.refuse("--to is missing")


def _in_thread(work: Callable[[Pulse], T]) -> T:
    """Run it so that SIGINT and SIGTERM end it in an orderly way. Raises ``asyncio.CancelledError`` then, ``DeadlineMissed``."""

    async def waiting() -> T:
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        return await in_thread(work, what="The restore", stall_seconds=STALL_SECONDS)

    return asyncio.run(waiting())


# Configuration --------------------------------------------------------------------------------------------


def _config(arguments: argparse.Namespace) -> int:
    source = Source(arguments.source)
    try:
        done = _in_thread(
            lambda pulse: config_files.unpack(
                source, arguments.to, owner=arguments.owner, dry_run=arguments.dry_run, beat=pulse.beat
            )
        )
    except asyncio.CancelledError:
        return _say("Stopped: the configuration is not unpacked.", code=ExitCode.PROBLEM)
    finally:
        source.close()
    _say(*_unpacked(done, dry_run=arguments.dry_run))
    return ExitCode.PROBLEM if done.refused or done.passed_over else ExitCode.OK


def _unpacked(done: config_files.Unpacked, *, dry_run: bool) -> Iterator[str]:
    verb = "Would unpack" if dry_run else "Unpacked"
    yield f"{verb} {printable(done.name)} to {harmless(str(done.folder))}: {counted(done.files, 'file')}."
    for title, items in (("Damaged, passed over", done.passed_over), ("Left out", done.refused)):
        yield from (f"    {title}: {printable(name)}: {harmless(reason)}" for name, reason in items)
    yield "Nothing was put where it came from. The files hold passwords: only their owner may read them."
    yield "Next: read readme.txt there, and put back by hand what you need, such as docker-compose.yml and .env."


# Database -------------------------------------------------------------------------------------------------


def _target(arguments: argparse.Namespace) -> DatabaseTarget | None:
    if not (arguments.database or arguments.docker):
        return None
    return DatabaseTarget(url=arguments.database, docker=arguments.docker)


def _database(arguments: argparse.Namespace) -> int:
    source = Source(arguments.source)
    try:
        chosen = _in_thread(lambda pulse: dumps.choose(source, arguments.dump, pulse.beat))
        _say(*_dump_lines(chosen))
        plan = _check(source, chosen, arguments)
    except asyncio.CancelledError:
        return _say("Stopped. The database was not touched.", code=ExitCode.PROBLEM)
    finally:
        source.close()
    assert plan is not None
    if arguments.dry_run:
        return _say("Nothing was written.")
    _say(*restore_database(plan, _say_one).lines)
    return ExitCode.PROBLEM if chosen.passed_over else ExitCode.OK


def _check(source: Source, chosen: dumps.Chosen, arguments: argparse.Namespace) -> DatabasePlan | None:
    """What would be done with the database, said aloud. Raises ``NoBackupHere`` where there is no dump, and what
    ``check_target`` raises."""
    target = _target(arguments)
    if target is None:
        return None
    if not chosen.name:
        raise NoBackupHere(
            "There is no database dump on the disk that is whole",
            hint="To restore the files alone, leave --database and --docker out",
        )
    plan = check_target(source.folder / dumps.FOLDER / chosen.name, target)
    _say("Database:", *(f"    {line}" for line in plan.lines))
    return plan


def _dump_lines(chosen: dumps.Chosen) -> Iterator[str]:
    for name, reason in chosen.passed_over:
        yield f"The newer dump {printable(name)} is passed over: {harmless(reason)}"
    if chosen.name:
        yield f"The dump {printable(chosen.name)} is whole."


# Files ----------------------------------------------------------------------------------------------------


def _files(arguments: argparse.Namespace) -> int:
    wish = _wish(arguments)
    try:
        if sys.stderr.isatty():
            print("Looking at the backup, and at what is there already. This may take minutes.", file=sys.stderr)
        prepared = _in_thread(lambda pulse: prepare(wish, pulse.beat))
    except asyncio.CancelledError:
        return _say("Stopped. Nothing was written.", code=ExitCode.PROBLEM)
    try:
        return _restore(arguments, wish, prepared)
    finally:
        prepared.close()


def _wish(arguments: argparse.Namespace) -> Wish:
    return Wish(
        source=arguments.source,
        to=arguments.to,
        extras=dict(arguments.extra),
        dump=arguments.dump,
        owner=arguments.owner,
        modes=arguments.mode,
        overwrite=arguments.overwrite,
        compare=arguments.compare,
        dry_run=arguments.dry_run,
        by_disk_names=arguments.by_disk_names,
        by_dump=arguments.only != "files",
    )


def _restore(arguments: argparse.Namespace, wish: Wish, prepared: Prepared) -> int:
    _say(*_opening(prepared), *_dump_lines(prepared.dump))
    plan = _check(prepared.source, prepared.dump, arguments)
    left = tuple(_left(wish, prepared))  # the disk may be gone afterwards
    tally = Tally()
    stopped = _write(wish, prepared, tally)
    files_done = not stopped
    lines: tuple[str, ...] | None = None
    if plan is not None and not stopped and not wish.dry_run:
        stopped, lines = _restore_database(plan)
    told = Told(
        to=str(wish.to),
        dry_run=wish.dry_run,
        only_files=arguments.only == "files",
        files_done=files_done,
        everything=arguments.all,
        stopped=stopped,
        dump=_dump_there(wish, prepared),
        database_lines=lines,
        left=left,
    )
    _say("", *summary(tally, told))
    known = not (prepared.manifest_problem or prepared.placing_problem)
    whole = tally.whole and known and not (stopped or prepared.dump.passed_over)
    return ExitCode.OK if whole and prepared.dump.name else ExitCode.PROBLEM


def _dump_there(wish: Wish, prepared: Prepared) -> str:
    """The dump's name if it is, or would be, where Immich finds it."""
    name = prepared.dump.name
    return name if wish.dry_run or (name and (wish.to / "backups" / name).is_file()) else ""


def _write(wish: Wish, prepared: Prepared, tally: Tally) -> str:
    """Restore the files. Returns what stopped it, or an empty text."""
    progress = Progress(sys.stderr, time.monotonic, total=prepared.size, files=prepared.files)

    def work(pulse: Pulse) -> None:
        ways = Ways(
            overwrite=wish.overwrite,
            compare=wish.compare,
            dry_run=wish.dry_run,
            beat=pulse.beat,
            count=progress.count,
        )
        restore_files(prepared, wish, tally, ways)

    try:
        _in_thread(work)
    except asyncio.CancelledError:
        return _STOPPED
    except BackupError as error:
        return f"{error.message}. {error.hint}"
    finally:
        progress.end()
    return ""


def _restore_database(plan: DatabasePlan) -> tuple[str, tuple[str, ...] | None]:
    """What stopped it, and what was done."""
    try:
        return "", restore_database(plan, _say_one).lines
    except BackupError as error:
        return f"the files are restored, the database is not: {error.message}. {error.hint}", None
    except KeyboardInterrupt:
        return f"the files are restored, the database is not: {_STOPPED}", None


def _opening(prepared: Prepared) -> Iterator[str]:
    state = prepared.state
    whose = (
        f"the backup of '{printable(state.server_name)}', last written {moment(state.since)}" if state else "a backup"
    )
    yield f"From {harmless(str(prepared.source.folder))}: {whose}."
    if state and state.writing:
        yield "The last backup to this disk was cut off: what it was writing is named at the end."
    if prepared.manifest_problem:
        yield f"The manifest, which has the server's names, is not used: {harmless(prepared.manifest_problem)}"
        yield "Files get the names that they have on the disk. Those that may have had others are named at the end."
        yield "Which of the photos in the database are not on this disk is not known then."
    if prepared.placing_problem:
        yield f"Whether the database's photos are all here is not known: {harmless(prepared.placing_problem)}"
    if prepared.moved and not prepared.by_dump:
        yield from _moved_later(prepared.moved)
    yield f"To restore: {counted(prepared.files, 'file')}, {size(prepared.size)}."


def _moved_later(photos: int) -> Iterator[str]:
    stay = "It stays" if photos == 1 else "They stay"
    yield f"Immich had moved {counted(photos, 'photo')} after the dump was made. {stay} where Immich had moved them (--only files):"
    yield "that fits a server that still has its own database. To restore the dump's database, leave --only files out."


def _left(wish: Wish, prepared: Prepared) -> Iterator[str]:
    source = prepared.source
    for name in source.names(EXTRA, folders=True):
        if name not in wish.extras:
            yield f"extra/{printable(name)}: say where it goes by --extra '{printable(name)}=PATH'"
    if source.names(config_files.FOLDER, folders=False):
        yield "The configuration: unpack it by --only config --to FOLDER"
    if days := source.names("deleted", folders=True):
        yield f"What Immich had deleted ({counted(len(days), 'day')} in deleted/): copy it from there by hand if you want it"
    if not prepared.dump.name:
        yield "The database: there is no dump on the disk that is whole"


def _say_one(line: str) -> None:
    print(harmless(line), flush=True)


def _say(*lines: str, code: ExitCode = ExitCode.OK) -> ExitCode:
    for line in lines:
        print(line, flush=True)
    return code
