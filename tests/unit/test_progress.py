"""How fast a run is and how long it still takes, as the watchers hear it."""

from __future__ import annotations

from dataclasses import replace

from tests.support.fakes import World
from tests.support.telling import SetClock, make_report

from immich_usb_backup.config import Config
from immich_usb_backup.messages import progress_line
from immich_usb_backup.model import Disk, Progress, RunReport, Stage
from immich_usb_backup.stages.context import RunContext


class Watching:
    """Implements ``ports.Watchers``: keeps the newest progress."""

    newest: Progress

    def progress(self, progress: Progress) -> None:
        """Keep it."""
        self.newest = progress

    def pace(self) -> tuple[float | None, float | None]:
        """Rate and seconds that are left."""
        return self.newest.rate, self.newest.seconds_left

    def started(self, run_id: str, disk: Disk) -> None:
        """Nothing."""

    def finished(self, report: RunReport) -> None:
        """Nothing."""

    def disk_removed(self, uuid: str, disk_name: str) -> None:
        """Nothing."""

    def notice(self, notice: object) -> None:
        """Nothing."""


async def test_the_time_that_is_left_counts_the_flushes_and_the_reading_back(world: World, config: Config) -> None:
    clock, watching = SetClock(), Watching()
    ports = replace(world.ports, clock=clock, watchers=watching)
    run = RunContext(run_id="r", disk=make_report().disk, started=clock.now(), config=config, ports=ports)
    run.show(Stage.UPLOAD, done=0, total=1_000_000_000)
    clock.move_on(seconds=2)
    run.show(Stage.UPLOAD, done=500_000_000, total=1_000_000_000)
    assert watching.pace() == (None, None), "the cache took it, nobody knows how fast the disk is"
    run.show_flush(0)
    assert watching.pace() == (None, None)
    clock.move_on(seconds=6)
    run.show(Stage.COMPARE, done=0, total=500_000_000)
    clock.move_on(seconds=2)
    run.show(Stage.LIBRARY, done=500_000_000, total=1_000_000_000)
    assert watching.pace() == (50_000_000, 10)
    assert progress_line(watching.newest).endswith("50 %, 50.0 MB in a second, about 10 s left")
    clock.move_on(seconds=2)
    run.show(Stage.COMPARE, done=400_000_000, total=500_000_000)
    assert watching.pace() == (100_000_000, 1)
