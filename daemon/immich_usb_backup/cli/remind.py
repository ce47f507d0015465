"""``immich-usb-backup remind``: remind of disks that were not backed up to for too long. A timer runs it each day."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
from pathlib import Path

from immich_usb_backup import config as configuration
from immich_usb_backup import dbus_names
from immich_usb_backup.adapters.clock import SystemClock
from immich_usb_backup.adapters.history import SqliteHistory
from immich_usb_backup.adapters.journal import make_log
from immich_usb_backup.adapters.outbox import OutboxFolder
from immich_usb_backup.adapters.reminders import ReminderFile
from immich_usb_backup.adapters.wanted_outbox import WantedOutbox
from immich_usb_backup.cli.asking import Unanswered, ask
from immich_usb_backup.cli.paths import state_folder
from immich_usb_backup.config import Config
from immich_usb_backup.errors import BusLost, DeadlineMissed, NotAllowed
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.policy.text import counted
from immich_usb_backup.reminding import remind


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("--config", type=Path, default=configuration.DEFAULT_PATH, help="default: %(default)s")
    parser.add_argument("--state", type=Path, help="folder with the history; default: /var/lib/immich-usb-backup")


def run(arguments: argparse.Namespace) -> int:
    """Have the service do it; where it does not answer, do it here, and say so. Raises ``ConfigError``, ``NotAllowed``."""
    try:
        number = int(ask(dbus_names.REMIND))
    except Unanswered as error:
        if error.exit_code != ExitCode.UNAVAILABLE:
            return error.show()
        number = _without_the_service(arguments, error.message)
    except (BusLost, DeadlineMissed) as error:
        number = _without_the_service(arguments, error.message)
    reminded = f"Reminded of {counted(number, 'disk')} without a fresh backup."
    print(reminded if number else "Nobody is to be reminded of anything today.")
    return ExitCode.OK


def _without_the_service(arguments: argparse.Namespace, why: str) -> int:
    print(f"{why}: looking at the history without it.")
    config = configuration.load(arguments.config)
    state = state_folder(arguments.state)
    history = SqliteHistory(state / "state.db")
    if history.readable() is False:
        raise NotAllowed("You may not read the history")
    _become_the_owner(state)
    return asyncio.run(_remind(config, state, history))


def _become_the_owner(folder: Path) -> None:
    """What root leaves there the service could not read: a person with sudo does it as the service's user."""
    if os.geteuid() == 0 and folder.exists() and (owner := folder.stat()).st_uid != 0:
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)


async def _remind(config: Config, state: Path, history: SqliteHistory) -> int:
    log = make_log(level=config.logging.level)
    if history.readable() is None:
        await history.prepare()
    return await remind(
        config,
        history=history,
        book=ReminderFile(state),
        outbox=WantedOutbox(OutboxFolder(state / "outbox", log), history=history, config=lambda: config, log=log),
        watchers=None,
        log=log,
        clock=SystemClock(),
        server=platform.node(),
        service_runs=False,
    )
