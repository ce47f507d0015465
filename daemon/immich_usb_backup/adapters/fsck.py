"""One exFAT device, looked at and repaired with ``fsck.exfat``, by a process that may open nothing else. All of it blocks.

Measured with exfatprogs 1.2.0: ``-n`` changes nothing. ``-p`` repairs what it can and takes the mark of an unclean unmount
off, even where it leaves errors. It deletes and truncates wherever the damage is, so it runs only where a look before
it found damage in the backup folder alone.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import IO

from immich_usb_backup.model import Health
from immich_usb_backup.policy.exfat import (
    CORRECTED,
    DIRTY,
    ERRORS_LEFT,
    FLAGS_AT,
    MEDIA_FAILURE,
    NO_ERRORS,
    SECTOR,
    BootSector,
    Complaints,
    boot_sector,
    is_sound,
    may_repair,
    read_lines,
)

_FSCK = "fsck.exfat"
_LONGEST_LINE = 65536


class _Unknown(Exception):
    """It could not be checked; the text says why."""


def check(device: str, *, repair: bool) -> tuple[Health, str]:
    """Look at a device that nobody has mounted, and with ``repair`` mend it. Returns what it is, and one line about it."""
    try:
        with _open(device, os.O_RDONLY | os.O_EXCL) as descriptor:
            boot = _boot_sector(descriptor)
        if boot.clean:
            return Health.CLEAN, f"{boot.serial}: unmounted properly"
        health, said = _repair(device) if repair else _check(device)
    except _Unknown as unknown:
        return Health.UNKNOWN, str(unknown)
    return health, f"{boot.serial}: {_with_warning(boot, said)}"


def _with_warning(boot: BootSector, said: str) -> str:
    return f"{said}; a computer has noted that the medium fails" if boot.flags & MEDIA_FAILURE else said


def _check(device: str) -> tuple[Health, str]:
    # Held meanwhile, so that nobody can mount it. Only for a look: fsck itself wants the device alone for a repair.
    with _open(device, os.O_RDONLY | os.O_EXCL):
        code, complaints = _fsck(device, "-n")
    if is_sound(code, complaints):
        return Health.DIRTY, "no errors"
    return Health.DAMAGED, str(complaints)


def _repair(device: str) -> tuple[Health, str]:
    with _open(device, os.O_RDONLY):  # an open device keeps its cache: what is looked at twice is read once
        code, found = _fsck(device, "-n")
        if not may_repair(code, found):
            return Health.DAMAGED, str(found)
        code, mended = _fsck(device, "-p")
        if code not in {NO_ERRORS, CORRECTED} or (mended.number and not _is_sound_now(device)):
            _mark_dirty(device)
            return Health.DAMAGED, f"it could not be repaired: {mended}"
    said = str(mended) if mended.number else "no errors"
    if _reread(device).flags & DIRTY:
        return Health.DIRTY, f"{said}; the mark of an unclean unmount stays"
    return Health.REPAIRED, said


def _is_sound_now(device: str) -> bool:
    return is_sound(*_fsck(device, "-n"))


@contextmanager
def _open(device: str, flags: int) -> Iterator[int]:
    try:
        descriptor = os.open(device, flags | os.O_CLOEXEC)
    except OSError as error:
        reason = "it is in use" if error.errno == errno.EBUSY else error.strerror
        raise _Unknown(f"{device} cannot be opened: {reason}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _boot_sector(descriptor: int) -> BootSector:
    try:
        found = boot_sector(os.pread(descriptor, SECTOR, 0))
    except OSError as error:
        raise _Unknown(f"its boot sector cannot be read: {error.strerror}") from error
    if found is None:
        raise _Unknown("it holds no exFAT file system")
    return found


def _reread(device: str) -> BootSector:
    with _open(device, os.O_RDONLY) as descriptor:
        return _boot_sector(descriptor)


def _mark_dirty(device: str) -> None:
    """``-p`` takes the mark off although it leaves errors: the next look must not take the disk for a clean one."""
    with _open(device, os.O_RDWR | os.O_EXCL) as descriptor:
        flags = _boot_sector(descriptor).flags | DIRTY
        try:
            os.pwrite(descriptor, flags.to_bytes(2, "little"), FLAGS_AT)
            os.fsync(descriptor)
        except OSError as error:
            raise _Unknown(f"it cannot be written to: {error.strerror}") from error


def _fsck(device: str, option: str) -> tuple[int, Complaints]:
    """Its exit code and complaints. Output of any length is read in little memory."""
    command = [_FSCK, option, device]
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )
    except OSError as error:
        raise _Unknown(f"{_FSCK} cannot be run: {error.strerror}") from error
    with process, ThreadPoolExecutor(1) as beside:
        assert process.stdout is not None
        assert process.stderr is not None
        errors = beside.submit(read_lines, _lines(process.stderr))
        complaints = read_lines(_lines(process.stdout)) + errors.result()
    if process.returncode in {NO_ERRORS, CORRECTED, ERRORS_LEFT}:
        return process.returncode, complaints
    raise _Unknown(f"{_FSCK} ended with {process.returncode} ({complaints.first or 'it said nothing'})")


def _lines(stream: IO[bytes]) -> Iterator[str]:
    while line := stream.readline(_LONGEST_LINE):
        yield line.decode("utf-8", "backslashreplace")
