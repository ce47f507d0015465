"""The outbox: a folder with one file for each outcome, beginning or notice that the notifier has still to deliver.

The daemon writes, the notifier reads and removes. Names that begin with a dot are no entries: what is being written,
and what was set aside. systemd's ``DirectoryNotEmpty=`` ignores them as well, so they do not start the notifier.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from immich_usb_backup.adapters import atomic, news_json
from immich_usb_backup.adapters.threads import in_thread
from immich_usb_backup.errors import DeliveryFailed, StateDamaged
from immich_usb_backup.events import Event
from immich_usb_backup.model import Notice, RunReport
from immich_usb_backup.policy.delivery import Waiting
from immich_usb_backup.policy.news import Begun, News, ended, happened, news_id
from immich_usb_backup.policy.text import printable
from immich_usb_backup.ports import Log

T = TypeVar("T")

ASIDE = ".unreadable-"
"""How the name of a file begins that could not be read and was set aside."""

KEPT_SECONDS = 30 * 86_400
KEPT_ENTRIES = 1000
KEPT_ASIDE = 100
_TEMPORARY_SECONDS = 3600
_LARGEST = 16_000_000
_DEADLINE_SECONDS = 60.0
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,199}")


class OutboxFolder:
    """``put…`` are the daemon's side, the rest is the notifier's. The folder must exist, writable for both.

    What is put raises ``DeliveryFailed`` and ``DeadlineMissed``; the same twice is one.
    """

    def __init__(self, folder: Path, log: Log) -> None:
        self._folder = folder
        self._log = log

    async def put(self, report: RunReport, newest_first: Iterable[RunReport] = ()) -> None:
        """Leave a report for delivery, with the runs of its disk before it."""
        await self._put(ended(report, newest_first))

    async def put_begun(self, report: RunReport) -> None:
        """Leave word that a run has begun."""
        await self._put(Begun(report=report))

    async def put_notice(self, notice: Notice) -> None:
        """Leave a notice for delivery."""
        await self._put(notice)

    async def _put(self, news: News) -> None:
        name = _file_name(news_id(news))
        content = news_json.dump(news)
        await self._in_thread(lambda: atomic.write(self._folder, name, content, mode=0o640), "be written")
        for dropped in await self._in_thread(lambda: _prune(self._folder, time.time()), "be tidied"):
            self._log.say(
                Event.DELIVERY_GIVEN_UP,
                channel="anybody",
                about=dropped,
                what=dropped,
                message="It waited for too long.",
                hint="",
            )

    async def pending(self) -> tuple[Waiting, ...]:
        """All entries, the oldest first. Raises ``DeliveryFailed`` where the folder cannot be read."""
        return await self._in_thread(lambda: _entries(self._folder), "be read")

    async def discard(self, name: str) -> None:
        """Remove an entry; missing is fine. Raises ``DeliveryFailed``."""
        await self._in_thread(lambda: _discard(self._folder, name), "be emptied")

    async def set_aside(self, name: str) -> str:
        """Put an unreadable entry out of the way; returns its new name. Raises ``DeliveryFailed``."""
        return await self._in_thread(lambda: _set_aside(self._folder, name), "be tidied")

    async def _in_thread(self, work: Callable[[], T], what: str) -> T:
        try:
            return await in_thread(lambda _: work(), what=f"The outbox {self._folder}", stall_seconds=_DEADLINE_SECONDS)
        except OSError as error:
            raise DeliveryFailed(
                f"The outbox {self._folder} cannot {what}: {error.strerror or error}.",
                hint="Does the folder exist, do daemon and notifier both own it, and is there room on the server's disk?",
            ) from error


def _file_name(name: str) -> str:
    if not _ID.fullmatch(name):
        raise DeliveryFailed(f"Nothing in the outbox can be called '{printable(name)}'.", permanent=True)
    return f"{name}.json"


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def _entries(folder: Path) -> tuple[Waiting, ...]:
    found = [entry for entry in (_entry(folder / name) for name in _names(folder)) if entry is not None]
    return tuple(sorted(found, key=_oldest_first))


def _oldest_first(entry: Waiting) -> tuple[float, str]:
    return (happened(entry.news).timestamp() if entry.news else 0.0, entry.name)


def _entry(path: Path) -> Waiting | None:
    """None: it went away meanwhile. An I/O error or a missing permission may pass, wrong content will not."""
    try:
        return Waiting(name=path.name, news=news_json.load(atomic.read(path, limit=_LARGEST)))
    except FileNotFoundError:
        return None
    except OSError as error:
        return Waiting(name=path.name, problem=f"{error.strerror or error}.")
    except StateDamaged as error:
        return Waiting(name=path.name, problem=f"{printable(error.message)}.", foreign=True)
    except ValueError as error:
        return Waiting(name=path.name, problem=f"{printable(str(error))}.", foreign=True)


def _discard(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    atomic.sync_folder(folder)


def _set_aside(folder: Path, name: str) -> str:
    """Renamed within the folder: that works for whatever it is, and for an entry that belongs to somebody else."""
    aside = f"{ASIDE}{name}"[:200]
    with suppress(FileNotFoundError):
        (folder / name).rename(folder / aside)
    return aside


def _prune(folder: Path, now: float) -> tuple[str, ...]:
    """Keep the outbox bounded when nobody empties it. Returns what nobody will be told about."""
    ages = dict(sorted(_ages(folder, now), key=lambda item: item[1]))  # the youngest first
    entries = [name for name in ages if not name.startswith(".")]
    aside = [name for name in ages if name.startswith(ASIDE)]
    temporary = [name for name in ages if name.startswith(atomic.TEMPORARY)]
    dropped = {*entries[KEPT_ENTRIES:], *(name for name in entries if ages[name] > KEPT_SECONDS)}
    old = {*aside[KEPT_ASIDE:], *(name for name in aside if ages[name] > KEPT_SECONDS)}
    old |= {name for name in temporary if ages[name] > _TEMPORARY_SECONDS}
    gone = {name for name in dropped | old if _removed(folder / name)}
    return tuple(sorted(name.removesuffix(".json") for name in dropped & gone))


def _ages(folder: Path, now: float) -> Iterator[tuple[str, float]]:
    """Names with their ages in seconds. The change time: it also moves when a file is set aside."""
    for path in folder.iterdir():
        with suppress(OSError):
            yield path.name, now - path.lstat().st_ctime


def _removed(path: Path) -> bool:
    """Whether it is gone now. A folder that somebody made here stays."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True
