"""The package and the wheel, from a machine that has never heard of us to a finished backup, and off again.

In a guest of its own, with nothing of ours in it. What is typed is taken from the page that users read.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.vm.backup import DAEMON, MEDIA, OURS, Backup, marked_image
from tests.vm.building import build_package
from tests.vm.guest import Completed, Guest
from tests.vm.image import guest_image, mounted_exfat
from tests.vm.installing import CONFIG_FIRST, REPOSITORY, collect, documented
from tests.vm.journal import Journal
from tests.vm.people import MANAGER
from tests.vm.test_install import OURS as FIND_OURS
from tests.vm.test_set_up import NOT_HERE

CHECKOUT = "/root/immich-usb-backup"
DIST = f"{CHECKOUT}/dist"
CONFIG = "/etc/immich-usb-backup/config.toml"
HOMELY = "/home/carol/immich"
"""Configuration files in somebody's home, which the service sees only where systemd's generator has run."""
USERS = "immich-usb-backup immich-usb-backup-notify immich-usb-backup-dump"
LATER = "0.1.0+later"
NEWER = f"/root/immich-usb-backup_{LATER}_amd64.deb"
BUILD_SECONDS = 300.0
INSTALL_SECONDS = 300.0
STICK_MIB = 4096
"""More than the room that the example configuration keeps free."""


@dataclass(frozen=True)
class Made:
    """What the host has made: two packages, the second one newer, and the wheels."""

    package: Path
    later: Path
    wheels: Path


def _make(scratch: Path) -> Made:
    collect(scratch)
    package = build_package(scratch / "checkout", scratch / "wheels", scratch / "dist")
    return Made(package, _repacked(package, scratch), scratch / "wheels")


def _repacked(package: Path, scratch: Path) -> Path:
    """The same under a later version, which it also gives itself."""
    inside = scratch / "later"
    _run("dpkg-deb", "--raw-extract", str(package), str(inside))
    (metadata,) = inside.glob("usr/lib/immich-usb-backup/immich_usb_backup-*.dist-info/METADATA")
    for file in (inside / "DEBIAN/control", metadata):
        file.write_text(re.sub(r"^Version: .*$", f"Version: {LATER}", file.read_text(), count=1, flags=re.MULTILINE))
    target = scratch / Path(NEWER).name
    _run("dpkg-deb", "-Zgzip", "--root-owner-group", "--build", str(inside), str(target))
    return target


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """What is installed."""
    return _make(tmp_path_factory.mktemp("made"))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bare(made: Made, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Backup]:
    """A server with an Immich, and with nothing of ours but what was made for it in /root."""
    async with (
        Guest(await asyncio.to_thread(guest_image), memory_mib=1024) as guest,
        Journal(guest).followed() as journal,
    ):
        backup = Backup(guest, journal)
        await backup.put_library(tmp_path_factory.mktemp("server"))
        await guest.sh(f"mkdir -p {DIST} {Path(HOMELY).parent} && mv /srv/immich {HOMELY}")
        for source, target in (
            (REPOSITORY / "systemd", f"{CHECKOUT}/systemd"),
            (made.package, DIST),
            (made.later, "/root"),
            (made.wheels, "/root/wheels"),
        ):
            await guest.put(source, target)
        yield backup
        await guest.pull_all()


def test_lintian_finds_no_error_in_the_package(made: Made) -> None:
    _run("lintian", "--allow-root", "--fail-on=error", str(made.package))


async def test_the_package_from_nothing_to_a_backup_and_off_again(bare: Backup, tmp_path: Path) -> None:
    guest, blue = bare.guest, marked_image(tmp_path / "blue.img", size_mib=STICK_MIB)
    await _in_checkout(guest, documented(*CONFIG_FIRST))
    await guest.sh(f"sed -i 's|^# config_files = .*|config_files = [\"{HOMELY}\"]|' {CONFIG}")
    await _in_checkout(guest, documented("sudo apt install ./dist/"))
    await _answers_on_the_bus(guest)
    await _is_backed_up(bare, blue)
    await _is_healthy(guest)
    await _cannot_be_changed_under_a_backup(bare, tmp_path)
    await _begins_anew_by_itself(bare)
    await _is_backed_up(bare, blue)
    await guest.sh("dpkg --remove immich-usb-backup")
    assert (await guest.sh(f"systemctl is-active {DAEMON}", check=False)).stdout.strip() == "inactive"
    await guest.sh(f"test -s {CONFIG} && test -s /var/lib/immich-usb-backup/state.db && id {USERS.split()[0]}")
    await guest.sh("dpkg --purge immich-usb-backup")
    assert await _left(guest) == ""
    assert await bare.differences(blue) == [], "what is on the stick is nobody's to purge"


async def test_the_wheel_alone_from_nothing_to_a_backup_and_off_again(bare: Backup, tmp_path: Path) -> None:
    guest, green = bare.guest, marked_image(tmp_path / "green.img", size_mib=STICK_MIB)
    await guest.pull_all()
    await guest.sh("dpkg --purge immich-usb-backup")
    await _as_pipx_does(guest)
    ours = await _left(guest)
    looked = await guest.sh("immich-usb-backup install-system --check && immich-usb-backup install-system --dry-run")
    assert f"Writing {CONFIG}" in looked.stdout
    assert await _left(guest) == ours, "it was only looked"
    await bare.from_now_on()
    await _in_checkout(guest, documented("sudo immich-usb-backup install-system"))
    beside = await guest.sh(f"dpkg --install {NEWER}", check=False)
    assert beside.returncode != 0
    assert "another installation is in /usr/local" in beside.stdout + beside.stderr
    await _answers_on_the_bus(guest)
    await _is_backed_up(bare, green)
    await guest.sh("immich-usb-backup install-system --uninstall --purge")
    assert await _left(guest) == ours
    assert await bare.differences(green) == []


async def _as_pipx_does(guest: Guest) -> None:
    venv = "/opt/pipx/venvs/immich-usb-backup"
    await guest.sh(
        f"python3 -m venv --without-pip {venv} && python3 -m pip --python {venv}/bin/python install --quiet "
        f"--no-index --find-links /root/wheels immich-usb-backup && ln -s {venv}/bin/immich-usb-backup /usr/local/bin/",
        timeout=INSTALL_SECONDS,
    )


async def _in_checkout(guest: Guest, command: str) -> Completed:
    return await guest.sh(f"cd {CHECKOUT} && {command}", timeout=INSTALL_SECONDS)


async def _left(guest: Guest) -> str:
    """Our files and users in the guest."""
    users = await guest.sh(f"getent passwd {USERS}; getent group {USERS} immich-usb-backup-admins", check=False)
    return (await guest.sh(FIND_OURS)).stdout + users.stdout


async def _answers_on_the_bus(guest: Guest) -> None:
    """Desktops and commands reach the service, which D-Bus lets have its name only where it knows the users."""
    await guest.sh(f"runuser -u nobody -- busctl call {MANAGER} GetState")


async def _is_healthy(guest: Guest) -> None:
    """All that the doctor looks for is there."""
    found = json.loads((await guest.sh("immich-usb-backup doctor --json", check=False)).stdout)
    assert [one for one in found if one["result"] == "problem" and one["check"] not in NOT_HERE] == []


async def _is_backed_up(backup: Backup, image: Path) -> None:
    """A stick is plugged in, and nothing else is done."""
    await backup.guest.plug("blue", image)
    ended = await backup.ended()
    assert ended.outcome == "ok", ended.story
    assert not await backup.is_mounted(await backup.guest.device("blue"))
    await backup.guest.pull("blue")
    assert await backup.differences(image) == []
    with mounted_exfat(image) as root:
        assert list((root / OURS / "database").glob("immich-db-backup-*.sql.gz"))


async def _cannot_be_changed_under_a_backup(backup: Backup, tmp_path: Path) -> None:
    guest = backup.guest
    await backup.make_it_slow()
    await guest.plug("red", marked_image(tmp_path / "red.img", size_mib=STICK_MIB), write_bytes_per_second=200_000)
    await guest.until("ls /media/*/Blue/immich-server-backups/upload/big | grep -q jpg")
    before = await _state(guest)
    refused = await guest.sh(f"dpkg --install {NEWER}", check=False)
    assert refused.returncode != 0
    assert (refused.stdout + refused.stderr).count("a backup is running") == 1
    assert await _state(guest) == before
    await guest.throttle("red", 0)
    assert await backup.outcome() == "ok", await backup.story()
    await guest.pull("red")
    await guest.sh(f"sysctl -q vm.dirty_bytes=0 vm.dirty_ratio=20; rm -r {MEDIA}/upload/big")


async def _state(guest: Guest) -> str:
    """What is installed, and which process serves."""
    state = f"dpkg-query -W -f '${{Status}} ${{Version}} ' immich-usb-backup; systemctl show -P MainPID {DAEMON}"
    return (await guest.sh(f"{state}; find /usr/lib/immich-usb-backup/immich_usb_backup | sort | sha256sum")).stdout


async def _begins_anew_by_itself(backup: Backup) -> None:
    guest = backup.guest
    await backup.from_now_on()
    await guest.sh(f"dpkg --install {NEWER}", timeout=INSTALL_SECONDS)
    await backup.event("begins-anew")
    await backup.event("ready")
    assert LATER in (await guest.sh("immich-usb-backup --version")).stdout
