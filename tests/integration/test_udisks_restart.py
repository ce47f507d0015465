"""UDisks2 begins anew in the middle of a run, as with an upgrade: the disk stays mounted, and so the run goes on."""

from __future__ import annotations

import asyncio
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import host, samples
from tests.support.daemon import daemon_process

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(host.unavailable() is not None, reason=str(host.unavailable())),
]

OUTCOMES = ("run-ok", "run-partial", "run-failed", "run-interrupted")


async def test_a_run_outlives_udisks_that_begins_anew(tmp_path: Path) -> None:
    with ExitStack() as stack:
        bus = stack.enter_context(host.system_bus(private=True))
        stack.enter_context(host.udev())
        first = stack.enter_context(ExitStack())
        first.enter_context(host.udisks(bus))
        disk = stack.enter_context(host.exfat_disk(128, "Blue", populate=host.make_marker))
        disk.detach()
        media = samples.make_media_location(tmp_path / "immich", photos=12)
        config = tmp_path / "config.toml"
        config.write_text(
            f'media_location = "{media.path}"\n'
            '[disks]\ntransports = ["loop"]\nautomounter_grace_seconds = 0\nreserve_megabytes = 0\n'
        )
        async with daemon_process(config, tmp_path / "state", environment=bus.env) as daemon:
            await asyncio.to_thread(disk.attach)
            await daemon.event("run-started")
            daemon.process.send_signal(signal.SIGSTOP)
            await asyncio.to_thread(first.close)
            assert not await asyncio.to_thread(bus.has_owner, host.UDISKS_NAME)
            await asyncio.to_thread(stack.enter_context, host.udisks(bus))
            daemon.process.send_signal(signal.SIGCONT)
            ended = await daemon.event(*OUTCOMES)
            assert ended["code"] == "run-ok", daemon.story()
            assert daemon.codes().count("run-started") == 1
        assert str(disk.device) not in Path("/proc/mounts").read_text()
