"""The check of a disk before it is written to, in the guest: real systemd, polkit, kernel and fsck; the daemon is off."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.exfat import DIRTY, FLAGS_AT, Exfat
from tests.vm.guest import Guest
from tests.vm.image import exfat_image, filesystem_offset, image_hash

CHECK, REPAIR = "immich-usb-backup-check", "immich-usb-backup-repair"
USER = "immich-usb-backup"
WALLS = f"/run/systemd/system/{CHECK}@.service.d/walls.conf"

# The daemon's own way to the units, as the daemon's user.
ASK = """
import asyncio, os, sys
from immich_usb_backup.adapters.bus import Bus
from immich_usb_backup.adapters.file_systems import SystemdFileSystems
from immich_usb_backup.model import Partition

async def ask(what, node, uuid):
    partition = Partition(block_path="", drive_path=None, device_node=node, device_number=os.stat(node).st_rdev,
        file_system="exfat", uuid=uuid, label="", connection_bus="usb", size=0, read_only=False)
    bus = await Bus.system()
    health, said = await getattr(SystemdFileSystems(bus), what)(partition)
    await bus.close()
    print(health.value, said, sep=": ")

asyncio.run(ask(*sys.argv[1:]))
"""

pytestmark = pytest.mark.usefixtures("no_daemon")


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def _walls_as_they_were(guest: Guest) -> AsyncIterator[None]:
    yield
    walls = f"{Path(WALLS).parent} {Path(WALLS.replace(CHECK, REPAIR)).parent}"
    await guest.sh(f"rm -rf {walls}; systemctl stop '{CHECK}@*' '{REPAIR}@*'; systemctl daemon-reload")


async def ask(guest: Guest, what: str, node: str) -> str:
    """What the daemon would learn of a device; ``what`` is ``check`` or ``repair``."""
    uuid = (await guest.sh(f"blkid -s UUID -o value {node}")).stdout.strip()
    python = "$(dirname $(readlink -f /usr/local/bin/immich-usb-backup))/python"
    script = f"runuser -u {USER} -- {python} -c {shlex.quote(ASK)} {what} {node} {uuid}"
    return (await guest.sh(script)).stdout.strip()


async def as_user(guest: Guest, user: str, *arguments: str) -> int:
    """systemctl as somebody; its exit code."""
    command = f"runuser -u {user} -- systemctl --no-ask-password {shlex.join(arguments)} </dev/null"
    return (await guest.sh(command, check=False)).returncode


def mark_dirty(image: Path) -> None:
    """As a pull leaves it."""
    with image.open("r+b") as file:
        file.seek(filesystem_offset(image) + FLAGS_AT)
        file.write(bytes([DIRTY, 0]))


def flags(image: Path) -> int:
    """The volume's flags."""
    return image.read_bytes()[filesystem_offset(image) + FLAGS_AT]


@contextmanager
def stick(path: Path) -> Iterator[Exfat]:
    """A stick without a partition table, marked as not unmounted properly."""
    with Exfat.make(path) as image:
        image.flags = DIRTY
        yield image


async def test_a_clean_stick_and_a_sound_one_that_was_pulled(guest: Guest, tmp_path: Path) -> None:
    image = exfat_image(tmp_path / "blue.img", populate={"immich-server-backups/upload/a.jpg": b"a" * 100_000})
    before = image_hash(image)
    await guest.plug("blue", image)
    node = await guest.device("blue") + "1"
    assert await ask(guest, "check", node) == "clean: unmounted properly"
    await guest.pull("blue")
    assert image_hash(image) == before

    mark_dirty(image)
    before = image_hash(image)
    await guest.plug("blue", image)
    node = await guest.device("blue") + "1"
    assert await ask(guest, "check", node) == "dirty: no errors"
    await guest.pull("blue")
    assert image_hash(image) == before

    await guest.plug("blue", image)
    node = await guest.device("blue") + "1"
    assert await ask(guest, "repair", node) == "repaired: no errors"
    assert await ask(guest, "check", node) == "clean: unmounted properly"
    units = await guest.sh(f"systemctl list-units --all --no-legend '{CHECK}@*' '{REPAIR}@*'")
    assert units.stdout == "", "nothing is left of them"
    await guest.pull("blue")
    assert flags(image) == 0


