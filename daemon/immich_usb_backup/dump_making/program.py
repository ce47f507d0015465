"""Runs the program that prints a dump, and packs what it prints into a file."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from immich_usb_backup.errors import FreshDumpFailed
from immich_usb_backup.policy.text import duration, printable

_CHUNK = 1 << 20
_GZIP = b"\x1f\x8b"
_LEVEL = 6
_KEPT = 4096
_WORDS_SECONDS = 5.0


def save_output(
    command: Sequence[str],
    target: Path,
    *,
    seconds: float,
    environment: Mapping[str, str],
    handed_down: Sequence[int] = (),
) -> None:
    """Run ``command`` and write what it prints, packed unless it is packed already, to the new file ``target``, which is on
    the server's disk afterwards. It inherits the descriptors ``handed_down``. Raises ``FreshDumpFailed``; a part of the file
    may then be left."""
    with _running(command, environment, seconds, handed_down) as child:
        try:
            with open(target, "xb") as file:
                _pack(child.output, file)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise FreshDumpFailed(f"The dump could not be written: {error.strerror}") from error
        child.end()


class _Child:
    """A running program in a process group of its own, so that all of it can be ended."""

    def __init__(self, process: subprocess.Popen[bytes], name: str, seconds: float) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.output: IO[bytes] = process.stdout
        self._errors: IO[bytes] = process.stderr
        self._process = process
        self._name = name
        self._seconds = seconds
        self._said = b""
        self._late = False
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._alarm = threading.Timer(seconds, self._give_up)
        self._listener.start()
        self._alarm.start()

    def end(self) -> None:
        """Its output is over: it must end well. Raises ``FreshDumpFailed``."""
        code = self._process.wait()
        if self._late:
            raise FreshDumpFailed(f"{self._name} did not end within {duration(self._seconds)}")
        if code != 0:
            self._listener.join(_WORDS_SECONDS)
            raise FreshDumpFailed(f"{self._first_words()} (exit code {code})")

    def close(self) -> None:
        """End what still runs."""
        self._kill()
        self._process.wait()
        self._alarm.cancel()
        self._listener.join(_WORDS_SECONDS)
        self.output.close()

    def _give_up(self) -> None:
        self._late = True
        self._kill()

    def _kill(self) -> None:
        if self._process.returncode is None:  # else the number may be another's
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _listen(self) -> None:
        with self._errors as errors:
            for line in errors:
                self._said = (self._said + line)[:_KEPT]

    def _first_words(self) -> str:
        lines = [line.strip() for line in self._said.decode("utf-8", "replace").splitlines() if line.strip()]
        words = lines[0] if lines else "it said nothing"
        return words if words.startswith(f"{self._name}:") else f"{self._name}: {words}"


@contextmanager
def _running(
    command: Sequence[str], environment: Mapping[str, str], seconds: float, handed_down: Sequence[int]
) -> Iterator[_Child]:
    name = printable(Path(command[0]).name)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,
            pass_fds=handed_down,
        )
    except (OSError, ValueError) as error:
        raise FreshDumpFailed(f"{name} cannot be run: {getattr(error, 'strerror', error)}") from error
    child = _Child(process, name, seconds)
    try:
        yield child
    finally:
        child.close()


def _pack(source: IO[bytes], target: IO[bytes]) -> None:
    """Copy to the end. Plain text is packed."""
    first = source.read(_CHUNK)
    if b"\r\n" in first[:_KEPT] and not first.startswith(_GZIP):
        raise FreshDumpFailed("The program's output went through a terminal, which changes it: take -t off docker exec")
    if first.startswith(_GZIP):
        _copy(first, source, target)
        return
    with gzip.GzipFile(filename="", mode="wb", fileobj=target, compresslevel=_LEVEL) as packed:
        _copy(first, source, packed)


def _copy(first: bytes, source: IO[bytes], target: IO[bytes] | gzip.GzipFile) -> None:
    chunk = first
    while chunk:
        target.write(chunk)
        chunk = source.read(_CHUNK)
