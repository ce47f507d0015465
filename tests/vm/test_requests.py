"""What a run with nothing to do asks of a stick. Counted, not timed: it is the same on every machine."""

from __future__ import annotations

from pathlib import Path

import pytest_asyncio

from tests.vm.backup import DAEMON, Backup, marked_image
from tests.vm.disk_requests import Requests, make_library, of_a_plug_in, of_mounting

READS, WRITES = 30, 60
"""Beyond those of mounting twice, at any size of the library."""


@pytest_asyncio.fixture(loop_scope="session")
async def counting(server: Backup) -> Backup:
    """The service, without memories, and without the wait for an automounter."""
    await server.start_over(grace_seconds=0, mail=False)
    return server


async def _nothing_to_do(backup: Backup, image: Path, files: int) -> Requests:
    await make_library(backup.guest, files)
    await backup.guest.sh(f"systemctl start {DAEMON}")
    first = await of_a_plug_in(backup, image, per_second=0)
    assert first.writes > files, "it was not copied"
    mounting = await of_mounting(backup.guest, image, "ro", "rw")
    await backup.guest.sh(f"systemctl start {DAEMON}")
    return await of_a_plug_in(backup, image) - mounting


async def test_a_run_with_nothing_to_do_asks_as_little_of_a_large_library_as_of_a_small_one(
    counting: Backup, tmp_path: Path
) -> None:
    small = await _nothing_to_do(counting, marked_image(tmp_path / "small.img"), 300)
    large = await _nothing_to_do(counting, marked_image(tmp_path / "large.img"), 1500)
    assert small.reads <= READS, small
    assert small.writes <= WRITES, small
    assert large.reads <= READS, large
    assert large.writes <= WRITES, large
