"""A machine that has never seen the disk: docs/how-to/restore.md is typed there, with its example paths in another place."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support import samples
from tests.support.backup_folder import make_backup
from tests.support.programs import put_program

CHECKOUT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"(?ms)^```sh\n(.*?)^```$", (CHECKOUT / "docs/how-to/restore.md").read_text())


class SpareMachine:
    """``sudo`` needs no password on it, its Python has no packages, and the disk is mounted from the beginning."""

    def __init__(self, folder: Path, media: samples.MediaLocation) -> None:
        self._folder = folder
        self.extras = {name: folder / f"server-{name}" for name in ("pictures", "films")}
        for name, path in self.extras.items():
            path.mkdir()
            (path / f"{name}.jpg").write_bytes(name.encode())
        compose = samples.make_config_files(folder / "compose")
        make_backup(folder / "disk", media.path, extras=self.extras, config=compose)
        self.app, self.home, self.pictures, self.films = (
            folder / name for name in ("app", "home", "pictures", "films")
        )
        self.new = self.app / "library"
        for made in (self.app, self.home):
            made.mkdir()
        (folder / "immich-usb-backup").symlink_to(CHECKOUT)
        python = f'exec {sys.executable} -S "$@"'
        bodies = {"sudo": 'exec "$@"', "python3": python, "mount": "exit 0", "lsblk": "exit 0"}
        for name, body in bodies.items():
            put_program(folder / "bin", name, body)

    def types(self, *containing: str, environment: Mapping[str, str] | None = None) -> str:
        """The page's blocks with these words in them, one after the other in one shell; what they print."""
        found = [block for word in ("alias", *containing) for block in BLOCKS if word in block]
        assert len(found) == 1 + len(containing)
        script = "shopt -s expand_aliases\n" + "".join(self._here(block) for block in found)
        variables = {**os.environ, **(environment or {}), "HOME": str(self.home), "USER": str(os.geteuid())}
        variables["PATH"] = f"{self._folder / 'bin'}{os.pathsep}{variables['PATH']}"
        done = subprocess.run(
            ["bash", "-e", "-c", script],
            cwd=self._folder,
            env=variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def _here(self, block: str) -> str:
        places = {"/mnt/Pictures": self.pictures, "/srv/films": self.films, "/opt/immich-app": self.app}
        for before, after in places.items():
            block = block.replace(before, str(after))
        return re.sub(r"/mnt\b(?!/P)", str(self._folder / "disk"), block)
