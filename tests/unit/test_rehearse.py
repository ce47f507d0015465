"""What is told of a rehearsal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from immich_usb_backup.adapters.mounts import MountPoint
from immich_usb_backup.cli import rehearse
from immich_usb_backup.policy.database_restore_rehearsal import AssetFiles, Rehearsal, not_established, told

FILES = AssetFiles(expected=3, present=3, empty=0, missing=0, missing_paths=(), trashed=0, external=0, regenerable=0)
GOOD = Rehearsal(
    dump="immich-db-backup-20261120T020000-v2.5.2-pg14.19.sql.gz",
    immich="2.5.2",
    dumped_from="14.19",
    postgres="15.18",
    rows={"public.asset": 3, "public.user": 1},
    assets=3,
    absent=(),
    left_out=(),
    passed_over=(),
    manifest_problem="",
    files=FILES,
    restore_seconds=2.4,
    seconds=5.0,
)


def _text(found: Rehearsal) -> str:
    return "\n".join(told(found))


def test_a_good_one_says_what_was_done_and_what_nobody_knows() -> None:
    text = _text(GOOD)
    assert GOOD.good
    assert "2 tables, 4 rows, 3 assets" in text
    assert "3 of 3 assets have their file in the backup." in text
    assert "Not looked for" not in text
    assert "that Immich starts on this database: that takes Immich 2.5.2 or a newer one" in text
    assert text.endswith("The rehearsal went well.")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            replace(GOOD, passed_over=(("n\x1bw.sql.gz", "cut\noff"),)),
            "newer dump n\\u001bw.sql.gz is damaged: cut\\noff",
        ),
        (replace(GOOD, manifest_problem="there is none"), "by the disk's names only: there is none"),
        (
            replace(GOOD, files=replace(FILES, missing=30, missing_paths=("upload/a\n.jpg",))),
            "    upload/a\\n.jpg\n    and 29 more",
        ),
        (replace(GOOD, files=replace(FILES, empty=1, missing_paths=("upload/a.jpg",))), "0 files missing, 1 empty"),
    ],
)
def test_each_problem_is_told_and_spoils_it(found: Rehearsal, words: str) -> None:
    assert not found.good
    assert words in _text(found)
    assert "The rehearsal found problems" in _text(found)


def test_what_was_not_looked_for_is_told() -> None:
    found = replace(GOOD, files=replace(FILES, trashed=2, external=1200))
    assert found.good
    assert "Not looked for: 2 in Immich's trash, 1,200 in external libraries." in _text(found)
    assert any("external libraries" in line for line in not_established(found))


def test_what_was_replaced_is_told() -> None:
    found = replace(GOOD, absent=("vchord",), left_out=("CREATE INDEX a", "CREATE INDEX b"))
    assert found.good
    assert any("lacks vchord" in line and "2 indexes left out" in line for line in not_established(found))


def test_a_disk_is_found_where_it_was_mounted_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Blue").symlink_to("/dev/null")
    number = Path("/dev/null").stat().st_rdev
    mounts = {number: (MountPoint(number, "/first", read_only=True), MountPoint(number, "/last", read_only=True))}
    monkeypatch.setattr(rehearse, "_LINKS", (str(tmp_path),))
    monkeypatch.setattr(rehearse, "mount_points", lambda device: mounts.get(device, ()))
    assert rehearse._place("Blue") == Path("/last")
    assert rehearse._place("/dev/null") == Path("/last")
    assert rehearse._place("Green") is None
    assert rehearse._place("/dev/zero") is None
    assert rehearse._place(str(tmp_path)) == tmp_path
