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

UDISKS, SYSTEMD1, LOGIN, UPOWER = (f"org.freedesktop.{name}" for name in ("UDisks2", "systemd1", "login1", "UPower"))
RESOLVER, NETWORK = "org.freedesktop.resolve1", "org.freedesktop.NetworkManager"

AS_ON_A_SYSTEM_BUS = f"""  <policy context="default">
    <deny send_type="method_call"/>
    <allow send_destination="org.freedesktop.DBus"/>
    <allow send_destination="{POLKIT}"/>
    {"".join(f'<allow send_destination="{name}"/>' for name in (UDISKS, SYSTEMD1, LOGIN, UPOWER, RESOLVER, NETWORK))}
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
    allowed = folder / f"{BUS_NAME}.conf"
    allowed.write_text((SYSTEMD / allowed.name).read_text().replace('user="immich-usb-backup"', f'user="{ASKER}"'))
    rules.write_text((SYSTEMD / rules.name).read_text().replace(GROUP, group))
    actions.write_text((SYSTEMD / actions.name).read_text().replace(":immich-usb-backup<", f":{ASKER}<"))
    with pytest.MonkeyPatch.context() as patch:
        policy = f"{AS_ON_A_SYSTEM_BUS}  <include>{allowed}</include>\n</busconfig>"
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


PROPERTIES = "org.freedesktop.DBus.Properties"
NEEDED = (
    (BUS_NAME, MANAGER, "GetState"),
    (UDISKS, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects"),
    *((UDISKS, f"{UDISKS}.{call[0]}", call[1]) for call in (("Filesystem", "Mount"), ("Filesystem", "Unmount"))),
    (UDISKS, f"{UDISKS}.Drive", "PowerOff"),
    *((SYSTEMD1, f"{SYSTEMD1}.Manager", member) for member in ("StartUnit", "StopUnit", "LoadUnit")),
    (SYSTEMD1, PROPERTIES, "GetAll"),
    (LOGIN, f"{LOGIN}.Manager", "Inhibit"),
    *((POLKIT, AUTHORITY, member) for member in ("CheckAuthorization", "CancelCheckAuthorization")),
    (UPOWER, PROPERTIES, "Get"),
)
"""What the daemon calls, by its adapters."""
OTHERS = (
    (RESOLVER, f"{RESOLVER}.Manager", "ResolveHostname"),
    (NETWORK, NETWORK, "AddAndActivateConnection"),
    (UDISKS, f"{UDISKS}.Manager", "LoopSetup"),
    (UDISKS, f"{UDISKS}.Block", "Format"),
    (UDISKS, f"{UDISKS}.Drive", "Eject"),
    (LOGIN, f"{LOGIN}.Manager", "PowerOff"),
    ("org.freedesktop.DBus", "org.freedesktop.DBus", "UpdateActivationEnvironment"),
)


@pytest.fixture
async def everybody(bus: host.Bus) -> AsyncIterator[None]:
    """One connection that has all these names and answers nothing but errors."""
    assert bus.address
    names = {place[0] for place in (*NEEDED, *OTHERS)} - {POLKIT, BUS_NAME, "org.freedesktop.DBus"}
    connections = [await Bus.system() for _ in names]
    for connection, name in zip(connections, names, strict=True):
        await connection.request_name(name)
    yield
    for connection in connections:
        await connection.close()


async def _refused_by_the_bus(user: str, place: tuple[str, str, str]) -> bool:
    name, interface, member = place
    done = await call(user, name, "/x", interface, member)
    return "Access denied" in done.stderr or "rejected" in done.stderr


@pytest.mark.usefixtures("service", "everybody")
async def test_the_daemons_user_may_call_what_the_daemon_needs_and_nobody_else() -> None:
    assert [place for place in NEEDED if await _refused_by_the_bus(ASKER, place)] == []
    assert [place for place in OTHERS if not await _refused_by_the_bus(ASKER, place)] == []
    assert not await _refused_by_the_bus("root", OTHERS[0]), "nothing is taken from anybody else"
