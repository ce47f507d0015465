"""PostgreSQL's COPY text, as it may stand in a dump of Immich's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immich_usb_backup.errors import DumpUnusable
from immich_usb_backup.policy.dump_paths import MediaLocations
from immich_usb_backup.policy.dump_rows import AssetRows, CopyTable, Row, copy_header, has_assets, unescape, values

SHA1 = bytes(range(20))
CHECKSUM = b"\\\\x" + SHA1.hex().encode()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            b'COPY public.asset (id, "originalPath") FROM stdin;',
            CopyTable(b"public", b"asset", (b"id", b"originalPath")),
        ),
        (b"COPY assets (checksum) FROM stdin;", CopyTable(b"", b"assets", (b"checksum",))),
        (b'COPY "public"."asset" ("id") FROM stdin;', CopyTable(b"public", b"asset", (b"id",))),
        (
            b'COPY "my ""db"".x"."a, b" ("c (d)", e) FROM stdin;',
            CopyTable(b'my "db".x', b"a, b", (b"c (d)", b"e")),
        ),
        (b"COPY public.empty  FROM stdin;", CopyTable(b"public", b"empty", ())),
    ],
)
def test_headers(line: bytes, expected: CopyTable) -> None:
    assert copy_header(line) == expected


@pytest.mark.parametrize(
    "line", [b"COPY public.asset FROM '/tmp/asset.csv';", b"COPY asset (id) FROM stdin WITH (FORMAT csv);"]
)
def test_a_header_that_pg_dump_does_not_write_is_refused(line: bytes) -> None:
    with pytest.raises(DumpUnusable, match="not like pg_dump's: COPY"):
        copy_header(line)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"plain", b"plain"),
        (b"a\\tb\\nc\\\\d\\re\\bf\\fg\\v", b"a\tb\nc\\d\re\bf\fg\v"),
        (b"\\101\\60\\7x", b"A0\x07x"),
        (b"\\x41\\x4g\\xg", b"A\x04gxg"),
        (b"\\\\n", b"\\n"),
        (b"\\\\.", b"\\."),
        (b"\\q", b"q"),
        ("\\\\Ü\U0001f4f7".encode(), "\\Ü\U0001f4f7".encode()),
    ],
)
def test_escapes(field: bytes, value: bytes) -> None:
    assert unescape(field) == value


@given(st.binary())
def test_what_postgresql_escapes_comes_back(value: bytes) -> None:
    field = value.replace(b"\\", b"\\\\").replace(b"\t", b"\\t").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    assert unescape(field) == value


def _read(columns: str, *lines: bytes) -> list[Row]:
    return list(AssetRows(CopyTable(b"public", b"asset", tuple(columns.encode().split()))).read(lines))


def test_columns_in_any_order() -> None:
    one = _read("id checksum originalPath deletedAt isExternal", b"1\t" + CHECKSUM + b"\t/data/a\\tb\t\\N\tf")
    two = _read("isExternal originalPath deletedAt id checksum", b"f\t/data/a\\tb\t\\N\t1\t" + CHECKSUM)
    assert one == two == [(b"/data/a\tb", SHA1, False, False)]


def test_columns_that_a_release_does_not_have() -> None:
    assert _read("checksum originalPath", CHECKSUM + b"\t/data/a") == [(b"/data/a", SHA1, False, False)]


def test_what_an_asset_is() -> None:
    lines = (
        b"/data/a\t" + CHECKSUM + b"\tf\tsha1\t\\N",
        b"/data/trashed\t" + CHECKSUM + b"\tf\tsha1\t2024-05-01 10:00:00+00",
        b"/mnt/external\t" + CHECKSUM + b"\tt\tsha1\t\\N",
        b"/data/path\t" + CHECKSUM + b"\tf\tsha1-path\t\\N",
        b"/data/null\t\\N\tf\t\\N\t\\N",
        b"/data/longer\t\\\\x" + b"00" * 32 + b"\tf\tsha1\t\\N",
    )
    assert _read("originalPath checksum isExternal checksumAlgorithm deletedAt", *lines) == [
        (b"/data/a", SHA1, False, False),
        (b"/data/trashed", SHA1, False, True),
        (b"/mnt/external", b"", True, False),
        (b"/data/path", b"", False, False),
        (b"/data/null", b"", False, False),
        (b"/data/longer", b"", False, False),
    ]


@pytest.mark.parametrize("line", [b"1\t/data/a", b"1\t/data/a\t" + CHECKSUM + b"\tmore", b""])
def test_a_row_with_the_wrong_number_of_columns_is_damage(line: bytes) -> None:
    with pytest.raises(DumpUnusable, match=r"table asset has \d columns instead of 3"):
        _read("id originalPath checksum", line)


def test_checksums_in_the_old_form_are_refused_with_the_way_out() -> None:
    with pytest.raises(DumpUnusable, match="bytea_output = escape") as refused:
        _read("originalPath checksum", b"/data/a\tabc\\\\377\\\\001")
    assert "bytea_output = 'hex'" in refused.value.hint


def test_a_checksum_that_is_no_hex_is_damage() -> None:
    with pytest.raises(DumpUnusable, match="checksum that is damaged"):
        _read("originalPath checksum", b"/data/a\t\\\\x00zz")


def test_rows_of_small_tables_are_known_by_their_columns() -> None:
    table = CopyTable(b"", b"system_metadata", (b"key", b"value"))
    assert values(table, b'a\\tb\t{"c": "\\\\n"}') == {b"key": b"a\tb", b"value": b'{"c": "\\n"}'}
    assert values(table, b"a\t\\N") == {b"key": b"a"}
    with pytest.raises(DumpUnusable, match="1 columns instead of 2"):
        values(table, b"a")


def test_the_table_of_assets_is_known_by_its_columns_too() -> None:
    """Other applications have assets as well."""
    columns = (b"originalPath", b"checksum")
    assert has_assets(CopyTable(b"public", b"asset", columns))
    assert has_assets(CopyTable(b"public", b"assets", columns))
    assert not has_assets(CopyTable(b"public", b"asset", (b"id", b"checksum")))
    assert not has_assets(CopyTable(b"public", b"asset_file", columns))


@pytest.mark.parametrize(
    ("path", "below"),
    [
        (b"/srv/photos/upload/u/aa/bb/1.jpg", b"upload/u/aa/bb/1.jpg"),
        (b"/srv/photos/anything/1.jpg", b"anything/1.jpg"),
        (b"/srv/photos/1.jpg", b"1.jpg"),
        (b"/srv/photos2/upload/1.jpg", None),
        (b"/usr/src/app/upload/library/admin/1.jpg", b"library/admin/1.jpg"),
        (b"/data/upload/1.jpg", b"upload/1.jpg"),
        (b"/data/2019/1.jpg", None),
        (b"/mnt/nas/library/1.jpg", None),
        (b"/srv/photos/upload/../../etc/passwd", None),
        (b"/srv/photos/upload/.hidden/..1.jpg", b"upload/.hidden/..1.jpg"),
        (b"", None),
    ],
)
def test_paths_below_the_media_location_that_the_dump_tells(path: bytes, below: bytes | None) -> None:
    assert MediaLocations(told=b"/srv/photos/", server=b"/var/lib/immich").below(path) == below


@pytest.mark.parametrize(
    ("path", "below"),
    [
        (b"upload/upload/u/aa/bb/1.jpg", b"upload/u/aa/bb/1.jpg"),
        (b"upload/library/admin/1.jpg", b"library/admin/1.jpg"),
        (b"upload/profile/u/1.jpg", b"profile/u/1.jpg"),
        (b"/usr/src/app/upload/upload/u/1.jpg", b"upload/u/1.jpg"),
        (b"/var/lib/immich/library/admin/1.jpg", b"library/admin/1.jpg"),
        (b"/data/library/admin/1.jpg", b"library/admin/1.jpg"),
        (b"/srv/immich/library/admin/1.jpg", b"library/admin/1.jpg"),
        (b"upload/u/original/1.jpg", None),
        (b"library/admin/1.jpg", None),
    ],
)
def test_paths_of_a_dump_that_does_not_tell(path: bytes, below: bytes | None) -> None:
    assert MediaLocations(told=b"", server=b"/srv/immich").below(path) == below
