"""The harness itself: disks come, are seen as what they are, and go."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from .clock import clock_jumped, invocation, started_again
from .guest import Guest, GuestError
from .image import exfat_image, ext4_image, image_hash, mounted_exfat
from .people import ADMINS, people

MIB = 1024 * 1024

pytestmark = pytest.mark.usefixtures("no_daemon")


async def _property(guest: Guest, device: str, name: str) -> str:
    done = await guest.sh(f"udevadm info --query=property --property={name} --value {device}")
    return done.stdout.strip()


async def test_scripts_and_files_go_both_ways(guest: Guest, tmp_path: Path) -> None:
    await guest.write("/tmp/there/words.txt", "Grüße\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/more.txt").write_text("more")
    await guest.put(tmp_path / "folder", "/tmp/there/folder")
    await guest.get("/tmp/there/words.txt", tmp_path / "words.txt")
    assert (tmp_path / "words.txt").read_text() == "Grüße\n"
    assert (await guest.sh("cat /tmp/there/folder/more.txt")).stdout == "more"
    assert (await guest.sh("exit 7", check=False)).returncode == 7
    with pytest.raises(GuestError, match="exit 3"):
        await guest.sh("exit 3")


async def test_a_script_ends_at_its_deadline(guest: Guest) -> None:
    assert (await guest.sh("sleep 60", check=False, timeout=1)).returncode == 124
    with pytest.raises(GuestError, match=r"serial\.log"):
        await guest.until("false", timeout=1)


async def test_a_call_costs_little(guest: Guest) -> None:
    started = time.monotonic()
    for _ in range(10):
        await guest.sh("true")
    assert time.monotonic() - started < 20


async def test_the_guest_has_no_network(guest: Guest) -> None:
    reached = await guest.sh("timeout 5 bash -c 'echo > /dev/tcp/10.0.2.2/22'", check=False, timeout=20)
    assert reached.returncode != 0


@pytest.mark.parametrize("partitioned", [True, False])
async def test_a_usb_stick_is_seen_mounted_and_pulled(guest: Guest, tmp_path: Path, partitioned: bool) -> None:
    image = exfat_image(tmp_path / "blue.img", partitioned=partitioned, populate={"a/hello.txt": b"hello"})
    await guest.plug("blue", image, serial="BLUE1")
    disk = await guest.device("blue")
    filesystem = f"{disk}1" if partitioned else disk
    await guest.until(f"udisksctl info -b {filesystem} | grep -q 'IdType: *exfat'")
    assert await _property(guest, filesystem, "ID_FS_TYPE") == "exfat"
    assert await _property(guest, filesystem, "ID_BUS") == "usb"
    mounted = await guest.sh(f"mount -t exfat {filesystem} /mnt && cat /mnt/a/hello.txt && umount /mnt")
    assert mounted.stdout == "hello"
    before = int(await _property(guest, filesystem, "DISKSEQ"))
    await guest.pull("blue")
    await guest.until(f"test ! -e {disk}")
    await guest.plug("blue", image, serial="BLUE1")
    again = await guest.device("blue")
    assert int(await _property(guest, again, "DISKSEQ")) > before


@pytest.mark.parametrize("removable", [True, False])
async def test_removable_is_as_asked(guest: Guest, tmp_path: Path, removable: bool) -> None:
    await guest.plug("blue", exfat_image(tmp_path / "blue.img"), removable=removable)
    disk = await guest.device("blue")
    said = await guest.sh(f"cat /sys/block/{Path(disk).name}/removable")
    assert said.stdout.strip() == str(int(removable))


async def test_a_disk_that_is_not_usb(guest: Guest, tmp_path: Path) -> None:
    await guest.plug("inner", exfat_image(tmp_path / "inner.img"), usb=False)
    disk = await guest.device("inner")
    assert await _property(guest, f"{disk}1", "ID_FS_TYPE") == "exfat"
    assert await _property(guest, f"{disk}1", "ID_BUS") != "usb"
    await guest.pull("inner")
    await guest.until(f"test ! -e {disk}")


async def test_a_stick_without_exfat(guest: Guest, tmp_path: Path) -> None:
    await guest.plug("linux", ext4_image(tmp_path / "linux.img"))
    disk = await guest.device("linux")
    assert await _property(guest, f"{disk}1", "ID_FS_TYPE") == "ext4"


async def test_two_sticks_at_once(guest: Guest, tmp_path: Path) -> None:
    for name in ("one", "two"):
        await guest.plug(name, exfat_image(tmp_path / f"{name}.img", label=name))
    disks = {await guest.device(name) for name in ("one", "two")}
    assert len(disks) == 2


async def test_what_was_synced_is_on_the_image_after_a_pull(guest: Guest, tmp_path: Path) -> None:
    image = exfat_image(tmp_path / "blue.img")
    untouched = image_hash(image)
    await guest.plug("blue", image)
    disk = await guest.device("blue")
    await guest.sh(f"mount -t exfat {disk}1 /mnt && echo kept > /mnt/kept.txt && sync -f /mnt")
    try:
        await guest.pull("blue")
    finally:
        await guest.sh("umount /mnt")
    assert image_hash(image) != untouched
    with mounted_exfat(image) as root:
        assert (root / "kept.txt").read_text() == "kept\n"


async def test_a_slow_stick_is_pulled_in_mid_write(guest: Guest, tmp_path: Path) -> None:
    image = exfat_image(tmp_path / "slow.img")
    await guest.plug("slow", image, write_bytes_per_second=MIB)
    disk = await guest.device("slow")
    started = time.monotonic()
    await guest.sh(f"dd if=/dev/zero of={disk} bs=1M seek=64 count=4 oflag=direct status=none")
    assert time.monotonic() - started > 2
    await guest.throttle("slow", 0)
    started = time.monotonic()
    await guest.sh(f"dd if=/dev/zero of={disk} bs=1M seek=64 count=4 oflag=direct status=none")
    assert time.monotonic() - started < 4
    await guest.throttle("slow", MIB // 8)
    await guest.sh(f"dd if=/dev/zero of={disk} bs=1M seek=64 count=64 oflag=direct status=none > /tmp/dd 2>&1 &")
    await guest.until("pgrep -x dd")
    await guest.pull("slow")
    await guest.until("! pgrep -x dd")
    assert "error" in (await guest.sh("cat /tmp/dd")).stdout


async def test_two_people_who_are_not_root(guest: Guest) -> None:
    async with people(guest) as (alice, bob):
        assert ADMINS in (await alice.sh("id -nG")).stdout.split()
        assert ADMINS not in (await bob.sh("id -nG")).stdout.split()
        for person in (alice, bob):
            assert (await person.sh("id -un; pwd; touch mine")).stdout.split() == [person.name, f"/home/{person.name}"]
            asked = await person.sh("busctl call org.freedesktop.DBus / org.freedesktop.DBus GetId", check=True)
            assert asked.stdout.startswith("s ")
            assert (await person.sh("cat /etc/shadow")).returncode == 1
    assert (await guest.sh("getent passwd alice bob", check=False)).stdout == ""


async def test_a_clock_that_jumps_makes_timers_fire(guest: Guest) -> None:
    timer = "systemd-run --unit=some-day --on-calendar=hourly --timer-property=AccuracySec=1s"
    await guest.sh(f"{timer} --property=RemainAfterExit=yes true")
    try:
        before = await invocation(guest, "some-day.service")
        assert before == ""
        async with clock_jumped(guest, "+2 hours"):
            await started_again(guest, "some-day.service", before)
        assert abs(float((await guest.sh("date +%s")).stdout) - time.time()) < 60
    finally:
        await guest.sh("systemctl stop some-day.timer some-day.service")
