"""Blocking work beside the loop, with a deadline on its progress.

A dead disk leaves a system call hanging where no signal reaches it. Such a thread must hold up neither the loop nor
the end of the process, so these are daemon threads of their own and not a pool's.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from immich_usb_backup.errors import DeadlineMissed

T = TypeVar("T")

STALL_SECONDS = 180.0
"""No progress for this long, and the work is given up. Slow disks stop for a minute while they write out."""

_STOP_SECONDS = 20.0
_LOOK_SECONDS = 5.0
_TELL_SECONDS = 0.25


class Stopped(Exception):
    """Raised inside the thread when nobody waits for it any more."""


class Pulse:
    """How the thread shows that it gets on, and learns that it should stop."""

    def __init__(self) -> None:
        self.beats = 0
        self.stopped = False

    def beat(self) -> None:
        """Call this at each small step. Raises ``Stopped``."""
        if self.stopped:
            raise Stopped
        self.beats += 1


async def in_thread(work: Callable[[Pulse], T], *, what: str, stall_seconds: float = STALL_SECONDS) -> T:
    """Run ``work`` in a thread. Raises what it raises, or ``DeadlineMissed`` when its pulse stands still.

    Cancelled, it asks the thread to stop and waits a little, so that what the thread holds open is free again.
    """
    pulse = Pulse()
    future = _start(work, pulse)
    try:
        await _watch(future, pulse, what, stall_seconds)
    except (asyncio.CancelledError, DeadlineMissed):
        pulse.stopped = True
        future.add_done_callback(_look_at)
        await asyncio.wait({future}, timeout=_STOP_SECONDS)
        raise
    return future.result()


def _look_at(future: asyncio.Future[Any]) -> None:
    """An error that nobody waits for any more, however late it comes: else asyncio complains of it in the journal."""
    if not future.cancelled():
        future.exception()


def _start(work: Callable[[Pulse], T], pulse: Pulse) -> asyncio.Future[T]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def body() -> None:
        try:
            result = context.run(work, pulse)
        except BaseException as error:  # noqa: BLE001  # it belongs to whoever awaits the future
            _post(loop, _fail, future, error)
        else:
            _post(loop, _succeed, future, result)

    threading.Thread(target=body, daemon=True, name="blocking-work").start()
    return future


def _post(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: Any) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody waits
        loop.call_soon_threadsafe(function, *args)


def _succeed(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


async def _watch(future: asyncio.Future[Any], pulse: Pulse, what: str, stall_seconds: float) -> None:
    waited, last = 0.0, -1
    while not future.done():
        step = min(_LOOK_SECONDS, stall_seconds)
        await asyncio.wait({future}, timeout=step)
        waited, last = (0.0, pulse.beats) if pulse.beats != last else (waited + step, last)
        if not future.done() and waited >= stall_seconds:
            raise DeadlineMissed(f"{what} did not get on for {stall_seconds:.0f} seconds")


class Callers:
    """Counts who is inside, in whatever thread: ``with callers: …``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.inside = 0

    def __enter__(self) -> None:
        with self._lock:
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.inside -= 1


class Threads:
    """The ``Background`` port."""

    async def __call__(self, work: Callable[[Callable[[], None]], T], *, what: str) -> T:
        """Run ``work`` in a thread of its own. Raises what it raises, or ``DeadlineMissed`` where it stands still."""
        return await in_thread(lambda pulse: work(pulse.beat), what=what)


class Meter:
    """Brings a count from a thread into the loop: ``tell`` is called there, four times a second at most, with what came
    since its last call, and at the end of the ``with`` block with the rest. After it, nothing is told any more."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._told_at = time.monotonic()
        self._count = 0
        self._over = False

    def add(self, number: int) -> None:
        """Count on. For the thread."""
        self._count += number
        now = time.monotonic()
        if now - self._told_at >= _TELL_SECONDS:
            self._told_at = now
            count, self._count = self._count, 0
            _post(self._loop, self._pass_on, count)

    def _pass_on(self, count: int) -> None:
        if not self._over:
            self._tell(count)

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._tell(self._count)
        self._over = True
