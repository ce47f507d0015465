"""The demo: an exFAT disk is plugged in, the real daemon backs up to it. Run it by ./scripts/demo."""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.support import host, samples

from immich_usb_backup.policy.text import counted, size

FOLDERS = ("upload", "library", "profile")
MARKER_TEXT = 'name = "Blue"\n'
_SAMPLE_DISK_MIB = 2300
_ROOM_MIB = 2300


def main() -> int:
    """Run the demo that was asked for."""
    parser = argparse.ArgumentParser(prog="./scripts/demo")
    parser.add_argument("--vm", action="store_true", help="with a USB stick in a QEMU guest")
    parser.add_argument("--enrolled", action="store_true", help="with a disk that is enrolled first; not with --vm")
    parser.add_argument("--library", type=Path, help="a media location of your own")
    arguments = parser.parse_args()
    if arguments.vm and arguments.enrolled:
        parser.error("--enrolled goes without --vm")
    if arguments.library is not None:
        arguments.library = Path(os.environ.get("CALLER_FOLDER", ".")) / arguments.library
    if arguments.library is not None and not (arguments.library / "upload").is_dir():
        parser.error(f"{arguments.library} has no folder upload: is it Immich's media location?")
    if arguments.vm:
        from scripts.demo_vm import in_a_guest

        return asyncio.run(in_a_guest(arguments.library))
    return on_this_machine(arguments.library, enrolled=arguments.enrolled)


def on_this_machine(library: Path | None, *, enrolled: bool) -> int:
    """Plug a loop disk in and watch the daemon; with ``enrolled`` the disk has no marker, and gets it by ``enroll``. Returns
    the exit code."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="immich-usb-backup-demo-")))
        title("Preparing")
        library = library or sample(folder)
        config = write_config(folder, library, enrolled=enrolled)
        bus = stack.enter_context(host.system_bus())
        stack.enter_context(host.udev())
        stack.enter_context(host.udisks(bus))
        if others := other_disks():
            say(f"Other exFAT loop disks are here, and the demo would back up to them too: {', '.join(others)}")
            return 75
        disk = stack.enter_context(host.exfat_disk(disk_mib(library), "BLUE", populate=fill if enrolled else mark))
        disk.detach()
        marked = "without a marker" if enrolled else "with the marker immich-server-backups.txt, which calls it 'Blue'"
        say(f"An exFAT disk {marked}: {size(disk.image.stat().st_size)}")
        title("The daemon, and the disk is plugged in")
        code = watch_daemon(config, folder / "state", disk, bus)
        if not disk.attached:
            return code or 1  # it ended before the disk was plugged in, and has said why
        title("What lies on the disk now")
        with disk.mounted() as root:
            show(root)
            code = compare(library, root / "immich-server-backups") or code
    return code


def other_disks() -> list[str]:
    """Loop disks with exFAT that are not ours: the daemon of the demo would take them for its own."""
    listed = subprocess.run(["lsblk", "-nro", "NAME,FSTYPE"], capture_output=True, text=True, check=False).stdout
    rows = [line.split() for line in listed.splitlines()]
    return [f"/dev/{row[0]}" for row in rows if row[0].startswith("loop") and row[1:] == ["exfat"]]


def watch_daemon(config: Path, state: Path, disk: host.Disk, bus: host.Bus) -> int:
    """Run the real daemon until its first backup is over; plug the disk in when it is ready."""
    command = [sys.executable, "-m", "immich_usb_backup", "daemon", f"--config={config}", f"--state={state}"]
    environment = {**os.environ, **bus.env, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*command, "--log-format=human", "--progress", "--once"], env=environment, stdout=subprocess.PIPE, text=True
    ) as daemon:
        assert daemon.stdout is not None
        try:
            for line in daemon.stdout:
                print(f"  {line}", end="", flush=True)
                if "Waiting for disks" in line:
                    disk.attach()
                elif "has no marker" in line:
                    enroll(disk, environment)
        finally:
            if daemon.poll() is None:
                daemon.terminate()
    return daemon.returncode


def enroll(disk: host.Disk, environment: dict[str, str]) -> None:
    """What an administrator does on the server; then the disk is plugged in again."""
    say(f"# immich-usb-backup enroll {disk.device} --name Blue")
    command = [sys.executable, "-m", "immich_usb_backup", "enroll", str(disk.device), "--name", "Blue"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    for line in done.stdout.splitlines():
        say(f"  {line}")
    disk.detach()
    disk.attach()


def sample(folder: Path) -> Path:
    """A media location as Immich makes it."""
    found = samples.make_media_location(folder / "immich", photos=200)
    files = [path for path in found.path.rglob("*") if path.is_file()]
    total = size(sum(path.stat().st_size for path in files))
    say(f"A sample of Immich's media location: {counted(len(files), 'file')}, {total}")
    return found.path


def write_config(folder: Path, library: Path, *, enrolled: bool) -> Path:
    """The daemon's configuration for the demo."""
    samples.make_config_files(folder / "compose")
    config = folder / "config.toml"
    text = f'media_location = "{library.resolve()}"\nconfig_files = ["{folder / "compose"}"]\n\n[disks]\n'
    text += 'transports = ["loop"]  # a file that plays the USB disk\n'
    text += 'trust = "enrolled"  # only disks that were enrolled here\n' if enrolled else ""
    config.write_text(text)
    say("Its configuration:")
    for line in config.read_text().splitlines():
        say(f"    {line}")
    return config


def disk_mib(library: Path) -> int:
    """Room for the library on a sparse image."""
    total = sum(path.stat().st_size for path in files_of(library))
    return max(_SAMPLE_DISK_MIB, int(total * 1.1) // 2**20 + _ROOM_MIB)


def mark(root: Path) -> None:
    """What a user does once, on any computer."""
    (root / "immich-server-backups.txt").write_text(MARKER_TEXT)
    fill(root)


def fill(root: Path) -> None:
    """What was on the disk already."""
    (root / "holiday plans.txt").write_text("This was on the disk before, and stays as it is.\n")


def show(root: Path, depth: int = 3) -> None:
    """The tree, with what lies deeper counted."""
    for path in sorted(root.rglob("*")):
        place = path.relative_to(root)
        if len(place.parts) < depth:
            say("    " * (len(place.parts) - 1) + describe(path))


def describe(path: Path) -> str:
    """A line for a file or a folder."""
    if path.is_file():
        return f"{path.name}  ({size(path.stat().st_size)})"
    inside = [file for file in path.rglob("*") if file.is_file()]
    return f"{path.name}/  ({counted(len(inside), 'file')}, {size(sum(file.stat().st_size for file in inside))})"


def compare(library: Path, backup: Path) -> int:
    """Every original against its copy, byte for byte."""
    files = list(files_of(library))
    wrong = [file for file in files if not same(file, backup / file.relative_to(library))]
    for file in wrong[:20]:
        say(f"DIFFERENT: {file}")
    say(f"{len(files) - len(wrong):,} of {counted(len(files), 'original')} lie on the disk, byte for byte")
    return 1 if wrong else 0


def files_of(library: Path) -> Iterator[Path]:
    """The originals."""
    return (
        path for name in FOLDERS for path in (library / name).rglob("*") if path.is_file() and not path.is_symlink()
    )


def same(one: Path, other: Path) -> bool:
    """Whether two files hold the same bytes."""
    return other.is_file() and one.read_bytes() == other.read_bytes()


def title(text: str) -> None:
    """Begin a part."""
    print(f"\n── {text} ──", flush=True)


def say(text: str) -> None:
    """A line of the story."""
    print(f"  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
