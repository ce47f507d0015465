"""docs/how-to/restore-by-hand.md, carried out: its shell lines on a backup folder, with its example paths in another place."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.support import samples
from tests.support.backup_folder import make_backup
from tests.support.needs import cannot_run
from tests.support.programs import put_program

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = (CHECKOUT / "docs/how-to/restore-by-hand.md").read_text()
MANIFEST_PAGE = (CHECKOUT / "docs/reference/manifest.md").read_text()
ORIGINALS = ("upload", "library", "profile")


class Computer:
    """A stranger's computer with the disk in it. ``sudo`` needs no password here, and ``less`` shows all at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.media = samples.make_media_location(folder / "server", photos=6, hostile_names=True)
        self.pictures = folder / "server-pictures"
        (self.pictures / "2019").mkdir(parents=True)
        (self.pictures / "2019/one.jpg").write_bytes(b"one")
        compose = samples.make_config_files(folder / "compose")
        self.disk = make_backup(folder / "disk", self.media.path, extras={"pictures": self.pictures}, config=compose)
        self.new = folder / "new"
        self.new.mkdir()
        (folder / "new-pictures").mkdir()
        for name, body in {"sudo": 'exec "$@"', "less": "exec cat"}.items():
            self._path = put_program(folder / "bin", name, body)

    def types(self, page: str, containing: str, changed: Mapping[str, str] | None = None) -> str:
        """The block of the page with ``containing`` in it; what it prints."""
        blocks = re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
        (text,) = (block for block in blocks if containing in block)
        places = {
            "/media/me/Blue": str(self._folder / "disk"),
            "/opt/immich-app/library": str(self.new),
            "/mnt/Pictures": str(self._folder / "new-pictures"),
            "/tmp/manifest.txt": str(self._folder / "manifest.txt"),
        }
        for before, after in {**places, **(changed or {})}.items():
            text = text.replace(before, after)
        environment = {**os.environ, "PATH": self._path}
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", text],
            cwd=self.disk,
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), text
        return done.stdout


@pytest.fixture
def computer(tmp_path: Path) -> Computer:
    if shutil.which("rsync") is None:
        cannot_run("rsync is not installed")
    return Computer(tmp_path)


def _files(root: Path) -> dict[str, bytes]:
    found = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    return {
        os.fsencode(path.relative_to(root)).decode("utf-8", "backslashreplace"): path.read_bytes() for path in found
    }


def test_files_names_and_folders_come_back_as_they_were(computer: Computer, tmp_path: Path) -> None:
    computer.types(PAGE, "rsync -rt")
    computer.types(PAGE, "<<'END'")
    for name in ORIGINALS:
        assert _files(computer.new / name) == _files(computer.media.path / name)
    assert _files(tmp_path / "new-pictures") == _files(computer.pictures)
    for name in ("thumbs", "encoded-video", "backups"):
        assert (computer.new / name / ".immich").is_file()


def test_a_dump_shows_that_it_is_whole(computer: Computer) -> None:
    name = max(path.name for path in (computer.disk / "database").iterdir())
    said = computer.types(PAGE, "echo whole", {"NAME.sql.gz": name})
    assert "\nwhole\n" in said
    assert "-- PostgreSQL database dump\n" in said
    assert "-- PostgreSQL database dump complete\n" in said


def test_one_name_is_found_with_its_folder(computer: Computer) -> None:
    odd = next(path for path in computer.disk.rglob("*~*") if path.is_file())
    said = computer.types(PAGE, "index($0,", {"12_30~lan6fd5f.jpg": odd.name})
    folder, line = said.splitlines()
    assert folder.startswith('{"folder"')
    assert f'"{odd.name}"' in line


def test_what_has_another_name_is_listed(computer: Computer) -> None:
    said = computer.types(PAGE, "grep -vE")
    assert said == computer.types(MANIFEST_PAGE, "grep -vE")
    odd = [path for path in computer.disk.rglob("*~*") if path.is_file()]
    assert odd
    assert all(f'"{path.name}"' in said for path in odd)
    plain = [path for path in (computer.disk / "upload").rglob("*.jpg") if "~" not in str(path)]
    assert plain
    assert not any(f'"{path.name}"' in said for path in plain)
    assert computer.types(MANIFEST_PAGE, "tail -n 1").startswith('{"end":true')


def test_a_photo_is_found_by_the_name_that_it_was_uploaded_under(computer: Computer) -> None:
    photo = next(photo for photo in computer.media.photos if " " not in photo.path)
    said = computer.types(PAGE, "IMG_0001.jpg", {"IMG_0001.jpg": Path(photo.path).name})
    assert photo.path in said.splitlines()


def test_what_is_in_a_configuration_is_listed(computer: Computer) -> None:
    if shutil.which("unzip") is None:
        cannot_run("unzip is not installed")
    (name,) = (path.name for path in (computer.disk / "config").iterdir())
    said = computer.types(PAGE, "unzip -l", {"config-NAME.zip": name})
    assert all(f"/{file}\n" in said for file in ("docker-compose.yml", ".env"))
