"""Immich's side: its folders as the service's user sees them, its dumps, and what makes fresh ones."""

from __future__ import annotations

import asyncio
import os
import socket
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from immich_usb_backup.adapters.source import ServerFiles
from immich_usb_backup.config import LIBRARY_FOLDERS, Config, Database
from immich_usb_backup.doctor.checked import Checked, bad, good, unseen
from immich_usb_backup.doctor.machine import Machine
from immich_usb_backup.doctor.system import DAEMON_USER
from immich_usb_backup.errors import BackupError
from immich_usb_backup.policy.dumps import DumpName, newest_first, too_old
from immich_usb_backup.policy.text import duration, printable

_SECONDS = 5.0
_WITH_SUDO = "Run it with sudo"
_STORAGE = "Is the storage mounted, and is it Immich's? Immich puts .immich into each of its folders when it starts"
_LOOK = 'for path; do [ -r "$path" ] || { [ -e "$path" ] && printf "closed " || printf "gone "; }; done'
_AS_SERVICE = (
    *("setpriv", f"--reuid={DAEMON_USER}", f"--regid={DAEMON_USER}", "--clear-groups"),
    *("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"),
)
"""As the unit has it: this user, with the one privilege to read any file."""


def folders(machine: Machine, config: Config) -> Iterator[Checked]:
    """Each folder that is backed up, with the marker that Immich keeps in its own."""
    for name in LIBRARY_FOLDERS:
        folder = config.media_location / name
        yield _readable(machine, name, [folder, folder / ".immich"], _STORAGE)
    for name, folder in config.extra.items():
        yield _readable(machine, f"extra.{name}", [folder], "Is the storage mounted? Else correct [extra]")
    for path in config.config_files:
        yield _readable(machine, "config_files", [path], "Correct config_files")


def _readable(machine: Machine, about: str, paths: Sequence[Path], todo: str) -> Checked:
    states = [_state(machine, path) for path in paths]
    for path, state in zip(paths, states, strict=True):
        if state == "unseen":
            return unseen(about, f"you may not look at {path}", _WITH_SUDO)
        if state == "gone":
            return bad(about, f"{path} is not there", todo)
        if state == "closed":
            return bad(about, f"{path} cannot be read by {DAEMON_USER}: is it a network or FUSE mount?", todo)
    who = f"{DAEMON_USER} may read it" if machine.is_root else "it is there"
    return good(about, f"{paths[0]}: {who}")


def _state(machine: Machine, path: Path) -> str:
    """``there``, ``gone``, ``closed`` for the service's user, or ``unseen``. Root asks as that user."""
    here = machine.path(path)
    if machine.is_root:
        done = machine.run([*_AS_SERVICE, "--", "sh", "-c", _LOOK, "sh", str(here)])
        if done is not None and done.code == 0:
            return done.out.strip() or "there"
    try:
        here.stat()
    except PermissionError:
        return "unseen"
    except OSError:
        return "gone"
    return "there" if os.access(here, os.R_OK) else "unseen"


def dump(machine: Machine, config: Config) -> Checked:
    """The newest of Immich's dumps: how old, and readable to its end."""
    about, folder = "newest dump", config.dumps
    switch_on = "Switch dumps on in Immich: Administration, Settings, Backup"
    try:
        found = newest_first(os.listdir(machine.path(folder)))
    except PermissionError:
        return unseen(about, f"you may not look into {folder}", _WITH_SUDO)
    except OSError as error:
        return bad(about, f"{folder}: {error.strerror}", "Correct database.dumps, or media_location")
    if not found:
        todo = switch_on if config.database.mode == "latest" else "A backup makes one; docs/how-to/fresh-dumps.md"
        return bad(about, f"there is none in {folder}: photos alone do not bring Immich back", todo)
    return _judged(machine, config, found[0])


def _judged(machine: Machine, config: Config, newest: DumpName) -> Checked:
    about, age = "newest dump", machine.now - newest.time
    name = printable(newest.name)
    old = f"{name} is {duration(max(0.0, age.total_seconds()))} old"
    try:
        problem = asyncio.run(ServerFiles().dump_problem(machine.path(config.dumps) / newest.name))
    except BackupError as error:
        return unseen(about, error.message, _WITH_SUDO)
    if problem:
        todo = "Look at the room on the server's disk and at Immich's log, then make a new dump in Immich"
        return bad(about, f"{name} is damaged: {problem}", todo)
    if age < -timedelta(hours=15):  # its name may have another zone's time
        return bad(about, f"{name} is of the future", "Is this machine's clock right? timedatectl")
    if config.database.mode == "latest" and too_old(newest.time, machine.now, hours=config.database.warn_after_hours):
        return bad(about, f"{old}: what came later is not in it", "Does Immich still make dumps? See its settings")
    return good(about, f"{old}, and readable to its end")


def fresh(machine: Machine, database: Database) -> Iterator[Checked]:
    """What a fresh dump for each backup needs, where one is asked for; none is made."""
    about, more = "fresh dumps", "docs/how-to/fresh-dumps.md has what each way needs"
    if database.mode == "latest":
        yield unseen(about, 'database.mode is "latest": the newest dump of Immich\'s is taken')
        return
    if database.mode in {"pg_dump", "command"}:
        program = database.command[0] if database.mode == "command" else "pg_dump"
        there = machine.find(program) is not None
        yield good(about, f"{program} is installed") if there else bad(about, f"{program} is not installed", more)
    if secret := database.api_key_file if database.mode == "immich-api" else database.password_file:
        there = machine.path(secret).exists()
        yield good(about, f"{secret} is there") if there else bad(about, f"{secret} is not there", more)
    if problem := _unreachable(machine, database):
        yield bad(about, problem, more)
    elif database.mode != "command":
        yield good(about, f"{'Immich' if database.mode == 'immich-api' else 'the database'} answers")


def _unreachable(machine: Machine, database: Database) -> str:
    """Why nobody answers at the address, or nothing. Two tries at most, each with a deadline of seconds."""
    try:
        if database.mode == "immich-api":
            url = f"{database.api_url.rstrip('/')}/api/server/ping"
            with urllib.request.urlopen(url, timeout=_SECONDS) as answer:  # noqa: S310  # config allows http and https only
                return "" if b"pong" in answer.read(1000) else f"{url} is not Immich's"
        if database.mode == "pg_dump":
            _knock(machine, database.url)
    except (OSError, ValueError) as error:
        return f"nobody answers at the configured address: {printable(str(error))}"
    return ""


def _knock(machine: Machine, url: str) -> None:
    """Open a connection to PostgreSQL and close it. Raises ``OSError``, ``ValueError``."""
    parts = urlsplit(url)
    host = parts.hostname or parse_qs(parts.query).get("host", ["/run/postgresql"])[0]
    port = parts.port or int(parse_qs(parts.query).get("port", ["5432"])[0])
    if not host.startswith("/"):
        socket.create_connection((host, port), timeout=_SECONDS).close()
        return
    with socket.socket(socket.AF_UNIX) as local:
        local.settimeout(_SECONDS)
        local.connect(str(machine.path(host) / f".s.PGSQL.{port}"))
