"""The tab key in real shells, with the service's answers from a real bus."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from immich_usb_backup.adapters.bus import Bus, variants
from immich_usb_backup.dbus_names import BUS_NAME, MANAGER, OBJECT_PATH
from tests.support import host
from tests.support.needs import cannot_run
from tests.support.serving import ServedMethod, serve
from tests.support.terminals import Terminal

CHECKOUT = Path(__file__).resolve().parents[2]
COMPLETIONS = CHECKOUT / "completions"
EVIL = "Evil$(touch pwned)`touch pwned`;touch pwned"
DISKS = [
    {"Name": "My Disk", "Label": "MYDISK", "Uuid": "1234-ABCD", "Device": "/dev/sdb1", "Model": "Stick: 'x'"},
    {"Name": EVIL, "Label": "", "Uuid": "6666-0666", "Device": "", "Model": ""},
    {"Name": "Twin", "Label": "", "Uuid": "AAAA-0001", "Device": "", "Model": ""},
    {"Name": "Twin", "Label": "", "Uuid": "BBBB-0002", "Device": "", "Model": ""},
    {"Name": "Wipes\x1b[2J", "Label": "", "Uuid": "CCCC-0003", "Device": "", "Model": "\x1b[2J"},
]
RUNS = [{"Run": "20261121T035140Z-2468", "Headline": "'My Disk' is backed up: safe to unplug"}]
SETTINGS = {
    "bash": "PS1='ready> '; unset HISTFILE; bind 'set enable-bracketed-paste off'\n. {file}\n",
    "zsh": "PS1='ready> '; unset zle_bracketed_paste; fpath=({folder} $fpath)\nautoload -Uz compinit; compinit -u -d {home}/dump\n",
    "fish": "function fish_prompt; echo 'ready> '; end\nset -g fish_autosuggestion_enabled 0\nset -g fish_greeting\nsource {file}\n",
}
PATIENT = """import sys
from immich_usb_backup.__main__ import main
from immich_usb_backup.cli import completion
completion._ANSWER_SECONDS = 30.0  # a machine that runs many tests may be slow
sys.exit(main())
"""
FILES = {"bash": "immich-usb-backup.bash", "zsh": "_immich-usb-backup", "fish": "immich-usb-backup.fish"}


@pytest.fixture(scope="module")
def address() -> Iterator[dict[str, str]]:
    with host.system_bus(private=True) as system:
        yield {system.variable: system.address}


@pytest.fixture
async def service(address: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Answers as the daemon does, but for the names."""
    for variable, value in address.items():
        monkeypatch.setenv(variable, value)

    async def disks() -> Sequence[Any]:
        return [[variants(disk) for disk in DISKS]]

    async def history(disk: str, number: int, failed: bool) -> Sequence[Any]:
        return [[variants(run) for run in RUNS]]

    bus = await Bus.system()
    methods = {"GetDisks": ServedMethod("", "aa{sv}", disks), "GetHistory": ServedMethod("sub", "aa{sv}", history)}
    serve(bus, OBJECT_PATH, MANAGER, methods)
    await bus.request_name(BUS_NAME)
    yield
    await bus.close()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """`immich-usb-backup`, which completes as the real one, and else prints what it was given."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "real.py").write_text(PATIENT)
    (folder / "immich-usb-backup").write_text(
        f'#!/bin/sh\nif [ "$1" = completion ]; then exec {sys.executable} {folder}/real.py "$@"; fi\n'
        f'exec {sys.executable} -c \'import json, sys; print("GIVEN", json.dumps(sys.argv[1:]), "END")\' "$@"\n'
    )
    (folder / "immich-usb-backup").chmod(0o755)
    return folder


def _shell(name: str, home: Path, program: Path) -> Terminal:
    if shutil.which(name) is None:
        cannot_run(f"{name} is not installed")
    settings = SETTINGS[name].format(file=COMPLETIONS / FILES[name], folder=COMPLETIONS, home=home)
    (home / ".zshrc").write_text(settings)
    (home / "rc").write_text(settings)
    places = {"HOME": str(home), "ZDOTDIR": str(home), "XDG_CONFIG_HOME": str(home), "XDG_DATA_HOME": str(home)}
    path = {"PATH": f"{program}:{os.environ['PATH']}", "PYTHONPATH": str(CHECKOUT / "daemon")}
    env = {**os.environ, **places, **path, "TERM": "dumb", "LC_ALL": "C.UTF-8"}
    commands = {
        "bash": ["bash", "--noprofile", "--rcfile", str(home / "rc"), "-i"],
        "zsh": ["zsh", "-i"],
        "fish": ["fish", "--no-config", "--init-command", f"source {home / 'rc'}", "-i"],
    }
    return Terminal(commands[name], env, str(home))


def _given(name: str, home: Path, program: Path, typed: Sequence[str]) -> list[list[str]]:
    """What the program is given when each line is typed, with the tab key in it, one after the other."""
    found = []
    with _shell(name, home, program) as terminal:
        terminal.until("ready> ")
        for line in typed:
            terminal.text = ""
            terminal.keys(line + "\r")
            terminal.until(" END")
            words = json.loads(terminal.text.rpartition("GIVEN ")[2].partition(" END")[0])
            found.append([word.removesuffix("/") for word in words])
    return found


LINES = {
    "immich-usb-backup veri\tMy\t": ["verify", "My Disk"],
    "immich-usb-backup eject Ev\t": ["eject", EVIL],
    "immich-usb-backup backup --mode=ver\tBB\t": ["backup", "--mode=verify", "BBBB-0002"],
    "immich-usb-backup sho\t2026\t--j\t": ["show", "20261121T035140Z-2468", "--json"],
    "immich-usb-backup restore --from fold\t --only fi\t": ["restore", "--from", "folder", "--only", "files"],
}


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_the_tab_key_completes_commands_options_and_real_disks(shell: str, tmp_path: Path, program: Path) -> None:
    home = tmp_path / "home"
    (home / "folder").mkdir(parents=True)
    given = await asyncio.to_thread(_given, shell, home, program, list(LINES))
    assert dict(zip(LINES, given, strict=True)) == LINES, "zsh takes the slash of a folder away again"
    assert not list(home.rglob("pwned")), "a disk's name was run"
