"""docs/how-to/prepare-a-disk.md, the lines for Linux: on files and a loop disk in the place of a disk and its partition."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from immich_usb_backup.policy.marker import find_marker
from tests.support import host
from tests.support.needs import cannot_run

PAGE = (Path(__file__).resolve().parents[2] / "docs/how-to/prepare-a-disk.md").read_text()
BASIC_DATA = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
"""The type of a partition that Windows and macOS look into."""


def _line(beginning: str) -> str:
    (line,) = (line for line in PAGE.splitlines() if beginning in line)
    return line.replace("sudo ", "")


def _run(line: str, environment: Mapping[str, str] = os.environ) -> str:
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", line], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    for program in ("sfdisk", "mkfs.exfat", "blkid", "wipefs"):
        if shutil.which(program) is None:
            cannot_run(f"{program} is not installed")
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(64 * 2**20)
    return path


def test_the_lines_make_one_partition_that_every_system_looks_into(disk: Path) -> None:
    _run(_line("mkfs.exfat").replace("/dev/sdX1", str(disk)))  # what was on it before
    for beginning in ("wipefs --all", "sfdisk /dev/sdX"):
        _run(_line(beginning).replace("/dev/sdX", str(disk)))
    table = _run(f"sfdisk --dump {disk}")
    assert "label: gpt\n" in table
    assert re.findall(r"type=([\w-]+)", table) == [BASIC_DATA]


def test_the_line_makes_an_exfat_with_the_name(disk: Path) -> None:
    _run(_line("mkfs.exfat").replace("/dev/sdX1", str(disk)))
    assert {"LABEL=Blue", "TYPE=exfat"} <= set(_run(f"blkid -o export -p {disk}").splitlines())


@pytest.mark.host
@pytest.mark.skipif(host.unavailable() is not None, reason=str(host.unavailable()))
def test_the_lines_put_the_marker_on_the_disk_and_let_go_of_it(bus: host.Bus) -> None:
    with host.exfat_disk(label="Blue") as disk:
        mount, unmount = (
            _line(f"udisksctl {word}").replace("/dev/sdX1", str(disk.device)) for word in ("mount", "unmount")
        )
        (place,) = re.findall(r" at (/\S+?)\.?\n", _run(mount, bus.env))
        _run(_line("mkdir /media").replace("/media/$USER/Blue", place))
        _run(unmount, bus.env)
        assert disk.mount_points() == []
        with disk.mounted() as root:
            marker = find_marker((path.name, path.is_dir()) for path in root.iterdir())
    assert marker is not None
    assert marker.is_folder
