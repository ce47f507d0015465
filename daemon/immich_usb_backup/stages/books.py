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
        self._settled: Work | None = None
        self._opened: Work | None = None

    async def open(self, run: RunContext, target: Target, *, unclean: bool = False) -> Work:
        """Raises ``ForeignBackup``, ``ManifestUnusable``, ``StateDamaged``."""
        self._manifest = await run.ports.manifests.open(run.disk.uuid)
        self._work = self._opened = await open_disk(run, target, self._manifest, unclean=unclean)
        return self._work

    @property
    def settled(self) -> bool:
        """Whether the disk says that all is done, and nothing has been written since: it may be pulled, nothing is lost."""
        work = self._settled
        return work is not None and not work.writing and not (work.state is not None and work.state.writing)

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
        """After the flush: say on the disk that the run is over, have that on the medium, and remember it. May be called
        again when more has been written."""
        work = self._work
        if work is None or work.unsettled:
            return
        await close_disk(work)
        if work.writing:
            await work.target.flush(work.run.show_flush)
        await remember(work)
        self._settled = work

    async def close(self) -> None:
        """Let go of the manifest and of the dump's assets; what was not remembered is forgotten."""
        opened, self._opened = self._opened, None
        try:
            if opened is not None and opened.assets is not None:
                await opened.assets.close()
        finally:
            if self._manifest is not None:
                await self._manifest.close()
                self._manifest = None
