"""One fresh dump, from the configuration to a file that is whole."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from immich_usb_backup.adapters.atomic import sync_folder
from immich_usb_backup.adapters.immich_dump import read_dump
from immich_usb_backup.config import Database
from immich_usb_backup.dump_making.immich_api import ImmichApi
from immich_usb_backup.dump_making.passfile import passfile
from immich_usb_backup.dump_making.program import save_output
from immich_usb_backup.dump_making.secrets import first_line
from immich_usb_backup.errors import DumpUnusable, FreshDumpFailed, SourceUnreadable
from immich_usb_backup.policy.dumps import fresh_dump_name, superfluous

KEEP = 2
"""Fresh dumps that stay on the server: the one before is there until the next one is good."""

_TEMPORARY = ".tmp"
"""How the name of a dump ends that is not whole yet, as Immich's own."""


def make(database: Database, folder: Path, *, now: datetime, environment: Mapping[str, str]) -> str:
    """Make one, in ``folder`` (Immich: in its own); returns what was made, in a few words. ``now`` is the server's local time.
    Raises ``FreshDumpFailed``."""
    seconds = database.fresh_minutes * 60.0
    if database.mode == "latest":
        raise FreshDumpFailed('database.mode is "latest": no fresh dump is wanted')
    if database.mode == "immich-api":
        key = first_line(database.api_key_file, credential="immich-api-key", environment=environment)
        ImmichApi(database.api_url, key).make_dump(seconds=seconds)
        return "a dump by Immich itself"
    password = first_line(database.password_file, credential="database-password", environment=environment)
    if database.mode == "command":
        secret = {"PGPASSWORD": password} if password else {}
        return _by_program(database.command, folder, seconds=seconds, now=now, environment={**environment, **secret})
    with passfile(password) as (variables, handed_down):
        env = {**environment, **variables}
        command = ("pg_dump", "--clean", "--if-exists", "--no-password", f"--dbname={database.url}")
        return _by_program(command, folder, seconds=seconds, now=now, environment=env, handed_down=handed_down)


def _by_program(
    command: Sequence[str],
    folder: Path,
    *,
    seconds: float,
    now: datetime,
    environment: Mapping[str, str],
    handed_down: Sequence[int] = (),
) -> str:
    temporary = folder / f"immich-db-backup-{now:%Y%m%dT%H%M%S}.sql.gz{_TEMPORARY}"
    try:
        _clear(folder)
        try:
            save_output(command, temporary, seconds=seconds, environment=environment, handed_down=handed_down)
            name = _name(temporary, now)
            temporary.rename(folder / name)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(folder)
        for old in superfluous(os.listdir(folder), keep=KEEP, never=name):
            (folder / old).unlink(missing_ok=True)
    except OSError as error:
        raise FreshDumpFailed(f"{folder} cannot be used: {error.strerror}") from error
    return name


def _clear(folder: Path) -> None:
    """What a helper that was ended left. There is but one at a time: systemd sees to it."""
    for name in os.listdir(folder):
        if name.endswith(_TEMPORARY):
            with suppress(FileNotFoundError):
                (folder / name).unlink()


def _name(path: Path, now: datetime) -> str:
    """Read it to its end: it must be a whole dump of Immich's database. Raises ``FreshDumpFailed``."""
    try:
        facts, _ = read_dump(path, lambda _: None, beat=lambda: None)
    except (DumpUnusable, SourceUnreadable) as error:
        raise FreshDumpFailed(f"What was made is no good dump: {error.message}") from error
    return fresh_dump_name(now, immich=facts.immich, postgres=facts.server_version, cluster=facts.cluster)
