"""Every line to type in the documents is one that works: commands with the real arguments, units, events, paths, scripts."""

from __future__ import annotations

import ast
import itertools
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.needs import cannot_run

from immich_usb_backup.__main__ import COMMANDS, _parse
from immich_usb_backup.events import Event

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGE = CHECKOUT / "daemon/immich_usb_backup"
SYSTEMD = CHECKOUT / "systemd"
PROGRAM = "immich-usb-backup"
ROOMS = ("bench", "completions", "daemon", "docs", "nixos", "packaging", "scripts", "systemd", "tests", "udev-rules")
SYSTEM_UNITS = {"timers.target", "udisks2", "immich-server", "immich-machine-learning"}
THE_READERS_OWN = {"immich-rehearsal.timer", "immich-rehearsal"}  # a page has their texts

_FENCE = re.compile(r"^( *)(```+)(\w*)\n(.*?)^ *\2$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_HEREDOC = re.compile(r"<<'(\w+)'\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
_ELSEWHERE = {"$USER": "root", "immich:immich": "root:root"}
"""Names of a reader's machine, and what stands for them here."""

_FORMATS = {f"{PROGRAM} manifest"}
_SEPARATORS = {"&&", "||", ";", "|", "(", ")"}


def _documents() -> list[Path]:
    found = [CHECKOUT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "bench/README.md")]
    return found + sorted(path for folder in ("docs", "tests") for path in (CHECKOUT / folder).rglob("*.md"))


def _blocks(*languages: str) -> Iterator[tuple[Path, str]]:
    for path in _documents():
        for indent, _, language, text in _FENCE.findall(path.read_text()):
            if language in languages:
                yield path, re.sub(f"^{indent}", "", text, flags=re.MULTILINE)


def _inline() -> Iterator[tuple[Path, str]]:
    for path in _documents():
        for code in _INLINE.findall(_FENCE.sub("", path.read_text())):
            yield path, code


def _simple_commands(script: str) -> Iterator[list[str]]:
    """Each command of a script by itself, in words, without sudo. What stands in quotes or in a here-document is no
    command."""
    script = _HEREDOC.sub("", script).replace("\\\n", " ")
    for line in script.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        command: list[str] = []
        for word in [*lexer, ";"]:
            if word in _SEPARATORS:
                yield from [command] if command else []
                command = []
            elif not (word == "sudo" and not command):
                command.append(word)


def _typed() -> Iterator[tuple[Path, list[str]]]:
    """All commands in the documents' blocks."""
    for path, text in _blocks("sh"):
        for command in _simple_commands(text):
            yield path, command


# Shell, Python, Nix ---------------------------------------------------------------------------------------


