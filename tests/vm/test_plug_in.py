"""What a user does, on real parts: plug a stick in, walk away, pull it out too early, stop the service."""

from __future__ import annotations

from email import message_from_string
from email.policy import default
from pathlib import Path

import pytest

from tests.vm.backup import DAEMON, MAILS, MEDIA, OUTCOMES, Backup, everything_else, marked_image, without_daemon
from tests.vm.guest import Guest
from tests.vm.image import exfat_image, ext4_image, image_hash, mounted_exfat


@pytest.mark.mail
async def test_a_marked_stick_is_backed_up_unmounted_and_told(backup: Backup, tmp_path: Path) -> None:
    owners = {"holiday.txt": b"mine", "Photos/old.jpg": bytes(range(256)) * 1000}
    image = marked_image(tmp_path / "blue.img", extra=owners)
    before = everything_else(image)
    await backup.guest.plug("blue", image)
    assert await backup.outcome() == "ok", await backup.story()
    assert not await backup.is_mounted(await backup.guest.device("blue"))
    mail = await backup.guest.until(f"cat {MAILS}/box/new/*")
    assert "Subject: 'Blue' is backed up: safe to unplug" in mail
    await backup.guest.pull("blue")
    assert await backup.differences(image) == []
    assert everything_else(image) == before
    with mounted_exfat(image) as root:
        assert list((root / "immich-server-backups/database").glob("immich-db-backup-*.sql.gz"))
        assert list((root / "immich-server-backups/config").glob("config-*.zip"))
        assert (root / "immich-server-backups.txt").read_bytes() == b'name = "Blue"\n'


async def test_a_stick_without_a_partition_table_is_backed_up_and_copies_nothing_twice(
    backup: Backup, tmp_path: Path
) -> None:
    image = exfat_image(
        tmp_path / "whole.img", partitioned=False, populate={"immich-server-backups": b'name = "Whole"'}
    )
    await backup.guest.plug("whole", image)
    assert await backup.outcome() == "ok", await backup.story()
    await backup.guest.pull("whole")
    assert await backup.differences(image) == []
    with mounted_exfat(image) as root:
        assert (root / "immich-server-backups/marker.toml").read_bytes() == b'name = "Whole"'
    await backup.guest.plug("whole", image)
    ended = await backup.event("run-ok")
    assert ended["IMMICH_BACKUP_DISK"] == "Whole"
    assert ended["IMMICH_BACKUP_FILES"] == "0", ended["MESSAGE"]


async def test_an_unmarked_stick_stays_bit_for_bit_what_it_was(backup: Backup, tmp_path: Path) -> None:
    image = exfat_image(tmp_path / "plain.img", populate={"holiday.txt": b"mine"})
    before = image_hash(image)
    await backup.guest.plug("plain", image)
    await backup.event("disk-unmarked")
    assert not await backup.is_mounted(await backup.guest.device("plain"))
    await backup.guest.pull("plain")
    assert image_hash(image) == before


async def test_what_is_not_eligible_is_ignored_with_the_reason(backup: Backup, tmp_path: Path) -> None:
    await backup.guest.plug("linux", ext4_image(tmp_path / "linux.img"))
    assert "ext4, not exFAT" in (await backup.event("disk-ignored"))["MESSAGE"]
    await backup.guest.plug("inside", marked_image(tmp_path / "inside.img"), usb=False)
    assert "allowed is usb" in (await backup.event("disk-ignored"))["MESSAGE"]


async def test_a_stick_pulled_in_mid_copy_is_completed_by_the_next_plug_in(backup: Backup, tmp_path: Path) -> None:
    image = marked_image(tmp_path / "blue.img")
    await backup.make_it_slow()
    await backup.guest.plug("blue", image, write_bytes_per_second=1_000_000)
    await backup.guest.until("ls /media/*/Blue/immich-server-backups/upload/big | grep -c jpg | grep -q '[5-9]'")
    await backup.guest.pull("blue")
    assert await backup.outcome() == "interrupted"
    assert "unplugged" in str((await backup.report())["findings"])
    await backup.guest.sh("systemctl is-active immich-usb-backup.service")
    await backup.guest.plug("blue", image)
    assert await backup.outcome() == "ok", await backup.story()
    await backup.guest.pull("blue")
    assert await backup.differences(image) == []


