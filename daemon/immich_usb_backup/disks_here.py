"""What is plugged in, and which of it a person means."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection

from immich_usb_backup.errors import BackupError
from immich_usb_backup.events import Event
from immich_usb_backup.model import PartitionSeen, PlugIn
from immich_usb_backup.policy.eligibility import judge_seen
from immich_usb_backup.ports import Ports
from immich_usb_backup.requests import (
    Candidate,
    Refusal,
    Refused,
    choose,
    not_eligible,
    not_here,
    plugged_in,
    remembered,
)

_KEPT = 500
_RUNS_SEARCHED = 1000
"""How many of the newest runs are searched for a disk that is not here."""


class DisksHere:
    """Everything that udev has shown and not taken away; ``transports`` says what is eligible now."""

    def __init__(self, ports: Ports, transports: Callable[[], Collection[str]]) -> None:
        self._ports = ports
        self._transports = transports
        self._seen: OrderedDict[PlugIn, PartitionSeen] = OrderedDict()

    def __contains__(self, plug_in: PlugIn) -> bool:
        return plug_in in self._seen and self._ports.devices.present(plug_in)

    def note(self, seen: PartitionSeen) -> None:
        """It is here, and this is how it looks now."""
        self._seen[seen.plug_in] = seen
        while len(self._seen) > _KEPT:
            self._seen.popitem(last=False)

    def uuids(self) -> frozenset[str]:
        """Those of the file systems that are here."""
        return frozenset(seen.uuid for seen in self._seen.values() if seen.plug_in in self)

    def forget(self, plug_in: PlugIn) -> None:
        """It was unplugged."""
        self._seen.pop(plug_in, None)

    async def called(self, wanted: str) -> tuple[Candidate, PartitionSeen]:
        """The disk that is meant, which is here and may be backed up to. Raises ``Refused``."""
        names = {seen.plug_in: await self._name_of(seen) for seen in self._eligible()}
        here = [plugged_in(seen, names.get(seen.plug_in)) for seen in self._eligible()]
        chosen = choose(wanted, here)
        if chosen is not None and chosen.seen is not None:
            return chosen, chosen.seen
        raise self._why_not(wanted) or not_here(wanted, here)

    async def known_as(self, wanted: str) -> Candidate:
        """The disk that is meant: one that is here, else one that was backed up to before. Raises ``Refused``,
        ``StateDamaged``."""
        try:
            return (await self.called(wanted))[0]
        except Refused as refusal:
            if refusal.why is not Refusal.NO_SUCH_DISK:
                raise
            before = choose(wanted, await self._remembered())
            if before is None:
                raise
            return before

    async def _remembered(self) -> tuple[Candidate, ...]:
        """Disks that were backed up to, and those that were only enrolled."""
        runs = remembered(await self._ports.history.runs(_RUNS_SEARCHED))
        known = {candidate.uuid.upper() for candidate in runs}
        enrolled = [one for one in await self._ports.enrolments.all() if one.uuid.upper() not in known]
        return (*runs, *(Candidate(name=one.name, uuid=one.uuid, label="") for one in enrolled))

    def shown(self, known: Collection[str]) -> list[PartitionSeen]:
        """What is here and may be backed up to, or has one of these UUIDs."""
        here = [seen for seen in self._seen.values() if seen.plug_in in self]
        return [seen for seen in here if seen.uuid in known or not self.reasons(seen)]

    def _eligible(self) -> list[PartitionSeen]:
        return [seen for seen in self._seen.values() if seen.plug_in in self and not self.reasons(seen)]

    def _why_not(self, wanted: str) -> Refused | None:
        """The refusal for something that is here and may not be backed up to."""
        for seen in self._seen.values():
            if seen.plug_in in self and choose(wanted, (plugged_in(seen, None),)):
                return not_eligible(wanted, self.reasons(seen))
        return None

    def reasons(self, seen: PartitionSeen) -> tuple[str, ...]:
        """Why it may not be backed up to; none: it may."""
        return judge_seen(seen, transports=self._transports()).reasons

    async def name_of(self, seen: PartitionSeen) -> str:
        """What a disk that is here is called."""
        return plugged_in(seen, await self._name_of(seen)).name

    async def _name_of(self, seen: PartitionSeen) -> str | None:
        try:
            enrolled = {one.uuid.upper(): one.name for one in await self._ports.enrolments.all()}
            return enrolled.get(seen.uuid.upper()) or await self._ports.history.disk_name(seen.uuid)
        except BackupError as error:
            self._ports.log.say(Event.FATAL, message=error.message, hint=error.hint)
            return None
