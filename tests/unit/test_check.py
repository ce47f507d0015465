"""``check DUMP``, as a user runs it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from tests.support import samples

from immich_usb_backup.__main__ import main


@pytest.fixture
def library(tmp_path: Path) -> samples.MediaLocation:
    return samples.make_media_location(
        tmp_path / "media", photos=11, dumps=samples.DumpPlan(truncated=True, external=True)
    )


def test_a_whole_dump_is_described(library: samples.MediaLocation, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(library.dumps[0])]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"ok  {library.dumps[0].name}: a whole dump of Immich's"
    assert [line.strip() for line in said[1:9]] == [
        "made by: pg_dump (one database), version 14.19",
        "PostgreSQL: 14.19",
        "Immich: 2.5.2",
        "media location: /data",
        "assets: 13",
        "in the trash: 2",
        "in external libraries, or outside the media location: 1",
        "without a SHA-1 of their content: 1",
    ]
    assert "psql" in said[9]


def test_a_dump_of_before_1_136(library: samples.MediaLocation, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(library.dumps[-1])]) == 0
    said = capsys.readouterr().out
    assert "pg_dumpall (all databases of the server)" in said
    assert "media location: not in the dump" in said
    assert "assets: 13\n" in said
    assert "outside the media location: 1\n" in said


def test_for_programs(library: samples.MediaLocation, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--json", str(library.dumps[0])]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["dump"], said["whole"], said["problem"]) == (library.dumps[0].name, True, None)
    assert (said["assets"], said["table"], said["media_location"]) == (13, "asset", "/data")


def test_a_dump_that_was_cut_off_is_a_problem(
    library: samples.MediaLocation, capsys: pytest.CaptureFixture[str]
) -> None:
    (cut,) = set((library.path / "backups").glob("*.gz")) - set(library.dumps)
    assert main(["check", str(cut)]) == 1
    said = capsys.readouterr().out
    assert said.startswith(f"!!  {cut.name}: it is damaged or was cut off")
    assert "To do: Make a new dump" in said
    assert main(["check", "--json", str(cut)]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["whole"] is False
    assert said["problem"].startswith(cut.name)


def test_the_media_location_for_a_dump_that_does_not_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = "/srv/photos/library/1.jpg\t\\\\x" + "00" * 20
    text = f'-- PostgreSQL database dump\nCOPY assets ("originalPath", checksum) FROM stdin;\n{row}\n\\.\n'
    dump = tmp_path / "dump.sql"
    dump.write_text(text + "-- PostgreSQL database dump complete\n")
    for options, outside in (([], 1), (["--media-location", "/srv/photos"], 0)):
        assert main(["check", *options, str(dump)]) == 0
        assert f"outside the media location: {outside}\n" in capsys.readouterr().out


def test_what_is_no_dump_or_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.gz"
    other.write_bytes(gzip.compress(b"something else"))
    assert main(["check", str(other)]) == 1
    assert main(["check", str(tmp_path)]) == 1
    assert "it is a folder" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "none")]) == 69
    assert "No such file" in capsys.readouterr().err
