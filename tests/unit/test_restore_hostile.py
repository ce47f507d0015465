"""A disk that wants something: links, names that lead elsewhere, zips. Nothing outside the named folder is touched."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from pathlib import Path

import pytest
from tests.support import samples
from tests.support.backup_folder import make_backup, write_manifest

from immich_usb_backup.__main__ import main
from immich_usb_backup.adapters.manifest_file import Content
from immich_usb_backup.model import BACKUP_FOLDER
from immich_usb_backup.policy.manifest import Known
from immich_usb_backup.policy.restore import STAGING, leads_out, looks_renamed, member_path, modes


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A small backup without a dump; beside it a folder that is none of its business."""
    samples.make_media_location(tmp_path / "media", photos=2)
    make_backup(tmp_path / "disk", tmp_path / "media")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/precious").write_text("precious")
    return tmp_path / "disk"


@pytest.fixture
def backup(disk: Path) -> Path:
    return disk / BACKUP_FOLDER


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "restored"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    return tmp_path / "outside"


def restore(disk: Path, to: Path, *more: str) -> int:
    return main(["restore", "--from", str(disk), "--to", str(to), *more])


def untouched(outside: Path) -> bool:
    return {path.name: path.read_text() for path in outside.iterdir()} == {"precious": "precious"}


