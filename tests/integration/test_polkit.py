"""Our actions, rule and D-Bus policy with the real polkit, whose answers the face passes on.

The group and the daemon's user are not on this machine: others take their places in copies of the two files.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from immich_usb_backup.adapters.bus import Bus
from immich_usb_backup.adapters.dbus_service import DaemonOnBus
from immich_usb_backup.adapters.polkit import GROUP, Action
from immich_usb_backup.config import Desktop
from immich_usb_backup.dbus_names import BUS_NAME, DISK, DISKS, MANAGER, OBJECT_PATH, RUN, RUNS, path_of
from tests.support import host
from tests.support.asked import AUTHORITY, POLKIT, POLKIT_PATH, Service

SYSTEMD = Path(__file__).resolve().parents[2] / "systemd"
MEMBER, STRANGER, ASKER = "nobody", "games", "daemon"
"""Users that every Debian has. The member's own group takes the place of ours, the asker that of the daemon's user."""

AS_ON_A_SYSTEM_BUS = f"""  <policy context="default">
    <deny send_type="method_call"/>
    <allow send_destination="org.freedesktop.DBus"/>
    <allow send_destination="{POLKIT}"/>
  </policy>
"""
"""What is not allowed there is forbidden."""

MISSING = [name for name in ("dbus-daemon", "polkitd", "busctl") if host.find_program(name) is None]
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can install actions, and become somebody else"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {MISSING}"),
]


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[host.Bus]:
    folder = tmp_path_factory.mktemp("polkit")
    group = subprocess.run(["id", "-gn", MEMBER], capture_output=True, text=True, check=True).stdout.strip()
    rules, actions = folder / "50-immich-usb-backup.rules", folder / f"{BUS_NAME}.policy"
    rules.write_text((SYSTEMD / rules.name).read_text().replace(GROUP, group))
    actions.write_text((SYSTEMD / actions.name).read_text().replace(":immich-usb-backup<", f":{ASKER}<"))
    with pytest.MonkeyPatch.context() as patch:
        policy = f"{AS_ON_A_SYSTEM_BUS}  <include>{SYSTEMD / BUS_NAME}.conf</include>\n</busconfig>"
        patch.setattr(host, "BUS_CONFIG", host.BUS_CONFIG.replace("</busconfig>", policy))
        with host.system_bus(private=True) as bus, host.polkit(bus, rules=[rules], actions=[actions]):
            patch.setenv(bus.variable, bus.address)
            yield bus


@pytest.fixture
async def service(bus: host.Bus) -> AsyncIterator[Service]:
    assert bus.address
    service, connection = Service(), await Bus.system()
    await DaemonOnBus(connection, Desktop, lambda: 0.0).start(service)
    yield service
    await connection.close()


async def call(user: str, *arguments: str, interactive: bool = False) -> subprocess.CompletedProcess[str]:
    flag = f"--allow-interactive-authorization={'yes' if interactive else 'no'}"
    address = f"--address={os.environ['DBUS_SYSTEM_BUS_ADDRESS']}"
    command = ["busctl", address, "--timeout=20", flag, "call", *arguments]
    group = pwd.getpwnam(user).pw_gid  # newer ones of polkit go by the groups of the process
    return await asyncio.to_thread(
        lambda: subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, user=user, group=group, extra_groups=[]
        )
    )


@pytest.mark.parametrize(
    ("member", "words"), [("Eject", ("s", "Blue")), ("Approve", ("s", "Blue")), ("GetCurrentFile", ())]
)
async def test_members_of_the_group_may_and_others_are_told_how(
    service: Service, member: str, words: tuple[str, ...]
) -> None:
    place = (BUS_NAME, OBJECT_PATH, MANAGER, member, *words)
    allowed = await call(MEMBER, *place)
    assert allowed.returncode == 0, allowed.stderr
    service.asked.clear()
    for interactive in (False, True):  # there is nobody to type a password: that is a refusal, and no wait
        refused = await call(STRANGER, *place, interactive=interactive)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert f"members of the group {GROUP}. Run it with sudo" in refused.stderr
    assert service.asked == []


@pytest.mark.usefixtures("service")
async def test_everybody_may_look() -> None:
    place = (BUS_NAME, OBJECT_PATH)
    standard = "org.freedesktop.DBus"
    for words in (
        (MANAGER, "GetDisks"),
        (f"{standard}.Properties", "GetAll", "s", MANAGER),
        (f"{standard}.Introspectable", "Introspect"),
        (f"{standard}.Peer", "Ping"),
    ):
        done = await call(STRANGER, *place, *words)
        assert done.returncode == 0, done.stderr
    for path, interface in ((path_of(DISKS, "1234-ABCD"), DISK), (path_of(RUNS, "none"), RUN)):
        refused = await call(STRANGER, BUS_NAME, path, interface, "Cancel")
        assert GROUP in refused.stderr, "the daemon refuses, not the bus"
    listed = await call(STRANGER, *place, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
    assert "disks/1234_2dABCD" in listed.stdout, listed.stderr


@pytest.mark.parametrize("action", Action)
async def test_the_daemons_user_may_ask_about_others_though_it_is_not_root(bus: host.Bus, action: Action) -> None:
    """The annotation ``owner`` in the actions' file."""
    assert bus.address
    somebody = await Bus.system()
    unique = str(somebody._connection.unique_name)
    question = ("(sa{sv})sa{ss}us", "system-bus-name", "1", "name", "s", unique, action, "0", "0", "x")
    answer = await call(ASKER, POLKIT, POLKIT_PATH, AUTHORITY, "CheckAuthorization", *question)
    assert answer.stdout.startswith("(bba{ss}) true"), (answer.stderr, "root, whom it is about, may")
    refused = await call(STRANGER, POLKIT, POLKIT_PATH, AUTHORITY, "CheckAuthorization", *question)
    assert "Only trusted callers" in refused.stderr
    await somebody.close()
