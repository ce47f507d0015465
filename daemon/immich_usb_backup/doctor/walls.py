"""Whether the service sees what is configured: its walls hide homes and secrets, and are opened by a drop-in of systemd's generator."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from immich_usb_backup.adapters.links import to_open
from immich_usb_backup.config import Config
from immich_usb_backup.doctor.checked import Checked, bad, good, unseen
from immich_usb_backup.doctor.machine import Machine
from immich_usb_backup.policy.hidden_paths import configured, in_a_home, is_opened, kept_back, outermost, refused
from immich_usb_backup.policy.text import printable

GENERATED = "/run/systemd/generator/immich-usb-backup.service.d/10-configured-paths.conf"
ABOUT = "hidden folders"
_MEND = "sudo systemctl daemon-reload && sudo systemctl restart immich-usb-backup"
_LOOK = 'for path; do [ -e "$path" ] || printf "%s\\0" "$path"; done'


def look(machine: Machine, config: Config) -> Iterator[Checked]:
    """What is hidden of the configured paths, as far as it exists; nothing to say where none lies in a hidden place."""
    named = tuple(configured(config.model_dump(mode="json")))
    if there := [path for path in kept_back(named) if os.path.exists(machine.path(path))]:
        text = f"what is secret on most servers stays hidden, and is not in the zip: {', '.join(there)}"
        yield unseen("config_files", text, "To have one on the disk, in plain text, name it itself in config_files")
    yield from (_refused(path) for path in refused(to_open(named)))
    walled = [path for path in named if os.path.exists(machine.path(path)) and to_open([path])]
    if walled and not machine.path("/run/systemd/system").is_dir():
        yield unseen(ABOUT, f"systemd does not run here, which opens {_shown(walled)} to the service")
    elif walled:
        yield _opened(machine, walled)


def _opened(machine: Machine, paths: Sequence[str]) -> Checked:
    """By what the process that runs sees, where that can be asked; else by what systemd was told."""
    process = _process(machine) if machine.is_root else ""
    homes = [path for path in paths if all(map(in_a_home, to_open([path])))] if process else []
    told = _generated(machine)
    left = [path for path in paths if path not in homes and not all(is_opened(step, told) for step in to_open([path]))]
    left += _unseen_by(machine, process, homes) if homes else []
    if left:
        text = f"{_shown(left)} is hidden from the service: it has not begun anew since that was configured"
        return bad(ABOUT, text, _MEND)
    return good(ABOUT, f"{_shown(paths)} is open to the service")


def _process(machine: Machine) -> str:
    """The service's process id, or nothing."""
    done = machine.run(["systemctl", "show", "--property=MainPID", "--value", "immich-usb-backup.service"])
    found = done.out.strip() if done is not None else ""
    return found if found.isdecimal() and found != "0" else ""


def _unseen_by(machine: Machine, process: str, paths: Sequence[str]) -> list[str]:
    """Those that are not there for a process, among its mounts."""
    done = machine.run(["nsenter", f"--target={process}", "--mount", "--", "sh", "-c", _LOOK, "sh", *paths])
    return done.out.split("\0")[:-1] if done is not None else []


def _generated(machine: Machine) -> str:
    try:
        return machine.path(GENERATED).read_text()
    except OSError:
        return ""


def _shown(paths: Sequence[str]) -> str:
    """The outermost of them."""
    return ", ".join(printable(path) for path in outermost(paths))


def _refused(path: str) -> Checked:
    text = f"{printable(path)} stays hidden from the service: systemd does not take a path with such a character"
    return bad(ABOUT, text, "Rename the folder, or put it elsewhere")
