"""Writing everything out to a disk, with an eye on whether it gets on."""

from __future__ import annotations

import asyncio
import errno
import math
import os
from collections.abc import Awaitable, Callable

from immich_usb_backup.adapters.disk_errors import tells_of_death
from immich_usb_backup.adapters.syncfs import bytes_written, commands_failed, syncfs
from immich_usb_backup.adapters.threads import Callers, Pulse, in_thread
from immich_usb_backup.errors import BackupError, DiskGone, FlushFailed
from immich_usb_backup.model import Mount

_LOOK_SECONDS = 1.0
_STALL_SECONDS = 600.0


class Flusher:
    """Writes a disk's file system out. ``folder`` is a descriptor on it that was opened before anything was written;
    ``check`` has the last word on whether the disk is still there."""

    def __init__(
        self,
        folder: int,
        mount: Mount,
        present: Callable[[], bool],
        *,
        callers: Callers,
        check: Callable[[], Awaitable[None]],
    ) -> None:
        self._folder = folder
        self._callers = callers
        self._check = check
        self._node = mount.partition.device_node
        self._number = mount.partition.device_number
        self._present = present
        self._lost: BackupError | None = None
        self._written_before = bytes_written(self._number) or 0
        self._failed_before = commands_failed(self._number)

    async def flush(self, progress: Callable[[int], None]) -> None:
        """Write everything out. Given up only when the device has written nothing for ten minutes.

        The kernel tells each descriptor of a loss but once (measured): the first failure is final.
        """
        if self._lost is not None:
            raise self._lost
        try:
            await self._flush_watched(progress)
        except BackupError as error:
            self._lost = error
            raise

    async def _flush_watched(self, progress: Callable[[int], None]) -> None:
        flushing = asyncio.ensure_future(
            in_thread(self._flush, what="Writing out the last data", stall_seconds=math.inf)
        )
        try:
            await self._watch(flushing, progress)
        finally:
            if not flushing.done():
                flushing.cancel()
            elif not flushing.cancelled():
                flushing.exception()  # looked at, whatever ended the watch: else asyncio complains in the journal
        await self._check()

    async def _watch(self, flushing: asyncio.Future[None], progress: Callable[[int], None]) -> None:
        still, last = 0.0, -1
        while not flushing.done():
            await asyncio.wait({flushing}, timeout=_LOOK_SECONDS)
            written = bytes_written(self._number)
            if written is None:
                raise DiskGone(f"{self._node} was unplugged while it was written to")
            still, last = (0.0, written) if written != last else (still + _LOOK_SECONDS, last)
            progress(max(0, written - self._written_before))
            if still >= _STALL_SECONDS and not flushing.done():
                raise FlushFailed(f"{self._node} stopped accepting data")
        flushing.result()

    def _flush(self, _: Pulse) -> None:
        try:
            with self._callers:
                failed = commands_failed(self._number)
                if failed is None or failed != self._failed_before:
                    # It tells of lost metadata, which exFAT's sync_fs keeps to itself. Where none can be lost it would only
                    # write the folders' blocks twice: their entries change again when the files' content is written.
                    os.fsync(self._folder)
                syncfs(self._folder)
                os.fsync(self._folder)  # empties the drive's own cache, which syncfs does not on a volume once pulled
                if commands_failed(self._number) != failed:  # what sync_fs met itself
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
        except OSError as error:
            if not self._present() or tells_of_death(error):
                raise DiskGone(f"{self._node} was unplugged while it was written to") from error
            raise FlushFailed(f"Data was lost on the way to the disk: {error.strerror}") from error
