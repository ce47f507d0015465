"""The configuration, zipped: what is needed beside photos and database to set Immich up again."""

from __future__ import annotations

from immich_usb_backup.model import Finding, Severity, Stage, StageReport
from immich_usb_backup.policy.archives import archive_name, newest_archive, superfluous_archives
from immich_usb_backup.policy.outcome import about_files
from immich_usb_backup.policy.text import counted, size
from immich_usb_backup.ports import ArchiveResult, Sink
from immich_usb_backup.stages.context import Work
from immich_usb_backup.stages.proofs import proven_names, remove, sha256_on_disk, write_proven

FOLDER = "config"


async def back_up_config(work: Work) -> StageReport:
    """Zip the configured files, unless the newest zip on the disk has the same content."""
    run = work.run
    run.show(Stage.CONFIG)
    if not run.config.config_files:
        return StageReport(stage=Stage.CONFIG, seconds=0.0, summary="No configuration files are set to be backed up")
    began = run.ports.clock.monotonic()
    equal, result = await _unchanged(work)
    if equal is None:
        archive = _Archive(work)
        name = archive_name(run.started.astimezone(), await work.target.names(FOLDER))
        written = await write_proven(work, FOLDER, name, archive.produce)
        result = archive.result
        if not result.unreadable:  # else an older zip may be the only one with what is missing in this one
            await _prune(work, name)
    run.note(*_judge(result))
    files = counted(result.files, "file")
    seconds = run.ports.clock.monotonic() - began
    if equal is not None:
        text = f"Configuration ({files}): unchanged, {equal} stays"
        return StageReport(stage=Stage.CONFIG, seconds=seconds, summary=text)
    run.bytes_copied += written.size
    text = f"Configuration ({files}): zipped and read back ({size(written.size)})"
    return StageReport(stage=Stage.CONFIG, seconds=seconds, files=1, bytes=written.size, summary=text)


async def _unchanged(work: Work) -> tuple[str | None, ArchiveResult]:
    """The newest zip on the disk, when a new one would be the same; nothing is written to find out."""
    source, paths = work.run.ports.source, work.run.config.config_files
    sha256, result = await source.archive_sha256(paths)
    newest = newest_archive(proven_names(work, FOLDER) or await work.target.names(FOLDER))
    same = newest is not None and await sha256_on_disk(work, FOLDER, newest) == sha256
    return (newest if same else None), result


class _Archive:
    """Makes the zip, and keeps what the making said."""

    def __init__(self, work: Work) -> None:
        self._source = work.run.ports.source
        self._paths = work.run.config.config_files
        self.result = ArchiveResult(files=0, unreadable=())

    def produce(self, sink: Sink) -> None:
        """Write the zip into ``sink``. Blocks."""
        self.result = self._source.archive_into(self._paths, sink)


async def _prune(work: Work, written: str) -> None:
    for name in superfluous_archives(
        await work.target.names(FOLDER), keep=work.run.config.keep_config_files, never=written
    ):
        await remove(work, FOLDER, name)


def _judge(result: ArchiveResult) -> tuple[Finding, ...]:
    if not result.unreadable:
        return ()
    return (
        about_files(
            "config-unreadable",
            Severity.PARTIAL,
            f"{counted(len(result.unreadable), 'configuration file')} could not be backed up",
            result.unreadable,
            hint="Correct config_files, or let the service's user read them; then plug the disk in again.",
        ),
    )
