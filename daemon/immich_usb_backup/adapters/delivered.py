"""The notifier's own book: who has been told about which run, and when the others are tried again.

It is read once and written whole at every change, fsynced: what it says about a yes must outlive the power.
"""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from immich_usb_backup.adapters import atomic
from immich_usb_backup.adapters.threads import in_thread
from immich_usb_backup.errors import DeliveryFailed
from immich_usb_backup.events import Event
from immich_usb_backup.policy.delivery import Attempts
from immich_usb_backup.policy.text import printable
from immich_usb_backup.ports import Log

FILE_NAME = "delivered.json"
VERSION = 1
KEPT = timedelta(days=90)
"""Longer than any entry stays in the outbox: the daemon may put one there again after a crash."""
KEPT_RECORDS = 5000

_LARGEST = 16_000_000
_DEADLINE_SECONDS = 60.0
_ADAPTER: TypeAdapter[list[Attempts]] = TypeAdapter(list[Attempts])


class DeliveredLedger:
    """The book in ``folder``, the notifier's state directory. Only one process may use it at a time."""

    def __init__(self, folder: Path, log: Log) -> None:
        self._folder = folder
        self._log = log
        self._attempts: dict[tuple[str, str], Attempts] | None = None

    async def attempts(self, run_id: str, channel: str) -> Attempts | None:
        """What was tried so far. Raises ``DeliveryFailed`` where the book cannot be opened."""
        return (await self._book()).get((run_id, channel))

    async def record(self, *changed: Attempts) -> None:
        """Note and fsync. Raises ``DeliveryFailed``, ``DeadlineMissed``; this process remembers all the same."""
        book = await self._book()
        book |= {(one.run_id, one.channel): one for one in changed}
        newest = max(one.last_try for one in changed)
        self._attempts = kept = _pruned(book, newest)
        content = json.dumps({"version": VERSION, "attempts": _ADAPTER.dump_python([*kept.values()], mode="json")})
        try:
            await in_thread(
                lambda _: atomic.write(self._folder, FILE_NAME, content.encode(), mode=0o600),
                what="Writing down what was delivered",
                stall_seconds=_DEADLINE_SECONDS,
            )
        except OSError as error:
            raise _unusable(self._folder, "written", error) from error

    async def _book(self) -> dict[tuple[str, str], Attempts]:
        if self._attempts is None:
            try:
                found = await in_thread(
                    lambda _: _read(self._folder), what="Reading what was delivered", stall_seconds=_DEADLINE_SECONDS
                )
            except OSError as error:
                raise _unusable(self._folder, "read", error) from error
            except ValueError as error:
                found = []
                self._set_aside(str(error))
            self._attempts = {(one.run_id, one.channel): one for one in found}
        return self._attempts

    def _set_aside(self, problem: str) -> None:
        """Without the book something may be told twice; refusing to work would leave it untold."""
        path = self._folder / FILE_NAME
        with suppress(OSError):
            path.replace(path.with_suffix(".unreadable"))
        message = f"{printable(problem)}. Began a new one; something may be told twice."
        self._log.say(Event.OUTBOX_UNREADABLE, file=str(path), message=message)


def _read(folder: Path) -> list[Attempts]:
    """Raises ``OSError``, and ``ValueError`` for a book that is damaged or newer than this program."""
    try:
        document = from_json(atomic.read(folder / FILE_NAME, limit=_LARGEST))
    except FileNotFoundError:
        return []
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise ValueError("it is not a list of deliveries, or one of a newer version")
    try:
        found = _ADAPTER.validate_python(document.get("attempts"))
    except ValidationError as error:
        raise ValueError(f"it is damaged ({error.error_count()} mistakes)") from error
    if any(time.tzinfo is None for one in found for time in (one.first_try, one.last_try, one.next_try)):
        raise ValueError("it is damaged (a time without a zone)")
    return found


def _pruned(book: dict[tuple[str, str], Attempts], now: datetime) -> dict[tuple[str, str], Attempts]:
    young = {key: one for key, one in book.items() if now - one.last_try < KEPT}
    newest = sorted(young, key=lambda key: young[key].last_try)[-KEPT_RECORDS:]
    return {key: young[key] for key in newest}


def _unusable(folder: Path, verb: str, error: OSError) -> DeliveryFailed:
    return DeliveryFailed(
        f"{folder / FILE_NAME} cannot be {verb}: {error.strerror or error}.",
        hint="Does the notifier own its state directory, and is there room on the server's disk?",
    )