async def test_damage_in_the_backup_is_repaired_and_nothing_else_touched(guest: Guest, tmp_path: Path) -> None:
    with stick(tmp_path / "ours.img") as image:
        folder = image.folder("immich-server-backups")
        image.free(image.file("a.jpg", folder))
        image.file("holiday.jpg")
    await guest.plug("ours", image.path)
    node = await guest.device("ours")
    assert (await ask(guest, "check", node)).startswith("damaged: 1 error, the first: /immich-server-backups/a.jpg")
    assert (await ask(guest, "repair", node)).startswith("repaired: ")
    assert await ask(guest, "check", node) == "clean: unmounted properly"
    await guest.sh(f"mkdir -p /mnt/it && mount -t exfat -o ro {node} /mnt/it && ls /mnt/it/*/a.jpg && umount /mnt/it")


async def test_damage_elsewhere_is_left_alone(guest: Guest, tmp_path: Path) -> None:
    with stick(tmp_path / "theirs.img") as image:
        image.folder("immich-server-backups")
        image.free(image.file("holiday.jpg"))
    before = image_hash(image.path)
    await guest.plug("theirs", image.path)
    node = await guest.device("theirs")
    assert (await ask(guest, "repair", node)).startswith("damaged: 1 error, the first: /holiday.jpg")
    await guest.pull("theirs")
    assert image_hash(image.path) == before


@pytest.mark.parametrize("seconds", [1.0, 2.5, 4.0])
async def test_a_stick_that_was_pulled_in_mid_write_is_made_whole(guest: Guest, tmp_path: Path, seconds: float) -> None:
    image = exfat_image(tmp_path / "blue.img", populate={"holiday.jpg": b"h" * 300_000})
    await guest.plug("blue", image, write_bytes_per_second=2_000_000)
    node = await guest.device("blue") + "1"
    fill = (
        f"mkdir -p /mnt/it && mount -t exfat {node} /mnt/it && mkdir /mnt/it/immich-server-backups;"
        "for f in $(seq 400); do mkdir -p /mnt/it/immich-server-backups/$((f % 20));"
        "head -c 100K /dev/urandom > /mnt/it/immich-server-backups/$((f % 20))/$f.jpg || break; done"
    )
    await guest.sh(f"sysctl -q vm.dirty_bytes=4194304; systemd-run --unit=fill --collect bash -c {shlex.quote(fill)}")
    try:
        await guest.until("test -e /mnt/it/immich-server-backups/5/5.jpg")
        await guest.sh(f"sleep {seconds}")
        await guest.pull("blue")
    finally:
        await guest.sh(
            "systemctl stop fill; umount -l /mnt/it; sysctl -q vm.dirty_bytes=0 vm.dirty_ratio=20", check=False
        )
    assert flags(image) == DIRTY
    await guest.plug("blue", image)
    node = await guest.device("blue") + "1"
    found = await ask(guest, "check", node)
    print(f"pulled after {seconds} s: {found}")
    assert found.split(":")[0] in {"dirty", "damaged"}
    mended = await ask(guest, "repair", node)
    print(f"then: {mended}")
    assert mended.split(":")[0] == "repaired"
    assert await ask(guest, "check", node) == "clean: unmounted properly"
    assert "ERROR" not in (await guest.sh(f"fsck.exfat -n {node}")).stdout
    whole = "test $(tr -d h < /mnt/it/holiday.jpg | wc -c) = 0 && test $(stat -c %s /mnt/it/holiday.jpg) = 300000"
    await guest.sh(f"mount -t exfat {node} /mnt/it && {whole}; code=$?; umount /mnt/it; exit $code")


async def test_a_mounted_stick_is_not_looked_at(guest: Guest, tmp_path: Path) -> None:
    image = exfat_image(tmp_path / "blue.img")
    mark_dirty(image)
    await guest.plug("blue", image)
    node = await guest.device("blue") + "1"
    await guest.sh(f"mkdir -p /mnt/it && mount -t exfat -o ro {node} /mnt/it")
    try:
        for what in ("check", "repair"):
            assert await ask(guest, what, node) == f"unknown: {node} cannot be opened: it is in use"
    finally:
        await guest.sh("umount /mnt/it")


