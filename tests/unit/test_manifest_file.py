"""The manifest's form on the disk: what was written is read back, and nothing that is not whole and in order is believed."""

from __future__ import annotations

import gzip
import io
import json
import re
import tracemalloc
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha1
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immich_usb_backup.adapters import manifest_file
from immich_usb_backup.adapters.manifest_file import COLUMNS, LINE_LIMIT, Content, FolderLine
from immich_usb_backup.errors import ManifestUnusable
from immich_usb_backup.policy.manifest import Known, ManifestHeader
from immich_usb_backup.policy.naming import stored_names

DOCUMENT = Path(__file__).parents[2] / "docs/reference/manifest.md"
HEADER = ManifestHeader(
    generation="6f1c9c1be0f35d02",
    server_id="3b0d7a5e9f2c4c1d8e6a7b9c0d1e2f3a",
    server_name="nas",
    run_id="20261121T130200Z-2468",
    written=datetime(2026, 11, 21, 13, 5, 9, tzinfo=UTC),
)


def _stored(name: bytes) -> bytes:
    """The name that a backup gives it on the disk."""
    return stored_names([name], {})[name]


IMMICH = Known(b".immich", b".immich", 13, 1_714_000_000 * 10**9, 0, sha1(b"c").digest())
EXAMPLE = [
    Content(b"library", b"library", []),
    Content(b"library/anna", b"library/anna", []),
    Content(
        b"library/anna/Paris: Mai",
        b"library/anna/" + _stored(b"Paris: Mai"),
        [
            Known(
                b"12:30.jpg", _stored(b"12:30.jpg"), 2481733, 1715337000120000000, 0, sha1(b"a").digest(), 1764000000
            ),
            Known(b"best", b"", 0, 0, link=b"../../best-of"),
            Known(
                "café.jpg".encode(),
                "café.jpg".encode(),
                1903114,
                1715337061 * 10**9,
                0,
                sha1(b"b").digest(),
                1764000000,
            ),
            Known(b"\xe9t\xe9.jpg", _stored(b"\xe9t\xe9.jpg"), 880122, 1715337100 * 10**9),
        ],
    ),
    Content(b"upload", b"upload", [IMMICH]),
]
FIRST = {
    "format": manifest_file.FORMAT,
    "version": 1,
    "generation": "g",
    "server_id": "i",
    "server": "s",
    "run": "r",
} | {
    "written": "2026-11-21T13:05:09+00:00",
    "columns": list(COLUMNS),
}
FILE: list[Any] = ["a.jpg", 1, 2, "0f" * 20, 5]


def _written(contents: Iterable[Content], header: ManifestHeader = HEADER, files: int = 0) -> bytes:
    sink = io.BytesIO()
    manifest_file.write(header, files, contents, sink)
    return sink.getvalue()


def _read(content: bytes) -> tuple[ManifestHeader, list[FolderLine | Known]]:
    header, entries = manifest_file.read(io.BytesIO(content))
    return header, list(entries)


def _example() -> bytes:
    return _written(EXAMPLE, files=5)


def _flat(contents: Iterable[Content]) -> Iterator[FolderLine | Known]:
    for content in contents:
        yield FolderLine(content.path, content.stored_path, content.path.count(b"/"))
        yield from content.files


def _lines(*lines: Any, first: Any = FIRST, end: Any = None) -> bytes:
    """A packed manifest of these lines; bytes are taken as they are."""
    files, folders = (sum(type(line) is kind for line in lines) for kind in (list, dict))
    end = {"end": True, "files": files, "folders": folders} if end is None else end
    raw = (line if isinstance(line, bytes) else json.dumps(line).encode() for line in (first, *lines, end))
    return gzip.compress(b"\n".join(raw) + b"\n")


