"""All checks, in the order in which a person would mend what they find."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from immich_usb_backup import config as configuration
from immich_usb_backup.config import Config
from immich_usb_backup.doctor import disks, immich, programs, system, telling, walls
from immich_usb_backup.doctor.checked import Checked, bad, good, unseen
from immich_usb_backup.doctor.machine import Machine
from immich_usb_backup.doctor.try_mail import send
from immich_usb_backup.errors import ConfigError

OUTBOX = "outbox"


def look(machine: Machine, config_path: Path, state: Path, *, send_mail: bool) -> Iterator[Checked]:
    """Every check, one after the other. With a configuration that cannot be used, what does not depend on it. ``send_mail``:
    a test message is part of it."""
    config, found = _configuration(machine, config_path)
    usable = config or Config()
    yield found
    yield from _set_up(machine, usable)
    if config is None:
        yield unseen("everything else", "it depends on the configuration", "Correct that, and run this again")
        return
    yield from immich.folders(machine, config)
    yield from walls.look(machine, config)
    yield immich.dump(machine, config)
    yield from immich.fresh(machine, config.database)
    yield from _disks(machine, config, state)
    yield from send(machine, config.mail) if send_mail else [telling.mail(machine, config.mail)]
    yield telling.outbox(machine, state / OUTBOX)
    yield from telling.desktop(machine)
    yield from telling.outside(config)


def _set_up(machine: Machine, config: Config) -> Iterator[Checked]:
    yield from system.accounts(machine, config.desktop.group)
    yield from system.units(machine)
    yield from system.files(machine)
    yield system.udev_loaded(machine)
    yield system.service_name(machine)
    yield programs.polkit(machine)
    yield programs.udisks(machine)
    yield programs.rsync(machine)
    yield programs.exfat(machine)
    yield programs.fsck(machine)


def _disks(machine: Machine, config: Config, state: Path) -> Iterator[Checked]:
    yield disks.trust(machine, config, state)
    yield from disks.freshness(machine, config, state)
    yield from system.schedules(machine, config)
    yield disks.power(machine, config)
    yield disks.state(machine, state)
    yield disks.clock(machine)


def _configuration(machine: Machine, path: Path) -> tuple[Config | None, Checked]:
    try:
        config = configuration.load(machine.path(path))
    except ConfigError as error:
        todo = f"{error.hint}. How to begin: docs/how-to/first-backup.md"
        return None, bad("configuration", "; ".join(error.problems) or error.message, todo)
    return config, good("configuration", f"{path} has no mistakes")
