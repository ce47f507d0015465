"""Who is told how a run goes: systemd's status line, listeners on D-Bus, a terminal. Each limits its own rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from immich_usb_backup import messages
from immich_usb_backup.adapters.service import Service
from immich_usb_backup.events import Event
from immich_usb_backup.model import Disk, Notice, NoticeKind, Progress, RunReport, Stage
from immich_usb_backup.ports import Log, Watchers

STATUS_SECONDS = 1.0
_MORE_TIME_SECONDS = 120


class RateLimit:
    """Lets something through once in ``seconds``, and at once when ``key`` changes."""

    def __init__(self, seconds: float, monotonic: Callable[[], float]) -> None:
        self._seconds = seconds
        self._monotonic = monotonic
        self._last: tuple[float, object] | None = None

    def allows(self, key: object) -> bool:
        """Whether it may go now."""
        now = self._monotonic()
        if self._last is not None and self._last[1] == key and now - self._last[0] < self._seconds:
            return False
        self._last = (now, key)
        return True


class AllWatchers:
    """One ``Watchers`` out of several. One that fails is logged: it must not change how a run goes."""

    def __init__(self, watchers: Sequence[Watchers], log: Log) -> None:
        self._watchers = watchers
        self._log = log

    def started(self, run_id: str, disk: Disk) -> None:
        """A run begins."""
        self._each(lambda watcher: watcher.started(run_id, disk))

    def progress(self, progress: Progress) -> None:
        """A run goes on."""
        self._each(lambda watcher: watcher.progress(progress))

    def finished(self, report: RunReport) -> None:
        """A run is over."""
        self._each(lambda watcher: watcher.finished(report))

    def disk_removed(self, uuid: str, disk_name: str) -> None:
        """A disk was unplugged."""
        self._each(lambda watcher: watcher.disk_removed(uuid, disk_name))

    def notice(self, notice: Notice) -> None:
        """Something to know outside of a run."""
        self._each(lambda watcher: watcher.notice(notice))

    def _each(self, tell: Callable[[Watchers], None]) -> None:
        for watcher in self._watchers:
            try:
                tell(watcher)
            except Exception as error:  # noqa: BLE001  # a terminal that was closed, a bug in one of them
                self._log.say(Event.WATCHER_FAILED, watcher=type(watcher).__name__, message=repr(error))


class StatusLine:
    """The line in ``systemctl status``. While data is written out, systemd is asked for patience with a stop."""

    def __init__(self, service: Service, monotonic: Callable[[], float]) -> None:
        self._service = service
        self._limit = RateLimit(STATUS_SECONDS, monotonic)

    def idle(self, text: str) -> None:
        """Nothing goes on."""
        self._service.status(f"Idle: {text}")

    def started(self, run_id: str, disk: Disk) -> None:
        """A run begins."""
        del run_id
        self._service.status(messages.started_line(disk.name))

    def progress(self, progress: Progress) -> None:
        """A run goes on."""
        if self._limit.allows(progress.stage):
            self._service.status(f"'{progress.disk_name}': {messages.progress_line(progress)}")
            if progress.stage in {Stage.FLUSH, Stage.UNMOUNT}:
                self._service.extend_timeout(_MORE_TIME_SECONDS)

    def finished(self, report: RunReport) -> None:
        """A run is over."""
        self.idle(messages.headline(report))

    def disk_removed(self, uuid: str, disk_name: str) -> None:
        """A disk was unplugged."""

    def notice(self, notice: Notice) -> None:
        """A disk that waits is what the service does now."""
        if notice.kind is NoticeKind.WAITING:
            self.idle(notice.headline)


class TerminalProgress:
    """Progress lines for a person who watches in the foreground: at most one a second, and each stage's first."""

    def __init__(self, write: Callable[[str], None], monotonic: Callable[[], float]) -> None:
        self._write = write
        self._limit = RateLimit(STATUS_SECONDS, monotonic)

    def started(self, run_id: str, disk: Disk) -> None:
        """A run begins."""

    def progress(self, progress: Progress) -> None:
        """A run goes on."""
        if self._limit.allows(progress.stage):
            self._write(f"         … {messages.progress_line(progress)}")

    def finished(self, report: RunReport) -> None:
        """A run is over."""

    def disk_removed(self, uuid: str, disk_name: str) -> None:
        """A disk was unplugged."""

    def notice(self, notice: Notice) -> None:
        """Something to know outside of a run."""
