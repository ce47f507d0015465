"""How ``psql`` is called: on this machine, or in a container. Passwords travel in the environment, never in an argument."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from immich_usb_backup.errors import CommandFailed, DatabaseRefused, DeadlineMissed
from immich_usb_backup.policy.database_restore import version_of
from immich_usb_backup.policy.text import harmless_lines, printable

QUERY_SECONDS = 120.0
_CONNECT_SECONDS = "20"
_OPTIONS = ("--no-psqlrc", "--no-password", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=on")
_CONTAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*", re.ASCII)
_IN_CONTAINER = (
    'exec psql --username="${POSTGRES_USER:-postgres}" --dbname="${POSTGRES_DB:-${POSTGRES_USER:-postgres}}" "$@"'
)
"""The image's own variables name the user and the database, as Immich's compose file sets them."""

_SCHEMES = ("postgresql://", "postgres://")
_HINTS = (
    ("no password supplied", "Put the password into the environment (PGPASSWORD) or into ~/.pgpass."),
    ("Peer authentication failed", "Run it as the user that the database belongs to, such as: sudo -u immich …"),
    ("FATAL:  database", "Make the database first: createdb --template=template0 --encoding=UTF8 NAME"),
    ("Is the docker daemon running", "Start Docker, or name the database by its URL."),
    ("No such container", "'docker ps -a' lists the containers; Immich's is called immich_postgres."),
    ("is not running", "Start only the database: docker start CONTAINER"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Psql:
    """A way to one database. ``command`` and what is added to it are arguments; ``secrets`` are for the environment."""

    command: tuple[str, ...]
    version_command: tuple[str, ...]
    secrets: Mapping[str, str]

    def arguments(self, *more: str) -> list[str]:
        """The whole command."""
        return [*self.command, *_OPTIONS, *more]

    def environment(self) -> dict[str, str]:
        """For the process: messages in English, which hints are found by, and a deadline for the connection."""
        own = {"LC_ALL": "C.UTF-8", "PGCLIENTENCODING": "UTF8", "PGAPPNAME": "immich-usb-backup"}
        waiting = {"PGCONNECT_TIMEOUT": os.environ.get("PGCONNECT_TIMEOUT", _CONNECT_SECONDS)}
        return {**os.environ, **own, **waiting, **self.secrets}

    def version(self) -> tuple[int, int]:
        """Major and minor version of the program. Raises ``CommandFailed``, ``DatabaseRefused``, ``DeadlineMissed``."""
        return version_of(self._output([*self.version_command], QUERY_SECONDS))

    def query(self, sql: str, *, seconds: float = QUERY_SECONDS) -> str:
        """What psql prints. Raises ``CommandFailed``, ``DatabaseRefused``, ``DeadlineMissed``."""
        return self._output(self.arguments(f"--command={sql}"), seconds)

    def _output(self, command: list[str], seconds: float) -> str:
        try:
            done = subprocess.run(
                command,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=seconds,
                check=False,
            )
        except OSError as error:
            raise CommandFailed(f"{command[0]} cannot be run: {error.strerror}") from error
        except subprocess.TimeoutExpired as error:
            message = f"The database did not answer in {seconds:.0f} seconds"
            raise DeadlineMissed(message, hint="Is the server running, and are its host and port right?") from error
        if done.returncode != 0:
            said = said_by(done.stderr)
            raise DatabaseRefused(f"The database cannot be asked: {said}", hint=hint_for(said))
        return done.stdout.decode("utf-8", "replace")


def said_by(stderr: bytes) -> str:
    """All that a program complained of, harmless."""
    return "\n".join(harmless_lines(stderr.decode("utf-8", "backslashreplace").strip())) or "it does not say why"


def hint_for(said: str) -> str | None:
    """What to do about a message of psql's or docker's; None where nothing better is known."""
    return next((hint for part, hint in _HINTS if part in said), None)


def local(url: str) -> Psql:
    """The way to a URL's database, by this machine's psql. Raises ``CommandFailed``, ``DatabaseRefused``."""
    if not url.startswith(_SCHEMES):
        hint = "Such as postgresql://postgres@localhost:5432/immich or postgresql:///immich?host=/run/postgresql"
        raise DatabaseRefused("The database's URL does not begin with postgresql://", hint=hint)
    plain, secrets = _without_secrets(url)
    program = _program()
    return Psql(command=(program, f"--dbname={plain}"), version_command=(program, "--version"), secrets=secrets)


def in_container(container: str) -> Psql:
    """The way to the database of a container of PostgreSQL's image. Raises ``CommandFailed``, ``DatabaseRefused``."""
    if not _CONTAINER.fullmatch(container):
        raise DatabaseRefused(f"'{printable(container)}' cannot be the name of a container")
    docker = shutil.which("docker")
    if docker is None:
        raise CommandFailed("The program docker is missing")
    inside = (docker, "exec", "-i", container)
    return Psql(
        command=(*inside, "sh", "-c", _IN_CONTAINER, "psql"),
        version_command=(*inside, "psql", "--version"),
        secrets={},
    )


def _program() -> str:
    found = shutil.which("psql")
    if found is None:
        raise CommandFailed(
            "The program psql is missing", hint="Install PostgreSQL's client: apt install postgresql-client"
        )
    return found


def _without_secrets(url: str) -> tuple[str, dict[str, str]]:
    """The URL without its password, and this as a variable of the environment. Raises ``DatabaseRefused``."""
    scheme, _, rest = url.partition("://")
    place, question, query = rest.partition("?")
    place, slash, path = place.partition("/")
    login, at, host = place.rpartition("@")
    user, colon, password = login.partition(":")
    pairs = query.split("&") if question else []
    if "@" in path:
        raise DatabaseRefused(
            "The database's URL cannot be understood", hint="In a password write / as %2F and @ as %40."
        )
    if any(pair.startswith("sslpassword=") for pair in pairs):
        raise DatabaseRefused(
            "A URL with sslpassword would show it to everybody", hint="Use a service file (PGSERVICE)."
        )
    passwords = [password] * bool(colon) + [pair[9:] for pair in pairs if pair.startswith("password=")]
    secrets = {"PGPASSWORD": unquote(passwords[-1])} if passwords else {}
    kept = "&".join(pair for pair in pairs if not pair.startswith("password="))
    return f"{scheme}://{user}{at}{host}{slash}{path}" + (f"?{kept}" if kept else ""), secrets


def folder_of_programs() -> Path | None:
    """Where the newest installed server's programs are (``initdb``, ``postgres``), None where there are none."""
    places = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if places:
        return max(places, key=lambda place: version_of(place.parent.name))
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None
