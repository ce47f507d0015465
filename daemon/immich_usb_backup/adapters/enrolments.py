"""The disks that were enrolled on this server: a small JSON file that only the service may read. No secret is in it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from immich_usb_backup.adapters import atomic
from immich_usb_backup.adapters.threads import in_thread
from immich_usb_backup.errors import StateDamaged
from immich_usb_backup.policy.enrolment import Enrolment

ENROLMENTS = "enrolments.json"
"""Its name in the state directory."""

_FORMAT = "immich-usb-backup enrolments"
_VERSION = 1
_LONGEST = 4_000_000
_HINT = "No disk is trusted. Move the file away, restart the service, and enroll each disk again."


class EnrolmentsFile:
    """The ``Enrolments`` port. Nothing is kept in memory: the file is what counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writing = asyncio.Lock()

    async def all(self) -> tuple[Enrolment, ...]:
        """Every enrolled disk, the newest last. Raises ``StateDamaged``."""
        return await in_thread(lambda _: self.read(), what="Reading the enrolments")

    async def put(self, enrolment: Enrolment) -> None:
        """Remember one. Raises ``StateDamaged``."""
        async with self._writing:
            others = _without(await self.all(), enrolment.uuid)
            await self._write((*others, enrolment))

    async def revoke(self, uuid: str) -> bool:
        """Forget one. Returns whether there was one. Raises ``StateDamaged``."""
        async with self._writing:
            known = await self.all()
            left = _without(known, uuid)
            if len(left) < len(known):
                await self._write(left)
            return len(left) < len(known)

    def read(self) -> tuple[Enrolment, ...]:
        """The same as ``all``; blocks, for a command that has no loop. Raises ``StateDamaged``."""
        try:
            return _decoded(atomic.read(self._path, limit=_LONGEST))
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise StateDamaged(
                f"The list of enrolled disks {self._path} cannot be read: {error}", hint=_HINT
            ) from error

    async def _write(self, enrolments: Iterable[Enrolment]) -> None:
        content = _encoded(enrolments)

        def work(_: object) -> None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            atomic.write(self._path.parent, self._path.name, content, mode=0o600)

        try:
            await in_thread(work, what="Writing the enrolments")
        except OSError as error:
            message = f"The list of enrolled disks {self._path} cannot be written: {error.strerror}"
            raise StateDamaged(message, hint="Is there room on the server's disk?") from error


def _without(enrolments: Iterable[Enrolment], uuid: str) -> tuple[Enrolment, ...]:
    return tuple(one for one in enrolments if one.uuid.upper() != uuid.upper())


def _encoded(enrolments: Iterable[Enrolment]) -> bytes:
    disks = [
        {"uuid": one.uuid, "name": one.name, "time": one.time.astimezone(UTC).isoformat(), "digest": one.digest}
        for one in enrolments
    ]
    return (json.dumps({"format": _FORMAT, "version": _VERSION, "disks": disks}, indent=2) + "\n").encode("ascii")


def _decoded(content: bytes) -> tuple[Enrolment, ...]:
    """Raises ``ValueError``, ``KeyError``, ``TypeError``, ``AttributeError`` or ``RecursionError`` for what we did not write."""
    fields = json.loads(content)
    if fields["format"] != _FORMAT or fields["version"] != _VERSION:
        raise ValueError("another version of immich-usb-backup wrote it")
    return tuple(_enrolment(disk) for disk in fields["disks"])


def _enrolment(disk: dict[str, Any]) -> Enrolment:
    texts = [disk[key] for key in ("uuid", "name", "digest")]
    if not all(isinstance(text, str) and text for text in texts):
        raise ValueError("a field is missing")
    time = datetime.fromisoformat(disk["time"])
    if time.tzinfo is None:
        raise ValueError("a time without a zone")
    return Enrolment(uuid=texts[0], name=texts[1], digest=texts[2], time=time)
