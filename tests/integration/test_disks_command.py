"""``immich-usb-backup disks`` as a user runs it, beside real udev, D-Bus and UDisks2, with disks that are loop devices."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess, run
from typing import Any

import pytest

from tests.support import host
from tests.support.daemon import DAEMON

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(host.unavailable() is not None, reason=str(host.unavailable())),
]

NO_MARKER = "not eligible: it has no marker immich-server-backups in its root"
FIELDS = {"device", "label", "uuid", "name", "model", "serial", "size", "file_system", "transport", "marker"}
ESCAPE = "\x1b"


@dataclass
class Command:
    """The command with its configuration."""

    bus: host.Bus
    config: Path

    def run(self, *options: str) -> CompletedProcess[str]:
        """Run it to its end."""
        command = [sys.executable, "-m", "immich_usb_backup", "disks", f"--config={self.config}", *options]
        environment = {**self.bus.env, "PYTHONPATH": str(DAEMON), "PYTHONUTF8": "1"}
        return run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    def about(self, device: Path, *options: str) -> str:
        """What it prints about one device, line by line without the indents."""
        text = self.run(*options).stdout
        blocks = [block.splitlines() for block in text.replace("\n/dev/", "\n\n/dev/").split("\n\n")]
        (found,) = [block for block in blocks if block and block[0].split()[0] == str(device)]
        return "\n".join(line.strip() for line in found)

    def json_about(self, device: Path, *options: str) -> dict[str, Any]:
        """The same for programs."""
        entries = json.loads(self.run("--json", *options).stdout)
        (found,) = [entry for entry in entries if entry["device"] == str(device)]
        return dict(found)


@pytest.fixture
def command(bus: host.Bus, tmp_path: Path) -> Command:
    config = tmp_path / "config.toml"
    config.write_text('media_location = "/none"\n[disks]\ntransports = ["loop"]\n')
    return Command(bus, config)


@contextmanager
def exfat(command: Command, label: str = "IMMICH", populate: Callable[[Path], object] | None = None) -> Iterator[Path]:
    """A disk that is plugged in, mounted where it is populated; its device."""
    with host.exfat_disk(16, label, populate=populate) as disk, ExitStack() as stack:
        if populate:
            stack.enter_context(disk.mounted())
        _wait_for_udisks(command.bus, disk.device)
        yield disk.device


@contextmanager
def ext4() -> Iterator[Path]:
    """A loop disk with another file system."""
    with host.temporary_folder() as folder, ExitStack() as stack:
        image = folder / "disk.img"
        image.touch()
        host.run("truncate", "--size=16M", str(image))
        host.run("mkfs.ext4", "-q", "-L", "Linux", str(image))
        device = Path(f"/dev/loop{host._add_loop()}")
        stack.callback(host._remove_loop, device)
        host.run("losetup", str(device), str(image))
        host.settle()
        yield device


def _wait_for_udisks(bus: host.Bus, device: Path) -> None:
    """udev is faster than UDisks2."""
    path = f"/org/freedesktop/UDisks2/block_devices/{device.name}"
    introspect = [f"--bus={bus.address}", "--print-reply", f"--dest={host.UDISKS_NAME}", path]
    ask = ["dbus-send", *introspect, "org.freedesktop.DBus.Introspectable.Introspect"]
    host.wait_until(lambda: "UDisks2.Filesystem" in host.run(*ask), f"UDisks2 offers {device}")


def blue(root: Path) -> None:
    """For ``populate``: a marker with a name."""
    (root / "immich-server-backups.txt").write_text('name = "Blue"\n')


def photos(root: Path) -> None:
    """For ``populate``: a disk of somebody's."""
    (root / "holiday.jpg").write_bytes(b"mine")


def test_a_marked_disk_is_eligible_and_has_its_markers_name(command: Command) -> None:
    with exfat(command, "STICK", blue) as device:
        said = command.about(device)
        assert said.startswith(f"{device}  'Blue'  16.8 MB")
        assert "\nlabel STICK, UUID " in said
        assert said.endswith("\nexfat on loop, marker: yes\neligible")
        assert command.run().returncode == 0