async def test_a_stick_pulled_after_the_copy_and_before_the_flush_is_no_success(backup: Backup, tmp_path: Path) -> None:
    image = marked_image(tmp_path / "blue.img")
    await backup.guest.plug("blue", image, write_bytes_per_second=500_000)
    page = "/media/immich-usb-backup/Blue/immich-server-backups/OPEN-ME.html"
    # The page is the last that comes before the flush. The service stands still there, or it would be over too soon.
    halt = f"systemctl kill --kill-whom=main --signal=SIGSTOP {DAEMON}"
    await backup.guest.sh(f"until ls {page} >/dev/null 2>&1; do sleep 0.05; done; {halt}")
    try:
        await backup.guest.pull("blue")
    finally:
        await backup.guest.sh(f"systemctl kill --kill-whom=main --signal=SIGCONT {DAEMON}")
    assert await backup.outcome() in {"interrupted", "failed"}, await backup.story()
    await backup.guest.plug("blue", image)
    assert await backup.outcome() == "ok", await backup.story()
    await backup.guest.pull("blue")
    assert await backup.differences(image) == []


async def test_a_killed_service_cleans_up_at_its_next_start(backup: Backup, tmp_path: Path) -> None:
    image = marked_image(tmp_path / "blue.img")
    await backup.make_it_slow()
    await backup.guest.plug("blue", image, write_bytes_per_second=1_000_000)
    await backup.guest.until("ls /media/*/Blue/immich-server-backups/upload/big | grep -q jpg")
    await backup.guest.sh("systemctl kill --kill-whom=all --signal=SIGKILL immich-usb-backup.service")
    await backup.guest.throttle("blue", 0)
    assert await backup.outcome() == "interrupted"
    assert not await backup.is_mounted(await backup.guest.device("blue"))
    await backup.guest.pull("blue")
    await backup.guest.plug("blue", image)
    assert await backup.outcome() == "ok", await backup.story()
    await backup.guest.pull("blue")
    assert await backup.differences(image) == []


async def test_stopping_the_service_in_mid_run_unmounts_the_stick(backup: Backup, tmp_path: Path) -> None:
    image = marked_image(tmp_path / "blue.img")
    await backup.make_it_slow()
    await backup.guest.plug("blue", image, write_bytes_per_second=1_000_000)
    await backup.guest.until("ls /media/*/Blue/immich-server-backups/upload/big | grep -q jpg")
    await backup.guest.sh("systemctl stop immich-usb-backup.service", timeout=180)
    assert await backup.outcome() == "interrupted"
    assert not await backup.is_mounted(await backup.guest.device("blue"))
    assert (await backup.guest.sh("pgrep -x rsync", check=False)).returncode == 1
    await backup.guest.sh("systemctl start immich-usb-backup.service")
    await backup.guest.pull("blue")
    await backup.guest.plug("blue", image)
    assert await backup.outcome() == "ok", await backup.story()


async def test_two_sticks_at_once_are_both_backed_up_one_after_the_other(backup: Backup, tmp_path: Path) -> None:
    images = [marked_image(tmp_path / "one.img"), marked_image(tmp_path / "two.img")]
    await backup.make_it_slow(8)
    for name, image in zip(("one", "two"), images, strict=True):
        await backup.guest.plug(name, image, write_bytes_per_second=2_000_000)
    assert [await backup.outcome(), await backup.outcome()] == ["ok", "ok"]
    assert await backup.order("run-started", *OUTCOMES) == ["run-started", "run-ok"] * 2, await backup.story()
    await backup.guest.pull_all()
    assert [await backup.differences(image) for image in images] == [[], []]


async def test_nothing_on_a_stick_can_be_run_or_gain_rights(backup: Backup, tmp_path: Path) -> None:
    await backup.make_it_slow(8)
    await backup.guest.plug("blue", marked_image(tmp_path / "blue.img"), write_bytes_per_second=1_000_000)
    await backup.event("run-started")
    disk = await backup.guest.device("blue")
    (options,) = (await backup.guest.sh(f"findmnt -rn -o VFS-OPTIONS -S {disk}1")).stdout.split()
    assert {"rw", "nosuid", "nodev", "noexec"} <= set(options.split(","))
    await backup.guest.throttle("blue", 0)
    assert await backup.outcome() == "ok", await backup.story()


