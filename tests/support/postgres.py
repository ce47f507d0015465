"""A real PostgreSQL of our own with many databases, its dumps by both tools, and a ``docker`` that is none."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import host, immich_schema, samples

DOCKER = """#!/bin/sh
# docker exec -i CONTAINER COMMAND…: the command, on this machine. All else does nothing.
echo "$@" >> "$DOCKER_LOG"
case $1 in
run | rm | inspect | compose | start) exit 0 ;;
esac
case $3 in
immich_postgres | immich-rehearsal-*) ;;
*)
    echo "Error: No such container: $3" >&2
    exit 1
    ;;
esac
[ "$1" = exec ] && [ "$2" = -i ] || exit 125
shift 3
case "$*" in
*--host=127.0.0.1*) exit 0 ;;
esac
exec "$@"
"""


@dataclass
class Server:
    """A running PostgreSQL without any database but its own."""

    cluster: samples.Cluster
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def database(self, name: str = "", *, sql: str = "") -> str:
        """Make one; its name."""
        name = name or f"db{next(self._numbers)}"
        self.psql(f"CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING 'UTF8'", database="postgres")
        if sql:
            self.psql(sql, database=name)
        return name

    def drop(self, name: str) -> None:
        """Take one away."""
        self.psql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)', database="postgres")

    def clean(self) -> None:
        """Take all databases and users away."""
        for name in self.psql(
            "SELECT datname FROM pg_database WHERE NOT datistemplate", database="postgres"
        ).splitlines():
            if name != "postgres":
                self.drop(name)
        for name in self.psql("SELECT rolname FROM pg_roles WHERE oid >= 16384", database="postgres").splitlines():
            self.psql(f'DROP ROLE "{name}"', database="postgres")

    def psql(self, sql: str, *, database: str) -> str:
        """Unadorned rows."""
        return self.cluster.psql(sql, database=database)

    def url(self, database: str, *, user: str = "postgres") -> str:
        """How a program gets there."""
        return f"postgresql://{user}@/{database}?host={self.cluster.socket}"

    def dump(self, database: str, target: Path, *, tool: str = "pg_dump", packed: bool = True) -> Path:
        """A dump as Immich makes it; ``pg_dumpall`` has all databases."""
        where = f"host={self.cluster.socket} user=postgres"
        wanted = f"{where} dbname={database}" if tool == "pg_dump" else f"{where} dbname=postgres"
        command = [
            *self.cluster.run_as,
            str(self.cluster.programs / tool),
            "--clean",
            "--if-exists",
            f"--dbname={wanted}",
        ]
        done = subprocess.run(command, capture_output=True, timeout=120, check=True)
        target.write_bytes(gzip.compress(done.stdout) if packed else done.stdout)
        return target

    def content(self, database: str) -> dict[str, list[str]]:
        """All rows of all tables, as text."""
        names = self.psql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", database=database).split()
        return {
            name: sorted(self.psql(f'COPY public."{name}" TO STDOUT', database=database).splitlines()) for name in names
        }


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """One, taken away afterwards."""
    with samples.postgres() as cluster:
        running = Server(cluster)
        running.clean()
        yield running


def era_dump(running: Server, era: immich_schema.Era, folder: Path, *, tool: str = "pg_dump", count: int = 14) -> Path:
    """A dump of that era with its name; the database it is of is gone again."""
    running.drop("immich")
    running.database("immich", sql=immich_schema.sql(era, immich_schema.photos(era, count)))
    name = f"immich-db-backup-20261120T020000-v{era.version}-pg15.18.sql.gz"
    try:
        return running.dump("immich", folder / name, tool=tool)
    finally:
        running.drop("immich")


def put_docker(folder: Path, environment: dict[str, str]) -> dict[str, str]:
    """A stand-in for docker, and the environment in which it is found."""
    program = folder / "docker"
    program.write_text(DOCKER)
    program.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return {**environment, "PATH": path, "DOCKER_LOG": str(folder / "docker.log")}


def missing() -> str | None:
    """Why PostgreSQL cannot be tested here."""
    return "postgresql is not installed" if "postgresql" in host.missing_packages(for_tests=True) else None
