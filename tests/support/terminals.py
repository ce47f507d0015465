"""A shell in a real terminal: keys go in, the screen's text comes out."""

from __future__ import annotations

import os
import pty
import select
import signal
import time
from collections.abc import Mapping, Sequence

_SECONDS = 60.0


class Terminal:
    """One program in a pseudo-terminal of its own; it dies with the `with`."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], folder: str) -> None:
        self.text = ""
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            os.chdir(folder)
            os.execvpe(command[0], list(command), dict(env))

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._fd)

    def keys(self, text: str) -> None:
        """Press them."""
        os.write(self._fd, text.encode())

    def until(self, wanted: str) -> str:
        """All that was shown, once `wanted` is in it."""
        deadline = time.monotonic() + _SECONDS
        while wanted not in self.text:
            ready, _, _ = select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{wanted!r} is not shown: {self.text[-2000:]!r}"
            self.text += os.read(self._fd, 65536).decode("utf-8", "replace")
        return self.text
