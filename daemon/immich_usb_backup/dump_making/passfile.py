"""A password for PostgreSQL's programs in a file of theirs (libpq's passfile) that lies in memory alone: it has no name, and unlike
``PGPASSWORD`` nobody finds it in a program's environment."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def passfile(password: str) -> Iterator[tuple[Mapping[str, str], tuple[int, ...]]]:
    """What a program needs to find it: variables, and descriptors to hand down. Without a password: nothing."""
    if not password:
        yield {}, ()
        return
    fd = os.memfd_create("passfile", os.MFD_CLOEXEC)
    try:
        os.fchmod(fd, 0o600)  # libpq takes no other
        escaped = password.replace("\\", "\\\\").replace(":", "\\:")
        os.write(fd, f"*:*:*:*:{escaped}\n".encode())
        yield {"PGPASSFILE": f"/proc/self/fd/{fd}"}, (fd,)
    finally:
        os.close(fd)
