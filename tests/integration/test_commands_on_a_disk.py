"""The commands beside the real service and a disk that is a loop device: from no backup at all to one that is forgotten."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from immich_usb_backup.exit_codes import ExitCode
from tests.support import host, samples
from tests.support.daemon import DAEMON, daemon_process

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(host.unavailable() is not None, reason=str(host.unavailable())),
]
OUTCOMES = ("run-ok", "run-partial", "run-failed", "run-interrupted")
Command = Callable[..., Awaitable[tuple[int, str]]]


def commands_on(bus: host.Bus) -> Command:
    async def run(*arguments: str) -> tuple[int, str]:
        environment = {**os.environ, **bus.env, "PYTHONPATH": str(DAEMON), "COLUMNS": "80", "NO_COLOR": "1"}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "immich_usb_backup", *arguments),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(120):
            said, _ = await process.communicate()
        return int(process.returncode or 0), said.decode()

    return run


async def test_a_person_sees_and_steers_it(tmp_path: Path) -> None:
    media = samples.make_media_location(tmp_path / "immich", photos=3)
    config = tmp_path / "config.toml"
    disks = '[disks]\ntransports = ["loop"]\nautomounter_grace_seconds = 0\nreserve_megabytes = 0\n'
    config.write_text(f'media_location = "{media.path}"\n{disks}')
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(host.in_thread(host.system_bus()))
        await stack.enter_async_context(host.in_thread(host.udev()))
        await stack.enter_async_context(host.in_thread(host.udisks(bus)))
        disk = await stack.enter_async_context(host.in_thread(host.exfat_disk(128, "Blue", populate=host.make_marker)))
        ours = commands_on(bus)
        daemon = await stack.enter_async_context(daemon_process(config, tmp_path / "state", environment=bus.env))
        assert (await daemon.event(*OUTCOMES))["outcome"] != "failed", daemon.story()

        (media.path / "upload/new.jpg").write_bytes(b"a new one")
        code, said = await ours("backup", "Blue", "--wait")
        assert "Backing up to 'Blue': please leave it plugged in\n" in said
        assert "'Blue' is backed up: safe to unplug\n" in said, said
        assert code == ExitCode.OK
        code, said = await ours("status")
        assert code == ExitCode.OK, said
        assert said.startswith("Your photos are safe: the last good backup is on 'Blue', just now.\n")
        assert "\nBlue (here)  just now   yes       134.2 MB  in 30 days  ||\n" in said

        code, said = await ours("history")
        assert said.startswith("oldest || newest\n\nBlue "), said
        newest = said.splitlines()[2].split()[-1]
        code, said = await ours("show", newest)
        assert (code, f"Run       {newest}\n" in said) == (ExitCode.OK, True), said
        assert json.loads((await ours("show", "Blue", "--json"))[1])["report"]["run_id"] == newest
        assert "    last good backup: just now\n" in (await ours("disks"))[1]
        code, said = await ours("cancel")
        assert (code, said) == (ExitCode.PROBLEM, "immich-usb-backup: No backup goes on.\n"), daemon.story()
        assert (await ours("retry", "last"))[0] == ExitCode.PROBLEM, "it had everything"

        await asyncio.to_thread(disk.detach)
        await daemon.event("disk-removed")
        assert (await ours("forget", "Blue"))[0] == ExitCode.OK
        assert (await ours("status"))[1].splitlines()[0] == "Your photos are not safe: there has been no backup yet."
        assert (await ours("show"))[0] == ExitCode.NOT_HERE
