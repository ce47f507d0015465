"""The state file on a disk: read with suspicion."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immich_usb_backup.errors import ManifestUnusable
from immich_usb_backup.policy.disk_state import DiskState, decode, encode

SINCE = datetime(2026, 11, 21, 2, 42, tzinfo=UTC)
STATE = DiskState(
    server_id="ab12", server_name="box \u202e\ud83d", generation="g", run_id="r", since=SINCE, writing=True
)
FIELDS: dict[str, Any] = json.loads(encode(STATE))


def _with(**fields: Any) -> bytes:
    return json.dumps(FIELDS | fields).encode()


@pytest.mark.parametrize("writing", [True, False])
def test_what_was_written_comes_back(writing: bool) -> None:
    state = DiskState(server_id="a", server_name="Zuhause", generation="", run_id="r", since=SINCE, writing=writing)
    assert decode(encode(state)) == state
    assert encode(state).isascii()


def test_hostile_text_comes_back_as_it_was() -> None:
    assert decode(encode(STATE)) == STATE


def test_times_are_utc() -> None:
    state = decode(_with(since="2026-11-21T03:42:00+01:00"))
    assert state is not None
    assert (state.since, state.since.tzinfo) == (SINCE, UTC)
    local = DiskState(
        server_id="",
        server_name="",
        generation="",
        run_id="",
        since=SINCE.astimezone(timezone(timedelta(hours=2))),
        writing=False,
    )
    assert b'"2026-11-21T02:42:00+00:00"' in encode(local)


@pytest.mark.parametrize("version", [2, 99, 1.5, float("inf")])
def test_a_newer_version_is_refused_and_not_guessed_at(version: float) -> None:
    with pytest.raises(ManifestUnusable) as refused:
        decode(json.dumps({"format": FIELDS["format"], "version": version}).encode())
    assert refused.value.newer


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\0" * 512, b"null", b"[]", b"{}", b'"x"', b"1", b"\xff\xfe", b"[" * 100_000, encode(STATE)[:-20]),
        *(_with(format="other"), _with(version="2"), _with(version=[9]), _with(version=None)),
        *(_with(writing=1), _with(writing="false"), _with(server=None), _with(generation=5), _with(run="x" * 5000)),
        *(
            _with(since="yesterday"),
            _with(since="2026-11-21T02:42:00"),
            _with(since=5),
            _with(since="0001-01-01T00:00:00+14:00"),
        ),
        b'{"format": "immich-usb-backup state", "version": ' + b"9" * 5000 + b"}",
    ],
)
def test_anything_else_is_damaged(content: bytes) -> None:
    assert decode(content) is None


@given(st.binary(max_size=60), st.integers(0, len(encode(STATE))))
def test_no_content_is_a_bug(junk: bytes, at: int) -> None:
    content = encode(STATE)
    for hostile in (junk, content[:at] + junk, content[:at] + junk + content[at:]):
        with contextlib.suppress(ManifestUnusable):
            decode(hostile)
