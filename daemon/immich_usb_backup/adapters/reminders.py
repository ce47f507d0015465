"""What was said in reminders, as a small JSON file in the state directory."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pydantic import AwareDatetime, TypeAdapter
from pydantic.dataclasses import dataclass

from immich_usb_backup.adapters import atomic
from immich_usb_backup.adapters.threads import in_thread
from immich_usb_backup.errors import StateDamaged
from immich_usb_backup.model import Reminded, Reminders

NAME = "reminders.json"

_LARGEST = 1_000_000


@dataclass(frozen=True)
class _Said:
    times: int
    last: AwareDatetime


@dataclass(frozen=True)
class _File:
    since: AwareDatetime
    last: AwareDatetime | None
    disks: dict[str, _Said]


_ADAPTER: TypeAdapter[_File] = TypeAdapter(_File)


class ReminderFile:
    """The ``ReminderBook`` port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def load(self, now: datetime) -> Reminders:
        """What is kept; from now on where there is nothing yet, or nothing that can be read: what it held is worth less than
        a reminder."""
        return await in_thread(lambda _: self._load(now), what="Reading what was reminded of")

    def _load(self, now: datetime) -> Reminders:
        try:
            found = _ADAPTER.validate_json(atomic.read(self._folder / NAME, limit=_LARGEST))
        except (OSError, ValueError):  # pydantic's is a ValueError
            return Reminders(since=now)
        disks = {uuid: Reminded(times=max(1, said.times), last=said.last) for uuid, said in found.disks.items()}
        return Reminders(since=found.since, last=found.last, disks=disks)

    async def save(self, reminders: Reminders) -> None:
        """Keep it, durably. Raises ``StateDamaged``."""
        said = {uuid: _Said(times=one.times, last=one.last) for uuid, one in reminders.disks.items()}
        content = _ADAPTER.dump_json(_File(since=reminders.since, last=reminders.last, disks=said))
        await in_thread(lambda _: self._save(content), what="Noting what was reminded of")

    def _save(self, content: bytes) -> None:
        try:
            atomic.write(self._folder, NAME, content, mode=0o640)
        except OSError as error:
            raise StateDamaged(f"{self._folder / NAME} cannot be written: {error.strerror}") from error
