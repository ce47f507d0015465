"""How a test steers the fakes: it stops one at a named step until the test goes on, or has that step fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Script:
    """What was asked of the fakes, in order; and what a test wants to happen at a step."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.news = asyncio.Event()
        self._gates: dict[str, tuple[asyncio.Event, asyncio.Event]] = {}
        self._errors: dict[str, list[Exception]] = {}
        self._always: dict[str, Exception] = {}
        self._hooks: dict[str, Callable[[], object]] = {}

    def hold(self, step: str) -> None:
        """Stop there until `go_on`."""
        self._gates[step] = (asyncio.Event(), asyncio.Event())

    async def reached(self, step: str) -> None:
        """Wait until a held step is reached."""
        await self._gates[step][0].wait()

    def go_on(self, step: str) -> None:
        """Let a held step continue, now and in future."""
        self._gates.pop(step)[1].set()

    def fail(self, step: str, *errors: Exception) -> None:
        """The next calls fail, one error each."""
        self._errors.setdefault(step, []).extend(errors)

    def fail_always(self, step: str, error: Exception) -> None:
        """Every call fails."""
        self._always[step] = error

    def do_at(self, step: str, hook: Callable[[], object]) -> None:
        """Call `hook` each time that the step is reached, after a hold and before a failure."""
        self._hooks[step] = hook

    async def at(self, step: str) -> None:
        """Called by the fakes."""
        self.steps.append(step)
        self.news.set()
        if step in self._gates:
            reached, go = self._gates[step]
            reached.set()
            await go.wait()
        self._fail(step)

    def at_once(self, step: str) -> None:
        """Called by the fakes' blocking methods."""
        self.steps.append(step)
        self.news.set()
        self._fail(step)

    def _fail(self, step: str) -> None:
        if step in self._hooks:
            self._hooks[step]()
        if self._errors.get(step):
            raise self._errors[step].pop(0)
        if step in self._always:
            raise self._always[step]
