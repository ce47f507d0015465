"""What the timers start, over a real bus: the daemon's own user asks, and gets it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from immich_usb_backup.adapters.dbus_service import DaemonOnBus
from immich_usb_backup.config import Desktop
from immich_usb_backup.model import Trigger
from tests.support import host
from tests.support.asked import Service
from tests.support.real_disks import connected

DAEMON = Path(__file__).resolve().parents[2] / "daemon"

pytestmark = pytest.mark.skipif(host.find_program("dbus-daemon") is None, reason="there is no dbus-daemon")


@pytest.fixture(scope="module")
def bus() -> Iterator[host.Bus]:
    with host.system_bus(private=True) as bus:
        yield bus


@pytest.fixture
async def service(bus: host.Bus) -> AsyncIterator[Service]:
    async with connected(bus) as connection:
        service = Service()
        await DaemonOnBus(connection, Desktop, lambda: 0.0).start(service)
        yield service


async def ours(bus: host.Bus, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command as the units do."""
    environment = {**os.environ, bus.variable: bus.address, "PYTHONPATH": str(DAEMON)}
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "immich_usb_backup", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )


async def test_the_service_is_asked_to_remind(bus: host.Bus, service: Service, tmp_path: Path) -> None:
    done = await ours(bus, "remind", f"--state={tmp_path}")
    assert (done.returncode, done.stdout) == (0, "Reminded of 2 disks without a fresh backup.\n")
    assert service.asked == [("remind", "Blue")]
    assert [*tmp_path.iterdir()] == []


async def test_a_scheduled_backup_of_what_is_here_and_of_what_is_not(bus: host.Bus, service: Service) -> None:
    here = await ours(bus, "backup", "--scheduled", "--", "Blue")
    assert (here.returncode, here.stderr) == (0, "")
    ((_, disk, mode, trigger),) = service.asked
    assert (disk, mode, trigger) == ("Blue", "", Trigger.ASKED), "root is a person"
    away = await ours(bus, "backup", "--scheduled", "--", "-Green")
    assert (away.returncode, away.stderr) == (0, "")
    assert away.stdout.startswith("No scheduled backup now: No disk '-Green' is plugged in")


async def test_nobody_on_the_bus_is_a_service_that_does_not_run(bus: host.Bus, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("")
    done = await ours(bus, "remind", f"--state={tmp_path / 'state'}", f"--config={tmp_path / 'config.toml'}")
    assert done.returncode == 0, done.stderr
    assert "The service does not answer: looking at the history without it." in done.stdout
    scheduled = await ours(bus, "backup", "--scheduled", "--", "Blue")
    assert scheduled.returncode == 69


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
async def test_what_a_person_with_sudo_leaves_belongs_to_the_service(bus: host.Bus) -> None:
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        (state / "outbox").mkdir(parents=True)
        for path in (Path(folder), state, state / "outbox"):
            path.chmod(0o755)
            os.chown(path, 65534, 65534)
        (Path(folder) / "config.toml").write_text("")
        done = await ours(bus, "remind", f"--state={state}", f"--config={folder}/config.toml")
        assert done.returncode == 0, done.stderr
        owners = {path.name: path.stat().st_uid for path in state.iterdir()}
        assert owners == {"outbox": 65534, "state.db": 65534, "reminders.json": 65534}
