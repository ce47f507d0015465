"""What a dump is, which of its lines are sent, and what speaks against a restore."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from immich_usb_backup.errors import BackupError, DatabaseRefused, DumpUnusable
from immich_usb_backup.policy import database_restore as policy
from immich_usb_backup.policy.database_restore import Server
from immich_usb_backup.policy.database_restore_rewrite import Rewrite, rewritten
from immich_usb_backup.policy.database_restore_scan import Scan, scan
from immich_usb_backup.restore.database import DatabaseTarget, check_target
from immich_usb_backup.restore.database_psql import in_container, local
from immich_usb_backup.restore.database_stream import lines_of

BODY = """\
SET statement_timeout = 0;
SET transaction_timeout = 0;
SELECT pg_catalog.set_config('search_path', '', false);
DROP EXTENSION IF EXISTS cube;
DROP SCHEMA IF EXISTS vectors;
CREATE SCHEMA vectors;
CREATE EXTENSION IF NOT EXISTS cube WITH SCHEMA public;
COMMENT ON EXTENSION cube IS 'cubes; and more';
CREATE TABLE public.asset (
    id uuid NOT NULL,
    note text DEFAULT ';'
);
ALTER TABLE public.asset OWNER TO "Im mich";
COMMENT ON TABLE public.asset IS 'ALTER TABLE x OWNER TO nobody;';
GRANT SELECT ON TABLE public.asset TO PUBLIC;
GRANT SELECT ON TABLE public.asset TO reader;
COPY public.asset (id, note) FROM stdin;
1\tone
2\tCOPY public.asset (id) FROM stdin;\\n\\\\.
\\.


COPY public.version_history (id, "createdAt", version) FROM stdin;
b\t2026-01-01 00:00:00+00\t2.5.2
a\t2025-01-01 00:00:00+00\t9.9.9
\\.


CREATE INDEX name_idx ON public.asset USING gin (note public.gin_trgm_ops);
"""
VERSIONS = "-- Dumped from database version 14.19 (Debian 14.19-1)\n-- Dumped by pg_dump version 14.20 (Debian)\n\n"
ONE = f"--\n-- PostgreSQL database dump\n--\n\n\\restrict abc\n\n{VERSIONS}{BODY}--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict abc\n\n"
ALL = f"""--
-- PostgreSQL database cluster dump
--

\\restrict abc

SET default_transaction_read_only = off;
DROP DATABASE IF EXISTS immich;
DROP ROLE IF EXISTS postgres;
CREATE ROLE postgres;
ALTER ROLE postgres WITH SUPERUSER PASSWORD 'SCRAM';
CREATE ROLE "Im mich";
ALTER ROLE "Im mich" WITH LOGIN;
\\unrestrict abc

\\connect template1
--
-- PostgreSQL database dump
--
{VERSIONS}SET nowhere = 1;
--
-- PostgreSQL database dump complete
--

--
-- PostgreSQL database dump
--
{VERSIONS}CREATE DATABASE immich WITH TEMPLATE = template0;
ALTER DATABASE immich OWNER TO postgres;
\\connect immich
ALTER DATABASE immich SET search_path TO '$user', 'public', 'vectors';
\\connect immich
{BODY}--
-- PostgreSQL database dump complete
--

--
-- PostgreSQL database dump
--
DROP DATABASE postgres;
ALTER DATABASE postgres OWNER TO peter;
\\connect postgres
SET elsewhere = 1;
--
-- PostgreSQL database dump complete
--

--
-- PostgreSQL database cluster dump complete
--

