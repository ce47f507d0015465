"""What the documents have people type to a database, on a real PostgreSQL: SQL, and the lines that bring a dump back."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.support import immich_schema, postgres, samples
from tests.support.programs import put_program
from tests.support.spare_machine import SpareMachine

HOW_TO = Path(__file__).resolve().parents[2] / "docs/how-to"
PAGE = (HOW_TO / "fresh-dumps.md").read_text()
BY_HAND = (HOW_TO / "restore-by-hand.md").read_text()
DUMP_ON_THE_PAGE = "/media/me/Blue/immich-server-backups/database/NAME.sql.gz"
OLD, MIDDLE, NEW = immich_schema.ERAS


def test_the_role_that_the_page_makes_can_read_and_cannot_write(postgres_server: postgres.Server) -> None:
    (role,) = re.findall(r"^sudo -u postgres createuser (\S+)$", PAGE, re.MULTILINE)
    (line,) = re.findall(r"^sudo -u postgres psql -c (.+)$", PAGE, re.MULTILINE)
    era = immich_schema.ERAS[-1]
    postgres_server.database("immich", sql=immich_schema.sql(era, immich_schema.photos(era)))
    postgres_server.psql(f'CREATE ROLE "{role}" LOGIN', database="postgres")  # what createuser does
    postgres_server.psql(shlex.split(line)[0], database="postgres")
    asked = f"SELECT has_table_privilege('{role}', oid, 'SELECT'), has_table_privilege('{role}', oid, 'INSERT')"
    rights = postgres_server.psql(f"{asked} FROM pg_class WHERE relname = '{era.table}'", database="immich")
    assert rights.strip().split("|") == ["t", "f"]


# docs/how-to/restore-by-hand.md ---------------------------------------------------------------------------


def _types(line: str, folder: Path, server: postgres.Server, dump: Path) -> subprocess.CompletedProcess[str]:
    """The block of the page with ``line`` in it, before a docker that stands for the database's container."""
    (text,) = (block for block in re.findall(r"(?ms)^```sh\n(.*?)^```$", BY_HAND) if line in block)
    put_program(folder, "sudo", 'exec "$@"')
    environment = {**os.environ, **postgres.put_docker(folder, {"PGHOST": str(server.cluster.socket)})}
    command = ["bash", "-o", "pipefail", "-c", text.replace(DUMP_ON_THE_PAGE, str(dump))]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("era", [MIDDLE, NEW], ids=lambda era: era.name)
def test_the_line_for_pg_dump_brings_every_row_back(
    postgres_server: postgres.Server, tmp_path: Path, era: immich_schema.Era
) -> None:
    server = postgres_server
    server.database("immich", sql=immich_schema.sql(era, immich_schema.photos(era)))
    content = server.content("immich")
    dump = server.dump("immich", tmp_path / "NAME.sql.gz")
    server.drop("immich")
    server.database("immich")
    done = _types("--single-transaction", tmp_path, server, dump)
    assert done.returncode == 0, done.stderr
    assert server.content("immich") == content


def test_the_line_for_pg_dumpall_brings_every_row_back_and_complains_as_the_page_says(
    postgres_server: postgres.Server, tmp_path: Path
) -> None:
    server = postgres_server
    server.database("immich", sql=immich_schema.sql(OLD, immich_schema.photos(OLD)))
    content = server.content("immich")
    dump = server.dump("immich", tmp_path / "NAME.sql.gz", tool="pg_dumpall")
    server.drop("immich")
    done = _types("--dbname=postgres", tmp_path, server, dump)
    assert server.content("immich") == content
    errors = [line.partition("ERROR:  ")[2] for line in done.stderr.splitlines() if "ERROR:" in line]
    assert errors == ["current user cannot be dropped", 'role "postgres" already exists']
    assert all(f"`{error}`" in BY_HAND for error in errors)


# docs/how-to/restore.md -----------------------------------------------------------------------------------


def test_the_page_on_restoring_brings_files_and_database_back(postgres_server: postgres.Server, tmp_path: Path) -> None:
    """All of it in one shell, from the program to Immich's start."""
    server = postgres_server
    media = samples.make_media_location(tmp_path / "server", photos=4)
    for dump in (media.path / "backups").glob("*.gz"):
        dump.unlink()
    samples.real_dump(media.path / "backups", location=media)
    machine = SpareMachine(tmp_path, media)
    target = server.database("immich")
    inside = {"PGHOST": str(server.cluster.socket), "POSTGRES_DB": target, "POSTGRES_USER": "postgres"}
    steps = ("mount -o ro", "--only config", "--dry-run", "docker compose create", "--docker", "docker compose up")
    machine.types(*steps, environment=postgres.put_docker(tmp_path, inside))
    rows = "\n".join(server.content(target)["asset"])
    assert all(photo.path in rows for photo in media.photos)
    assert all((machine.new / photo.path).is_file() for photo in media.photos)
