"""What PostgreSQL's own programs write is read as PostgreSQL has it, or refused by its name."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from immich_usb_backup.adapters.asset_book import SqliteAssetBooks
from immich_usb_backup.adapters.immich_dump import read_dump
from immich_usb_backup.errors import DumpUnusable
from immich_usb_backup.policy.assets import Asset, DumpFacts
from immich_usb_backup.policy.dump_rows import Row
from tests.support import host, samples

pytestmark = pytest.mark.skipif(
    "postgresql" in host.missing_packages(for_tests=True), reason="postgresql is not installed"
)
OWNER = "5f0c1d7e-8a3b-4c55-9e0f-2b7a6d1c9e44"
PATHS = (
    "/data/upload/plain.jpg",
    "/data/library/tab\there\nline\rreturn\x0bvertical\x08\x0c.jpg",
    "/data/library/back\\slash\\n\\N\\.jpg",
    "/data/library/Café \U0001f4f7 'quote' \"double\".jpg",
    "\\.",
    "COPY public.asset (id) FROM stdin;",
)
TRAP = "\n\\.\n--\n-- PostgreSQL database dump complete\n--\nCOPY public.asset (id) FROM stdin;\n"

ERAS = {
    "1.135": (
        'CREATE TABLE assets (id uuid, "deviceAssetId" text, "ownerId" uuid, "deviceId" text, "originalPath" text, '
        'checksum bytea, "isExternal" boolean, "sidecarPath" text, "encodedVideoPath" text, "deletedAt" timestamptz);',
        "upload/upload/u/1.jpg",
    ),
    "2.3": (
        'CREATE TABLE asset (id uuid, "deviceAssetId" text, "ownerId" uuid, "originalPath" text, "sidecarPath" text, '
        'checksum bytea, "isExternal" boolean, "deletedAt" timestamptz, visibility text);',
        "/usr/src/app/upload/upload/u/1.jpg",
    ),
    "3.0": (
        'CREATE TABLE asset (id uuid, "ownerId" uuid, "originalPath" text, checksum bytea, "checksumAlgorithm" text, '
        '"isExternal" boolean, "deletedAt" timestamptz, visibility text);',
        "/data/upload/u/1.jpg",
    ),
}


def _quoted(text: str) -> str:
    escaped = "".join(f"\\{ord(c):03o}" if ord(c) < 32 else c for c in text.replace("\\", "\\\\").replace("'", "''"))
    return f"E'{escaped}'"


def _fill(cluster: samples.Cluster) -> None:
    rows = [
        f"(gen_random_uuid(), '{OWNER}', 'IMAGE', {_quoted(path)}, sha1({_quoted(path)}), {number % 2 == 0}, "
        f"{'now()' if number % 3 == 0 else 'NULL'}, '{'sha1-path' if number % 2 == 0 else 'sha1'}')"
        for number, path in enumerate(PATHS)
    ]
    columns = '(id, "ownerId", type, "originalPath", checksum, "isExternal", "deletedAt", "checksumAlgorithm")'
    cluster.psql(
        "CREATE FUNCTION sha1(text) RETURNS bytea LANGUAGE sql AS $$ SELECT substr(sha256(convert_to($1, 'UTF8')), 1, 20) $$;"
        "CREATE FUNCTION trap() RETURNS text LANGUAGE plpgsql AS $f$\nBEGIN\nINSERT INTO x VALUES (1);\n"
        "COPY public.asset (id) FROM stdin;\nRETURN '$$';\nEND $f$;"
        f"INSERT INTO album VALUES (gen_random_uuid(), NULL, {_quoted(TRAP)}, {_quoted(TRAP)});"
        f"INSERT INTO asset {columns} VALUES {', '.join(rows)};"
    )


@pytest.fixture(scope="module")
def cluster() -> Iterator[samples.Cluster]:
    with samples.postgres() as running:
        running.psql('DELETE FROM asset; UPDATE "user" SET id = \'' + OWNER + "'")
        _fill(running)
        running.psql("CREATE DATABASE other", database="postgres")
        running.psql("CREATE TABLE asset (id int); INSERT INTO asset VALUES (1)", database="other")
        yield running


def _dump(cluster: samples.Cluster, program: str, *options: str, settings: str = "", database: str = "immich") -> bytes:
    where = ["-h", str(cluster.socket), "-U", "postgres", *(["-d", database] if program == "pg_dump" else [])]
    command = [*cluster.run_as, str(cluster.programs / program), *options, *where]
    return subprocess.run(
        command, capture_output=True, check=True, timeout=120, env={**os.environ, "PGOPTIONS": settings}
    ).stdout


def _read(path: Path, content: bytes) -> tuple[list[Row], DumpFacts]:
    path.write_bytes(content)
    rows: list[Row] = []
    facts, _ = read_dump(path, rows.extend, beat=lambda: None)
    return rows, facts


def _expected(cluster: samples.Cluster) -> list[Row]:
    query = (
        "SELECT encode(convert_to(\"originalPath\", 'UTF8'), 'hex'), encode(checksum, 'hex'), "
        '"isExternal", "deletedAt" IS NOT NULL FROM asset'
    )
    found = (line.split("|") for line in cluster.psql(query).splitlines())
    return [
        (bytes.fromhex(path), b"" if external == "t" else bytes.fromhex(sha1), external == "t", trashed == "t")
        for path, sha1, external, trashed in found
    ]


@pytest.mark.parametrize("program", ["pg_dump", "pg_dumpall"])
@pytest.mark.parametrize("options", [("--clean", "--if-exists"), (), ("--quote-all-identifiers",)])
def test_every_asset_is_read_as_postgresql_has_it(
    cluster: samples.Cluster, tmp_path: Path, program: str, options: tuple[str, ...]
) -> None:
    dump = _dump(cluster, program, *options)
    rows, facts = _read(tmp_path / "dump.sql.gz", gzip.compress(dump, 1))
    assert rows == _expected(cluster)
    assert {os.fsdecode(row[0]) for row in rows} == set(PATHS)
    assert (facts.cluster, facts.table) == (program == "pg_dumpall", "asset")
    assert (facts.media_location, facts.immich) == (b"/data", "2.5.2")
    assert facts.server_version == facts.dump_version == cluster.version
    assert facts.restricted == (b"\n\\restrict " in dump)


@pytest.mark.parametrize("era", ERAS)
async def test_the_tables_of_three_eras(cluster: samples.Cluster, tmp_path: Path, era: str) -> None:
    table, path = ERAS[era]
    cluster.psql(f'CREATE DATABASE "{era}"', database="postgres")
    filled = f"""{table} INSERT INTO {table.split()[2]} (id, "originalPath", checksum, "isExternal")
        VALUES (gen_random_uuid(), '{path}', decode('{"ab" * 20}', 'hex'), false);"""
    cluster.psql(filled, database=era)
    dump = _dump(cluster, "pg_dump", "--clean", "--if-exists", database=era)
    cluster.psql(f'DROP DATABASE "{era}"', database="postgres")
    (tmp_path / "dump.sql").write_bytes(dump)
    sha256 = hashlib.sha256(dump).hexdigest()
    book = await SqliteAssetBooks(tmp_path).open(
        tmp_path / "dump.sql", sha256=sha256, media_location=Path("/srv/immich")
    )
    assert book.folder(b"upload/u") == {b"1.jpg": Asset(b"upload/u/1.jpg", b"\xab" * 20)}
    await book.close()


@pytest.mark.parametrize(
    ("program", "options", "settings", "said"),
    [
        ("pg_dump", ("--inserts",), "", "pg_dump --inserts"),
        ("pg_dump", ("--column-inserts",), "", "pg_dump --inserts"),
        ("pg_dumpall", ("--rows-per-insert=10",), "", "pg_dump --inserts"),
        ("pg_dump", ("--format=custom",), "", "custom format"),
        ("pg_dump", ("--format=tar",), "", "tar format"),
        ("pg_dump", (), "-c bytea_output=escape", "bytea_output = escape"),
        ("pg_dump", ("--schema-only",), "", "table of assets"),
        ("pg_dump", ("--exclude-table=asset",), "", "table of assets"),
        ("pg_dumpall", ("--globals-only",), "", "table of assets"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_name(
    cluster: samples.Cluster, tmp_path: Path, program: str, options: tuple[str, ...], settings: str, said: str
) -> None:
    with pytest.raises(DumpUnusable) as refused:
        _read(tmp_path / "dump.sql", _dump(cluster, program, *options, settings=settings))
    assert said in refused.value.message
