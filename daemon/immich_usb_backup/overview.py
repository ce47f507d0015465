"""What is told of disks and runs to whoever asks: what is known, what is here, what goes on, what is to come."""

from __future__ import annotations

from collections.abc import Callable, Collection

from immich_usb_backup.config import Config
from immich_usb_backup.disks_here import DisksHere
from immich_usb_backup.model import KnownDisk, PartitionSeen, PlugIn, RunReport
from immich_usb_backup.policy.disk_facts import STRIP, DiskFacts, DiskState, facts_of, strip_of
from immich_usb_backup.policy.freshness import due
from immich_usb_backup.policy.schedule import next_run
from immich_usb_backup.policy.text import printable
from immich_usb_backup.ports import Ports
from immich_usb_backup.requests import Refusal, Refused
from immich_usb_backup.worker import Worker

RUNS_AT_MOST = 1000


class Overview:
    """Everything raises ``StateDamaged`` where the history cannot be used."""

    def __init__(self, ports: Ports, worker: Worker, here: DisksHere, config: Callable[[], Config]) -> None:
        self._ports = ports
        self._worker = worker
        self._here = here
        self._config = config

    async def disks(self) -> tuple[DiskFacts, ...]:
        """Those that earlier runs knew, the one with the newest run first, then those that are here and new."""
        known = {disk.disk.uuid: disk for disk in await self._ports.history.disks()}
        outcomes = await self._ports.history.outcomes(STRIP)
        here = {seen.uuid: seen for seen in self._here.shown(known)}
        uuids = dict.fromkeys([*known, *here])
        strips = {uuid: strip_of(outcomes.get(uuid, ())) for uuid in uuids}
        trusted = await self._trusted(uuids)
        return tuple(self._facts(known.get(u), here.get(u), strips[u], trusted=u in trusted) for u in uuids)

    async def _trusted(self, uuids: Collection[str]) -> Collection[str]:
        """Those that the marker is enough for, or that are enrolled. Whether it is still that disk, a look at it says."""
        if self._config().disks.trust == "marker":
            return uuids
        enrolled = {one.uuid.upper() for one in await self._ports.enrolments.all()}
        return {uuid for uuid in uuids if uuid.upper() in enrolled}

    def _facts(self, known: KnownDisk | None, seen: PartitionSeen | None, strip: str, *, trusted: bool) -> DiskFacts:
        config, now = self._config(), self._ports.clock.now()
        disk = known.disk if known is not None else None
        names: tuple[str, ...] = (disk.name, disk.label, disk.uuid) if disk is not None else ()
        names += (seen.label, seen.uuid) if seen is not None else ()
        return facts_of(
            known,
            seen,
            state=self._state(seen.plug_in) if seen is not None else DiskState.ABSENT,
            reasons=self._here.reasons(seen) if seen is not None else (),
            due=due(known, config) if known is not None else None,
            now=now,
            next_run=next_run(config.schedule_of(*names), now),
            strip=strip,
            trusted=trusted,
        )

    def _state(self, plug_in: PlugIn) -> DiskState:
        if self._worker.runs_on(plug_in):
            return DiskState.RUNNING
        return DiskState.WAITING if self._worker.waits_for(plug_in) else DiskState.IDLE

    async def runs(self, disk: str, number: int, *, failed: bool) -> tuple[RunReport, ...]:
        """The newest runs that are over, of all disks or of one. Raises ``Refused``."""
        limit = min(number, RUNS_AT_MOST)
        uuid = (await self._here.known_as(disk)).uuid if disk else ""
        return await self._ports.history.runs(limit, uuid=uuid, failed=failed)

    async def report(self, run_id: str) -> RunReport:
        """One run that is over. Raises ``Refused``."""
        report = await self._ports.history.report(run_id)
        if report is None:
            hint = "See: sudo immich-usb-backup history"
            raise Refused(Refusal.NO_SUCH_RUN, f"There is no backup '{printable(run_id)}' that is over", hint=hint)
        return report
