"""Whether the service sees what is configured: its walls hide homes and secrets, and are opened by a drop-in of systemd's generator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from immich_usb_backup.adapters.links import every_step
from immich_usb_backup.config import Config
from immich_usb_backup.doctor.checked import Checked, bad, good, unseen
from immich_usb_backup.doctor.machine import Machine
from immich_usb_backup.policy.hidden_paths import configured, drop_in, hidden, kept_back, refused
from immich_usb_backup.policy.text import printable

GENERATED = "/run/systemd/generator/immich-usb-backup.service.d/10-configured-paths.conf"
ABOUT = "hidden folders"
_MEND = "sudo systemctl daemon-reload && sudo systemctl restart immich-usb-backup"


def look(machine: Machine, config: Config) -> Iterator[Checked]:
    """What is hidden of the configured paths, as far as it exists; nothing to say where none lies in a hidden place."""
    named = tuple(configured(config.model_dump(mode="json")))
    paths = [step for path in named for step in _steps(machine, path)]
    if there := [path for path in kept_back(named) if machine.path(path).exists()]:
        text = f"{', '.join(there)} stays hidden, and is not in the zip: it is secret on most servers"
        yield unseen("config_files", text, "To have it on the disk, in plain text, name it itself in config_files")
    if wanted := [path for path in hidden(paths) if machine.path(path).exists()]:
        yield _opened(machine, wanted, drop_in(paths))
    yield from (_refused(path) for path in refused(paths))


def _steps(machine: Machine, path: str) -> Iterator[str]:
    """Links are followed on this machine itself only: in a test's folder they would lead out of it."""
    yield from every_step(path) if str(machine.root) == "/" else (path,)


def _opened(machine: Machine, wanted: Iterable[str], text: str) -> Checked:
    shown = ", ".join(map(printable, wanted))
    if not machine.path("/run/systemd/system").is_dir():
        return unseen(ABOUT, f"systemd does not run here, which opens {shown} to the service")
    try:
        if machine.path(GENERATED).read_text() != text:
            return bad(ABOUT, f"{shown} is hidden from the service: systemd has not read the configuration anew", _MEND)
    except OSError:
        return bad(ABOUT, f"{shown} is hidden from the service: systemd has not been told to open it", _MEND)
    return _seen(machine, wanted)


def _seen(machine: Machine, wanted: Iterable[str]) -> Checked:
    """By the folders of the process that runs. It began before they were opened, or before they were there."""
    done = machine.run(["systemctl", "show", "--property=MainPID", "--value", "immich-usb-backup.service"])
    process = done.out.strip() if done is not None else ""
    shown = ", ".join(map(printable, wanted))
    if not process.isdecimal() or process == "0":
        return good(ABOUT, f"{shown} is open to the service when it starts")
    if not machine.is_root:
        return unseen(ABOUT, f"whether the service that runs sees {shown}", "Run it with sudo")
    if left := [path for path in wanted if not machine.path(f"/proc/{process}/root{path}").exists()]:
        text = f"{', '.join(map(printable, left))} is hidden from the service that runs: it has started before"
        return bad(ABOUT, text, "sudo systemctl restart immich-usb-backup")
    return good(ABOUT, f"the service sees {shown}")


def _refused(path: str) -> Checked:
    text = f"{printable(path)} stays hidden from the service: systemd does not take a path with such a character"
    return bad(ABOUT, text, "Rename the folder, or put it elsewhere")
