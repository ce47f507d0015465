"""How far a restore is, on a terminal in one line that changes, elsewhere in a line now and then."""

from __future__ import annotations

from collections.abc import Callable
from typing import TextIO

from immich_usb_backup.policy.restore_report import progress_line

TERMINAL_SECONDS = 0.5
PIPE_SECONDS = 30.0
_CLEAR = "\r\x1b[K"


class Progress:
    """Counts bytes and files. ``clock`` gives seconds."""

    def __init__(self, stream: TextIO, clock: Callable[[], float], *, total: int, files: int) -> None:
        self._stream = stream
        self._clock = clock
        self._terminal = stream.isatty()
        self._total, self._of_files = total, files
        self._done = self._files = 0
        self._began = self._told = clock()

    def count(self, size: int, files: int) -> None:
        """So many more bytes and files are done."""
        self._done += size
        self._files += files
        now = self._clock()
        if now - self._told >= (TERMINAL_SECONDS if self._terminal else PIPE_SECONDS):
            self._told = now
            self._show(now - self._began)

    def _show(self, seconds: float) -> None:
        text = progress_line(
            done=self._done, total=self._total, files=self._files, of_files=self._of_files, seconds=seconds
        )
        self._stream.write(f"{_CLEAR}{text}" if self._terminal else f"{text}\n")
        self._stream.flush()

    def end(self) -> None:
        """Take the line away."""
        if self._terminal:
            self._stream.write(_CLEAR)
            self._stream.flush()