"""


def _lines(text: str) -> list[bytes]:
    return text.encode().splitlines(keepends=True)


def _scan(text: str) -> Scan:
    return scan(_lines(text))


def _sent(text: str, **changes: object) -> str:
    rewrite = replace(Rewrite(scan=_scan(text), database="my db", server=15), **changes)  # type: ignore[arg-type]
    return b"".join(rewritten(_lines(text), rewrite, lambda _: None)).decode()


SERVER = Server(
    version="15.18 (Debian)",
    database="immich",
    user="postgres",
    superuser=True,
    encoding="UTF8",
    standby=False,
    objects=(),
    object_count=0,
    available=frozenset({"cube", "vchord"}),
    installed=frozenset(),
    creatable=frozenset({"cube"}),
    roles=frozenset({"postgres", "Im mich", "reader"}),
)


# The whole dump -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "cluster"), [(ONE, False), (ALL, True)])
def test_a_dump_tells_what_it_is(text: str, cluster: bool) -> None:
    found = _scan(text)
    assert (found.cluster, found.table, found.assets, found.immich) == (cluster, "asset", 2, "2.5.2")
    assert (found.server_version, found.dump_version, found.restricted) == ("14.19", "14.20", True)
    assert (found.extensions, found.roles) == (("cube",), ("Im mich", "reader"))
    assert found.database == ("immich" if cluster else "")
    assert found.roles_made == ({"postgres", "Im mich"} if cluster else set())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "does not begin"),
        ("hello\n", "does not begin"),
        ("SELECT 1;\n", "does not begin"),
        (ONE.replace("-- PostgreSQL database dump complete\n", ""), "end is missing"),
        (ALL.replace("-- PostgreSQL database cluster dump complete\n", ""), "end is missing"),
        (ONE + ONE, "after its end"),
        (ONE.replace("asset", "photo"), "no table of assets"),
        (ONE.replace("\n", "\r\n"), "line ends of a terminal"),
        (ONE.replace("\\restrict abc", "\\connect elsewhere"), "changes to another database"),
        (ONE.replace("COPY public.asset (id", "COPY asset (id"), "COPY that pg_dump does not write"),
    ],
    ids=range(10),
)
def test_what_is_no_whole_dump_of_immichs_is_refused(text: str, words: str) -> None:
    with pytest.raises(DumpUnusable, match=words):
        _scan(text)


# What is sent ---------------------------------------------------------------------------------------------


def test_a_dump_is_sent_as_one_transaction_without_what_does_harm() -> None:
    sent = _sent(ONE)
    lines = sent.splitlines()
    assert (lines[0], lines[-1]) == ("BEGIN;", "COMMIT;")
    assert "SELECT pg_catalog.set_config('search_path', 'public, pg_catalog', true);" in lines
    assert "CREATE SCHEMA IF NOT EXISTS vectors;" in lines
    assert "CREATE EXTENSION IF NOT EXISTS cube WITH SCHEMA public;" in lines
    for gone in ("set_config('search_path', ''", "DROP ", "COMMENT ON EXTENSION", "transaction_timeout", "restrict"):
        assert gone not in sent
    begin = BODY.index("CREATE TABLE")
    assert BODY[begin:] in sent


def test_a_server_that_knows_a_setting_gets_it() -> None:
    assert "SET transaction_timeout = 0;" in _sent(ONE, server=17)


def test_psql_is_restricted_by_a_key_of_ours() -> None:
    assert _sent(ONE, restrict="ours").startswith("\\restrict ours\nBEGIN;\n")


def test_of_a_whole_server_one_database_is_sent_under_the_targets_name() -> None:
    sent = _sent(ALL, roles=frozenset({"Im mich"}))
    assert BODY[BODY.index("CREATE TABLE") :] in sent
    assert "ALTER DATABASE \"my db\" SET search_path TO '$user', 'public', 'vectors';" in sent
    assert 'CREATE ROLE "Im mich";\nALTER ROLE "Im mich" WITH LOGIN;\n' in sent
    for gone in (
        "SCRAM",
        "ROLE postgres",
        "nowhere",
        "peter",
        "elsewhere",
        "DATABASE immich",
        "DATABASE postgres",
        "\\connect",
    ):
        assert gone not in sent


def test_a_dump_that_breaks_off_is_never_committed() -> None:
    sent: list[bytes] = []

    def broken() -> Iterator[bytes]:
        yield from _lines(ONE)[:-9]
        raise DumpUnusable("cut off")

    with pytest.raises(DumpUnusable):
        sent.extend(rewritten(broken(), Rewrite(scan=_scan(ONE), database="x", server=15), lambda _: None))
    assert b"COMMIT;\n" not in sent
    with pytest.raises(DumpUnusable):
        sent.extend(
            rewritten(
                _lines(ONE.partition("1\tone\n")[0]), Rewrite(scan=_scan(ONE), database="x", server=15), lambda _: None
            )
        )
    assert b"COMMIT;\n" not in sent


def test_an_extension_that_is_absent_gets_a_stand_in_and_its_indexes_are_left_out() -> None:
    text = ONE.replace("EXISTS cube", "EXISTS vector").replace("SCHEMA public", "SCHEMA vectors", 1)
    left_out: list[str] = []
    rewrite = Rewrite(scan=_scan(text), database="x", server=15, absent=frozenset({"vector", "pg_trgm"}))
    sent = b"".join(rewritten(_lines(text), rewrite, left_out.append)).decode()
    assert "CREATE EXTENSION" not in sent
    assert 'CREATE TYPE "vectors".vector (INPUT' in sent
    assert left_out == ["CREATE INDEX name_idx ON public.asset USING gin (note public.gin_trgm_ops);"]


# What speaks against it -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"standby": True}, "standby", "primary"),
        ({"encoding": "SQL_ASCII"}, "encoding SQL_ASCII", "createdb"),
        (
            {"objects": ("public.asset",), "object_count": 9},
            "9 tables and functions (public.asset and 8 more)",
            "empty",
        ),
        ({"version": "13.9"}, "older: 13.9", "PostgreSQL 14"),
        ({"available": frozenset()}, "lacks 1 extension that the dump needs: cube", "docker-compose.yml"),
        ({"superuser": False, "creatable": frozenset()}, "may not create these extensions: cube", "superuser"),
        ({"roles": frozenset({"postgres", "reader"})}, "server does not have: Im mich", "createuser Im mich"),
    ],
)
def test_each_reason_has_its_words(changes: dict[str, object], message: str, hint: str) -> None:
    (problem,) = policy.problems(_scan(ONE), replace(SERVER, **changes))  # type: ignore[arg-type]
    assert message in problem.message
    assert hint in problem.hint


def test_a_server_that_fits_gives_no_reason() -> None:
    assert policy.problems(_scan(ONE), SERVER) == ()
    assert policy.problems(_scan(ALL), replace(SERVER, roles=frozenset({"postgres", "reader"}))) == ()
    installed = replace(SERVER, superuser=False, creatable=frozenset(), installed=frozenset({"cube"}))
    assert policy.problems(_scan(ONE), installed) == ()


def test_a_rehearsal_does_without_extensions_and_users() -> None:
    bare = replace(SERVER, available=frozenset(), roles=frozenset())
    assert policy.problems(_scan(ONE), bare, rehearsal=True) == ()
    assert len(policy.problems(_scan(ONE), replace(bare, object_count=1), rehearsal=True)) == 1


@pytest.mark.parametrize(
    ("said", "knows"),
    [
        ("psql (PostgreSQL) 14.18", False),
        ("psql (PostgreSQL) 14.19 (Debian 14.19-1.pgdg12+1)", True),
        ("psql (PostgreSQL) 15.13", False),
        ("psql (PostgreSQL) 15.14", True),
        ("psql (PostgreSQL) 16.9", False),
        ("psql (PostgreSQL) 17.5", False),
        ("psql (PostgreSQL) 17.6", True),
        ("psql (PostgreSQL) 18beta1", True),
        ("psql (PostgreSQL) 12.99", False),
        ("", False),
    ],
)
def test_which_psql_knows_restrict(said: str, knows: bool) -> None:
    assert policy.knows_restrict(policy.version_of(said)) is knows


def test_an_old_psql_is_told_of_beforehand() -> None:
    assert any("\\restrict" in line for line in policy.plan_lines(_scan(ONE), SERVER, dump="x", psql=(14, 18)))
    assert not any("\\restrict" in line for line in policy.plan_lines(_scan(ONE), SERVER, dump="x", psql=(14, 19)))


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("immich-db-backup-20261120T020000-v2.3.1-pg14.19.sql.gz", "2.3.1"),
        ("immich-db-backup-1763690400000.sql.gz", "2.5.2"),
        ("mine.sql", "2.5.2"),
    ],
)
def test_the_version_of_immich(name: str, version: str) -> None:
    assert policy.immich_version(name, _scan(ONE)) == version


# The way there --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "plain", "password"),
    [
        ("postgresql://me:p%40ss@db:5433/immich", "postgresql://me@db:5433/immich", "p@ss"),
        ("postgresql://me@/immich?host=/run/pg&password=x%20y", "postgresql://me@/immich?host=/run/pg", "x y"),
        ("postgresql:///immich?host=/run/postgresql", "postgresql:///immich?host=/run/postgresql", None),
        ("postgresql://%2Frun%2Fpg/immich?options=-c+a", "postgresql://%2Frun%2Fpg/immich?options=-c+a", None),
    ],
)
def test_a_password_goes_into_the_environment(url: str, plain: str, password: str | None) -> None:
    psql = local(url)
    assert f"--dbname={plain}" in psql.command
    assert psql.secrets.get("PGPASSWORD") == password


@pytest.mark.parametrize(
    "url", ["", "immich", "host=x dbname=y password=z", "postgresql://x/y?sslpassword=z", "postgres://me:a/b@db/x"]
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(DatabaseRefused):
        local(url)


def test_a_container_is_not_taken_for_an_option() -> None:
    with pytest.raises(DatabaseRefused, match="cannot be the name"):
        in_container("--privileged")


@pytest.mark.parametrize("target", [DatabaseTarget(), DatabaseTarget(url="postgresql:///x", docker="y")])
def test_one_target_is_named(tmp_path: Path, target: DatabaseTarget) -> None:
    with pytest.raises(DatabaseRefused, match="either"):
        check_target(tmp_path / "dump", target)


@pytest.mark.parametrize("packed", [True, False])
def test_lines_come_packed_or_plain(tmp_path: Path, packed: bool) -> None:
    dump = tmp_path / "dump"
    dump.write_bytes(gzip.compress(ONE.encode()) if packed else ONE.encode())
    assert list(lines_of(dump)) == _lines(ONE)


@pytest.mark.parametrize("damage", ["short", "flipped", "tail"])
def test_a_damaged_archive_is_an_error(tmp_path: Path, damage: str) -> None:
    content = bytearray(gzip.compress(ONE.encode()))
    if damage == "flipped":
        content[-6] ^= 1
    dump = tmp_path / "dump"
    dump.write_bytes({"short": content[:-9], "flipped": content, "tail": content + b"more"}[damage])
    with pytest.raises(DumpUnusable):
        list(lines_of(dump))


def test_what_is_no_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(__file__)
    for place in (tmp_path, tmp_path / "none", tmp_path / "link"):
        with pytest.raises(BackupError):
            list(lines_of(place))
