"""Which files are routine dumps, in which order they were made, and whether one is whole."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from immich_usb_backup.policy.dumps import dump_problem, newest_first, parse_dump_name, superfluous

BERLIN = datetime(2026, 7, 1, tzinfo=timezone(timedelta(hours=2)))
EPOCH = "immich-db-backup-1714557600000.sql.gz"
DATED = "immich-db-backup-20261120T020000-v2.5.2-pg14.19.sql.gz"
HEAD = b"--\n-- PostgreSQL database dump\n--\n"
TAIL = b"--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict x\n\n"


def test_the_old_name_holds_milliseconds_in_utc() -> None:
    dump = parse_dump_name(EPOCH)
    assert dump is not None
    assert dump.time == datetime(2024, 5, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize("version", ["v2.5.2-pg14.19", "v1.136.0-pg17", "v3.0.0-rc.1-pg14.10"])
def test_the_new_name_holds_the_servers_local_time(version: str) -> None:
    dump = parse_dump_name(f"immich-db-backup-20260701T020000-{version}.sql.gz", local=BERLIN)
    assert dump is not None
    assert dump.time == datetime(2026, 7, 1, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "name",
    [
        ".immich",
        f"{DATED}.tmp",
        f"uploaded-{DATED}",
        f"restore-point-{DATED}",
        "immich-db-backup-20261120T020000-v2.4.0-pre-upgrade-v2.5.0-pg14.19.sql.gz",
        "immich-db-backup-20261120T020000-v2.5.2-pg14.19-pre-upgrade.sql.gz",
        "immich-db-backup-20261320T020000-v2.5.2-pg14.19.sql.gz",
        "immich-db-backup-00010101T000000-v2.5.2-pg14.19.sql.gz",
        "immich-db-backup-99999999T999999-v2.5.2-pg14.19.sql.gz",
        "immich-db-backup-171455760000.sql.gz",
        "immich-db-backup-٠٠٠٠٠٠٠٠٠٠٠٠٠.sql.gz",
        f"{DATED}\n",
        f"../{DATED}",
        "immich-db-backup-20261120T020000-v2/../../x-pg14.sql.gz",
        DATED.removesuffix(".gz"),
    ],
)
def test_everything_else_in_the_folder_is_no_routine_dump(name: str) -> None:
    assert parse_dump_name(name, local=BERLIN) is None


def test_the_order_is_that_of_the_times_in_both_kinds_of_names() -> None:
    middle = "immich-db-backup-20250101T020000-v1.136.0-pg14.sql.gz"
    newest = "immich-db-backup-1893456000000.sql.gz"
    names = [EPOCH, f"{DATED}.tmp", newest, middle, DATED, "restore-point-x"]
    assert [dump.name for dump in newest_first(names)] == [newest, DATED, middle, EPOCH]


def test_only_routine_dumps_leave_the_disk_and_the_newest_never() -> None:
    names = ["mine.sql.gz", EPOCH, DATED]
    assert superfluous(names, keep=1, never=DATED) == (EPOCH,)
    assert superfluous(names, keep=14, never=DATED) == ()


def test_the_dump_that_was_just_proven_stays_though_another_is_dated_in_the_future() -> None:
    future = "immich-db-backup-20990101T020000-v2.5.2-pg14.19.sql.gz"
    assert superfluous([future, DATED], keep=1, never=DATED) == (future,)


@pytest.mark.parametrize(
    ("head", "tail"),
    [
        (HEAD, TAIL),
        (b"--\n-- PostgreSQL database cluster dump\n--\n", b"--\n-- PostgreSQL database cluster dump complete\n--\n"),
    ],
)
def test_a_whole_dump_has_no_problem(head: bytes, tail: bytes) -> None:
    assert dump_problem(head, tail) is None


@pytest.mark.parametrize(
    ("head", "tail", "problem"),
    [
        (HEAD, TAIL[:20], "its end is missing"),
        (HEAD, b"", "its end is missing"),
        (b"<html>", TAIL, "does not begin like"),
        (b"", b"", "does not begin like"),
    ],
)
def test_what_is_wrong_is_said(head: bytes, tail: bytes, problem: str) -> None:
    assert problem in str(dump_problem(head, tail))
