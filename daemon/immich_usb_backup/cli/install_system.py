"""``immich-usb-backup install-system``: what a wheel cannot bring: users, units, rules and policies."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.installing.machine import CannotInstall, Machine, refuse_on_nixos
from immich_usb_backup.installing.system import System, stage

_NO_PERMISSION = 77


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("--no-start", action="store_true", help="install only: enable and start nothing")
    parser.add_argument("--uninstall", action="store_true", help="take it off again; configuration and history stay")
    parser.add_argument("--purge", action="store_true", help="with --uninstall: configuration, history and users too")
    parser.add_argument("--check", action="store_true", help="only tell whether it could be done now")
    parser.add_argument("--program", type=Path, help="what the units run; default: this program")
    parser.add_argument("--stage", type=Path, metavar="FOLDER", help="for packagers: only put the files below a folder")


def run(arguments: argparse.Namespace) -> int:
    """Do it. 69: something is missing; 75: a backup is running; 77: not root; 78: mistakes in the configuration."""
    program = arguments.program or Path(shutil.which(sys.argv[0]) or sys.argv[0]).absolute()
    if arguments.stage:
        stage(arguments.stage, str(program))
        return ExitCode.OK
    if arguments.purge and not arguments.uninstall:
        return _complain(2, "--purge goes with --uninstall")
    if os.geteuid() != 0 and not (arguments.dry_run or arguments.check):
        return _complain(_NO_PERMISSION, "This changes the system: run it with sudo, or look first with --dry-run")
    try:
        return _do(System(Machine(dry_run=arguments.dry_run), program, start=not arguments.no_start), arguments)
    except CannotInstall as error:
        return _complain(error.exit_code, error.message, error.hint)


def _do(system: System, arguments: argparse.Namespace) -> int:
    refuse_on_nixos()
    system.refuse_for_a_package()
    if arguments.uninstall:
        return system.uninstall(purge=arguments.purge)
    code = _checked(system, go_on=arguments.dry_run)
    return code if arguments.check else system.install() or code


def _checked(system: System, *, go_on: bool) -> int:
    """What is missing keeps nobody from looking at what would be done."""
    try:
        system.check()
    except CannotInstall as error:
        if not go_on:
            raise
        return _complain(error.exit_code, error.message, error.hint)
    return ExitCode.OK


def _complain(code: int, *lines: str) -> int:
    for line in filter(None, lines):
        print(line, file=sys.stderr)
    return code
