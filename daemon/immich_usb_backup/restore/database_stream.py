"""A dump's lines from the file, plain or gzip, and the way of a stream of them into ``psql``. Everything blocks."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from immich_usb_backup.errors import BackupError, CommandFailed, DatabaseFailed, DeadlineMissed, DumpUnusable
from immich_usb_backup.policy.database_restore_lines import LINE_LIMIT
from immich_usb_backup.restore.database_psql import Psql, said_by

STALL_SECONDS = 3600.0
"""No line was taken for this long: an index over millions of rows takes its time, a server that hangs takes more."""

_LOOK_SECONDS = 0.5
_TELL_SECONDS = 10.0
_END_SECONDS = 20.0
_BUFFER = 1 << 20
_COMPLAINT_BYTES = 1 << 16
_GZIP = b"\x1f\x8b"
_DAMAGED = "Choose another dump: the newest one that can be read is taken where none is named."


def lines_of(dump: Path) -> Iterator[bytes]:
    """The lines of a dump with their ends, unpacked. Raises ``DumpUnusable``, also in the middle."""
    try:
        with _opened(dump) as stream:
            while line := stream.readline(LINE_LIMIT):
                if len(line) == LINE_LIMIT:
                    raise DumpUnusable("The dump has a line that is too long to be one of PostgreSQL's")
                yield line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DumpUnusable(f"The dump is damaged or was cut off: {error}", hint=_DAMAGED) from error
    except OSError as error:
        raise DumpUnusable(f"The dump cannot be read: {error.strerror or error}", hint=_DAMAGED) from error


@contextmanager
def _opened(dump: Path) -> Iterator[io.BufferedIOBase]:
    """The unpacked content. A link is not followed: a dump comes from a disk. Raises ``OSError``."""
    fd = os.open(dump, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    with io.BufferedReader(io.FileIO(fd), _BUFFER) as file:
        if file.peek(2)[:2] != _GZIP:
            yield file
            return
        with gzip.GzipFile(fileobj=file) as unpacked, io.BufferedReader(unpacked, _BUFFER) as lines:
            yield lines


class Pump:
    """Sends lines to a ``psql`` from a thread of its own, so that neither a disk nor a server that hangs holds up whoever
    waits. ``bytes`` counts what was sent."""

    def __init__(self, psql: Psql) -> None:
        """Raises ``CommandFailed``."""
        self.bytes = 0
        self._beats = 0
        self._error: BaseException | None = None
        self._said = b""
        self._complete = False
        command = psql.arguments("--output=/dev/null", "--file=-")
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                command,
                env=psql.environment(),
                stdin=pipe,
                stdout=subprocess.DEVNULL,
                stderr=pipe,
                bufsize=_BUFFER,
                start_new_session=True,
            )
        except OSError as error:
            raise CommandFailed(f"{command[0]} cannot be run: {error.strerror}") from error

    def run(self, lines: Iterable[bytes], tell: Callable[[int], None], *, stall_seconds: float) -> None:
        """Send everything and wait for psql's end. Raises ``DatabaseFailed`` with all that psql said, ``DeadlineMissed``, and
        what ``lines`` raises; the transaction is lost in each case. ``tell`` is told the bytes now and then."""
        threads = [
            threading.Thread(target=work, args=args, daemon=True)
            for work, args in ((self._listen, ()), (self._send, (lines,)))
        ]
        for thread in threads:
            thread.start()
        try:
            self._watch(threads, tell, stall_seconds)
            if self._error is not None:
                raise self._error
            self._judge()
        finally:
            self._end(threads)

    def _watch(self, threads: list[threading.Thread], tell: Callable[[int], None], stall_seconds: float) -> None:
        told = moved = time.monotonic()
        beats = -1
        while any(thread.is_alive() for thread in threads):
            for thread in threads:
                thread.join(_LOOK_SECONDS / len(threads))
            if self._error is not None:
                raise self._error
            now = time.monotonic()
            if self._beats != beats:
                beats, moved = self._beats, now
            elif now - moved >= stall_seconds:
                message = f"The database took nothing more for {stall_seconds:.0f} seconds"
                raise DeadlineMissed(message, hint="Nothing was kept of it. Look at the server's log, and try again.")
            if now - told >= _TELL_SECONDS:
                told = now
                tell(self.bytes)

    def _send(self, lines: Iterable[bytes]) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            for line in lines:
                stdin.write(line)
                self.bytes += len(line)
                self._beats += 1
            stdin.close()
            self._complete = True
        except BrokenPipeError:
            with suppress(BrokenPipeError):
                stdin.close()  # psql has ended: what it said tells why
        except (BackupError, OSError, ValueError) as error:  # ValueError: closed, because it was killed
            self._error = error

    def _listen(self) -> None:
        assert self._process.stderr is not None
        fd = self._process.stderr.fileno()
        while chunk := os.read(fd, 4096):
            self._beats += 1
            self._said = (self._said + chunk)[-_COMPLAINT_BYTES:]  # the error that ended it comes last

    def _end(self, threads: list[threading.Thread]) -> None:
        """End psql at once, if it has not. Without a COMMIT the server takes everything back."""
        with suppress(ProcessLookupError):
            self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        for thread in threads:
            thread.join(_END_SECONDS)
        for pipe in (self._process.stdin, self._process.stderr):
            if pipe is not None and not any(thread.is_alive() for thread in threads):  # else closing it would hang, too
                with suppress(OSError):
                    pipe.close()

    def _judge(self) -> None:
        try:
            code = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise DeadlineMissed("psql does not end", hint="Look into the database before you use it.") from error
        if code != 0 or not self._complete:
            raise DatabaseFailed(f"The database refused the dump: {said_by(self._said)}")
