"""A PostgreSQL for one rehearsal: made from this machine's programs in a folder of its own, reached by nobody else, gone after."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from immich_usb_backup.errors import BackupError, CommandFailed, DeadlineMissed
from immich_usb_backup.restore.database import DatabaseTarget
from immich_usb_backup.restore.database_psql import folder_of_programs, local, said_by

DATABASE = "immich"
START_SECONDS = 120.0
_STOP_SECONDS = 20.0
_PAUSE_SECONDS = 0.1
_LOG_BYTES = 8192
_TEMPORARY = "/var/tmp"  # noqa: S108  # for its size: /tmp is often in memory; the folder in it is made safely
_LONGEST = 60
"""Characters of the folder that ours is made in: a socket's path has 107 at most."""

_UNPRIVILEGED = "nobody"
_INITDB = ("--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync")
_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
}
"""Nothing of it must outlive a crash."""


@contextmanager
def cluster() -> Iterator[DatabaseTarget]:
    """An empty database. Raises ``CommandFailed``, ``DeadlineMissed``."""
    programs = folder_of_programs()
    if programs is None:
        hint = (
            "Install PostgreSQL's server (Debian: apt install postgresql), or rehearse in a container: --docker IMAGE"
        )
        raise CommandFailed("PostgreSQL's server programs (initdb, postgres) are missing", hint=hint)
    folder = Path(tempfile.mkdtemp(prefix="immich-rehearsal-", dir=_parent()))
    try:
        prefix = _as_unprivileged(folder)
        _make(programs, folder, prefix)
        with _running(programs, folder, prefix):
            yield DatabaseTarget(url=_url(folder, DATABASE))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _parent() -> str:
    chosen = os.environ.get("TMPDIR", _TEMPORARY)
    return chosen if len(chosen) <= _LONGEST else _TEMPORARY


def _as_unprivileged(folder: Path) -> tuple[str, ...]:
    """A prefix for commands: they end with this process, and are not root's, which PostgreSQL refuses to be. A dump is a
    program: it gets a user to whom nothing belongs, not ``postgres``."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise CommandFailed("The program setpriv (of util-linux) is missing")
    prefix = (setpriv, "--pdeathsig=KILL", "--no-new-privs")
    if os.geteuid() != 0:
        return prefix
    user = pwd.getpwnam(_UNPRIVILEGED)
    os.chown(folder, user.pw_uid, user.pw_gid)
    return (*prefix, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")


def _environment() -> dict[str, str]:
    """Without what PostgreSQL's programs are told elsewhere, such as PGDATA."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PG")}


def _make(programs: Path, folder: Path, prefix: tuple[str, ...]) -> None:
    command = [*prefix, str(programs / "initdb"), *_INITDB, "-D", str(folder / "data")]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=START_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DeadlineMissed("A temporary PostgreSQL could not be made in two minutes", hint="Try again.") from error
    if done.returncode != 0:
        raise CommandFailed(f"A temporary PostgreSQL cannot be made: {said_by(done.stderr)}", hint=_HINT)


_HINT = f"It needs room in {_TEMPORARY}, or in the folder that TMPDIR names."


@contextmanager
def _running(programs: Path, folder: Path, prefix: tuple[str, ...]) -> Iterator[None]:
    settings = (f"--{name}={value}" for name, value in _SETTINGS.items())
    command = [
        *prefix,
        str(programs / "postgres"),
        "-D",
        str(folder / "data"),
        "-k",
        str(folder),
        "-p",
        "5432",
        *settings,
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for us: we end it
        )
    try:
        _await(process, folder)
        local(_url(folder, "postgres")).query(f"CREATE DATABASE {DATABASE} TEMPLATE template0 ENCODING 'UTF8'")
        yield
    finally:
        _stop(process)


def _await(process: subprocess.Popen[bytes], folder: Path) -> None:
    asked = local(_url(folder, "postgres"))
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            asked.query("SELECT 1", seconds=START_SECONDS)
            return
        except BackupError as error:
            if process.poll() is not None:
                said = said_by((folder / "log").read_bytes()[-_LOG_BYTES:])
                raise CommandFailed(f"A temporary PostgreSQL does not start: {said}", hint=_HINT) from error
            if time.monotonic() >= deadline:
                raise DeadlineMissed(
                    "A temporary PostgreSQL did not start in two minutes", hint="Try again."
                ) from error
        time.sleep(_PAUSE_SECONDS)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """At once: nothing of it is needed any more."""
    for number in (signal.SIGQUIT, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
            return


def _url(folder: Path, database: str) -> str:
    return f"postgresql://postgres@/{database}?host={folder}&port=5432"
