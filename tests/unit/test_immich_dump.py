"""Dumps as files: every form that Immich's have, and everything that only looks like one."""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import samples

from immich_usb_backup.adapters.immich_dump import read_dump
from immich_usb_backup.errors import DumpUnusable, SourceUnreadable
from immich_usb_backup.policy.assets import DumpFacts
from immich_usb_backup.policy.dump_rows import Row
from immich_usb_backup.policy.dump_scan import DumpScan

SHA1 = b"\x11" * 20
HEX = rf"\\x{SHA1.hex()}"
COLUMNS = '"originalPath", checksum'
HEAD = "--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version 15.8 (Debian 15.8-1)\n\n"
END = "--\n-- PostgreSQL database dump complete\n--\n\n"
ONE = f"COPY public.asset ({COLUMNS}) FROM stdin;\n/data/upload/1.jpg\t{HEX}\n\\.\n\n"
ROW = (b"/data/upload/1.jpg", SHA1, False, False)
TRAP = 'COPY public.album (id, description) FROM stdin;\n1\tCOPY public.asset ("originalPath", checksum) FROM stdin;\\n\\\\.\n'
CLUSTER_HEAD = "--\n-- PostgreSQL database cluster dump\n--\n\nCREATE ROLE immich;\n\n"
CLUSTER_END = "--\n-- PostgreSQL database cluster dump complete\n--\n\n"


def _scan(*pieces: bytes | str) -> tuple[list[Row], DumpFacts]:
    scan, rows = DumpScan(), []
    for piece in pieces:
        rows += scan.feed(piece if isinstance(piece, bytes) else piece.encode())
    return rows, scan.finish()


def _read(path: Path, content: bytes) -> tuple[list[Row], DumpFacts]:
    path.write_bytes(content)
    rows: list[Row] = []
    facts, _ = read_dump(path, rows.extend, beat=lambda: None)
    return rows, facts


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "dump.sql.gz"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> samples.MediaLocation:
    return samples.make_media_location(
        tmp_path_factory.mktemp("media"), photos=24, hostile_names=True, dumps=samples.DumpPlan(external=True)
    )


def _expected(photos: Iterable[samples.Photo], root: str) -> list[Row]:
    return [(f"{root}/{p.path}".encode(), bytes.fromhex(p.sha1), False, p.in_trash) for p in photos]


def test_the_samples_dump_names_every_photo_with_its_sha1(library: samples.MediaLocation) -> None:
    rows: list[Row] = []
    facts, _ = read_dump(library.dumps[0], rows.extend, beat=lambda: None)
    assert rows[: len(library.photos)] == _expected(library.photos, "/data")
    assert rows[len(library.photos) :][-1] == (b"/mnt/photos/2019/outside.jpg", b"", True, False)
    assert (facts.table, facts.cluster, facts.restricted, facts.immich) == ("asset", False, True, "2.5.2")
    assert (facts.media_location, facts.server_version, facts.dump_version) == (b"/data", "14.19", "14.19")


def test_a_dump_of_all_databases_from_before_1_136(library: samples.MediaLocation) -> None:
    rows: list[Row] = []
    facts, _ = read_dump(library.dumps[-1], rows.extend, beat=lambda: None)
    assert rows[: len(library.photos)] == _expected(library.photos, "upload")
    assert (facts.table, facts.cluster, facts.media_location, facts.immich) == ("assets", True, b"", "1.135.3")


def test_plain_packed_and_in_several_members(path: Path) -> None:
    text = (HEAD + ONE + END).encode()
    plain = _read(path, text)
    assert plain[0] == [ROW]
    assert _read(path, gzip.compress(text)) == plain
    assert _read(path, gzip.compress(text[:99]) + gzip.compress(text[99:])) == plain


def test_line_ends_of_a_terminal(path: Path) -> None:
    """`docker exec -t` puts a carriage return before each line feed; psql takes such a dump."""
    text = (HEAD + TRAP + "\\.\n" + ONE + END).encode()
    assert _read(path, text.replace(b"\n", b"\r\n")) == _read(path, text)
    assert _scan(*[bytes((byte,)) for byte in text.replace(b"\n", b"\r\n")]) == _scan(text)


WHOLE = (HEAD + TRAP + "\\.\n\n" + ONE + "COPY public.z (a) FROM stdin;\n\\.\n" + END).encode()
LONG = WHOLE.replace(b"--\n\n", b"--\n\n" + b"SET x = 1;\n" * 500)