async def test_a_restart_does_not_run_it_again_and_a_stick_that_was_there_at_the_start_is_backed_up(
    backup: Backup, tmp_path: Path
) -> None:
    await backup.start_over(grace_seconds=0, mail=False)
    async with without_daemon(backup.guest):
        await backup.guest.sh("systemctl stop immich-usb-backup-notifier.path")
        await backup.guest.plug("blue", marked_image(tmp_path / "blue.img"))
        await backup.guest.device("blue")
    assert await backup.outcome() == "ok", await backup.story()
    await backup.guest.sh("systemctl restart immich-usb-backup.service")
    await backup.guest.sh("udevadm trigger --settle --subsystem-match=block")
    await backup.guest.plug("other", exfat_image(tmp_path / "other.img"))
    await backup.event("disk-unmarked")  # its turn comes after whatever the restart queued
    shown = await backup.guest.sh("/usr/local/bin/immich-usb-backup history --json | grep -c '\"run_id\"'")
    assert shown.stdout.strip() == "1"


async def _plug_and_mount_as_a_desktop(backup: Backup, image: Path) -> tuple[str, str]:
    """A stick that somebody else has mounted before the service sees it; its partition and where it is mounted."""
    guest = backup.guest
    async with without_daemon(guest):
        await guest.plug("blue", image)
        partition = f"{await guest.device('blue')}1"
        await guest.until(f"udisksctl mount --no-user-interaction -b {partition}")
        path = (await guest.sh(f"findmnt -n -o TARGET -S {partition}")).stdout.strip()
        assert path.startswith("/media/root/")
    return partition, path


async def test_a_disk_that_a_desktop_has_mounted_is_taken_over(backup: Backup, tmp_path: Path) -> None:
    image = marked_image(tmp_path / "blue.img")
    partition, _ = await _plug_and_mount_as_a_desktop(backup, image)
    assert await backup.outcome() == "ok", await backup.story()
    assert not await backup.is_mounted(partition)
    await backup.guest.pull("blue")
    assert await backup.differences(image) == []


async def test_a_disk_without_a_marker_that_a_desktop_has_mounted_stays_mounted(backup: Backup, tmp_path: Path) -> None:
    image = exfat_image(tmp_path / "plain.img", populate={"holiday.txt": b"mine"})
    partition, path = await _plug_and_mount_as_a_desktop(backup, image)
    await backup.event("disk-unmarked")
    assert (await backup.guest.sh(f"findmnt -n -o TARGET -S {partition}")).stdout.strip() == path
    assert (await backup.guest.sh(f"ls -A {path}")).stdout.split() == ["holiday.txt"]
    await backup.guest.sh(f"udisksctl unmount -b {partition}")


async def test_the_rule_starts_a_service_that_is_down(backup: Backup, tmp_path: Path) -> None:
    await backup.guest.sh("systemctl stop immich-usb-backup.service")
    await backup.guest.plug("blue", marked_image(tmp_path / "blue.img"))
    assert await backup.outcome() == "ok", await backup.story()


async def _inside(guest: Guest, unit: str, script: str) -> str:
    """What a shell script says that runs within a unit's walls."""
    walls = f"/run/systemd/system/walls-{unit}"
    path = f"/usr/local/share/walls-{unit}.sh"
    await guest.write(path, f"{script}\nexit 0\n")
    try:
        await guest.sh(
            "sed -e 's/^Type=.*/Type=oneshot/' -e '/^ExecStart=/d' -e '/^Restart/d' -e '/^WatchdogSec/d'"
            f" -e 's|^\\[Service\\]|[Service]\\nExecStart=/bin/bash {path}|'"
            f" /usr/local/lib/systemd/system/{unit}.service > {walls}.service;"
            f"systemctl daemon-reload; systemctl start walls-{unit}.service"
        )
        return (await guest.sh(f"journalctl -q -u walls-{unit}.service -o cat")).stdout
    finally:
        await guest.sh(f"rm -f {path} {walls}.service; systemctl daemon-reload")


def _tried(tries: dict[str, str]) -> str:
    """A script that says which of these commands the walls held back."""
    lines = [
        f"if {{ {do}; }} &>/dev/null; then echo broke {name}; else echo held {name}; fi" for name, do in tries.items()
    ]
    return "\n".join(lines)