def test_a_link_of_the_manifest_is_not_written_through(
    disk: Path, backup: Path, to: Path, outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (backup / "library/way").mkdir()
    (backup / "library/way/precious").write_text("other")
    link = Known(b"way", b"", 0, 0, link=os.fsencode(outside))
    inside = Known(b"precious", b"precious", 5, 0)
    write_manifest(backup, [Content(b"library", b"library", [link]), Content(b"library/way", b"library/way", [inside])])
    assert restore(disk, to) == 1
    assert untouched(outside)
    assert (to / "library/way").is_symlink()
    said = capsys.readouterr().out
    assert "library/way/precious: a link or a file is in the way" in said
    assert "links that lead out" in said


@pytest.mark.parametrize("path", ["library", "upload", f"upload/{STAGING}", "thumbs"])
def test_a_link_that_is_there_is_not_followed(disk: Path, to: Path, outside: Path, path: str) -> None:
    (to / path).parent.mkdir(parents=True)
    (to / path).symlink_to(outside)
    code = restore(disk, to)
    assert untouched(outside)
    assert code == (0 if STAGING in path else 1)


def test_links_on_the_disk_are_named_and_not_read(
    disk: Path, backup: Path, to: Path, outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = next((backup / "upload").rglob("*.jpg"))
    photo.unlink()
    photo.symlink_to(outside / "precious")
    (backup / "upload/folder").symlink_to(outside)
    dump = next((backup / "database").iterdir())
    dump.unlink()
    dump.symlink_to(outside / "precious")
    assert restore(disk, to, "--dump", dump.name) == 69
    assert restore(disk, to) == 1
    assert [path for path in to.rglob("*") if path.is_file() and path.read_bytes() == b"precious"] == []
    said = capsys.readouterr().out
    assert "upload/folder: it is a link" in said


@pytest.mark.parametrize("name", ["upload", BACKUP_FOLDER])
def test_a_folder_of_the_backup_that_is_a_link_is_none(disk: Path, to: Path, outside: Path, name: str) -> None:
    place = disk if name == BACKUP_FOLDER else disk / BACKUP_FOLDER
    (place / name).rename(disk / "elsewhere")
    (place / name).symlink_to(outside)
    restore(disk, to)
    assert not any(path.name == "precious" for path in to.rglob("*"))


def test_names_are_shown_without_control_characters(
    disk: Path, backup: Path, to: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b[2Jgone\nok 41,203 photos\u202e.jpg"
    write_manifest(backup, [Content(b"library", b"library", [Known(evil.encode(), evil.encode(), 5, 0)])])
    assert restore(disk, to) == 1
    said = capsys.readouterr().out
    assert "\\u001b[2Jgone\\nok 41,203 photos\\u202e.jpg" in said
    assert all(line.isprintable() for line in said.splitlines())


def test_times_and_sizes_that_no_machine_knows_do_no_harm(disk: Path, backup: Path, to: Path) -> None:
    (backup / "library/a.jpg").write_text("12345")
    lines = [Known(b"a.jpg", b"a.jpg", 5, 10**27), Known(b"b.jpg", b"b.jpg", 2**62, -(10**27))]
    write_manifest(backup, [Content(b"library", b"library", lines)])
    assert restore(disk, to) == 1
    assert (to / "library/a.jpg").read_text() == "12345"


# The configuration's zip ----------------------------------------------------------------------------------


def put_zip(backup: Path, *members: tuple[str | zipfile.ZipInfo, str], name: str = "config-2026-11-21.zip") -> Path:
    (backup / "config").mkdir(exist_ok=True)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, text in members:
            archive.writestr(member, text)
    (backup / "config" / name).write_bytes(packed.getvalue())
    return backup / "config" / name


def link_in_zip(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def test_the_configuration_is_unpacked_into_a_folder_of_its_own(
    disk: Path, backup: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_zip(backup, ("opt/immich/.env", "PASSWORD=1"), ("readme.txt", "read me"))
    (tmp_path / "new").mkdir()
    assert restore(disk, tmp_path / "new", "--only", "config") == 0
    folder = tmp_path / "new/config-2026-11-21"
    assert (folder / "opt/immich/.env").read_text() == "PASSWORD=1"
    assert (folder.stat().st_mode & 0o777, (folder / "opt/immich/.env").stat().st_mode & 0o777) == (0o700, 0o600)
    assert "Unpacked config-2026-11-21.zip" in capsys.readouterr().out
    assert restore(disk, tmp_path / "new", "--only", "config") == 69
    assert "is there already" in capsys.readouterr().err


def test_a_zip_cannot_leave_its_folder(
    disk: Path, backup: Path, tmp_path: Path, outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _put_evil_zip(backup, outside)
    (tmp_path / "new").mkdir()
    assert restore(disk, tmp_path / "new", "--only", "config") == 1
    assert untouched(outside)
    folder = tmp_path / "new/config-2026-11-21"
    found = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert found == {"way/new": "4", "fine": "5"}
    said = capsys.readouterr().out
    assert said.count("Left out") == 5
    assert "its path leads out of the folder" in said
    assert "it is a link" in said


def _put_evil_zip(backup: Path, outside: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        put_zip(
            backup,
            ("../../outside/new", "1"),
            (f"{outside}/absolute", "2"),
            ("a/../../../outside/new", "3"),
            (link_in_zip("way"), str(outside)),
            ("way/new", "4"),
            ("fine", "5"),
            ("fine", "6"),
        )


def test_a_damaged_zip_writes_nothing_and_the_one_before_it_is_taken(
    disk: Path, backup: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_zip(backup, ("a", "older"), name="config-2026-11-20.zip")
    newest = put_zip(backup, ("a", "newer" * 100))
    content = bytearray(newest.read_bytes())
    content[40] ^= 0xFF
    newest.write_bytes(content)
    (tmp_path / "new").mkdir()
    assert restore(disk, tmp_path / "new", "--only", "config") == 1
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"config-2026-11-20"}
    assert "Damaged, passed over: config-2026-11-21.zip" in capsys.readouterr().out


def test_a_zip_that_would_fill_the_disk_is_not_unpacked(
    disk: Path, backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("immich_usb_backup.restore.config_files._ZIP_BYTES", 1000)
    put_zip(backup, ("bomb", "0" * 100_000))
    (tmp_path / "new").mkdir()
    assert restore(disk, tmp_path / "new", "--only", "config") == 69
    assert list((tmp_path / "new").iterdir()) == []


# Values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "link", "out"),
    [
        (b"library/a/link", b"b.jpg", False),
        (b"library/a/link", b"../../upload/x", False),
        (b"library/a/link", b"../../..", True),
        (b"library/a/link", b"../../../etc/passwd", True),
        (b"library/a/link", b"x/../../../../restored/library", True),
        (b"link", b"/etc/passwd", True),
        (b"link", b"./././.", False),
    ],
)
def test_which_links_lead_out(path: bytes, link: bytes, out: bool) -> None:
    assert leads_out(path, link) is out


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        (b"12_30~lan6fd5f.jpg", True),
        (b"trailing_~itasutsd", True),
        (b"12_30~lan6fd5f-2.jpg", True),
        (b"IMG_0001.jpg", False),
        (b"a~b.jpg", False),
        (b"12_30~LAN6FD5F.jpg", False),
    ],
)
def test_which_names_a_backup_may_have_made(name: bytes, changed: bool) -> None:
    assert looks_renamed(name) is changed


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x", "a//b", "a/./b", "", "/", "a\0b", "x" * 256, "a/" * 3000 + "b"]
)
def test_names_in_a_zip_that_are_refused(name: str) -> None:
    assert member_path(name) is None


def test_permissions_of_folders_follow_those_of_files() -> None:
    assert [tuple(modes(text)) for text in ("600", "640", "0664")] == [(0o600, 0o700), (0o640, 0o750), (0o664, 0o775)]
    for wrong in ("rw", "444", "0", "100644"):
        with pytest.raises(ValueError):  # noqa: PT011
            modes(wrong)
