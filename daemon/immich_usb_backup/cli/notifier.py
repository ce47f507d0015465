"""``immich-usb-backup notifier``: delivers what lies in the outbox, then ends. systemd starts it when there is something."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from immich_usb_backup import config
from immich_usb_backup.adapters.clock import SystemClock
from immich_usb_backup.adapters.delivered import DeliveredLedger
from immich_usb_backup.adapters.journal import make_log
from immich_usb_backup.adapters.mail import SmtpMailer
from immich_usb_backup.adapters.outbox import OutboxFolder
from immich_usb_backup.adapters.ping import Pinger
from immich_usb_backup.adapters.push import Pusher
from immich_usb_backup.config import Config
from immich_usb_backup.errors import BackupError, ConfigError
from immich_usb_backup.events import Event
from immich_usb_backup.notifier import Courier, NotifierPorts, deliver_all
from immich_usb_backup.ports import Clock, Log

DEFAULT_OUTBOX = Path("/var/lib/immich-usb-backup/outbox")
DEFAULT_STATE = Path("/var/lib/immich-usb-backup-notifier")

_OK, _FAILED, _BAD_CONFIG = 0, 1, 78


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--config", type=Path, default=config.DEFAULT_PATH, help="configuration (default: %(default)s)")
    parser.add_argument("--outbox", type=Path, default=DEFAULT_OUTBOX, help="what to deliver (default: %(default)s)")
    parser.add_argument(
        "--state",
        type=Path,
        default=Path(os.environ.get("STATE_DIRECTORY", DEFAULT_STATE)),
        help="where to keep what was delivered (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Run it until it is done, and return its exit code."""
    return asyncio.run(serve(args))


async def serve(args: argparse.Namespace) -> int:
    """Returns the exit code: 0 nothing is left to do, 1 it cannot be done, 78 the configuration has mistakes."""
    try:
        settings = config.load(args.config)
    except ConfigError as error:
        make_log().say(Event.FATAL, message=error.message, hint=error.hint)
        return _BAD_CONFIG
    log = make_log(level=settings.logging.level)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await deliver_all(_ports(settings, log, outbox=args.outbox, state=args.state), stop=stop)
    except BackupError as error:
        log.say(Event.FATAL, message=error.message, hint=error.hint)
        return _FAILED
    return _OK


def _ports(settings: Config, log: Log, *, outbox: Path, state: Path) -> NotifierPorts:
    clock = SystemClock()
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    credentials = Path(folder) if folder else None
    return NotifierPorts(
        outbox=OutboxFolder(outbox, log),
        ledger=DeliveredLedger(state, log),
        couriers=tuple(couriers(settings, clock=clock, credentials=credentials)),
        log=log,
        clock=clock,
    )


def couriers(settings: Config, *, clock: Clock, credentials: Path | None) -> Iterator[Courier]:
    """The ways out that are configured. A monitor waits for minutes at most; it comes first."""
    if settings.ping:
        yield Pinger(settings.ping, credentials=credentials)
    if settings.mail:
        yield SmtpMailer(settings.mail, clock=clock, credentials=credentials)
    if settings.push:
        yield Pusher(settings.push, credentials=credentials)
