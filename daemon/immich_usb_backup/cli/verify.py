"""``immich-usb-backup verify``: have the service read back what is on a disk, and show how far it is."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from immich_usb_backup import dbus_names
from immich_usb_backup.adapters.bus import Bus
from immich_usb_backup.adapters.manager import ManagerOnBus
from immich_usb_backup.cli.asking import Unanswered, add_disk, ask_on, disk_of
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.model import Outcome, Rereading
from immich_usb_backup.policy.text import harmless, printable

_ENDED = "The service ended before the verification was over"
_NO_RUN = "The disk was not verified: it has no marker immich-server-backups, or it could not be looked at"
_LOOK_SECONDS, _QUIET_SECONDS = 5.0, 120.0
_GOES_ON = "Plug the disk in and give the command again: what was read need not be read again."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    add_disk(parser)
    parser.add_argument("--all", action="store_true", help="every file, whenever it was read last")


def run(arguments: argparse.Namespace) -> int:
    """Ask for it, and watch. 1 when not everything is well; 75 when the disk is not here."""
    what = Rereading.ALL if arguments.all else Rereading.DUE
    try:
        return asyncio.run(_verify(disk_of(arguments), what, Shown()))
    except Unanswered as error:
        return error.show()


async def _verify(disk: str, what: Rereading, shown: Shown) -> int:
    bus = await Bus.system()
    try:
        watching, manager = Watching(shown.progress), ManagerOnBus(bus)
        await manager.watch(watching.on_signal, lambda there: None if there else watching.ended())
        name, uuid = await ask_on(bus, dbus_names.VERIFY, disk, what)
        print(f"Verifying '{printable(str(name))}'. Ctrl+C ends only this command; to end the verification too, run:")
        print("  sudo immich-usb-backup eject DISK", flush=True)
        report = await _first(watching.outcome_of(str(uuid)), _nothing_goes_on(manager), bus.wait_lost())
    finally:
        await bus.close()
    if report is None:
        raise Unanswered(ExitCode.UNAVAILABLE, _ENDED, hint=_GOES_ON)
    return shown.finished(report)


async def _first(
    report: asyncio.Future[Mapping[str, Any] | None], *ends: Coroutine[Any, Any, None]
) -> Mapping[str, Any] | None:
    """The report, or None where the connection is lost first. Raises what ``ends`` raise."""
    ending = [asyncio.ensure_future(end) for end in ends]
    waiting: set[asyncio.Future[Any]] = {report, *ending}
    try:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        return report.result() if report.done() else None
    finally:
        for task in ending:
            task.cancel()


async def _nothing_goes_on(manager: ManagerOnBus) -> None:
    """A disk that turns out not to be ours has no run, and so no outcome. Raises ``Unanswered`` when nothing was under way for
    longer than it takes to look at a disk."""
    quiet = 0.0
    while quiet < _QUIET_SECONDS:
        await asyncio.sleep(_LOOK_SECONDS)
        quiet = 0.0 if (await manager.state()).get("running") else quiet + _LOOK_SECONDS
    raise Unanswered(ExitCode.PROBLEM, _NO_RUN, hint="See: journalctl -u immich-usb-backup")


class Watching:
    """What the service says of runs, for who waits for the run of one disk. Its signals may come before its answer."""

    def __init__(self, show: Callable[[Mapping[str, Any]], None]) -> None:
        self._show = show
        self._uuids: dict[str, str] = {}
        self._wanted = ""
        self._outcome: asyncio.Future[Mapping[str, Any] | None] = asyncio.get_running_loop().create_future()

    def outcome_of(self, uuid: str) -> asyncio.Future[Mapping[str, Any] | None]:
        """The report of this disk's run, when it is over; None where the service ended before."""
        self._wanted = uuid
        return self._outcome

    def on_signal(self, member: str, fields: Mapping[str, Any]) -> None:
        """For ``ManagerOnBus``."""
        if member == dbus_names.RUN_STARTED:
            self._uuids[str(fields.get("run"))] = str(fields.get("uuid"))
        elif not self._wanted:
            return
        elif member == dbus_names.RUN_PROGRESS and self._uuids.get(str(fields.get("run"))) == self._wanted:
            self._show(fields)
        elif member == dbus_names.RUN_FINISHED and fields.get("uuid") == self._wanted:
            self._end(fields)

    def ended(self) -> None:
        """The service is no longer there."""
        self._end(None)

    def _end(self, fields: Mapping[str, Any] | None) -> None:
        if not self._outcome.done():
            self._outcome.set_result(fields)


class Shown:
    """What a person sees: in a terminal one line that changes, elsewhere one for each step."""

    def __init__(self) -> None:
        self._in_place = sys.stdout.isatty()
        self._stage = ""

    def progress(self, fields: Mapping[str, Any]) -> None:
        """How far it is."""
        line, stage = harmless(str(fields.get("line"))), str(fields.get("stage"))
        if self._in_place:
            print(f"\r\x1b[K{line}", end="", flush=True)
        elif stage != self._stage:
            print(line, flush=True)
        self._stage = stage

    def finished(self, fields: Mapping[str, Any]) -> int:
        """The outcome; the command's exit code."""
        if self._in_place:
            print("\r\x1b[K", end="")
        texts = (str(fields.get(key) or "") for key in ("headline", "body", "todo"))
        for line in (line for text in texts for line in text.splitlines()):
            print(harmless(line))
        return ExitCode.OK if fields.get("outcome") == Outcome.OK else ExitCode.PROBLEM