def _held(said: str) -> list[str]:
    """What the walls held back; nothing broke through them."""
    assert "broke" not in said, said
    return [line.removeprefix("held ") for line in said.splitlines() if line.startswith("held ")]


_OPEN_INET = "python3 -c 'import socket; socket.socket(socket.AF_INET)'"


async def test_the_service_can_harm_neither_the_library_nor_the_system(backup: Backup) -> None:
    """The same walls, with a shell inside them."""
    tries = {
        "library": f"touch {MEDIA}/upload/evil",
        "remove": f"rm {MEDIA}/upload/.immich",
        "etc": "touch /etc/evil",
        "usr": "touch /usr/evil",
        "home": "touch /home/evil",
        "network": _OPEN_INET,
        "mount": "mount -t tmpfs tmpfs /mnt",
        "shadow": "grep -q root /etc/shadow",
    }
    reads = f"ls {MEDIA}/upload >/dev/null && echo reads library"
    said = await _inside(backup.guest, "immich-usb-backup", f"{_tried(tries)}\n{reads}")
    assert _held(said) == list(tries)
    assert "reads library" in said


@pytest.mark.mail
async def test_the_notifier_has_the_network_and_can_read_nothing(backup: Backup) -> None:
    """Files that anybody may read show that it is the walls that hold, and not the files' modes."""
    state = "/var/lib/immich-usb-backup/state.db"
    open_to_all = [f"{MEDIA}/all.txt", "/home/all.txt", "/srv/all.txt", "/mnt/all.txt"]
    tries = {
        **{f"read {path}": f"cat {path}" for path in open_to_all},
        "read state": f"cat {state}",
        "list state": "ls /var/lib/immich-usb-backup",
        "write etc": "touch /etc/evil",
        "write library": f"touch {MEDIA}/evil",
        "shadow": "cat /etc/shadow",
        "packets": "python3 -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)'",
        "disks": "ls /dev/vda",
    }
    says = [
        "grep ^Cap /proc/self/status",
        f"{_OPEN_INET} && echo has network",
        "ls /var/lib/immich-usb-backup/outbox >/dev/null && echo reads outbox",
    ]
    files = " ".join(open_to_all)
    guest = backup.guest
    await guest.until(f"test -s {state}")
    await guest.sh(f"chmod o+rx {MEDIA}; echo mine | tee {files}; chmod 644 {files}")
    try:
        everybody = f"setpriv --reuid=nobody --clear-groups cat {files}"
        assert (await guest.sh(everybody)).stdout.split() == ["mine"] * len(open_to_all)
        said = await _inside(guest, "immich-usb-backup-notifier", "\n".join([_tried(tries), *says]))
    finally:
        await guest.sh(f"rm -f {files}; chmod o= {MEDIA}")
    assert _held(said) == list(tries)
    assert {"has network", "reads outbox"} <= set(said.splitlines()), said
    capabilities = dict(line.split() for line in said.splitlines() if line.startswith("Cap"))
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(capabilities[f"{kind}:"], 16) == 0, said


async def test_the_daemon_hears_that_a_check_is_over(backup: Backup, tmp_path: Path) -> None:
    """systemd's signals pass the bus's policy: nothing waits until it would look again by itself."""
    async with backup.altered(("adapters/units.py", "_LOOK_AGAIN_SECONDS", 3600)):
        await backup.start_over(grace_seconds=0, mail=False)
        ended = await backup.plug_in(marked_image(tmp_path / "blue.img"))
    assert ended.outcome == "ok", ended.story


async def test_the_journal_tells_one_run_by_its_fields(backup: Backup, tmp_path: Path) -> None:
    await backup.guest.plug("blue", marked_image(tmp_path / "blue.img"))
    ended = await backup.event("run-ok")
    assert (ended["PRIORITY"], ended["MESSAGE_ID"]) == ("6", "0f86d6ce83884ab780c58acc7ab3952a")
    shown = await backup.guest.sh(f"journalctl -q -o cat IMMICH_BACKUP_RUN={ended['IMMICH_BACKUP_RUN']}")
    lines = shown.stdout.splitlines()
    assert lines[0].startswith("Backing up to 'Blue'")
    assert lines[-1].startswith("'Blue' is backed up: safe to unplug")
    assert len(lines) == 13, lines  # a line a step, and one on what a marker means


