"""The real daemon as a process of its own, with what it logs as values that a test can wait for."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

DAEMON = Path(__file__).resolve().parents[2] / "daemon"


class DaemonProcess:
    """``immich-usb-backup daemon`` with JSON lines on standard output."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.entries: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self._news = asyncio.Condition()
        self._seen = 0
        self._readers = [asyncio.ensure_future(self._read()), asyncio.ensure_future(self._read_errors())]

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            entry = json.loads(line)
            async with self._news:
                self.entries.append(entry)
                self._news.notify_all()
        await self.process.wait()  # else whoever waits is told of the end, does not see it, and waits on
        async with self._news:
            self._news.notify_all()

    async def _read_errors(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.errors.append(line.decode(errors="replace").rstrip())

    async def event(self, *codes: str, timeout: float = 60) -> dict[str, Any]:
        """The next entry with one of these codes, after those that were waited for before."""
        try:
            async with asyncio.timeout(timeout), self._news:
                while True:
                    while self._seen < len(self.entries):
                        self._seen += 1
                        if self.entries[self._seen - 1].get("code") in codes:
                            return self.entries[self._seen - 1]
                    assert self.process.returncode is None, f"the daemon ended, waiting for {codes}\n{self.story()}"
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"no {' or '.join(codes)} within {timeout} s\n{self.story()}") from None

    def codes(self) -> list[str]:
        """All that was logged so far, by code."""
        return [str(entry.get("code")) for entry in self.entries]

    def story(self) -> str:
        """What it said, for people."""
        lines = [str(entry.get("event")) for entry in self.entries]
        traces = [str(entry["trace"]) for entry in self.entries if "trace" in entry]
        return "\n".join(lines + traces + self.errors)

    async def stop(self, number: int = signal.SIGTERM, timeout: float = 60) -> int:
        """Signal it and wait for its end."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)
        async with asyncio.timeout(timeout):
            code = await self.process.wait()
            await asyncio.gather(*self._readers)
        return code


@asynccontextmanager
async def daemon_process(
    config: Path, state: Path, *, environment: Mapping[str, str], arguments: tuple[str, ...] = ()
) -> AsyncIterator[DaemonProcess]:
    """A running daemon that is ready for disks; it is stopped at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "immich_usb_backup",
        "daemon",
        f"--config={config}",
        f"--state={state}",
        "--log-format=json",
        *arguments,
        env={**os.environ, **environment, "PYTHONPATH": str(DAEMON)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )
    daemon = DaemonProcess(process)
    try:
        await daemon.event("ready")
        yield daemon
    finally:
        if process.returncode is None:
            await daemon.stop()
