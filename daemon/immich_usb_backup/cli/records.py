"""What is known of earlier runs: from the service, or from its file where the service does not answer."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from immich_usb_backup import dbus_names, messages
from immich_usb_backup.adapters import report_json
from immich_usb_backup.adapters.bus import Bus
from immich_usb_backup.adapters.history import SqliteHistory
from immich_usb_backup.cli.asking import Unanswered, look
from immich_usb_backup.cli.paths import state_folder
from immich_usb_backup.errors import BusCallFailed, DeadlineMissed, NotAllowed
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.model import RunReport
from immich_usb_backup.policy.text import harmless, printable
from immich_usb_backup.policy.views import DiskView, RunView, disk_view, run_view, view_of
from immich_usb_backup.requests import Candidate, Refusal, Refused, choose, remembered

LAST = "last"
SEARCHED = 1000
"""Runs that are looked through for one whose id begins so."""

_WHOLE_ID = re.compile(r"\d{8}T\d{6}Z-\w+")
_PROPERTIES = "org.freedesktop.DBus.Properties"


async def disks_of(bus: Bus) -> list[DiskView]:
    """Every disk that the service knows. Raises ``Unanswered``, ``BusLost``, ``DeadlineMissed``."""
    found = await look(bus, dbus_names.GET_DISKS)
    return [disk_view(values) for values in found]


async def runs_of(bus: Bus, disk: str = "", number: int = 1, *, failed: bool = False) -> list[RunView]:
    """The newest runs. Raises like ``disks_of``."""
    found = await look(bus, dbus_names.GET_HISTORY, "sub", disk, number, failed)
    return [run_view(values) for values in found]


async def find_run(bus: Bus, wanted: str) -> str:
    """The id of the run that is meant: ``last``, an id or its beginning, or a disk's last run. Raises like ``disks_of``."""
    if _WHOLE_ID.fullmatch(whole := wanted.removesuffix(".")):  # copied with the end of a sentence
        return whole
    if wanted == LAST:
        return _first(await runs_of(bus), "There has been no run yet")
    found = [run.run for run in await runs_of(bus, number=SEARCHED) if run.run.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        message = f"'{printable(wanted)}' could be {len(found)} runs: {', '.join(map(harmless, found[:5]))}"
        raise Unanswered(ExitCode.PROBLEM, message, hint="Give more of its id.", why=Refusal.BAD_CHOICE)
    return await _last_of_disk(bus, wanted)


async def _last_of_disk(bus: Bus, wanted: str) -> str:
    nothing = f"There is no run, and no disk with a run, that is called '{printable(wanted)}'"
    try:
        runs = await runs_of(bus, wanted)
    except Unanswered as error:
        if error.why != Refusal.NO_SUCH_DISK:
            raise
        runs = []
    return _first(runs, nothing)


def _first(runs: list[RunView], nothing: str) -> str:
    if not runs:
        hint = "See: immich-usb-backup history"
        raise Unanswered(ExitCode.NOT_HERE, nothing, hint=hint, why=Refusal.NO_SUCH_RUN)
    return runs[0].run


async def find_alone(wanted: str) -> str:
    """The same for a command that needs the service for nothing else."""
    bus = await Bus.system()
    try:
        return await find_run(bus, wanted)
    finally:
        await bus.close()


async def report_of(bus: Bus, run: str) -> str:
    """Everything about one run, as JSON. Raises like ``disks_of``."""
    return str(await look(bus, dbus_names.GET_REPORT, "s", run))


async def ended_run(bus: Bus, run: str) -> RunView | None:
    """A run with its outcome and what is said of it; None where it goes on or is not known."""
    try:
        found = next((one for one in await runs_of(bus, number=20) if one.run == run and one.ended), None)
        return await with_words(bus, found) if found else None
    except (Unanswered, DeadlineMissed):
        return None


async def with_words(bus: Bus, run: RunView) -> RunView:
    """The run with its body and what to do, which only its object has. Raises ``BusLost``."""
    path = dbus_names.path_of(dbus_names.RUNS, run.run)
    try:
        (values,) = await bus.call(dbus_names.BUS_NAME, path, _PROPERTIES, "GetAll", "s", [dbus_names.RUN])
    except (BusCallFailed, DeadlineMissed):
        return run
    whole = run_view(values)
    return replace(run, body=whole.body, todo=whole.todo)


# Without the service --------------------------------------------------------------------------------------


class Records:
    """The service's file, which only root may read."""

    def __init__(self, state: Path | None) -> None:
        self._history = SqliteHistory(state_folder(state) / "state.db")

    @property
    def readable(self) -> bool | None:
        """Whether it can be read; None where there is none."""
        return self._history.readable()

    async def reports(self, disk: str, number: int, *, failed: bool) -> tuple[RunReport, ...]:
        """The newest first. Raises ``NotAllowed``, ``Unanswered``, ``StateDamaged``."""
        if self.readable is False:
            raise NotAllowed("You may not read the history")
        if not self.readable:
            return ()
        uuid = await self._uuid(disk) if disk else ""
        return await self._history.runs(number, uuid=uuid, failed=failed)

    async def _uuid(self, disk: str) -> str:
        try:
            known: Candidate | None = choose(disk, remembered(await self._history.runs(SEARCHED)))
        except Refused as error:
            raise Unanswered(ExitCode.PROBLEM, error.message, hint=error.hint) from error
        if known is None:
            raise Unanswered(ExitCode.NOT_HERE, f"There has been no run on a disk '{printable(disk)}'")
        return known.uuid


def views_of(reports: tuple[RunReport, ...]) -> list[RunView]:
    """The same as the service has of them."""
    return [view_of(report, messages.headline(report)) for report in reports]


def as_json(report: RunReport) -> str:
    """The same as ``GetReport`` gives."""
    return report_json.dump(report).decode()