@given(st.lists(st.integers(0, len(LONG)), max_size=12).map(sorted))
def test_however_it_comes_it_is_read_the_same(cuts: list[int]) -> None:
    pieces = [LONG[start:end] for start, end in zip([0, *cuts], [*cuts, len(LONG)], strict=True)]
    assert _scan(*pieces) == _scan(LONG)
    assert _scan(LONG)[0] == [ROW]


def test_no_cut_dump_is_whole() -> None:
    end = WHOLE.index(b" complete")
    for length in range(end):
        with pytest.raises(DumpUnusable):
            _scan(WHOLE[:length])


def test_it_says_where_it_was_cut() -> None:
    for word, where in ((HEX.encode(), "within the table asset"), (b"\tCOPY", "within the table album")):
        with pytest.raises(DumpUnusable, match=f"it was cut off: it ends {where}"):
            _scan(WHOLE[: WHOLE.index(word)])
    with pytest.raises(DumpUnusable, match="its end is missing"):
        _scan(WHOLE[: WHOLE.index(b"COPY public.z")])


def test_no_cut_packed_dump_is_whole(path: Path) -> None:
    packed = gzip.compress(HEAD.encode() + random.Random(1).randbytes(3000).hex().encode() + (ONE + END).encode())
    for length in (*range(1, len(packed), 97), len(packed) - 1):
        with pytest.raises(DumpUnusable, match=r"dump\.sql\.gz: it "):
            _read(path, packed[:length])


def test_a_flipped_bit_in_a_packed_dump_is_found(path: Path) -> None:
    packed = gzip.compress(WHOLE)
    for place in range(10, len(packed), 3):  # after gzip's header
        bent = bytes((*packed[:place], packed[place] ^ 4, *packed[place + 1 :]))
        with pytest.raises(DumpUnusable, match=r"dump\.sql\.gz: it is damaged or was cut off"):
            _read(path, bent)


def test_what_users_write_is_not_taken_for_sql() -> None:
    traps = (
        TRAP + "\\.\n",
        f"COPY public.album (a, b) FROM stdin;\n1\t-- PostgreSQL database dump complete\n2\tINSERT INTO public.asset\n\\.\n{ONE}",
        "COMMENT ON COLUMN public.x.y IS 'COPY public.asset';\n",
        "CREATE FUNCTION public.f() RETURNS trigger\n    AS $_$\nBEGIN\nINSERT INTO x VALUES (1);\n"
        f"{ONE}-- PostgreSQL database dump\n$_$;\n",
        "CREATE FUNCTION public.g() RETURNS int\n    AS $$SELECT 1$$;\n",
    )
    for text in traps:
        rows, _ = _scan(HEAD + text + (ONE if ONE not in text or "FUNCTION" in text else "") + END)
        assert rows == [ROW], text


def test_names_with_tabs_line_feeds_and_end_marks() -> None:
    rows, _ = _scan(HEAD + ONE.replace("1.jpg", "a\\tb\\nc\\\\.jpg") + END)
    assert rows == [(b"/data/upload/a\tb\nc\\.jpg", SHA1, False, False)]


@pytest.mark.parametrize("schema", ["", "public.", '"public".'])
@pytest.mark.parametrize("name", ["asset", "assets", '"asset"'])
def test_every_way_to_write_the_tables_name(schema: str, name: str) -> None:
    rows, facts = _scan(HEAD + ONE.replace("public.asset", schema + name) + END)
    assert (rows, facts.table) == ([ROW], name.strip('"'))


def test_the_database_with_the_assets_is_taken_from_a_dump_of_all() -> None:
    metadata = 'COPY public.system_metadata (key, value) FROM stdin;\nMediaLocation\t{"location": "%s"}\n\\.\n'
    other = "COPY public.asset (id) FROM stdin;\n1\n\\.\n" + metadata % "/wrong"
    databases = (
        "\\connect template1\n\n" + HEAD + END,
        "\\connect other\n\n" + HEAD + other + END,
        "\\connect immich\n\n" + HEAD + ONE + metadata % "/right" + END,
        "\\connect zoo\n\n" + HEAD + other + END,
    )
    rows, facts = _scan(CLUSTER_HEAD + "".join(databases) + CLUSTER_END)
    assert (rows, facts.cluster, facts.media_location) == ([ROW], True, b"/right")
    _, facts = _scan(CLUSTER_HEAD + databases[1] + "\\connect immich\n\n" + HEAD + ONE + END + CLUSTER_END)
    assert facts.media_location == b""