def test_every_block_of_shell_is_shell() -> None:
    blocks = list(_blocks("sh"))
    assert len(blocks) > 60
    whole = "".join(f"block_{number}() {{\n{text}\n}}\n" for number, (_, text) in enumerate(blocks))
    done = subprocess.run(["bash", "-n"], input=whole, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_program_in_a_block_is_python() -> None:
    programs = [program for _, text in _blocks("sh") for _, program in _HEREDOC.findall(text)]
    programs += [text for _, text in _blocks("python")]
    assert len(programs) > 2
    for program in programs:
        ast.parse(program)


def test_every_block_of_nix_is_nix() -> None:
    blocks = list(_blocks("nix"))
    assert blocks
    if shutil.which("nix-instantiate") is None:
        cannot_run("nix-instantiate is not installed")
    for path, text in blocks:
        done = subprocess.run(
            ["nix-instantiate", "--parse", "-"], input=text, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{path}: {done.stderr}"


def test_every_unit_file_in_the_documents_is_one_that_systemd_takes(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        cannot_run("systemd-analyze is not installed")
    text = (CHECKOUT / "docs/how-to/rehearse.md").read_text()
    named = re.findall(r"`/etc/systemd/system/([\w.-]+)`:\n\n```ini\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(named) == 2
    for name, unit in named:
        (tmp_path / name).write_text(unit.replace(f"ExecStart={PROGRAM} ", "ExecStart=/bin/true "))
    units = [str(tmp_path / name) for name, _ in named]
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")


# Our own commands -----------------------------------------------------------------------------------------


def _assert_taken(path: Path, words: list[str]) -> None:
    code: object = 0
    try:
        _parse([_ELSEWHERE.get(word, word) for word in words])
    except SystemExit as end:  # 0 for --help and --version
        code = end.code
    assert code == 0, f"{path.relative_to(CHECKOUT)}: {PROGRAM} {shlex.join(words)}"


def test_every_command_to_type_is_one_that_the_program_takes(capsys: pytest.CaptureFixture[str]) -> None:
    ours = [(path, words[1:]) for path, words in _typed() if words[0] == PROGRAM]
    ours += [(path, ["restore", *words[1:]]) for path, words in _typed() if words[0] == "restore"]
    assert len(ours) > 40
    for path, words in ours:
        _assert_taken(path, words)


def test_every_command_in_a_sentence_is_one_that_the_program_takes(capsys: pytest.CaptureFixture[str]) -> None:
    """One without arguments may be the command's name only."""
    found = [
        (path, shlex.split(code.removeprefix("sudo ")))
        for path, code in _inline()
        if code not in _FORMATS and PROGRAM in code
    ]
    ours = [(path, words[1:]) for path, words in found if words and words[0] == PROGRAM and len(words) > 1]
    assert len(ours) > 30
    for path, words in ours:
        whole = [word.strip("[]").replace("COMMAND", "status") for word in words]
        if len(whole) == 1 and not whole[0].startswith("-"):
            assert whole[0] in COMMANDS, f"{path}: {whole[0]}"
        else:
            _assert_taken(path, whole)


# systemd and the journal ----------------------------------------------------------------------------------


def _is_ours(unit: str) -> bool:
    template = re.sub(r"@[^.]*", "@", unit)
    return any((SYSTEMD / f"{template}{ending}").exists() for ending in ("", ".service"))


def _units(words: list[str]) -> Iterator[str]:
    """The units that a command names."""
    if words[0] == "systemctl":
        names = [word for word in words[1:] if not word.startswith("-")]
        yield from (name for name in names[1:] if name != "StatusText")
    elif words[0] == "journalctl":
        for option, value in itertools.pairwise(words):
            if re.fullmatch(r"-\w*u", option):
                yield value


def test_every_unit_to_type_exists() -> None:
    named = {(path, unit) for path, words in _typed() for unit in _units(words)}
    assert len({unit for _, unit in named}) > 6
    strange = {(path.name, unit) for path, unit in named if "*" not in unit and not _is_ours(unit)}
    assert {unit for _, unit in strange} <= SYSTEM_UNITS | THE_READERS_OWN, strange


def test_every_event_to_look_for_exists() -> None:
    text = "\n".join(path.read_text() for path in _documents())
    asked = set(re.findall(r"IMMICH_BACKUP_EVENT=([\w-]+)", text))
    assert len(asked) > 5
    assert asked <= {event.code for event in Event}


# Files and scripts ----------------------------------------------------------------------------------------


def test_every_script_to_run_exists_and_knows_its_options() -> None:
    ours = [(path, words) for path, words in _typed() if words[0].startswith("./scripts/")]
    ours += [(path, shlex.split(code.removeprefix("sudo "))) for path, code in _inline() if "./scripts/" in code]
    assert len(ours) > 5
    for path, words in ours:
        script = CHECKOUT / words[0]
        assert os.access(script, os.X_OK), f"{path}: {words[0]}"
        for option in (word for word in words[1:] if word.startswith("--")):
            assert option in script.read_text(), f"{path}: {shlex.join(words)}"


def test_every_file_of_the_checkout_that_is_named_exists() -> None:
    for path, code in _inline():
        name = code.removeprefix("./")
        if re.fullmatch(r"[\w./@-]+", name) and name.split("/")[0] in ROOMS and "/" in name:
            assert (CHECKOUT / name).exists(), f"{path}: {name}"


def test_every_module_that_contributors_are_sent_to_exists() -> None:
    text = (CHECKOUT / "CONTRIBUTING.md").read_text()
    names = {name for name in _INLINE.findall(text) if re.fullmatch(r"[\w/]+\.py", name)} - {"stages/about.py"}
    assert len(names) > 30
    places = (PACKAGE, *(path for path in PACKAGE.iterdir() if path.is_dir()), CHECKOUT, CHECKOUT / "tests/unit")
    for name in names:
        assert any((place / name).is_file() for place in places), name


def test_every_file_in_etc_that_is_named_is_one_that_something_reads() -> None:
    folder = "/etc/immich-usb-backup/"
    places = [*SYSTEMD.iterdir(), *PACKAGE.rglob("*.py")]
    sources = "\n".join(path.read_text() for path in places if path.is_file())
    named = {code for _, code in _inline() if code.startswith(folder)}
    assert len(named) > 4
    assert {name for name in named if Path(name).name not in sources} == set()


def test_what_is_copied_from_the_checkout_is_there() -> None:
    copied = {words[-2] for _, words in _typed() if words[0] == "cp" and words[-1].startswith("/etc/")}
    assert copied == {"systemd/config.example.toml", "systemd/config.docker.example.toml"}
    assert all((CHECKOUT / path).is_file() for path in copied)


# NixOS ----------------------------------------------------------------------------------------------------


def _module_blocks() -> list[tuple[str, str]]:
    return [(path.name, text) for path, text in _blocks("nix") if "services.immich-usb-backup" in text]


@pytest.mark.parametrize(("page", "text"), _module_blocks(), ids=lambda value: value if value.endswith(".md") else "")
def test_every_block_for_nixos_is_one_that_the_module_takes(page: str, text: str) -> None:
    if shutil.which("nix-instantiate") is None:
        cannot_run("nix-instantiate is not installed")
    found = f"import ./tests/nix/evaluate.nix {{ settings = ({text}).services.immich-usb-backup; }}"
    command = ["nix-instantiate", "--eval", "--strict", "--json", "-E", f"{{ inherit ({found}) units settings; }}"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{page}: {done.stderr}"
    assert "immich-usb-backup.service" in done.stdout
