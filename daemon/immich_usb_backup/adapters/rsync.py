"""rsync as the one that copies: it is given a list of names and does nothing else, above all it deletes nothing."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from immich_usb_backup.errors import CommandFailed, DeadlineMissed
from immich_usb_backup.model import TEMPORARY
from immich_usb_backup.ports import CopyResult, Target
from immich_usb_backup.protect import protected

# Flags that suit exFAT (measured): no owners, modes or links; times are kept to 10 ms. The list says what is to be
# copied, so rsync must not decide again (--ignore-times), and a file is not in place before it is whole (--temp-dir).
FLAGS = (
    "--files-from=-",
    "--from0",
    "--times",
    "--omit-dir-times",
    "--no-perms",
    "--no-owner",
    "--no-group",
    "--ignore-times",
    "--whole-file",
    "--no-inc-recursive",
    f"--temp-dir={TEMPORARY}",
    "--info=progress2,name0,stats0,flist0",
    "--no-human-readable",
    "--8-bit-output",
    "--outbuf=N",
)

STALL_SECONDS = 600.0
"""A slow disk may hold rsync up for minutes while the kernel writes out; ten without a word are too many."""

_TERMINATE_SECONDS = 15.0
_KILL_SECONDS = 10.0
_LOOK_SECONDS = 0.25
_PIPE_BYTES = 1 << 20
_COMPLAINTS_KEPT = 2000
_LINE_LIMIT = 1 << 16
_PROGRESS = re.compile(rb"\s*(\d+)\s+\d+%")
_WENT_THROUGH = {0, 23, 24}
_FULL = "No space left on device"


class Rsync:
    """The ``Copier`` port on the real rsync."""

    def __init__(self, program: str = "rsync") -> None:
        self._program = program

    async def copy(
        self, source: Path, target: Target, folder: str, paths: Iterable[bytes], progress: Callable[[int], None]
    ) -> CopyResult:
        """Copy the files. Raises ``CommandFailed`` where rsync is missing, ``DeadlineMissed`` where it hangs."""
        await target.clear_temporary(folder)
        await target.make_folder(f"{folder}/{TEMPORARY}")  # inside: rsync 3.5 refuses a way up, and follows no links
        with _Pipe() as pipe:
            process = await self._start(source, target, folder, pipe)
            run = _Run(process, pipe, progress)
            try:
                exit_code = await run.to_end(
                    b"".join(b"./" + path + b"\0" for path in paths)
                )  # else # and ; begin comments
            finally:
                await protected(_stop(process))
        if exit_code in _WENT_THROUGH:
            await target.clear_temporary(folder)
        return CopyResult(
            finished=exit_code in _WENT_THROUGH,
            full=any(_FULL in line for line in run.complaints),
            complaints=tuple(run.complaints),
            exit_code=exit_code,
        )

    async def _start(self, source: Path, target: Target, folder: str, pipe: _Pipe) -> asyncio.subprocess.Process:
        try:
            process = await asyncio.create_subprocess_exec(
                self._program,
                *FLAGS,
                "--",
                f"{source}/",
                f"{folder}/",
                stdin=asyncio.subprocess.PIPE,
                stdout=pipe.writing,
                stderr=asyncio.subprocess.PIPE,
                cwd=target.working_folder,
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
                limit=_LINE_LIMIT,
            )
        except OSError as error:
            raise CommandFailed(f"{self._program} cannot be started: {error.strerror}") from error
        pipe.close_writing()
        return process


class _Pipe:
    """What rsync says, kept until somebody looks. It has a word for each file: to be woken by each one costs more time
    than the copying of a small file."""

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._reading, False)
        # The kernel may refuse a user more room for pipes: then rsync waits for us now and then.
        with suppress(OSError):
            fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def read(self) -> bytes:
        """All that is in it; nothing at its end, too."""
        try:
            return os.read(self._reading, _PIPE_BYTES)
        except BlockingIOError:
            return b""

    def close_writing(self) -> None:
        """Once the process has its own."""
        if self.writing >= 0:
            os.close(self.writing)
            self.writing = -1

    def __enter__(self) -> _Pipe:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_writing()
        os.close(self._reading)


class _Run:
    """One running rsync: feeds it, listens to it, sees that it gets on."""

    def __init__(self, process: asyncio.subprocess.Process, pipe: _Pipe, progress: Callable[[int], None]) -> None:
        self._process = process
        self._pipe = pipe
        self._progress = progress
        self._heard = asyncio.Event()
        self._rest = b""
        self.complaints: deque[str] = deque(maxlen=_COMPLAINTS_KEPT)

    async def to_end(self, names: bytes) -> int:
        """Feed it the names and wait for its end. Raises ``DeadlineMissed``."""
        try:
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._watch())
                listening = group.create_task(self._listen())
                work = [group.create_task(part) for part in (self._feed(names), self._complain())]
                await asyncio.wait(work)  # its complaints end when it does
                listening.cancel()
                code = await self._process.wait()
                watch.cancel()
            self._hear()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None  # only the watch raises
        return code

    async def _feed(self, names: bytes) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError, ConnectionResetError):  # its exit code tells why it ended
            self._process.stdin.write(names)
            await self._process.stdin.drain()
            self._process.stdin.close()
            await self._process.stdin.wait_closed()

    async def _listen(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self._hear()

    def _hear(self) -> None:
        chunk = self._pipe.read()
        if chunk:
            self._heard.set()
            *lines, rest = re.split(rb"[\r\n]", self._rest + chunk)
            self._rest = rest[-_LINE_LIMIT:]
            if found := next(filter(None, map(_PROGRESS.match, reversed(lines))), None):
                self._progress(int(found[1]))

    async def _complain(self) -> None:
        assert self._process.stderr is not None
        rest = b""
        while chunk := await self._process.stderr.read(_LINE_LIMIT):
            self._heard.set()
            *lines, rest = (rest + chunk).split(b"\n")
            rest = rest[-_LINE_LIMIT:]
            self.complaints += [os.fsdecode(line) for line in lines if line.strip()]
        if rest.strip():
            self.complaints.append(os.fsdecode(rest))

    async def _watch(self) -> None:
        while True:
            self._heard.clear()
            try:
                async with asyncio.timeout(STALL_SECONDS):
                    await self._heard.wait()
            except TimeoutError as error:
                raise DeadlineMissed(f"Copying did not get on for {STALL_SECONDS:.0f} seconds") from error


async def _stop(process: asyncio.subprocess.Process) -> None:
    """End it if it still runs, so that it holds the disk no longer; it clears its temporary files away by itself."""
    for signal, seconds in ((process.terminate, _TERMINATE_SECONDS), (process.kill, _KILL_SECONDS)):
        if process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            signal()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await process.wait()
