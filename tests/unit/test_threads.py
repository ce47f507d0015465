"""Blocking work beside the loop: its end is waited for, a stall is told, and a cancellation leaves nothing running."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from immich_usb_backup.adapters import threads
from immich_usb_backup.adapters.threads import Pulse, Stopped, in_thread
from immich_usb_backup.errors import DeadlineMissed, DiskFull

HANGS_AFTER = 20.0


async def test_a_result_and_an_error_come_back() -> None:
    assert await in_thread(lambda _: 5, what="x") == 5

    def fail(_: Pulse) -> None:
        raise DiskFull("full")

    with pytest.raises(DiskFull):
        await in_thread(fail, what="x")


async def test_the_context_comes_along() -> None:
    variable = contextvars.ContextVar("variable", default="")
    variable.set("run-1")
    assert await in_thread(lambda _: variable.get(), what="x") == "run-1"


async def test_a_thread_that_does_not_get_on_misses_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_STOP_SECONDS", 0.05)
    release = threading.Event()
    with pytest.raises(DeadlineMissed, match="Reading the disk did not get on"):
        async with asyncio.timeout(HANGS_AFTER):
            await in_thread(lambda _: release.wait(), what="Reading the disk", stall_seconds=0.05)
    release.set()


async def test_a_slow_thread_that_gets_on_is_waited_for() -> None:
    def work(pulse: Pulse) -> str:
        for _ in range(10):
            threading.Event().wait(0.05)  # the whole takes longer than a stall may
            pulse.beat()
        return "done"

    assert await in_thread(work, what="x", stall_seconds=0.3) == "done"


async def test_a_cancelled_thread_has_stopped_when_the_cancellation_comes_back() -> None:
    loop = asyncio.get_running_loop()
    begun = asyncio.Event()
    ended: list[str] = []

    def work(pulse: Pulse) -> None:
        loop.call_soon_threadsafe(begun.set)
        try:
            while True:
                pulse.beat()
        except Stopped:
            ended.append("stopped")
            raise

    task = asyncio.ensure_future(in_thread(work, what="x"))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["stopped"]


async def test_a_thread_that_hangs_does_not_hold_a_cancellation_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_STOP_SECONDS", 0.05)
    loop = asyncio.get_running_loop()
    begun, release = asyncio.Event(), threading.Event()

    def work(_: Pulse) -> None:
        loop.call_soon_threadsafe(begun.set)
        release.wait()

    task = asyncio.ensure_future(in_thread(work, what="x"))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(HANGS_AFTER):
            await task
    release.set()
