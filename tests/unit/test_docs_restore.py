"""docs/how-to/restore.md, carried out but for the database, for which see tests/integration/test_docs_sql.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support import samples
from tests.support.spare_machine import SpareMachine


@pytest.fixture
def media(tmp_path: Path) -> samples.MediaLocation:
    return samples.make_media_location(tmp_path / "server", photos=4, hostile_names=True)


@pytest.fixture
def machine(tmp_path: Path, media: samples.MediaLocation) -> SpareMachine:
    return SpareMachine(tmp_path, media)


def _content(root: Path) -> dict[Path, bytes]:
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_configuration_comes_into_a_folder_in_the_home(machine: SpareMachine) -> None:
    machine.types("--only config")
    (unpacked,) = machine.home.glob("config-*")
    assert {path.name for path in unpacked.rglob("*") if path.is_file()} >= {"docker-compose.yml", ".env", "readme.txt"}
    assert unpacked.stat().st_mode & 0o777 == 0o700


def test_looking_first_writes_nothing(machine: SpareMachine) -> None:
    assert "To restore: " in machine.types("mount -o ro", "--dry-run")
    assert not machine.new.exists()


def test_files_and_extra_folders_come_back(machine: SpareMachine, media: samples.MediaLocation) -> None:
    machine.types("--extra pictures")
    for name in ("upload", "library", "profile"):
        assert _content(machine.new / name) == _content(media.path / name)
    assert _content(machine.pictures) == _content(machine.extras["pictures"])
    assert _content(machine.films) == _content(machine.extras["films"])
