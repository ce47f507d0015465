"""The Debian package of a checkout, for the guest: built on this machine, or in a folder with the guest's Debian where this
machine's Python is another."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.support.needs import cannot_run

from .image import Recipe, cached_folder
from .installing import GUEST_PYTHON
from .loops import run

PYTHON = "/usr/bin/python3"
SUITE = Recipe().suite
BUILD_SECONDS = 600.0
_NEEDED = ("debhelper", "dpkg-dev", "python3", "python3-venv")
_CHROOT = 'mount -t proc proc "$1/proc" && exec chroot "$@"'


def build_package(checkout: Path, wheels: Path, target: Path) -> Path:
    """Build it from wheels into the folder `target`; its path there."""
    if _python() == GUEST_PYTHON and shutil.which("dh"):
        run([checkout / "scripts/build-deb", "--wheels", wheels, target], seconds=BUILD_SECONDS)
    else:
        _build_within(_debian(), checkout, wheels, target)
    (package,) = target.glob("*.deb")
    return package


def _python() -> str:
    words = [PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def _debian() -> Path:
    """A folder with the guest's Debian and what builds packages, made once."""
    if shutil.which("mmdebstrap") is None:
        cannot_run(
            f"{PYTHON} is not {GUEST_PYTHON}, and there is no mmdebstrap to build the package in a folder with {SUITE}"
        )
    return cached_folder("builder", SUITE, _make_debian) / "root"


def _make_debian(folder: Path) -> None:
    options = ["--variant=minbase", "--format=directory", "--include=" + ",".join(_NEEDED)]
    run(["mmdebstrap", *options, SUITE, folder / "root"], seconds=BUILD_SECONDS)


def _build_within(root: Path, checkout: Path, wheels: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="package-", dir=root / "srv") as folder:
        work = Path(folder)
        shutil.copytree(checkout, work / "checkout", symlinks=True)
        shutil.copytree(wheels, work / "wheels")
        inside = Path("/srv") / work.name
        build: list[str | Path] = [
            inside / "checkout/scripts/build-deb",
            "--wheels",
            inside / "wheels",
            inside / "made",
        ]
        run(["unshare", "--mount", "sh", "-c", _CHROOT, "sh", root, *build], seconds=BUILD_SECONDS)
        shutil.copytree(work / "made", target, dirs_exist_ok=True)
