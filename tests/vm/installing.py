"""Installing this working tree in the guest as a user would: a checkout, wheels, and ./scripts/install.

It takes a minute, so it is done once, in a guest whose disk is kept as an image for others to start from.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

from .guest import Guest
from .image import GuestImage, cached_folder, copied, guest_image

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs/how-to/install.md"
GUEST_PYTHON = "3.11"
INSTALLED = ("daemon/", "systemd/", "udev-rules/", "scripts/install", "pyproject.toml")
INSTALL_SECONDS = 600.0
PIP_SECONDS = 600.0


@dataclass(frozen=True)
class Installed:
    """Where the guest has the project: the checkout it was installed from, and the wheels."""

    checkout: str = "/root/immich-usb-backup"
    wheels: str = "/root/wheels"


def documented(*beginnings: str) -> str:
    """The commands that users read on the page about installing: for each beginning the one line that begins so."""
    lines = PAGE.read_text().splitlines()
    found = [[line for line in lines if line.startswith(beginning)] for beginning in beginnings]
    assert [len(one) for one in found] == [1] * len(beginnings), f"{PAGE.name}: {found}"
    return " && ".join(line for (line,) in found)


CONFIG_FIRST = ("sudo mkdir -p /etc/immich-usb-backup", "sudo cp systemd/config.example.toml ")
"""What comes before the installer."""


def installed_image() -> GuestImage:
    """The guest's image with this working tree installed, without a configuration; from the cache, or made now."""
    base = guest_image()
    with tempfile.TemporaryDirectory(prefix="install-") as folder:
        scratch = Path(folder)
        _export(scratch / "checkout")
        name = hashlib.sha256(base.folder.name.encode() + _digest(scratch / "checkout")).hexdigest()[:16]
        made = cached_folder("installed", name, lambda new: asyncio.run(_make(copied(base, new), scratch)), others=1)
    return GuestImage(made)


async def _make(image: GuestImage, scratch: Path) -> None:
    async with Guest(image, keep=True) as guest:
        await install(guest, scratch)
        await guest.power_off()


def _digest(checkout: Path) -> bytes:
    """Tells one state of what is installed from another."""
    found = hashlib.sha256()
    for path in sorted(checkout.rglob("*")):
        place = path.relative_to(checkout)
        if path.is_file() and str(place).startswith(INSTALLED):
            found.update(f"{place} {path.stat().st_mode} {len(path.read_bytes())}\n".encode() + path.read_bytes())
    return found.digest()


async def install(guest: Guest, scratch: Path) -> Installed:
    """Bring checkout and wheels into the guest and run the install script there. `scratch` is a folder on the host."""
    place = Installed()
    await asyncio.to_thread(collect, scratch)
    for source, target in ((scratch / "checkout", place.checkout), (scratch / "wheels", place.wheels)):
        await guest.sh(f"rm -rf {target}")
        await guest.put(source, target)
    await guest.sh(f"cd {place.checkout} && ./scripts/install --wheels {place.wheels}", timeout=INSTALL_SECONDS)
    return place


def collect(scratch: Path) -> None:
    """Put the working tree into `checkout` in a folder on the host, and all that installing it needs into `wheels`."""
    if not (scratch / "checkout").exists():
        _export(scratch / "checkout")
    _collect_wheels(scratch / "checkout", scratch / "wheels")


def _export(target: Path) -> None:
    """Copy what git tracks or would track, as it lies in the working tree."""
    listing = _run(
        ["git", "-c", "safe.directory=*", "-C", str(REPOSITORY), "ls-files", "-z", "-co", "--exclude-standard"]
    )
    for name in filter(None, listing.split("\0")):
        source, copy = REPOSITORY / name, target / name
        if source.exists() or source.is_symlink():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy, follow_symlinks=False)


def _collect_wheels(checkout: Path, target: Path) -> None:
    """Put the project's own wheel, and all it needs to build and run without a network, into `target`."""
    definition = (checkout / "pyproject.toml").read_bytes()
    name = hashlib.sha256(definition + GUEST_PYTHON.encode()).hexdigest()[:16]
    needed = cached_folder("wheels", name, lambda folder: _fetch_wheels(definition.decode(), folder))
    shutil.copytree(needed, target)
    with tempfile.TemporaryDirectory(prefix="build-") as folder:
        source = Path(folder) / "source"  # a copy: building leaves things behind
        shutil.copytree(checkout, source, symlinks=True)
        options = ["--no-deps", "--no-index", "--find-links", str(target), "--wheel-dir", str(target)]
        _pip("wheel", *options, str(source))


def _fetch_wheels(definition: str, target: Path) -> None:
    """Fetch wheels for the guest's Python; `pip wheel` first makes wheels of what comes only as source."""
    project = tomllib.loads(definition)
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    if sys.version_info[:2] == tuple(map(int, GUEST_PYTHON.split("."))):
        _pip("wheel", "--wheel-dir", str(target), *wanted)
        return
    with tempfile.TemporaryDirectory(prefix="wheels-") as built:
        _pip("wheel", "--wheel-dir", built, *wanted)
        platforms = [f"--platform={name}_x86_64" for name in ("manylinux_2_28", "manylinux_2_17", "manylinux2014")]
        options = ["--only-binary=:all:", f"--python-version={GUEST_PYTHON}", *platforms, "--find-links", built]
        _pip("download", "--dest", str(target), *options, *wanted)


def _pip(*arguments: str) -> None:
    _run([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments])


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr)[-3000:]
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{said}")
    return done.stdout
