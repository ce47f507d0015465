"""Blocking work beside the loop: its end is waited for, a stall is told, and a cancellation leaves nothing running."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import Callable

import pytest

from immich_usb_backup.adapters import threads
from immich_usb_backup.adapters.threads import Meter, Pulse, Stopped, Threads, in_thread
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


async def test_an_error_that_comes_after_all_patience_is_no_complaint_in_the_journal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "_STOP_SECONDS", 0.05)
    loop = asyncio.get_running_loop()
    complaints: list[object] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    release = threading.Event()

    def work(_: Pulse) -> None:
        release.wait()
        raise OSError(5, "Input/output error")

    with pytest.raises(DeadlineMissed):
        await in_thread(work, what="x", stall_seconds=0.05)
    release.set()
    for thread in threading.enumerate():
        if thread.name == "blocking-work":
            thread.join(HANGS_AFTER)
    for _ in range(3):  # what the thread left for the loop, and what that leaves
        await asyncio.sleep(0)
    gc.collect()
    assert complaints == []


async def test_work_in_the_background_can_be_stopped_at_each_step() -> None:
    begun = threading.Event()
    stopped: list[str] = []

    def work(step: Callable[[], None]) -> None:
        begun.set()
        try:
            while True:
                step()
        except Stopped:
            stopped.append("stopped")
            raise

    task = asyncio.ensure_future(Threads()(work, what="Planning"))
    await asyncio.to_thread(begun.wait, HANGS_AFTER)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stopped == ["stopped"]
    assert await Threads()(lambda _: 5, what="x") == 5


def _count(meter: Meter, number: int) -> None:
    for _ in range(number):
        meter.add(1)


async def test_a_meter_tells_in_the_loop_all_that_was_counted() -> None:
    here = threading.get_ident()
    told: list[tuple[int, bool]] = []

    def tell(count: int) -> None:
        told.append((count, threading.get_ident() == here))

    with Meter(tell) as meter:
        await in_thread(lambda _: _count(meter, 1000), what="x")
    assert sum(count for count, _ in told) == 1000
    assert all(in_the_loop for _, in_the_loop in told)


async def test_a_meter_tells_now_and_then_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_TELL_SECONDS", 0.0)
    told: list[int] = []
    with Meter(told.append) as meter:
        await in_thread(lambda _: _count(meter, 3), what="x")
    assert told == [1, 1, 1, 0]


async def test_nothing_is_told_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_TELL_SECONDS", 0.0)
    told: list[int] = []
    meter = Meter(told.append)

    def fail(_: Pulse) -> None:
        meter.add(1)
        raise DiskFull("full")

    async def work() -> None:
        with meter:
            await in_thread(fail, what="x")

    with pytest.raises(DiskFull):
        await work()
    told.clear()
    meter.add(1)
    await asyncio.sleep(0)
    assert told == []
