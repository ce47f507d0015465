"""What the Debian package's scripts do before anything is replaced or taken away, on a stand-in for systemd."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.support.programs import put_program

DEBIAN = Path(__file__).parents[2] / "packaging/debian"


def _prerm(folder: Path, action: str, state: str, status: str) -> subprocess.CompletedProcess[str]:
    """Run it beside a service in this state. What it calls is noted in the file ``called``."""
    (folder / "run").mkdir()
    answers = f"""*ActiveState*) echo '{state}' ;; *StatusText*) echo "{status}" ;; *) echo "systemctl $*" >> {folder}/called"""
    put_program(folder, "systemctl", f'case "$*" in {answers} ;; esac')
    path = put_program(folder, "py3clean", f"echo py3clean >> {folder}/called")
    script = (DEBIAN / "prerm").read_text().replace("/run/systemd/system", f"{folder}/run")
    environment = {"PATH": path}
    return subprocess.run(
        ["sh", "-s", action], input=script, capture_output=True, text=True, check=False, env=environment
    )


@pytest.mark.parametrize("action", ["upgrade", "failed-upgrade", "remove"])
@pytest.mark.parametrize("state", ["active", "reloading", "deactivating"])
def test_nothing_is_changed_under_a_backup(action: str, state: str, tmp_path: Path) -> None:
    done = _prerm(tmp_path, action, state, "'Blue': copying photos, 41 %")
    assert done.returncode == 1
    assert not (tmp_path / "called").exists()
    told = "a backup is running ('Blue': copying photos, 41 %)" in done.stderr
    assert told == (action != "failed-upgrade"), "dpkg asks twice, and once is enough to be told"


@pytest.mark.parametrize("action", ["upgrade", "remove"])
@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("active", "Idle: waiting for disks on usb"),
        ("active", ""),
        ("inactive", "'Blue': copying photos, 41 %"),  # what it said before it was killed
        ("failed", "'Blue': copying photos, 41 %"),
        ("", ""),
    ],
)
def test_without_a_backup_it_goes_on(action: str, state: str, status: str, tmp_path: Path) -> None:
    done = _prerm(tmp_path, action, state, status)
    assert (done.returncode, done.stderr) == (0, "")
    called = (tmp_path / "called").read_text()
    assert "py3clean" in called
    assert ("stop immich-usb-backup*" in called) == (action == "remove"), "an upgrade stops nothing"
