"""The same in a container, from the image that Immich itself uses: with its extensions, and with nothing of this machine."""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from immich_usb_backup.errors import CommandFailed, DeadlineMissed
from immich_usb_backup.policy.text import printable
from immich_usb_backup.restore.database import DatabaseTarget
from immich_usb_backup.restore.database_psql import hint_for, said_by
from immich_usb_backup.restore.rehearsal_cluster import DATABASE

START_SECONDS = 300.0
_PULL_SECONDS = 1800.0
_CALL_SECONDS = 60.0
_PAUSE_SECONDS = 0.2
_IMAGE = re.compile(r"[A-Za-z0-9][\w.:/@-]*", re.ASCII)
_RUN = ("--detach", "--rm", "--network=none", "--env=POSTGRES_HOST_AUTH_METHOD=trust", f"--env=POSTGRES_DB={DATABASE}")
_READY = (
    "psql",
    "--no-psqlrc",
    "--host=127.0.0.1",
    "--username=postgres",
    f"--dbname={DATABASE}",
    "--command=SELECT 1",
)
"""By TCP, within the container: while the image sets itself up, its server answers on the socket only, and ends again."""


@contextmanager
def container(image: str) -> Iterator[DatabaseTarget]:
    """An empty database. Raises ``CommandFailed``, ``DeadlineMissed``."""
    if not _IMAGE.fullmatch(image):
        raise CommandFailed(f"'{printable(image)}' cannot be the name of an image", hint="Such as postgres:17")
    docker = shutil.which("docker")
    if docker is None:
        raise CommandFailed("The program docker is missing")
    name = f"immich-rehearsal-{secrets.token_hex(6)}"
    try:
        _call(docker, "run", *_RUN, f"--name={name}", image, seconds=_PULL_SECONDS)
        _await(docker, name)
        yield DatabaseTarget(docker=name)
    finally:
        with suppress(CommandFailed, DeadlineMissed):  # it may never have been there
            _call(docker, "rm", "--force", "--volumes", name)


def _await(docker: str, name: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            _call(docker, "exec", "-i", name, *_READY)
            return
        except CommandFailed as error:
            if time.monotonic() >= deadline:
                raise DeadlineMissed(
                    f"The container did not start in {START_SECONDS:.0f} seconds", hint="Try again."
                ) from error
            _call(docker, "inspect", name)  # raises where it has ended
        time.sleep(_PAUSE_SECONDS)


def _call(docker: str, *arguments: str, seconds: float = _CALL_SECONDS) -> None:
    """Raises ``CommandFailed``, ``DeadlineMissed``."""
    try:
        done = subprocess.run(
            [docker, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DeadlineMissed(
            f"docker {arguments[0]} took more than {seconds:.0f} seconds", hint="Try again."
        ) from error
    if done.returncode != 0:
        said = said_by(done.stderr)
        raise CommandFailed(f"docker {arguments[0]} failed: {said}", hint=hint_for(said))
