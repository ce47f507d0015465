"""``immich-usb-backup daemon``: wait for disks, back up to those that carry the marker."""

from __future__ import annotations

import argparse
import asyncio
import gc
import platform
import signal
from pathlib import Path

from immich_usb_backup import config as configuration
from immich_usb_backup.adapters.asset_book import SqliteAssetBooks
from immich_usb_backup.adapters.bus import Bus
from immich_usb_backup.adapters.clock import SystemClock
from immich_usb_backup.adapters.dbus_service import DaemonOnBus
from immich_usb_backup.adapters.enrolments import ENROLMENTS, EnrolmentsFile
from immich_usb_backup.adapters.file_systems import SystemdFileSystems
from immich_usb_backup.adapters.fresh_dumps import SystemdDumpMaker
from immich_usb_backup.adapters.history import SqliteHistory
from immich_usb_backup.adapters.inhibitor import LogindInhibitor
from immich_usb_backup.adapters.journal import StructuredLog, make_log
from immich_usb_backup.adapters.manifest import SqliteManifests
from immich_usb_backup.adapters.metrics_file import MetricsFile
from immich_usb_backup.adapters.outbox import OutboxFolder
from immich_usb_backup.adapters.power import MachinePower
from immich_usb_backup.adapters.reminders import ReminderFile
from immich_usb_backup.adapters.rsync import Rsync
from immich_usb_backup.adapters.service import Service
from immich_usb_backup.adapters.source import ServerFiles
from immich_usb_backup.adapters.target import DiskTargets
from immich_usb_backup.adapters.threads import Threads
from immich_usb_backup.adapters.udev import UdevDevices
from immich_usb_backup.adapters.udisks import UDisks
from immich_usb_backup.adapters.wanted_outbox import WantedOutbox
from immich_usb_backup.adapters.watchers import AllWatchers, StatusLine, TerminalProgress
from immich_usb_backup.cli.paths import dumps_beside, state_folder
from immich_usb_backup.config import Config
from immich_usb_backup.daemon import Daemon
from immich_usb_backup.errors import BackupError, BusCallFailed
from immich_usb_backup.events import Event
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.ports import Ports, Watchers

COLLECT_AFTER = 50_000
"""Objects between two looks for cycles. A plan with a million new files spent a quarter of its time on Python's 700."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("--config", type=Path, default=configuration.DEFAULT_PATH, help="default: %(default)s")
    parser.add_argument("--state", type=Path, help="folder for history and outbox; default: what systemd gives")
    parser.add_argument("--log-format", choices=("auto", "journal", "human", "json"), default="auto")
    parser.add_argument("--progress", action="store_true", help="print progress lines, for watching in a terminal")
    parser.add_argument("--once", action="store_true", help="end after the first backup")


def run(arguments: argparse.Namespace) -> int:
    """Work until a signal. 69 where the world is not as needed. Raises ``ConfigError``."""
    config = configuration.load(arguments.config)
    log = make_log(level=config.logging.level, form=arguments.log_format)
    gc.set_threshold(COLLECT_AFTER)
    try:
        return asyncio.run(_main(arguments, config, log))
    except BackupError as error:
        log.say(Event.FATAL, message=error.message, hint=error.hint)
        return ExitCode.UNAVAILABLE


async def _main(arguments: argparse.Namespace, config: Config, log: StructuredLog) -> int:
    service, clock = Service(), SystemClock()
    bus = await Bus.system()
    daemon, metrics = await _wire(arguments, config, log, bus, service, clock)
    status = StatusLine(service, clock.monotonic)
    _on_signals(daemon, service, metrics)
    watchdog = asyncio.ensure_future(service.feed_watchdog(lambda: daemon.busy or (daemon.healthy and bus.connected)))
    try:
        await daemon.run(ready=lambda: _say_ready(service, status))
    finally:
        service.stopping()
        log.say(Event.STOPPING)
        watchdog.cancel()
        await metrics.close()
        await bus.close()
    return ExitCode.ANEW if daemon.wants_to_begin_anew else ExitCode.OK


async def _wire(
    arguments: argparse.Namespace, config: Config, log: StructuredLog, bus: Bus, service: Service, clock: SystemClock
) -> tuple[Daemon, MetricsFile]:
    state = state_folder(arguments.state)
    history = SqliteHistory(state / "state.db")
    if moved := await history.prepare():
        _say_damaged("history", moved, log)
    disks = UDisks(bus)
    await disks.start()
    devices = UdevDevices(log)
    holder: list[Daemon] = []

    def current() -> Config:
        return holder[0].config if holder else config

    face = DaemonOnBus(bus, lambda: current().desktop, clock.monotonic)
    metrics = MetricsFile(history, config=current, clock=clock, log=log)
    watchers: list[Watchers] = [StatusLine(service, clock.monotonic), face, metrics]
    if arguments.progress:
        watchers.append(TerminalProgress(_print, clock.monotonic))
    ports = Ports(
        log=log,
        devices=devices,
        disks=disks,
        targets=DiskTargets(devices.presence),
        source=ServerFiles(),
        copier=Rsync(),
        history=history,
        manifests=SqliteManifests(state, on_damaged=lambda moved: _say_damaged("manifest of a disk", moved, log)),
        enrolments=EnrolmentsFile(state / ENROLMENTS),
        asset_books=SqliteAssetBooks(state),
        dump_maker=SystemdDumpMaker(bus, dumps_beside(state)),
        background=Threads(),
        file_systems=SystemdFileSystems(bus),
        outbox=WantedOutbox(OutboxFolder(state / "outbox", log), history=history, config=current, log=log),
        watchers=AllWatchers(watchers, log),
        inhibitor=LogindInhibitor(bus, log),
        power=MachinePower(bus),
        reminder_book=ReminderFile(state),
        clock=clock,
        server=platform.node(),
    )
    daemon = Daemon(
        config,
        ports,
        reload=lambda: _reload(arguments),
        bus_lost=bus.wait_lost,
        runs_at_most=1 if arguments.once else None,
    )
    holder.append(daemon)
    metrics.refresh()
    await _take_the_name(face, daemon, log)
    return daemon, metrics


def _say_damaged(what: str, moved: str, log: StructuredLog) -> None:
    log.say(Event.FATAL, message=f"The {what} was damaged and starts anew; the old one is kept as {moved}.", hint="")


async def _take_the_name(face: DaemonOnBus, daemon: Daemon, log: StructuredLog) -> None:
    """A second daemon must not run. One that may not own the name still backs up: only nobody hears or asks anything."""
    try:
        await face.start(daemon.asked)
    except BusCallFailed as error:
        if not error.name.endswith(".AccessDenied"):
            raise
        log.say(Event.NO_BUS_NAME, message=error.message)


def _reload(arguments: argparse.Namespace) -> Config:
    config = configuration.load(arguments.config)
    make_log(level=config.logging.level, form=arguments.log_format)
    return config


def _print(line: str) -> None:
    print(line, flush=True)


def _say_ready(service: Service, status: StatusLine) -> None:
    service.ready()
    status.idle("waiting for disks")


def _on_signals(daemon: Daemon, service: Service, metrics: MetricsFile) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, daemon.stop)

    def reload() -> None:
        service.reloading()
        daemon.reload()
        metrics.refresh()
        service.ready()

    loop.add_signal_handler(signal.SIGHUP, reload)
    loop.add_signal_handler(signal.SIGUSR1, daemon.begin_anew)
