"""Running something to its end although the one who waits for it is cancelled: the unmount, the record."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def protected(work: Coroutine[Any, Any, T]) -> T:
    """Await ``work`` to its end. A cancellation that comes meanwhile is raised afterwards. ``work`` has its own deadlines."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()
        raise cancelled
    return task.result()