async def test_the_machine_neither_sleeps_nor_shuts_down_in_a_run(backup: Backup, tmp_path: Path) -> None:
    await backup.make_it_slow(8)
    await backup.guest.plug("blue", marked_image(tmp_path / "blue.img"), write_bytes_per_second=2_000_000)
    await backup.event("run-started")
    held = (await backup.guest.sh("systemd-inhibit --list --no-legend --no-pager")).stdout
    assert [
        line.split() for line in held.splitlines() if "immich-usb" in line and "shutdown" in line and "block" in line
    ]
    assert [line.split() for line in held.splitlines() if "immich-usb" in line and "sleep" in line and "block" in line]
    await backup.guest.throttle("blue", 0)
    assert await backup.outcome() == "ok", await backup.story()
    assert "immich-usb" not in (await backup.guest.sh("systemd-inhibit --list --no-legend --no-pager")).stdout


async def test_a_busy_stick_is_not_called_safe_to_unplug(backup: Backup, tmp_path: Path) -> None:
    async with backup.altered(("release.py", "BUSY_SECONDS", 3)):
        await backup.guest.sh("systemctl restart immich-usb-backup.service")
        await backup.make_it_slow(8)
        await backup.guest.plug("blue", marked_image(tmp_path / "blue.img"), write_bytes_per_second=1_000_000)
        await backup.event("run-started")
        await backup.guest.sh(
            "cd /media/immich-usb-backup/Blue && systemd-run --unit=holder --working-directory=$PWD sleep 600"
        )
        try:
            await backup.guest.throttle("blue", 0)
            assert await backup.outcome() == "partial", await backup.story()
        finally:
            await backup.guest.sh("systemctl stop holder.service")
    report = await backup.report()
    assert report["safe_to_unplug"] is False
    assert "in use" in str(report["findings"])


async def test_a_stick_is_switched_off_where_that_is_wanted(backup: Backup, tmp_path: Path) -> None:
    config = "/etc/immich-usb-backup/config.toml"
    await backup.guest.sh(f"cp {config} /root/kept.toml; sed -i 's/^\\[disks\\]/[disks]\\npower_off = true/' {config}")
    await backup.guest.sh("systemctl reload immich-usb-backup.service")
    try:
        await backup.guest.plug("blue", marked_image(tmp_path / "blue.img"))
        assert await backup.outcome() == "ok", await backup.story()
        assert (await backup.report())["powered_off"] is True
        await backup.guest.until("! lsblk -nd -o TRAN | grep -q usb")
    finally:
        await backup.guest.sh(f"mv /root/kept.toml {config}; systemctl reload-or-restart immich-usb-backup.service")


@pytest.mark.mail
async def test_hostile_labels_and_marker_names_harm_nobody(backup: Backup, tmp_path: Path) -> None:
    marker = b'name = "<b>Blue</b>\\r\\nBcc: evil@example.org"\n'
    image = exfat_image(tmp_path / "evil.img", label="$(reboot)", populate={"immich-server-backups.toml": marker})
    await backup.guest.plug("evil", image)
    assert await backup.outcome() == "ok", await backup.story()
    mail = message_from_string(await backup.guest.until(f"cat {MAILS}/box/new/*"), policy=default)
    assert mail["Bcc"] is None
    html = mail.get_body(("html",))
    assert html is not None
    assert "&lt;b&gt;Blue" in html.get_content()
    assert "<b>Blue" not in html.get_content()


async def test_a_masked_service_stays_off(backup: Backup, tmp_path: Path) -> None:
    await backup.guest.sh("systemctl mask --now immich-usb-backup.service")
    try:
        await backup.guest.plug("blue", marked_image(tmp_path / "blue.img"))
        disk = await backup.guest.device("blue")
        await backup.guest.until(f"udevadm info {disk}1 | grep -q SYSTEMD_WANTS=immich-usb-backup.service")
        assert (
            await backup.guest.sh("systemctl is-active immich-usb-backup.service", check=False)
        ).stdout != "active\n"
    finally:
        await backup.guest.sh("systemctl unmask immich-usb-backup.service")
