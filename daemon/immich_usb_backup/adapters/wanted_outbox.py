"""The daemon's side of the outbox: something waits there only where the configuration names somebody who wants it."""

from __future__ import annotations

from collections.abc import Callable

from immich_usb_backup.adapters.outbox import OutboxFolder
from immich_usb_backup.config import Config
from immich_usb_backup.errors import BackupError
from immich_usb_backup.events import Event
from immich_usb_backup.model import Notice, RunReport
from immich_usb_backup.policy.news import RECENT_KEPT
from immich_usb_backup.ports import History, Log


class WantedOutbox:
    """Implements ``ports.Outbox``. ``config`` gives the configuration of this moment: it may change while the daemon runs.

    An outcome takes the runs of its disk before it along: the notifier cannot read the history.
    """

    def __init__(self, outbox: OutboxFolder, *, history: History, config: Callable[[], Config], log: Log) -> None:
        self._outbox = outbox
        self._history = history
        self._config = config
        self._log = log

    async def put(self, report: RunReport) -> None:
        """Leave an outcome for people and monitors."""
        config = self._config()
        if config.mail or config.push or config.ping:
            await self._outbox.put(report, await self._before(report))

    async def put_begun(self, report: RunReport) -> None:
        """Leave word for a monitor that a run has begun."""
        if self._config().ping:
            await self._outbox.put_begun(report)

    async def put_notice(self, notice: Notice) -> None:
        """Leave a notice for people."""
        config = self._config()
        if config.mail or config.push:
            await self._outbox.put_notice(notice)

    async def _before(self, report: RunReport) -> tuple[RunReport, ...]:
        """The disk's newest runs; none where the history cannot be read, as the outcome must be told all the same."""
        try:
            return await self._history.runs(RECENT_KEPT + 1, uuid=report.disk.uuid)
        except BackupError as error:
            self._log.say(Event.ANNOUNCE_FAILED, message=error.message, hint=error.hint)
            return ()
