"""What the server and the disk know of each other, open for one run, and closed at its end however it ends."""

from __future__ import annotations

from immich_usb_backup.ports import Manifest, Target
from immich_usb_backup.stages.context import RunContext, Work
from immich_usb_backup.stages.state import close_disk, open_disk, remember, write_manifest


class Books:
    """The manifest and the state of one disk. Until ``open`` has succeeded there is nothing to be closed."""

    def __init__(self) -> None:
        self._manifest: Manifest | None = None
        self._work: Work | None = None

    async def open(self, run: RunContext, target: Target, *, unclean: bool = False) -> Work:
        """Raises ``ForeignBackup``, ``ManifestUnusable``, ``StateDamaged``."""
        self._manifest = await run.ports.manifests.open(run.disk.uuid)
        self._work = await open_disk(run, target, self._manifest, unclean=unclean)
        return self._work

    def leave_open(self) -> None:
        """The run was cut off: the disk goes on saying so, and the next run looks at everything."""
        self._work = None

    async def write_manifest(self) -> None:
        """Bring the disk's manifest up to date, after what it speaks of has been flushed. Raises what the disk answers; then
        the disk counts as unfinished."""
        if self._work is None:
            return
        work, self._work = self._work, None
        await write_manifest(work)
        self._work = work

    async def settle(self) -> None:
        """After the flush: say on the disk that the run is over, have that on the medium, and remember it."""
        work = self._work
        if work is None or work.unsettled:
            return
        await close_disk(work)
        if work.writing:
            await work.target.flush(work.run.show_flush)
        await remember(work)

    async def close(self) -> None:
        """Let go of the manifest; what was not remembered is forgotten."""
        if self._manifest is not None:
            await self._manifest.close()
            self._manifest = None