def test_what_the_document_shows_is_what_is_written() -> None:
    shown = re.search(r"```json\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert shown is not None
    assert gzip.decompress(_example()).decode() == shown[1]


def test_it_is_read_back_as_it_was_written() -> None:
    header, entries = _read(_example())
    assert header == HEADER
    assert entries == list(_flat(EXAMPLE))


def test_an_empty_backup_has_a_manifest_too() -> None:
    assert _read(_written([])) == (HEADER, [])


def test_a_server_whose_name_is_not_text_does_not_spoil_it() -> None:
    header = ManifestHeader(
        generation="g",
        server_id="i",
        server_name="n\udcffs",
        run_id="r",
        written=datetime(2026, 11, 21, 15, 5, tzinfo=timezone(timedelta(hours=2))),
    )
    read, _ = _read(_written([], header))
    assert read.server_name == r"n\udcffs"
    assert read.written == header.written


names = st.binary(min_size=1, max_size=12).filter(
    lambda name: not set(b"/\0") & set(name) and name not in (b".", b"..")
)
known = st.builds(
    Known,
    names,
    names,
    st.integers(0, 2**63 - 1),
    st.integers(-(2**70), 2**70),
    st.just(0),
    st.sampled_from([b"", b"\0" * 20, b"\xff" * 20]),
    st.integers(0, 2**33),
    st.none() | names,
    st.booleans(),
)
files = st.dictionaries(names, known, min_size=1, max_size=4).map(
    lambda found: [found[name]._replace(name=name) for name in sorted(found)]
)


@given(st.dictionaries(names, st.tuples(names, files), max_size=4))
def test_any_names_and_values_come_back(folders: dict[bytes, tuple[bytes, list[Known]]]) -> None:
    contents = [Content(b"upload", b"upload", [IMMICH])]
    contents += [
        Content(b"upload/" + name, b"upload/" + stored, there) for name, (stored, there) in sorted(folders.items())
    ]
    count = sum(len(list(content.files)) for content in contents)
    assert _read(_written(contents, files=count))[1] == list(_flat(contents))


@pytest.mark.parametrize("name", [b"\x01" * 4089, b"\xff" * 4089, b"\n" * 4089])
def test_the_longest_path_fits_into_a_line(name: bytes) -> None:
    link = Known(b"a", b"a", 0, 0, link=b"\xff" * 4095)
    contents = [Content(b"upload", b"upload", []), Content(b"upload/" + name, b"upload/_", [link])]
    assert _read(_written(contents, files=1))[1] == list(_flat(contents))


def test_the_same_content_gives_the_same_bytes() -> None:
    assert _example() == _example()


def test_cut_off_anywhere_it_is_not_believed() -> None:
    whole = _example()
    for length in range(len(whole)):
        with pytest.raises(ManifestUnusable) as caught:
            _read(whole[:length])
        assert not caught.value.newer


def test_text_that_is_cut_off_after_any_line_is_not_believed() -> None:
    lines = gzip.decompress(_example()).splitlines(keepends=True)
    for count in range(len(lines)):
        with pytest.raises(ManifestUnusable):
            _read(gzip.compress(b"".join(lines[:count])))


def test_any_bit_that_is_turned_is_noticed_or_means_nothing() -> None:
    whole = _example()
    right = _read(whole)
    for position in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            with suppress(ManifestUnusable):
                assert _read(bytes(damaged)) == right, (position, bit)


@pytest.mark.parametrize("more", [b"x", b"\0", gzip.compress(b"{}\n"), b"\0" * 70_000])
def test_nothing_may_follow(more: bytes) -> None:
    with pytest.raises(ManifestUnusable):
        _read(_example() + more)


def test_a_newer_version_is_told_apart_from_damage() -> None:
    newer = _lines(b"what we do not know" * 10_000, first={"format": manifest_file.FORMAT, "version": 2})
    with pytest.raises(ManifestUnusable) as caught:
        _read(newer)
    assert caught.value.newer
    with pytest.raises(ManifestUnusable) as caught:
        _read(newer[:-9])
    assert not caught.value.newer


def test_an_error_of_the_disk_is_not_taken_for_a_damaged_manifest() -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        manifest_file.read(Failing())


UPLOAD = {"folder": "upload"}


def test_the_hostile_ones_below_differ_from_a_good_one_in_one_thing() -> None:
    _, entries = _read(
        _lines(UPLOAD, FILE, {"folder": "upload/b", "stored": "upload/_b"}, ["b", 0, -1, None, None, None])
    )
    assert [type(entry).__name__ for entry in entries] == ["FolderLine", "Known", "FolderLine", "Known"]


@pytest.mark.parametrize(
    "first",
    [
        [],
        {},
        FIRST | {"format": "something else"},
        FIRST | {"version": True},
        FIRST | {"version": 0},
        FIRST | {"version": 1.0},
        FIRST | {"version": "2"},
        FIRST | {"columns": [*COLUMNS, "more"]},
        FIRST | {"columns": None},
        FIRST | {"server": None},
        FIRST | {"server": "\udcff"},
        FIRST | {"server_id": 5},
        FIRST | {"written": "yesterday"},
        FIRST | {"written": "2026-11-21T13:05:09"},
        FIRST | {"written": "0001-01-01T00:00:00+23:00"},
        b"",
        b"null",
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b"\xff\xfe",
        json.dumps(FIRST).encode() + b" {}",
    ],
)
def test_a_first_line_that_is_not_ours_is_refused(first: Any) -> None:
    with pytest.raises(ManifestUnusable) as caught:
        _read(_lines(UPLOAD, FILE, first=first))
    assert not caught.value.newer


@pytest.mark.parametrize(
    "column",
    [
        *((0, name) for name in ("", ".", "..", "a/b", "/", "a\0", "\ud800", "\udc41", 5, None, ["a"], True)),
        *(
            (1, size)
            for size in (-1, 2**63, 1.0, True, None, "1", b"NaN", b"Infinity", b"-Infinity", b"1e3", b"9" * 5000)
        ),
        *((2, time) for time in (10**29, -(10**29), 1.5, False, None, "1")),
        *((3, sha1) for sha1 in ("", "0" * 39, "0" * 41, "x" * 40, "00  " * 10, " " * 40, 0, "é" * 40)),
        *((4, proven) for proven in (-1, 0, 2**40, 1.5, True, "2026-11-21")),
        *((5, stored) for stored in ("", "..", "a/b", "a\0", 5)),
        *((6, link) for link in ("", "a\0b", 5, "\ud800")),
        *((7, guessed) for guessed in (False, 1, "true")),
        (8, None),
    ],
    ids=repr,
)
def test_a_file_with_a_column_that_cannot_be_is_refused(column: tuple[int, Any]) -> None:
    place, value = column
    line = [*FILE, *[None] * (place + 1 - len(FILE))]
    line[place] = "HERE" if isinstance(value, bytes) else value
    raw = json.dumps(line).encode()
    if isinstance(value, bytes):
        raw = raw.replace(b'"HERE"', value)
    with pytest.raises(ManifestUnusable):
        _read(_lines(UPLOAD, raw, end={"end": True, "files": 1, "folders": 1}))


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([FILE], id="a file before any folder"),
        pytest.param([UPLOAD, FILE, FILE], id="a file twice"),
        pytest.param([UPLOAD, ["b", 0, 0], ["a", 0, 0]], id="files out of order"),
        pytest.param([UPLOAD, ["a", 0]], id="too few columns"),
        pytest.param([UPLOAD], id="an empty folder"),
        pytest.param([UPLOAD, FILE, UPLOAD, FILE], id="a folder twice"),
        pytest.param([UPLOAD, FILE, {"folder": "library"}, FILE], id="folders out of order"),
        pytest.param([UPLOAD, FILE, {"folder": "x/y"}, FILE], id="an unknown parent"),
        pytest.param(
            [{"folder": "a"}, {"folder": "a/b"}, FILE, {"folder": "c"}, FILE, {"folder": "a/d"}, FILE], id="too late"
        ),
        pytest.param([{"folder": ""}, FILE], id="no name"),
        pytest.param([{"folder": "/upload"}, FILE], id="an absolute path"),
        pytest.param([{"folder": ".."}, FILE], id="the way out"),
        pytest.param([UPLOAD, {"folder": "upload/.."}, FILE], id="the way out, deeper"),
        pytest.param([UPLOAD, {"folder": "upload/"}, FILE], id="a slash at the end"),
        pytest.param([UPLOAD, {"folder": "upload//a"}, FILE], id="two slashes"),
        pytest.param([UPLOAD, {"folder": "upload/a\0"}, FILE], id="NUL"),
        pytest.param([{"folder": 5}, FILE], id="a number for a folder"),
        pytest.param([{"folder": "upload", "stored": "deleted"}, FILE], id="a root elsewhere"),
        pytest.param([UPLOAD, {"folder": "upload/a", "stored": "library/a"}, FILE], id="stored in another folder"),
        pytest.param([UPLOAD, {"folder": "upload/a", "stored": "upload/.."}, FILE], id="stored outside"),
        pytest.param([UPLOAD, {"folder": "upload/a", "stored": "upload/b/c"}, FILE], id="stored deeper"),
        pytest.param([UPLOAD, {"folder": "upload/a", "stored": None}, FILE], id="stored nowhere"),
        pytest.param([UPLOAD, {"folder": "upload/" + "a" * 4096}, FILE], id="a long path"),
        pytest.param([UPLOAD, FILE, b'"text"'], id="a line that is a text"),
        pytest.param([UPLOAD, FILE, b""], id="an empty line"),
        pytest.param([UPLOAD, FILE, {"what": 1}], id="an object that is nothing"),
        pytest.param([UPLOAD, FILE, {"end": True, "files": 1, "folders": 1}], id="an end before the end"),
        pytest.param([UPLOAD, FILE, b"[" * 60_000], id="deep"),
        pytest.param([UPLOAD, ["a" * LINE_LIMIT, 0, 0]], id="a long line"),
    ],
)
def test_lines_that_do_not_fit_together_are_refused(lines: list[Any]) -> None:
    with pytest.raises(ManifestUnusable):
        _read(_lines(*lines))


