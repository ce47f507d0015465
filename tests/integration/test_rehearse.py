"""A rehearsal with a real PostgreSQL, from a backup folder: what it finds, what it says, and that nothing is left behind."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from immich_usb_backup.__main__ import main
from immich_usb_backup.errors import CommandFailed
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.restore import rehearsal_cluster
from immich_usb_backup.restore.rehearsal import rehearse
from tests.support import host, postgres
from tests.support import immich_schema as schema
from tests.support.backup_folder import make_backup

OLD, MIDDLE, NEW = schema.ERAS
VECTORS = """
CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA public;
COMMENT ON EXTENSION vector IS 'vector data type and ivfflat and hnsw access methods';
CREATE EXTENSION IF NOT EXISTS vchord WITH SCHEMA public;
CREATE TABLE public.smart_search ("assetId" uuid NOT NULL, embedding public.vector(3) NOT NULL);
ALTER TABLE ONLY public.smart_search ALTER COLUMN embedding SET STORAGE EXTERNAL;
COPY public.smart_search ("assetId", embedding) FROM stdin;
00000000-0000-0000-0000-0000000003e8\t[1,2,3]
\\.
CREATE INDEX clip_index ON public.smart_search USING vchordrq (embedding public.vector_cosine_ops) WITH (options='x');
CREATE INDEX other_index ON public.smart_search USING hnsw (embedding public.vector_cosine_ops);
"""


@pytest.fixture
def server(postgres_server: postgres.Server) -> postgres.Server:
    return postgres_server


@pytest.fixture(autouse=True)
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the temporary cluster goes; it must be empty afterwards, and no process may be at work there."""
    with host.temporary_folder() as folder:
        folder.chmod(0o1777)
        monkeypatch.setenv("TMPDIR", str(folder))
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        yield folder
        assert list(folder.iterdir()) == []
        assert not [line for line in _processes() if str(folder) in line]


def _quiet(line: str) -> None:
    assert line


def _processes() -> list[str]:
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()


def _backup(server: postgres.Server, root: Path, era: schema.Era, *, more: tuple[schema.Photo, ...] = ()) -> Path:
    """A backup folder with a dump of this era and the files of its assets. Returns the disk's root."""
    photos = schema.photos(era, 14)
    media = root / "media"
    for photo in photos:
        file = media / photo.path.removeprefix(era.prefix)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(photo.content)
    (media / "backups").mkdir()
    for folder in ("library", "profile"):
        (media / folder).mkdir()
    database = server.database("immich", sql=schema.sql(era, (*photos, *more)))
    server.dump(database, media / f"backups/immich-db-backup-20261120T020000-v{era.version}-pg15.18.sql.gz")
    server.drop(database)
    make_backup(root / "disk", media)
    return root / "disk"


def _dump(disk: Path) -> Path:
    (found,) = (disk / "immich-server-backups/database").iterdir()
    return found


def _change(disk: Path, change: Callable[[str], str]) -> None:
    dump = _dump(disk)
    dump.write_bytes(gzip.compress(change(gzip.decompress(dump.read_bytes()).decode()).encode()))


