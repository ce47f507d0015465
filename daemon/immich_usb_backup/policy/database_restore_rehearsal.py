"""What a rehearsal found, and how it is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from immich_usb_backup.policy.text import counted, harmless, printable

NAMED_AT_MOST = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetFiles:
    """The restored database's assets, held against the files of the backup. Counts are assets; ``expected`` is
    ``present`` + ``empty`` + ``missing``: those that lie below the media location and are not in the trash. ``missing_paths`` are
    the first of the missing and empty ones, from the backup folder on. ``regenerable`` ones are made again by Immich. Of the
    ``trashed`` and ``external`` ones nothing is demanded."""

    expected: int
    present: int
    empty: int
    missing: int
    missing_paths: tuple[str, ...]
    trashed: int
    external: int
    regenerable: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """All of it. ``immich`` is empty where unknown. ``rows`` are those of the restored tables, by ``schema.table``. ``absent`` are
    extensions that this PostgreSQL lacks, ``left_out`` the statements that could not be made without them. ``passed_over`` are
    newer dumps that are damaged: name and reason. ``manifest_problem``: why the files' names on the server are not known, empty
    where they are. Times are in seconds."""

    dump: str
    immich: str
    dumped_from: str
    postgres: str
    rows: Mapping[str, int]
    assets: int
    absent: tuple[str, ...]
    left_out: tuple[str, ...]
    passed_over: tuple[tuple[str, str], ...]
    manifest_problem: str
    files: AssetFiles
    restore_seconds: float
    seconds: float

    @property
    def good(self) -> bool:
        """Whether everything that was looked at is as it must be."""
        return not (self.files.missing or self.files.empty or self.passed_over or self.manifest_problem)


def not_established(found: Rehearsal) -> Iterator[str]:
    """What nobody knows after it."""
    yield "that the photos' contents are right: files were looked for by name, and must not be empty. 'immich-usb-backup verify' reads them"
    version = f"Immich {printable(found.immich)}" if found.immich else "the version that you had"
    yield f"that Immich starts on this database: that takes {version} or a newer one, on a spare machine"
    if found.absent:
        names = ", ".join(map(printable, found.absent))
        yield (
            f"that searching by content and the like come back: this PostgreSQL lacks {names}. Their values were kept as text, "
            f"{counted(len(found.left_out), 'index', 'indexes')} left out. A container has them: --docker IMAGE, "
            "with the image that Immich's docker-compose.yml names"
        )
    yield "that your own server takes it: its room, users and extensions. 'immich-usb-backup restore --dry-run' looks at those"
    if found.files.external:
        yield f"anything about {counted(found.files.external, 'asset')} of external libraries, which lie outside of Immich's folders"


def told(found: Rehearsal) -> Iterator[str]:
    """The report for people."""
    for name, reason in found.passed_over:
        yield f"Problem: the newer dump {printable(name)} is damaged: {harmless(reason)}"
    if found.manifest_problem:
        yield f"Problem: the manifest is not used, and files are known by the disk's names only: {harmless(found.manifest_problem)}"
    by = f" by Immich {printable(found.immich)}" if found.immich else ""
    yield f"Dump {printable(found.dump)}, made{by} from PostgreSQL {printable(found.dumped_from or '?')}."
    yield (
        f"Restored into a temporary PostgreSQL {printable(found.postgres)} in {found.restore_seconds:.0f} s: "
        f"{counted(len(found.rows), 'table')}, {counted(sum(found.rows.values()), 'row')}, {counted(found.assets, 'asset')}."
    )
    yield from _files(found.files)
    yield "It does not establish:"
    yield from (f"    - {line}" for line in not_established(found))
    yield "The rehearsal went well." if found.good else "The rehearsal found problems: see above."


def _files(files: AssetFiles) -> Iterator[str]:
    yield f"{files.present:,} of {counted(files.expected, 'asset')} have their file in the backup."
    apart = (
        (files.trashed, "in Immich's trash"),
        (files.external, "in external libraries"),
        (files.regenerable, "made again by Immich"),
    )
    if words := ", ".join(f"{number:,} {what}" for number, what in apart if number):
        yield f"Not looked for: {words}."
    if files.missing or files.empty:
        yield f"Problem: {counted(files.missing, 'file')} missing, {files.empty:,} empty:"
        yield from (f"    {harmless(path)}" for path in files.missing_paths)
        if (left := files.missing + files.empty - len(files.missing_paths)) > 0:
            yield f"    and {left:,} more"
