"""The command ``immich-usb-backup``: chooses the command, and turns errors into messages and exit codes."""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from collections.abc import Sequence

from immich_usb_backup.cli.version import ShowVersion
from immich_usb_backup.errors import BackupError, ConfigError
from immich_usb_backup.exit_codes import ExitCode

COMMANDS = {
    "daemon": "wait for disks and back up to those that carry the marker (the service runs this)",
    "notifier": "deliver outcomes by mail, push and ping (its own service runs this)",
    "agent": "show backups on this desktop (a user service runs this)",
    "check-config": "find all mistakes in the configuration",
    "doctor": "look at the whole set-up, and say how to mend what is wrong",
    "status": "show whether the photos are safe, which disks have them, and how far a backup is",
    "disks": "show what is plugged in and whether it would be backed up to",
    "history": "show the last runs",
    "show": "show everything about one run",
    "logs": "show the lines of one run in the journal",
    "plan": "show what a backup to a disk would do now, and change nothing",
    "backup": "back up to a disk that is plugged in, though it had its run",
    "retry": "try again what a run did not bring to a disk",
    "cancel": "end the backup that goes on",
    "enroll": "make the marker on a disk that this server is to know, and nothing else",
    "verify": "read back what is on a disk, and copy again what went bad",
    "eject": "unmount a disk that is plugged in, and stop reading it back",
    "approve": "let the deletions go ahead that are held back for a disk",
    "adopt": "take over a disk that carries another server's backup",
    "forget": "no longer expect a disk, and drop what is remembered of its runs",
    "check": "tell whether a database dump is whole, and what is in it",
    "restore": "bring a library back from a disk, or from a copy of its backup folder",
    "rehearse": "restore a disk's database into a PostgreSQL that is thrown away, and look for the photos' files",
    "install-system": "install, upgrade or remove what the program needs on this system: units, rules, users",
    "make-dump": "make a fresh database dump (a unit of its own runs this)",
    "remind": "remind of disks that were not backed up to for too long (a timer runs this)",
    "make-units": "write timers for schedules, and what opens homes to the service (systemd's generator runs this)",
    "completion": "print what a shell offers at the tab key (the shells' own files run this)",
    "check-file-system": "check an exFAT file system, and repair it (units of their own run this)",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    chosen = _parse(arguments)
    try:
        command = importlib.import_module(f"immich_usb_backup.cli.{chosen.command.replace('-', '_')}")
        return int(command.run(chosen))
    except ConfigError as error:
        _complain(*error.problems or (error.message,), error.hint)
        return ExitCode.CONFIG
    except BackupError as error:
        _complain(error.message, error.hint)
        return ExitCode.UNAVAILABLE
    except (KeyboardInterrupt, BrokenPipeError):
        return ExitCode.PROBLEM
    except Exception:  # noqa: BLE001  # the outermost edge: a bug is shown with its trace
        traceback.print_exc()
        _complain("This is a bug in immich-usb-backup. Please report it with the lines above.")
        return ExitCode.BUG


def _complain(*lines: str) -> None:
    for line in filter(None, lines):
        print(f"immich-usb-backup: {line}", file=sys.stderr)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="immich-usb-backup",
        description="Plug a USB disk in, and your Immich library is on it: copied, unmounted, told.",
        epilog="Exit codes: 0 done; 1 a problem was found; 69 something needed is not there; 70 a bug; "
        "75 the disk, or any eligible disk, is not here; 78 the configuration has mistakes.",
    )
    parser.add_argument("--version", action=ShowVersion, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    wanted = _wanted(sys.argv[1:] if arguments is None else arguments)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == wanted:  # the others' modules are not needed, and loading them costs memory in a daemon
            importlib.import_module(f"immich_usb_backup.cli.{name.replace('-', '_')}").add_arguments(command)
    parser.set_defaults(commands=COMMANDS)
    return parser.parse_args(arguments)


def _wanted(arguments: Sequence[str]) -> str:
    return next((argument for argument in arguments if argument in COMMANDS), "")


if __name__ == "__main__":
    sys.exit(main())