@pytest.mark.parametrize("era", schema.ERAS, ids=[era.name for era in schema.ERAS])
def test_a_good_backup_is_called_good(
    server: postgres.Server, tmp_path: Path, era: schema.Era, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = _backup(server, tmp_path, era)
    assert main(["rehearse", str(disk)]) == ExitCode.OK
    text = capsys.readouterr().out
    assert "14 of 14 assets have their file in the backup." in text
    assert f"Immich {era.version}" in text
    assert "The rehearsal went well." in text
    assert "It does not establish:" in text


def test_a_missing_and_an_empty_file_are_named(
    server: postgres.Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = _backup(server, tmp_path, NEW)
    one, two, *_ = sorted((disk / "immich-server-backups/upload").rglob("*.jpg"))
    one.unlink()
    two.write_bytes(b"")
    assert main(["rehearse", str(disk), "--json"]) == ExitCode.PROBLEM
    found = json.loads(capsys.readouterr().out)
    files = found["files"]
    assert (files["expected"], files["present"], files["missing"], files["empty"]) == (14, 12, 1, 1)
    assert files["missing_paths"] == [str(path.relative_to(disk / "immich-server-backups")) for path in (one, two)]
    assert found["good"] is False
    assert found["rows"]["public.exif"] == 14


def test_what_immich_moved_after_the_dump_counts_as_there(server: postgres.Server, tmp_path: Path) -> None:
    disk = _backup(server, tmp_path, NEW)
    moved, *_ = (tmp_path / "media/upload").rglob("*.jpg")
    (tmp_path / "media/library/new").mkdir()
    moved.rename(tmp_path / "media/library/new/a.jpg")
    for folder in (moved.parent, *moved.parent.parents):
        if not any(folder.iterdir()):
            folder.rmdir()
    shutil.rmtree(disk)
    make_backup(disk, tmp_path / "media")
    found = rehearse(disk, say=_quiet)
    assert found.good
    assert (found.files.expected, found.files.present) == (14, 14)


def test_nothing_is_demanded_of_what_lies_elsewhere(server: postgres.Server, tmp_path: Path) -> None:
    more = (
        schema.Photo("/mnt/pictures/a.jpg", external=True),
        schema.Photo("/data/library/pictures/b.jpg", external=True),
        schema.Photo("/data/upload/x/aa/bb/gone.jpg", trashed=True),
        schema.Photo("/data/encoded-video/x/aa/bb/clip-MP.mp4"),
    )
    found = rehearse(_backup(server, tmp_path, NEW, more=more), say=_quiet)
    files = found.files
    assert (files.expected, files.present, files.external, files.trashed, files.regenerable) == (14, 14, 2, 1, 1)
    assert found.good


def test_extensions_that_are_not_here_get_stand_ins(
    server: postgres.Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = _backup(server, tmp_path, NEW)
    _change(disk, lambda text: "\n\\.\n".join((text.rpartition("\n\\.\n")[0], VECTORS + text.rpartition("\n\\.\n")[2])))
    assert main(["rehearse", str(disk)]) == ExitCode.OK
    assert "lacks vector, vchord" in capsys.readouterr().out
    found = rehearse(disk, say=_quiet)
    assert found.rows["public.smart_search"] == 1
    assert [line.split()[2] for line in found.left_out] == ["clip_index", "other_index"]


def test_users_that_are_not_here_are_no_hindrance(server: postgres.Server, tmp_path: Path) -> None:
    disk = _backup(server, tmp_path, MIDDLE)
    _change(disk, lambda text: text.replace("OWNER TO postgres;", 'OWNER TO "Im mich";'))
    assert rehearse(disk, say=_quiet).good


def test_a_damaged_newer_dump_is_a_problem(
    server: postgres.Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = _backup(server, tmp_path, NEW)
    dump = _dump(disk)
    newer = dump.with_name(dump.name.replace("20261120", "20261121"))
    newer.write_bytes(dump.read_bytes()[:-100])
    assert main(["rehearse", str(disk)]) == ExitCode.PROBLEM
    assert f"newer dump {newer.name} is damaged" in capsys.readouterr().out
    newer.unlink()
    assert main(["rehearse", str(disk), "--dump", newer.name]) == ExitCode.UNAVAILABLE


def test_without_a_manifest_the_disks_names_are_taken_and_said_so(
    server: postgres.Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = _backup(server, tmp_path, NEW)
    (disk / "immich-server-backups/manifest.jsonl.gz").unlink()
    assert main(["rehearse", str(disk)]) == ExitCode.PROBLEM
    text = capsys.readouterr().out
    assert "the manifest is not used" in text
    assert "14 of 14" in text


def test_a_dump_that_the_server_refuses_is_told_whole(
    server: postgres.Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = _backup(server, tmp_path, NEW)
    _change(
        disk,
        lambda text: text.replace(
            "CREATE VIEW public.asset_names AS", "CREATE VIEW public.asset_names AS SELECT wrong,"
        ),
    )
    assert main(["rehearse", str(disk)]) == ExitCode.UNAVAILABLE
    assert "syntax error" in capsys.readouterr().err


@pytest.mark.host
@pytest.mark.skipif(host.unavailable() is not None, reason=str(host.unavailable()))
def test_a_mounted_disk_is_found_by_its_label(
    server: postgres.Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backup = _backup(server, tmp_path, NEW)
    with host.udev(), host.exfat_disk(64, "REHEARSAL") as disk, disk.mounted() as folder:
        shutil.copytree(backup, folder, dirs_exist_ok=True)
        for name in ("REHEARSAL", disk.properties()["ID_FS_UUID"], str(disk.device)):
            assert main(["rehearse", name]) == ExitCode.OK
            assert "14 of 14" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["no-such-disk", "/dev/no-such-disk"])
def test_a_disk_that_is_not_here_is_told_apart(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rehearse", name]) == ExitCode.NOT_HERE
    assert "neither a folder nor a disk" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_it_leaves_nothing_behind(
    server: postgres.Server, tmp_path: Path, temporary: Path, number: signal.Signals
) -> None:
    """While the restore hangs in the database."""
    disk = _backup(server, tmp_path, NEW)
    _change(disk, lambda text: text.replace("CREATE VIEW", "SELECT pg_sleep(600);\nCREATE VIEW"))
    command = [sys.executable, "-m", "immich_usb_backup", "rehearse", str(disk)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        host.wait_until(lambda: _sleeps(temporary), "the restore", deadline=60)
        process.send_signal(number)
        assert process.wait(60) == ExitCode.PROBLEM
    assert list(temporary.iterdir()) == []


def _sleeps(temporary: Path) -> bool:
    sql = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600);'"
    for folder in temporary.iterdir():
        command = ["psql", "-XAtw", f"--dbname=postgresql://postgres@/immich?host={folder}", f"--command={sql}"]
        if subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout.strip() == "1":
            return True
    return False


def test_without_postgresql_it_is_said_what_to_install(
    server: postgres.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = _backup(server, tmp_path, NEW)
    monkeypatch.setattr(rehearsal_cluster, "folder_of_programs", lambda: None)
    with pytest.raises(CommandFailed, match="initdb") as caught:
        rehearse(disk, say=_quiet)
    assert "apt install postgresql" in caught.value.hint


def test_in_a_container(server: postgres.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for docker that runs everything here."""
    disk = _backup(server, tmp_path, NEW)
    target = server.database()
    inside = {"PGHOST": str(server.cluster.socket), "POSTGRES_DB": target, "POSTGRES_USER": "postgres"}
    for key, value in postgres.put_docker(tmp_path, inside).items():
        monkeypatch.setenv(key, value)
    found = rehearse(disk, image="ghcr.io/immich-app/postgres:14", say=_quiet)
    assert found.good
    calls = (tmp_path / "docker.log").read_text().splitlines()
    assert calls[0].startswith("run --detach --rm --network=none")
    assert calls[-1].startswith("rm --force")
    assert calls[-1].split()[-1] in calls[0]


def test_a_container_that_does_not_start_is_removed(
    tmp_path: Path, server: postgres.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = _backup(server, tmp_path, NEW)
    program = tmp_path / "docker"
    program.write_text(
        '#!/bin/sh\necho "$@" >> "$DOCKER_LOG"\n[ "$1" = rm ] || { echo "Unable to find image" >&2; exit 125; }\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_LOG", str(tmp_path / "docker.log"))
    with pytest.raises(CommandFailed, match="Unable to find image"):
        rehearse(disk, image="nowhere", say=_quiet)
    assert (tmp_path / "docker.log").read_text().splitlines()[-1].startswith("rm --force")
    assert shutil.which("docker") == str(program)