def test_two_databases_with_assets_are_not_mixed() -> None:
    databases = [f"\\connect {name}\n\n{HEAD}{ONE}{END}" for name in ("immich", "immich_old")]
    with pytest.raises(DumpUnusable, match="twice: in the databases immich and immich_old"):
        _scan(CLUSTER_HEAD + "".join(databases) + CLUSTER_END)


@pytest.mark.parametrize("value", ["[]", "null", '{"location": 3}', "{", "[" * 5000, ""])
def test_a_media_location_that_is_none(value: str) -> None:
    table = f"COPY public.system_metadata (key, value) FROM stdin;\nMediaLocation\t{value}\n\\.\n"
    assert _scan(HEAD + ONE + table + END)[1].media_location == b""


def test_the_newest_version_in_the_history_counts() -> None:
    table = (
        'COPY public.version_history (id, "createdAt", version) FROM stdin;\n'
        "1\t2024-01-01 10:00:00+00\t1.99.0\n2\t2025-10-01 10:00:00+00\tv2.5.2\n3\t2025-02-01 10:00:00+00\t1.135.3\n\\.\n"
    )
    assert _scan(HEAD + ONE + table + END)[1].immich == "2.5.2"
    assert _scan(HEAD + ONE + END)[1].immich == ""


def test_psqls_restrict_lines() -> None:
    restricted = HEAD + "\\restrict abc\n" + ONE + END + "\\unrestrict abc\n\n"
    assert _scan(restricted)[1].restricted
    assert not _scan(HEAD + ONE + END)[1].restricted


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"\n\n", "it is empty"),
        (b"PGDMP\x01\x0e\x00", "custom format, not plain SQL"),
        (b"toc.dat" + b"\0" * 600, "tar format, not plain SQL"),
        (b"\x28\xb5\x2f\xfd1234", "compressed with zstd"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"<html>404</html>", "does not begin like a dump"),
        (b"-- MySQL dump 10.13\n" * 1000, "does not begin like a dump"),
        ((HEAD + END).encode(), "does not hold Immich's table of assets"),
        ((HEAD + ONE.replace("public", "backup") + END).encode(), "does not hold Immich's table of assets"),
        ((HEAD + "INSERT INTO public.album VALUES (1);\n" + ONE + END).encode(), "pg_dump --inserts"),
        ((HEAD + ONE + END + HEAD + ONE + END).encode(), "two dumps"),
        ((CLUSTER_HEAD + HEAD + ONE + END + CLUSTER_END + HEAD).encode(), "two dumps"),
        ((HEAD + HEAD + ONE + END).encode(), "two dumps"),
        ((HEAD + TRAP + HEAD + TRAP + "\\.\n" + ONE + END).encode(), "two dumps"),
        ((CLUSTER_HEAD + HEAD + ONE + END).encode(), "its end is missing"),
        ((HEAD + "-- " + "x" * (17 << 20)).encode(), "longer than any in Immich's dumps"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_what_is_no_dump_of_immichs_is_refused_by_what_it_is(
    path: Path, content: bytes, said: str, *, packed: bool
) -> None:
    with pytest.raises(DumpUnusable) as refused:
        _read(path, gzip.compress(content, 1) if packed else content)
    assert said in refused.value.message
    assert refused.value.message.startswith("dump.sql.gz: it")
    assert refused.value.hint


def test_a_table_that_nobody_asks_for_may_have_long_lines() -> None:
    long = "COPY public.z (a) FROM stdin;\n" + "x" * (17 << 20) + "\n\\.\n"
    assert _scan(HEAD + ONE + long + END)[0] == [ROW]


def test_what_is_not_there_or_no_file(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadable, match="No such file"):
        read_dump(tmp_path / "none", lambda _: None, beat=lambda: None)
    with pytest.raises(DumpUnusable, match="a folder, not a file"):
        read_dump(tmp_path, lambda _: None, beat=lambda: None)
    with pytest.raises(DumpUnusable, match="not a file"):
        read_dump(Path("/dev/null"), lambda _: None, beat=lambda: None)


def test_a_hostile_name_in_a_message_is_harmless(tmp_path: Path) -> None:
    with pytest.raises(DumpUnusable) as refused:
        _read(tmp_path / "a\nb\x1b[2J.sql", b"")
    assert refused.value.message == "a\\nb\\u001b[2J.sql: it is empty"
