"""Which files are routine dumps, in which order they were made, and whether one is whole."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest

from immich_usb_backup.policy.dumps import dump_problem, fresh_dump_name, newest_first, parse_dump_name, superfluous

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


# Names of our own -----------------------------------------------------------------------------------------

NOW = datetime(2026, 11, 21, 9, 58, 7, tzinfo=timezone(timedelta(hours=1)))


def _immich_takes_for_cluster(name: str) -> bool:
    """As Immich's page for restores does it (2.5 to 3.1): a regular expression, then semver's ``<= 2.4``."""
    found = re.search(r"-v(.*)-", name)
    assert found is not None
    whole = re.fullmatch(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", found[1])
    return whole is not None and (int(whole[1]), int(whole[2])) <= (2, 4)


@pytest.mark.parametrize("cluster", [True, False])
@pytest.mark.parametrize("immich", ["2.5.2", "2.4.1", "1.135.3", "3.0.0-rc.1", "10.0.0", "", "next", "\x1b[2J", "2.5"])
@pytest.mark.parametrize("postgres", ["14.19", "17", "18beta1", "", "../x"])
def test_immichs_restore_page_takes_our_names_and_chooses_the_right_way(
    immich: str, postgres: str, cluster: bool
) -> None:
    name = fresh_dump_name(NOW, immich=immich, postgres=postgres, cluster=cluster)
    assert re.fullmatch(r"immich-db-backup-\d{8}T\d{6}-v.*-pg.*\.sql\.gz", name)
    assert re.fullmatch(r"[\w.-]+", name)
    dump = parse_dump_name(name, local=NOW)
    assert dump is not None
    assert dump.time == NOW
    assert _immich_takes_for_cluster(name) is cluster


def test_a_name_of_ours_is_as_immich_would_have_it() -> None:
    name = fresh_dump_name(NOW, immich="2.5.2", postgres="14.19", cluster=False)
    assert name == "immich-db-backup-20261121T095807-v2.5.2-pg14.19.sql.gz"
