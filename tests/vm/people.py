"""People in the guest who are not root: one whom the administrator trusts with the backup, and one like everybody else."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.vm.guest import SCRIPT_SECONDS, Completed, Guest

ADMINS = "immich-usb-backup-admins"
MANAGER = "io.github.immich_usb_backup1 /io/github/immich_usb_backup1 io.github.immich_usb_backup1.Manager"


@dataclass(frozen=True)
class Person:
    """A user with a home and a shell, and no session: for polkit neither at a seat nor active."""

    guest: Guest
    name: str

    async def sh(self, script: str, *, check: bool = False, timeout: float = SCRIPT_SECONDS) -> Completed:
        """Run a bash script as this person, in their home and with nothing of root's environment."""
        clean = f"HOME=/home/{self.name} USER={self.name} LANG=C.UTF-8 PATH=/usr/local/bin:/usr/bin:/bin"
        command = f"cd /home/{self.name} && exec runuser -u {self.name} -- env -i {clean} bash -c {shlex.quote(script)}"
        return await self.guest.sh(command, check=check, timeout=timeout)

    async def call(self, member: str, *arguments: str) -> Completed:
        """Call a method of our service with ``busctl``; ``arguments`` begin with their signature, if there are any."""
        return await self.sh(f"busctl call {MANAGER} {member} {shlex.join(arguments)}")


@asynccontextmanager
async def people(guest: Guest) -> AsyncIterator[tuple[Person, Person]]:
    """One in the group ``immich-usb-backup-admins``, and one who is not; both are gone at the end, and the group if it was
    not there before."""
    made = await guest.sh(f"getent group {ADMINS} >/dev/null || {{ groupadd --system {ADMINS} && echo made; }}")
    await guest.sh(f"useradd --create-home --shell /bin/bash --groups {ADMINS} alice")
    try:
        await guest.sh("useradd --create-home --shell /bin/bash bob")
        yield Person(guest, "alice"), Person(guest, "bob")
    finally:
        script = "for name in alice bob; do pkill -KILL -u $name; userdel --remove $name; done"
        await guest.sh(f"{script}; {f'groupdel {ADMINS}' if made.stdout else 'true'}", check=False)
