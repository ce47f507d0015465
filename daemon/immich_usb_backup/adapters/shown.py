"""What a desktop has shown, in a small file of its user's: for each disk the run whose outcome was shown last."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pydantic_core import from_json

from immich_usb_backup.adapters import atomic
from immich_usb_backup.adapters.threads import in_thread
from immich_usb_backup.errors import DeadlineMissed
from immich_usb_backup.events import Event
from immich_usb_backup.policy.text import harmless
from immich_usb_backup.ports import Log

FILE_NAME = "shown.json"
VERSION = 1
KEPT = 100
"""Disks; the one that was shown longest ago is forgotten first."""

_LARGEST = 1_000_000
_DEADLINE_SECONDS = 60.0


class ShownOnDesktop:
    """Implements ``agent.ports.Seen``, in ``folder``, which is made where it is missing."""

    def __init__(self, folder: Path, log: Log) -> None:
        self._folder = folder
        self._log = log
        self._newest: dict[str, str] | None = None
        self._complained = False

    async def newest(self) -> Mapping[str, str]:
        """For the UUID of each disk the run that was shown last. Never raises; nothing where the file cannot be read."""
        return await self._book()

    async def note(self, uuid: str, run_id: str) -> None:
        """An outcome was shown. Never raises: this process remembers it in any case."""
        book = await self._book()
        if not uuid or book.get(uuid) == run_id:
            return
        book.pop(uuid, None)
        self._newest = book = dict([*book.items(), (uuid, run_id)][-KEPT:])
        content = json.dumps({"version": VERSION, "shown": book}).encode()
        try:
            await in_thread(
                lambda _: self._write(content), what="Noting what was shown", stall_seconds=_DEADLINE_SECONDS
            )
        except (OSError, DeadlineMissed) as error:
            self._complain(error)

    async def _book(self) -> dict[str, str]:
        if self._newest is None:
            self._newest = {}
            try:
                self._newest = await in_thread(
                    lambda _: _read(self._folder / FILE_NAME),
                    what="Reading what was shown",
                    stall_seconds=_DEADLINE_SECONDS,
                )
            except (OSError, ValueError, DeadlineMissed) as error:
                self._complain(error)
        return self._newest

    def _write(self, content: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        atomic.write(self._folder, FILE_NAME, content, mode=0o600)

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            file = str(self._folder / FILE_NAME)
            self._log.say(Event.SHOWN_FORGOTTEN, file=file, message=harmless(str(error)))


def _read(path: Path) -> dict[str, str]:
    """Raises ``OSError``, ``ValueError``."""
    with suppress(FileNotFoundError):
        document = from_json(atomic.read(path, limit=_LARGEST))
        shown = document.get("shown") if isinstance(document, dict) else None
        if not isinstance(shown, dict) or document.get("version") != VERSION:
            raise ValueError("it is damaged, or of a newer version")
        return {uuid: run_id for uuid, run_id in shown.items() if isinstance(run_id, str)}
    return {}
