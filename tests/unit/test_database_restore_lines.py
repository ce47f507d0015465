"""What each line of a dump is, whatever people write into their captions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.immich_schema import HOSTILE

from immich_usb_backup.errors import DumpUnusable
from immich_usb_backup.policy.database_restore_lines import Kind, classified


def _lines(text: str) -> list[bytes]:
    return text.encode().splitlines(keepends=True)


def _kinds(text: str) -> str:
    return " ".join(kind.name for kind, _ in classified(_lines(text)))


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("SELECT 1;\n", "STATEMENT"),
        ("SELECT '1;\n';\n", "TEXT TEXT"),
        ("SELECT 'a''b;';\n", "STATEMENT"),
        ("SELECT 'it\\';\nSELECT 1;\n", "STATEMENT STATEMENT"),
        ("SELECT E'it\\';\n\\n';\n", "TEXT TEXT"),
        ("SELECT E'it''\\';\n';\n", "TEXT TEXT"),
        ("SELECT name'x;';\nSELECT 1;\n", "STATEMENT STATEMENT"),
        ('CREATE TABLE "a;b\n" (x int);\n', "TEXT TEXT"),
        ("-- COPY a (b) FROM stdin;\n", "TEXT"),
        ("SELECT 1 -- ;\n;\n", "TEXT TEXT"),
        ("/* a /* b */ ;\nCOPY a (b) FROM stdin;\n*/\nSELECT 1;\n", "TEXT TEXT TEXT STATEMENT"),
        ("DO $$\nCOPY a (b) FROM stdin;\n\\! rm\n$$;\n", "TEXT TEXT TEXT TEXT"),
        ("DO $x$ $$ ;\n$x$;\n", "TEXT TEXT"),
        ("SELECT a$$b FROM c;\nSELECT 1;\n", "STATEMENT STATEMENT"),
        ("SELECT\nCOPY a (b) FROM stdin;\nSELECT 1;\n", "TEXT TEXT STATEMENT"),
        ("COPY a (b) FROM stdin;\n'\n\\.\nSELECT 1;\n", "COPY ROW END STATEMENT"),
        ("COPY a (b) FROM stdin;\n\\\\.\n\\N\n\\\\\\\\x\n\\.\n", "COPY ROW ROW ROW END"),
        ("\\restrict a1\n\\connect immich\n\\unrestrict a1\n", "COMMAND COMMAND COMMAND"),
    ],
)
def test_what_a_line_is_is_known_from_what_comes_before(text: str, kinds: str) -> None:
    assert _kinds(text) == kinds


@pytest.mark.parametrize(
    "text",
    [
        "\\! rm -rf /\n",
        "SELECT 1 \\g |rm\n",
        "SELECT 1; \\! rm\n",
        "\\connect `rm`\n",
        "\\copy a from program 'rm'\n",
        "\\restrict a \\! rm\n",
        "SELECT '\\'; \\! rm\n",
        "/* ' */ \\! rm\n",
        "SELECT $a$ $a$ \\! rm\n",
        "COPY nowhere (a) FROM stdin;\n\\! rm\n\\.\n",
    ],
)
def test_a_command_that_runs_programs_is_refused(text: str) -> None:
    with pytest.raises(DumpUnusable):
        list(classified(_lines(text)))


@pytest.mark.parametrize("text", ["SELECT 1\n", "SELECT '\n", "COPY a (b) FROM stdin;\nx\n", "DO $$\n", "/*\n"])
def test_a_dump_that_ends_in_the_middle_is_refused(text: str) -> None:
    with pytest.raises(DumpUnusable, match="cut off"):
        list(classified(_lines(text)))


def _as_pg_dump_writes(text: str) -> str:
    pairs = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\b": "\\b", "\f": "\\f", "\v": "\\v"}
    return "".join(pairs.get(character, character) for character in text)


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from([text for text in HOSTILE if text]))
)
def test_whatever_a_caption_says_it_stays_a_row(captions: list[str]) -> None:
    rows = [f"{_as_pg_dump_writes(caption)}\n".encode() for caption in captions]
    found = list(classified([b"COPY a (b) FROM stdin;\n", *rows, b"\\.\n", b"SELECT 1;\n"]))
    assert [kind for kind, _ in found] == [Kind.COPY, *[Kind.ROW] * len(rows), Kind.END, Kind.STATEMENT]