def test_a_disk_that_is_not_mounted_stays_so_and_is_looked_at_when_it_is_plugged_in(command: Command) -> None:
    with host.exfat_disk(16, "STICK", populate=blue) as disk:
        _wait_for_udisks(command.bus, disk.device)
        before = disk.hash()
        said = command.about(disk.device)
        assert said.startswith(f"{disk.device}  'STICK'")
        assert said.endswith("\nexfat on loop, marker: is looked for when it is plugged in\neligible")
        assert not disk.mount_points()
        assert disk.hash() == before


def test_a_disk_without_a_marker_is_told_why_it_is_not_eligible(command: Command) -> None:
    with exfat(command, "STICK", photos) as device:
        assert command.about(device).endswith(f"\nexfat on loop, marker: no\n{NO_MARKER}")
        assert command.run().returncode == 75


def test_a_bus_that_is_not_allowed_and_a_missing_marker_are_both_told(command: Command) -> None:
    command.config.write_text('media_location = "/none"\n')
    with exfat(command, "STICK", photos) as device:
        transport = "not eligible: it is connected by loop, allowed is usb"
        assert command.about(device).endswith(f"marker: no\n{transport}\n{NO_MARKER}")


def test_other_file_systems_are_shown_only_when_all_are_asked_for(command: Command) -> None:
    command.config.write_text('media_location = "/none"\n')
    with ext4() as device:
        assert str(device) not in command.run().stdout
        said = command.about(device, "--all")
        assert said.startswith(f"{device}  'Linux'")
        assert "not eligible: it is connected by loop, allowed is usb" in said
        assert "not eligible: it holds ext4, not exFAT" in said
        assert not said.endswith("\neligible")


def test_programs_get_every_field(command: Command) -> None:
    with exfat(command, "STICK", blue) as good, ext4() as bad:
        marked = command.json_about(good, "--all")
        assert set(marked) == {*FIELDS, "eligible", "reasons", "known"}
        uuid = host.run("blkid", "-p", "-s", "UUID", "-o", "value", str(good)).strip()
        told = (marked["label"], marked["name"], marked["uuid"], marked["size"], marked["file_system"])
        assert told == ("STICK", "Blue", uuid, 16 << 20, "exfat")
        assert (marked["transport"], marked["marker"]) == ("loop", "yes")
        assert (marked["eligible"], marked["reasons"]) == (True, [])
        other = command.json_about(bad, "--all")
        assert (other["eligible"], other["marker"]) == (False, "unknown")
        assert other["reasons"] == ["it holds ext4, not exFAT"]
        listed = [entry["device"] for entry in json.loads(command.run("--json").stdout)]
        assert str(good) in listed
        assert str(bad) not in listed


def test_without_any_disk_it_says_what_to_do(command: Command) -> None:
    if "exfat" in host.run("lsblk", "-nro", "FSTYPE"):
        pytest.skip("another exFAT disk is plugged in to this machine")
    done = command.run()
    assert done.returncode == 75
    assert done.stdout.startswith("No exFAT or pluggable disk is here.")
    assert (command.run("--json").returncode, command.run("--json").stdout) == (75, "[]\n")


HOSTILE_LABEL = f"{ESCAPE}[2J\nevil"


def hostile(root: Path) -> None:
    """For ``populate``: a marker whose name would be another disk's line."""
    (root / "immich-server-backups.toml").write_text('name = "\\u001b[31mRed\\r\\n/dev/sda  \\u202egood"\n')


@pytest.mark.parametrize(
    ("populate", "title"), [(hostile, "\\u001b[31mRed"), (photos, "\\u001b[2J\\nevil")], ids=["name", "label"]
)
def test_hostile_names_are_printed_harmlessly(command: Command, populate: Callable[[Path], object], title: str) -> None:
    with exfat(command, HOSTILE_LABEL, populate) as device:
        done = command.run()
        assert not set(done.stdout) & {ESCAPE, "\r", "\u202e"}
        said = command.about(device)
        assert f"'{title}" in said.splitlines()[0]
        assert not any(line.startswith("/dev/sda") for line in done.stdout.splitlines())
        assert "label \\u001b[2J\\nevil, UUID" in said
        assert command.json_about(device)["label"] == HOSTILE_LABEL
