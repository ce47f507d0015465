"""What a person does with journalctl: the lines of all pages, and ``-x``, on a real journal file."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from immich_usb_backup.events import Event
from tests.support import journals
from tests.support.needs import cannot_run

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = CHECKOUT / "docs/how-to/monitor-with-journalctl.md"
PAGES = [PAGE, *sorted({*CHECKOUT.glob("docs/how-to/*.md"), *CHECKOUT.glob("docs/reference/*.md")} - {PAGE})]
CATALOG = CHECKOUT / "systemd/immich-usb-backup.catalog"
DATABASES = Path("/var/lib/systemd/catalog")
OF_OTHERS = {"journalctl -u udisks2", "journalctl -b -k", "journalctl -b -t immich-usb-backup-generator"}
"""What UDisks2, the kernel and systemd say is not ours to write here."""

SERVICE, NOTIFIER, AGENT = "immich-usb-backup", "immich-usb-backup-notifier", "user:immich-usb-backup-agent"
HOSTILE = "Blue\x1b[2J\nSubject: nothing to see"


def _line(event: Event, unit: str = SERVICE, **fields: Any) -> journals.Line:
    run = {"run": "20261121T035140Z-2468", "disk": "Blue", "device": "/dev/sdb1"}
    return event, unit, {**run, "message": "'Blue' is backed up", "hint": "Wait.", **fields}


LINES = [
    _line(Event.READY, transports="usb"),
    _line(Event.RUN_STARTED, total_bytes=10, free_bytes=5),
    _line(Event.DISK_WALKED, reasons="it was never walked"),
    _line(Event.FINDING, finding="deletions-held", items=["a", "b"], count=2),
    _line(Event.VERDICT, restorable="except", assets=5, present=4, proven=3),
    _line(Event.RUN_OK, outcome="ok", bytes=5, files=1, safe_to_unplug=True),
    *(_line(event, outcome=event.code[4:]) for event in (Event.RUN_PARTIAL, Event.RUN_FAILED, Event.RUN_INTERRUPTED)),
    _line(Event.VERDICT, restorable="no", disk="Red"),
    _line(Event.DISK_NOT_TRUSTED),
    _line(Event.REMINDED),
    _line(Event.WAITS_FOR_MAINS),
    _line(Event.FATAL),
    _line(Event.DELIVERY_GIVEN_UP, NOTIFIER, channel="mail:me@example.org", what="a run"),
    _line(Event.AGENT_READY, AGENT),
    _line(Event.READY, "immich-usb-backup-check@sdb1", transports="usb"),  # in the place of what fsck says
    _line(Event.READY, "immich-rehearsal", transports="usb"),  # in the place of what a rehearsal says
]


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return journals.write(tmp_path_factory.mktemp("journal") / "a.journal", LINES)


@pytest.fixture(scope="module")
def this_journal(journal: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a `journalctl` that looks at it, and does not wait for more where it is told to follow."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "journalctl").write_text(
        '#!/bin/bash\nwords=()\nfor word; do [[ $word = -f?* ]] && word=-${word#-f}; words+=("$word"); done\n'
        f'exec {shutil.which("journalctl")} --file={journal} "${{words[@]}}"\n'
    )
    (folder / "journalctl").chmod(0o755)
    return folder


def _commands() -> list[str]:
    """Those in blocks and in sentences, each once, without what goes before."""
    found: list[str] = []
    for page in PAGES:
        text = page.read_text()
        blocks = re.findall(r"(?ms)^ *```sh\n(.*?)^ *```$", text)
        joined = "\n".join(blocks).replace("\\\n", " ")
        found += [line.strip() for line in joined.splitlines() if "journalctl" in line.partition("#")[0]]
        found += re.findall(r"`(journalctl [^`\n]+)`", re.sub(r"(?ms)^ *```.*?^ *```$", "", text))
    return list(dict.fromkeys(command for command in found if command not in OF_OTHERS))


def test_the_pages_have_lines() -> None:
    assert len(_commands()) > 30


@pytest.mark.parametrize("command", _commands(), ids=lambda command: " ".join(command.split())[:60])
def test_every_line_of_the_pages_finds_what_it_is_for(command: str, this_journal: Path) -> None:
    env = {**os.environ, "PATH": f"{this_journal}:{os.environ['PATH']}", "SYSTEMD_PAGER": "", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert done.returncode == 0
    assert "-- No entries --" not in done.stdout
    assert done.stdout.strip()


def test_the_line_for_the_last_good_backup_gives_a_second(this_journal: Path) -> None:
    (command,) = (line for line in _commands() if "short-unix" in line)
    env = {**os.environ, "PATH": f"{this_journal}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", command], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert re.fullmatch(r"\d{10}\n", done.stdout)


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What `journalctl -x` shows of every kind of line, with our catalog alone in the place of the system's."""
    if os.geteuid() != 0:
        cannot_run("only root can put another catalog in the place of the system's")
    root = tmp_path_factory.mktemp("root")
    (root / "usr/lib/systemd/catalog").mkdir(parents=True)
    (root / "var/lib/systemd/catalog").mkdir(parents=True)
    shutil.copy(CATALOG, root / "usr/lib/systemd/catalog")
    done = subprocess.run(
        ["journalctl", "--update-catalog", f"--root={root}"], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == "", "it complains of nothing"
    DATABASES.mkdir(parents=True, exist_ok=True)
    hostile = {"disk": HOSTILE, "message": HOSTILE, "reasons": HOSTILE, "finding": "disk-gone", "restorable": "no"}
    every = [_line(event, **{**hostile, "transports": "usb", "device": HOSTILE}) for event in Event]
    journal = journals.write(root / "a.journal", every)
    script = f"mount --bind {root}/var/lib/systemd/catalog {DATABASES} && exec journalctl -x --file={journal}"
    env = {**os.environ, "SYSTEMD_PAGER": "", "LC_ALL": "C.UTF-8"}
    command = ["unshare", "--mount", "sh", "-c", script]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True).stdout


def test_every_kind_of_line_is_explained(explained: str) -> None:
    for part in ("Subject: ", "What happened: ", "What it means: ", "What to do: "):
        assert explained.count(f"░░ {part}") == len(Event), part
    assert "@" not in explained
    assert "IMMICH_BACKUP_" not in explained.replace("IMMICH_BACKUP_TRACE", ""), "a field that the line does not have"


def test_what_a_disk_is_called_does_not_reach_the_terminal(explained: str) -> None:
    assert "\x1b" not in explained
    assert "░░ Subject: nothing to see" not in explained