TRY = """
exec 2>/dev/null
for path in {device} {other} /dev/vda /dev/mem /dev/kmsg /etc/shadow /root /var/lib/immich-usb-backup /etc/new /var/tmp/../new; do
    (: < $path) && echo "reads $path"
    (: >> $path) && echo "writes $path"
done
(exec 3<>/dev/tcp/127.0.0.1/22) && echo "has a network"
for pid in 1 $(pgrep -o sshd); do kill -0 $pid && echo "may kill $pid"; done
mount -t tmpfs none /mnt && echo "mounts"
uid=$(id -u); ((61184 <= uid && uid <= 65519)) && echo "ran as a dynamic user"
"""


async def walled(guest: Guest, unit: str, device: str, other: str) -> set[str]:
    """What a shell within a unit's walls can do, as lines; and what it is."""
    conf = WALLS.replace(CHECK, unit)
    await guest.write("/run/try.sh", TRY.format(device=device, other=other), mode="0755")
    await guest.write(conf, "[Service]\nExecStart=\nExecStart=/bin/bash /run/try.sh\n")
    instance = f"{unit}@{device.removeprefix('/dev/')}.service"
    script = (
        f"systemctl daemon-reload; systemctl restart {instance}; id=$(systemctl show -p InvocationID --value {instance});"
        f"journalctl --sync; journalctl -q -o cat _SYSTEMD_INVOCATION_ID=$id;"
        f"systemctl stop {instance}; rm -r {Path(conf).parent}; systemctl daemon-reload"
    )
    return set((await guest.sh(script)).stdout.splitlines())


async def test_the_units_reach_one_device_and_nothing_else(guest: Guest, tmp_path: Path) -> None:
    for name in ("one", "two"):
        await guest.plug(name, exfat_image(tmp_path / f"{name}.img"))
    device = await guest.device("one") + "1"
    other = await guest.device("two") + "1"
    user = "ran as a dynamic user"
    assert await walled(guest, CHECK, device, other) == {f"reads {device}", user}
    assert await walled(guest, REPAIR, device, other) == {f"reads {device}", f"writes {device}", user}


async def test_the_daemons_user_may_start_these_units_and_no_others(guest: Guest, tmp_path: Path) -> None:
    await guest.plug("blue", exfat_image(tmp_path / "blue.img"))
    node = (await guest.device("blue")).removeprefix("/dev/") + "1"
    for unit in (CHECK, REPAIR):
        assert await as_user(guest, USER, "start", f"{unit}@{node}.service") == 0
        assert await as_user(guest, "nobody", "stop", f"{unit}@{node}.service") != 0
        assert await as_user(guest, USER, "stop", f"{unit}@{node}.service") == 0
        assert await as_user(guest, "nobody", "start", f"{unit}@{node}.service") != 0
        assert await as_user(guest, USER, "start", f"{unit}@bus-{node}.service") != 0, "a folder's device"
    for refused in (
        ("start", "systemd-tmpfiles-clean.service"),
        ("stop", "dbus.socket"),
        ("restart", f"{CHECK}@{node}.service"),
        ("kill", f"{CHECK}@{node}.service"),
        ("set-property", f"{CHECK}@{node}.service", "DeviceAllow=/dev/vda rw"),
        ("start", "debug-shell.service"),
        ("daemon-reload",),
    ):
        assert await as_user(guest, USER, *refused) != 0, refused
    made = f"runuser -u {USER} -- systemd-run --no-ask-password --unit={CHECK}@x.service true"
    assert (await guest.sh(made, check=False)).returncode != 0, "a unit of its own making by that name"


async def test_a_check_that_is_stopped_ends(guest: Guest, tmp_path: Path) -> None:
    image = exfat_image(tmp_path / "blue.img")
    mark_dirty(image)
    await guest.plug("blue", image)
    node = (await guest.device("blue")).removeprefix("/dev/") + "1"
    slow = "#!/bin/sh\nexec sleep 600\n"
    await guest.write("/usr/local/sbin/fsck.exfat", slow, mode="0755")
    try:
        assert await as_user(guest, USER, "start", "--no-block", f"{CHECK}@{node}.service") == 0
        await guest.until("pgrep -f '[s]leep 600'")
        assert await as_user(guest, USER, "stop", f"{CHECK}@{node}.service") == 0
        assert (await guest.sh("pgrep -f '[s]leep 600'", check=False)).returncode == 1
    finally:
        await guest.sh("rm /usr/local/sbin/fsck.exfat")
    assert await ask(guest, "check", f"/dev/{node}") == "dirty: no errors"
