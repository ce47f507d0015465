"""docs/how-to/docker-compose.md, carried out: on files laid out as Immich's, with a program that stands for docker."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
from datetime import datetime
from pathlib import Path

import pytest
from tests.support import samples

from immich_usb_backup import config
from immich_usb_backup.__main__ import main
from immich_usb_backup.config import Database
from immich_usb_backup.dump_making.making import make
from immich_usb_backup.errors import FreshDumpFailed

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = (CHECKOUT / "docs/how-to/docker-compose.md").read_text()
ON_THE_PAGE = "/opt/immich-app"
NOW = datetime(2026, 11, 21, 9, 58, 7).astimezone()

# docker exec CONTAINER pg_dump …: what that container would print, where it is the database's and user and database are right.
DOCKER = """#!/bin/sh
[ "$1 $2" = "exec immich_postgres" ] || { echo "Error: No such container: $2" >&2; exit 1; }
[ "$3 $4 $5 $6 $7" = "pg_dump --clean --if-exists --username=$DB_USERNAME $DB_DATABASE_NAME" ] || exit 2
cat "$DUMP"
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """Immich's folder, with everything in it where Immich's files say."""
    folder = tmp_path / "immich-app"
    samples.make_config_files(folder)
    samples.make_media_location(folder / "library", photos=2, now=NOW)
    return folder


def _blocks(language: str) -> list[str]:
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)
    return [re.sub("^  ", "", block, flags=re.MULTILINE) for block in found]


def _plain(app: Path) -> str:
    return _blocks("toml")[0].replace(ON_THE_PAGE, str(app))


def _with_docker(app: Path) -> Database:
    (text,) = (block for block in _blocks("toml") if '"docker"' in block)
    return config.parse(text.replace(ON_THE_PAGE, str(app)).encode(), origin="page").database


def _dotenv(app: Path) -> dict[str, str]:
    lines = (app / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_the_line_that_finds_the_media_location_finds_it(app: Path) -> None:
    (line,) = (block for block in _blocks("sh") if "realpath" in block)
    done = subprocess.run(["sh", "-c", line.replace(ON_THE_PAGE, str(app))], capture_output=True, text=True, check=True)
    assert done.stdout == f"{app / 'library'}\n"
    assert config.parse(_plain(app).encode(), origin="page").media_location == Path(done.stdout.strip())


def test_the_configuration_finds_everything_there(app: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = app / "config.toml"
    path.write_text(_plain(app))
    assert main(["check-config", str(path)]) == 0
    said = capsys.readouterr().out
    shown = (CHECKOUT / "docs/how-to/first-backup.md").read_text()
    assert said.replace(str(path), "/etc/immich-usb-backup/config.toml").replace(str(app), ON_THE_PAGE) in shown


def test_the_example_file_says_the_same_as_the_page() -> None:
    example = config.parse((CHECKOUT / "systemd/config.docker.example.toml").read_bytes(), origin="example")
    assert example == config.parse(_blocks("toml")[0].encode(), origin="page")


def _environment(app: Path, **changed: str) -> dict[str, str]:
    (app / "docker").write_text(DOCKER)
    (app / "docker").chmod(0o755)
    (app / "dump").write_text(samples.dump_text([]))
    path = f"{app}{os.pathsep}{os.environ['PATH']}"
    return {**_dotenv(app), "PATH": path, "DUMP": str(app / "dump"), **changed}


def _dump(app: Path, monkeypatch: pytest.MonkeyPatch, **changed: str) -> str:
    environment = _environment(app, **changed)
    monkeypatch.setenv("PATH", environment["PATH"])
    settings = _with_docker(app)
    (app / "dumps").mkdir()
    return make(settings, app / "dumps", now=NOW, environment=environment)


def test_the_command_brings_a_whole_dump_out_of_immichs_container(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = _dump(app, monkeypatch)
    assert gzip.decompress((app / "dumps" / name).read_bytes()).decode() == samples.dump_text([])


def test_another_database_in_the_env_file_is_not_taken_silently(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FreshDumpFailed):
        _dump(app, monkeypatch, DB_DATABASE_NAME="photos")


def test_the_containers_name_is_that_of_the_compose_file(app: Path) -> None:
    compose = (app / "docker-compose.yml").read_text()
    asked = _with_docker(app).command[2]
    assert f"container_name: {asked}\n" in compose
