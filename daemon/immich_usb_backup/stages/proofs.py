"""Small files of ours on the disk, dumps and archives: what was read back once need not be read again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from immich_usb_backup.ports import Sink, Written
from immich_usb_backup.stages.context import Work
from immich_usb_backup.stages.state import begin_writing


async def sha256_on_disk(work: Work, folder: str, name: str) -> str | None:
    """The hash of a file on the disk: as it was read back before, where the disk can be believed, else read now."""
    path = f"{folder}/{name}"
    if work.believed and path in work.record.proofs:
        return work.record.proofs[path][1]
    found = await work.target.sha256(folder, name)
    _remember(work, path, None if found is None else (0, found))
    return found


def proven_names(work: Work, folder: str) -> tuple[str, ...]:
    """The names in a folder of those files of ours whose content is known, without reading the disk; none where it cannot
    be believed."""
    if not work.believed:
        return ()
    return tuple(name for above, _, name in (path.rpartition("/") for path in work.record.proofs) if above == folder)


async def write_proven(work: Work, folder: str, name: str, produce: Callable[[Sink], None]) -> Written:
    """Write a file whole, read it back, and remember what it is."""
    await begin_writing(work)
    written = await work.target.write(folder, name, produce)
    _remember(work, f"{folder}/{name}", (written.size, written.sha256))
    return written


async def remove(work: Work, folder: str, name: str) -> None:
    """Remove a file."""
    await begin_writing(work)
    await work.target.remove(folder, name)
    _remember(work, f"{folder}/{name}", None)


def _remember(work: Work, path: str, proof: tuple[int, str] | None) -> None:
    proofs = {known: value for known, value in work.record.proofs.items() if known != path}
    if proof is not None:
        proofs[path] = proof
    work.record = replace(work.record, proofs=proofs)