@pytest.mark.parametrize(
    "end",
    [
        {"end": True, "files": 2, "folders": 1},
        {"end": True, "files": 1, "folders": 2},
        {"end": False, "files": 1, "folders": 1},
        {"end": True},
        b'{"end":true,"files":1,"folders":1}\n{}',
        b'{"end":true,"files":1,"folders":1}\n',
    ],
)
def test_an_end_that_does_not_fit_is_refused(end: Any) -> None:
    with pytest.raises(ManifestUnusable):
        _read(_lines(UPLOAD, FILE, end=end))


def test_text_without_an_end_of_line_is_refused() -> None:
    text = gzip.decompress(_example())
    for wrong in (text.rstrip(b"\n"), text + b"x"):
        with pytest.raises(ManifestUnusable):
            _read(gzip.compress(wrong))


@pytest.mark.parametrize("filler", [b"a" * 2**20, b"\n" * 2**20], ids=["one line", "empty lines"])
def test_a_bomb_is_not_unpacked_into_memory(filler: bytes) -> None:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as bomb:
        for _ in range(64):
            bomb.write(filler)
    tracemalloc.start()
    try:
        with pytest.raises(ManifestUnusable):
            _read(packed.getvalue())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12 * 2**20


def test_a_manifest_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_file, "TEXT_LIMIT", 10_000)
    many = [Content(b"upload", b"upload", [Known(b"%04d" % n, b"%04d" % n, 0, 0) for n in range(2000)])]
    with pytest.raises(ManifestUnusable):
        _read(_written(many, files=2000))


def test_it_is_written_in_small_pieces() -> None:
    sizes: list[int] = []

    class Counting(io.BytesIO):
        def write(self, data: Any, /) -> int:
            sizes.append(len(data))
            return len(data)

    lots = (Known(b"%06d" % n, b"%06d" % n, n, n * 7919, 0, sha1(b"%d" % n).digest()) for n in range(50_000))
    manifest_file.write(HEADER, 50_000, [Content(b"upload", b"upload", lots)], Counting())
    assert sum(sizes) > 2**20
    assert max(sizes) < 2**17
