"""A file with figures for Prometheus' node exporter, written whole by the daemon. Nothing depends on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from immich_usb_backup.adapters import atomic
from immich_usb_backup.adapters.threads import in_thread
from immich_usb_backup.config import Config
from immich_usb_backup.errors import BackupError
from immich_usb_backup.events import Event
from immich_usb_backup.model import Disk, Notice, Progress, RunReport
from immich_usb_backup.policy.metrics import textfile
from immich_usb_backup.ports import Clock, History, Log

_DEADLINE_SECONDS = 30.0
_CLOSE_SECONDS = 5.0


class MetricsFile:
    """Implements ``ports.Watchers``: it writes when a run is over. ``config`` gives the configuration of this moment."""

    def __init__(self, history: History, *, config: Callable[[], Config], clock: Clock, log: Log) -> None:
        self._history = history
        self._config = config
        self._clock = clock
        self._log = log
        self._writing: asyncio.Task[None] | None = None
        self._again = False

    def refresh(self) -> None:
        """Have it written soon: once more where it is being written now."""
        if self._writing is not None and not self._writing.done():
            self._again = True
        else:
            self._writing = asyncio.ensure_future(self._write_all())

    async def close(self) -> None:
        """Wait a little for what is being written."""
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=_CLOSE_SECONDS)
            self._writing.cancel()

    async def _write_all(self) -> None:
        self._again = True
        while self._again:
            self._again = False
            await self._write()

    async def _write(self) -> None:
        config = self._config()
        path = config.metrics.textfile
        if path is None:
            return
        try:
            text = textfile(await self._history.disks(), config, now=self._clock.now())
            await in_thread(lambda _: _replace(path, text), what=f"Writing {path}", stall_seconds=_DEADLINE_SECONDS)
        except BackupError as error:
            self._log.say(Event.METRICS_FAILED, message=error.message, hint=error.hint)
        except OSError as error:
            message = f"{path} cannot be written: {error.strerror or error}."
            self._log.say(Event.METRICS_FAILED, message=message, hint=_hint(path))

    def started(self, run_id: str, disk: Disk) -> None:
        """A run begins."""

    def progress(self, progress: Progress) -> None:
        """A run goes on."""

    def finished(self, report: RunReport) -> None:
        """A run is over and recorded."""
        del report  # the history has it, with those before it
        self.refresh()

    def disk_removed(self, uuid: str, disk_name: str) -> None:
        """A disk was unplugged."""

    def notice(self, notice: Notice) -> None:
        """Something to know outside of a run."""


def _replace(path: Path, text: str) -> None:
    """The exporter reads every file that ends with ``.prom``, also one that is being written."""
    atomic.write(path.parent, path.name, text.encode(), mode=0o644, temporary=f"{atomic.TEMPORARY}{path.stem}")


def _hint(path: Path) -> str:
    return (
        f"The user immich-usb-backup must be allowed to write into {path.parent}, and so must its unit: "
        f"sudo systemctl edit immich-usb-backup, with [Service] and ReadWritePaths=-{path.parent}"
    )
