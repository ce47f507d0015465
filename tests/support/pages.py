"""What the page on the disk is made from: a good run, and one in which a hostile name is everywhere."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from immich_usb_backup.model import DiskVerdict, Finding, Outcome, Restorable, Severity
from immich_usb_backup.policy.page import RUNS_SHOWN
from immich_usb_backup.policy.page_facts import PageFacts, PastRun, ProvenFile

NOW = datetime(2026, 11, 21, 14, 5, tzinfo=UTC)
DUMP = "immich-db-backup-20261121T020000-v2.5.2-pg14.19.sql.gz"
VERDICT = DiskVerdict(
    restorable=Restorable.YES,
    dump=DUMP,
    dump_time=NOW - timedelta(hours=12),
    immich="2.5.2",
    assets=41_203,
    present=41_203,
    proven=41_203,
    files=41_990,
    files_proven=41_990,
    oldest_proof=datetime(2026, 3, 3, 9, tzinfo=UTC),
)


def facts(**changes: Any) -> PageFacts:
    """A good run on a disk that has everything."""
    whole = PageFacts(
        disk="Blue",
        server="nas",
        written=NOW,
        outcome=Outcome.OK,
        findings=(),
        copied_files=273,
        copied_bytes=1_390_000_000,
        files=41_990,
        bytes=412_000_000_000,
        size=1_000_000_000_000,
        free=587_000_000_000,
        dump=DUMP,
        dump_time=NOW - timedelta(hours=12),
        cluster=False,
        verdict=VERDICT,
        runs=(PastRun(NOW - timedelta(days=3), Outcome.PARTIAL), PastRun(NOW, Outcome.OK)),
        proofs=(
            ProvenFile(f"database/{DUMP}", 63_000_000, "ab" * 32),
            ProvenFile("config/config-2026-11-21.zip", 0, "cd" * 32),
        ),
        folders=("library", "profile", "upload"),
        extra=(),
    )
    return replace(whole, **changes)


def everywhere(name: str, **changes: Any) -> PageFacts:
    """A name in every place where foreign text can be, as often as there is room for it."""
    findings = tuple(
        Finding(code="x", severity=Severity.PARTIAL, message=name, hint=name, items=(name,) * 200, count=9000)
        for _ in range(30)
    )
    verdict = replace(
        VERDICT,
        restorable=Restorable.EXCEPT,
        dump=name,
        immich=name,
        reasons=(name,) * 50,
        exceptions=(name,) * 200,
        exception_count=5000,
        extra_folders=(name,) * 10,
        rotten_on_server=3,
    )
    proofs = tuple(
        ProvenFile(f"{folder}/{name[:20]}{n}", 5, "ab" * 32) for folder in ("database", "config") for n in range(1000)
    )
    whole = facts(disk=name, server=name, findings=findings, verdict=verdict, proofs=proofs, outcome=Outcome.FAILED)
    runs = (PastRun(NOW, Outcome.FAILED),) * RUNS_SHOWN
    folders = (*whole.folders, "extra", name)
    return replace(whole, runs=runs, dump=name[:20] or "x", folders=folders, extra=(name,) * 50, **changes)
