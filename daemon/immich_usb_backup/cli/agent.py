"""``immich-usb-backup agent``: shows backups on the desktop of the user whose session it runs in."""

from __future__ import annotations

import argparse
import asyncio
import grp
import os
import pwd
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from immich_usb_backup import config
from immich_usb_backup.adapters.bus import Bus
from immich_usb_backup.adapters.clock import SystemClock
from immich_usb_backup.adapters.daemon_calls import DaemonCalls
from immich_usb_backup.adapters.desktop import Desktop
from immich_usb_backup.adapters.journal import make_log
from immich_usb_backup.adapters.manager import ManagerOnBus
from immich_usb_backup.adapters.seat import LoginSeat
from immich_usb_backup.adapters.shown import ShownOnDesktop
from immich_usb_backup.adapters.threads import in_thread
from immich_usb_backup.agent.agent import Agent
from immich_usb_backup.config import Config
from immich_usb_backup.errors import BackupError, BusLost, ConfigError
from immich_usb_backup.events import Event
from immich_usb_backup.ports import Log

_OK, _FAILED = 0, 1
_STATE = "immich-usb-backup-agent"
_GROUPS_SECONDS = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--config", type=Path, default=config.DEFAULT_PATH, help="configuration (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Run it until it is done, and return its exit code."""
    return asyncio.run(serve(args))


async def serve(args: argparse.Namespace) -> int:
    """Returns the exit code: 0 when told to end, 1 when a bus is lost, so that systemd starts it again."""
    settings = _settings(args.config)
    log = make_log(level=settings.logging.level)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await _show_until(stop, settings, log)
    except BackupError as error:
        log.say(Event.FATAL, message=error.message, hint=error.hint)
        return _FAILED
    return _OK


def _settings(path: Path) -> Config:
    """A user may not be allowed to read it, and its mistakes are the daemon's to name: the defaults do."""
    try:
        return config.load(path)
    except ConfigError:
        return Config()


async def _show_until(stop: asyncio.Event, settings: Config, log: Log) -> None:
    group = settings.desktop.group
    always = await in_thread(
        lambda _: is_member(group), what="Looking up this user's groups", stall_seconds=_GROUPS_SECONDS
    )
    system = await Bus.system()
    try:
        session = await Bus.session()
        try:
            agent = _agent(system, session, settings, log, always=always)
            await _first(agent.run(), _lost(system, "system"), _lost(session, "session"), stop.wait())
        finally:
            await session.close()
    finally:
        await system.close()


def _agent(system: Bus, session: Bus, settings: Config, log: Log, *, always: bool) -> Agent:
    return Agent(
        ManagerOnBus(system),
        DaemonCalls(system),
        Desktop(session),
        ShownOnDesktop(state_folder(), log),
        SystemClock(),
        log,
        seat=None if always else LoginSeat(system, os.getuid()),
        progress=settings.desktop.progress,
        on=settings.desktop.on,
    )


def is_member(group: str) -> bool:
    """Whether this user is in a group, also since the login; that there is no such group means no. Blocks."""
    try:
        user = pwd.getpwuid(os.getuid())
        return grp.getgrnam(group).gr_gid in os.getgrouplist(user.pw_name, user.pw_gid)
    except KeyError:
        return False


def state_folder() -> Path:
    """What this desktop has shown: where systemd made a folder for it, else in the user's usual place for such things."""
    made = os.environ.get("STATE_DIRECTORY", "")
    home = os.environ.get("XDG_STATE_HOME", "")
    return Path(made.split(":")[0]) if made else (Path(home) if home else Path.home() / ".local/state") / _STATE


async def _first(*works: Coroutine[Any, Any, Any]) -> None:
    """Return, or raise, as the first of them does; the others have ended then."""
    tasks = [asyncio.ensure_future(work) for work in works]
    done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    await asyncio.wait(tasks)
    for task in done:
        task.result()


async def _lost(bus: Bus, name: str) -> None:
    await bus.wait_lost()
    raise BusLost(f"The connection to the {name} bus was lost.")
