"""Lines of the documents that other tests do not run: run here, with their paths in another place. Whoever writes a line with a
program that is new to the documents says here who looks at it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.needs import cannot_run
from tests.support.programs import put_program
from tests.unit.test_docs_commands import (
    CHECKOUT,
    PROGRAM,
    SYSTEM_UNITS,
    SYSTEMD,
    THE_READERS_OWN,
    _blocks,
    _inline,
    _is_ours,
    _typed,
    _units,
)

from immich_usb_backup import config

SETTINGS = "/etc/immich-usb-backup"

TESTED = {
    "test_docs_commands": (PROGRAM, "restore", "cp", "./scripts/install", "./scripts/build-deb"),
    "test_docs_lines": ("du", "find", "install", "mkdir", "systemctl", "gpasswd", "lsblk", "ls", "cd"),
    "test_docs_by_hand": ("awk", "echo", "grep", "gunzip", "gzip", "head", "less", "python3", "rsync", "tail", "unzip"),
    "test_docs_restore": ("alias",),
    "test_docker_compose": ("realpath",),
    "integration/test_docs_disk": ("mkfs.exfat", "printf", "sfdisk", "udisksctl", "wipefs"),
    "integration/test_docs_sql": ("createuser", "docker", "psql", "sed", "sleep"),
    "integration/test_journalctl": ("cut", "journalctl", "sort", "uniq"),
    "integration/test_dbus_interface": ("busctl", "jq"),
}
NOT_RUN = {
    "apt-get": "installs packages, from the network",
    "apt": "installs our package on this machine",
    "pipx": "installs from the network; scripts/release-check builds that wheel and installs it",
    "nano": "waits for a person",
    "mount": "of a device that the reader has; tests mount by UDisks2",
    "umount": "the same",
    "fuser": "looks at the reader's mount",
    "cat": "shows a file; tests/unit/test_metrics.py has its text",
    "setfacl": "for a user whom the installation makes",
    "chown": "for Immich's user",
    "chmod": "of Immich's folder",
    "gdbus": "shows signals until it is stopped; busctl's lines have the same names",
    "systemd-creds": "makes the machine's key; its name is compared below",
}
"""Each line that only a reader can run, and why."""

_SHELL = {"do", "done", "for", "case", "esac", "name", "path", "*", "0", "75"}


# Nothing is looked at by nobody ---------------------------------------------------------------------------


def _program(words: list[str]) -> str:
    """What a command runs: after variables, and after what sudo is told."""
    words = words[2:] if words[0] == "-u" else words
    words = [word for word in words if not re.match(r"[A-Z_]+=", word)]
    return words[0].partition("=")[0]


def test_every_program_in_a_line_is_run_by_a_test_or_named_here() -> None:
    typed = {_program(words) for _, words in _typed()} - _SHELL
    named = [program for programs in (*TESTED.values(), NOT_RUN) for program in programs]
    assert len(named) == len(set(named))
    assert sorted(typed) == sorted(named)


def test_every_test_that_is_named_is_there() -> None:
    names = [name if "/" in name else f"unit/{name}" for name in TESTED]
    assert [name for name in names if not (CHECKOUT / f"tests/{name}.py").is_file()] == []


# What is run ----------------------------------------------------------------------------------------------


def _lines(program: str) -> list[tuple[str, list[str]]]:
    return [(path.name, words) for path, words in _typed() if words[0] == program]


def _run(script: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), script
    return done.stdout


@pytest.mark.parametrize(
    ("page", "words"), _lines("install"), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_secrets_file_is_closed_and_one_that_a_unit_loads(page: str, words: list[str], tmp_path: Path) -> None:
    name = Path(words[-1]).name
    _run(shlex.join(words).replace(SETTINGS, str(tmp_path)), tmp_path)
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    units = "\n".join(path.read_text() for path in SYSTEMD.glob("*.service"))
    assert f"LoadCredential={name}:{words[-1]}\n" in units


def test_the_encrypted_credential_has_the_name_that_the_unit_loads() -> None:
    text = (CHECKOUT / "docs/reference/security.md").read_text()
    (line,) = (words for _, words in _lines("systemd-creds"))
    assert f"LoadCredentialEncrypted={line[2].removeprefix('--name=')}:{line[-1]}\n" in text
    assert f"LoadCredential={line[2].removeprefix('--name=')}:" in (SYSTEMD / f"{PROGRAM}-notifier.service").read_text()


def _installations() -> list[tuple[str, str]]:
    return [(path.name, text) for path, text in _blocks("sh") if f"{SETTINGS}/config.toml" in text]


@pytest.mark.parametrize(("page", "text"), _installations(), ids=lambda value: value if value.endswith(".md") else "")
def test_the_lines_for_installing_leave_a_configuration_to_change(page: str, text: str, tmp_path: Path) -> None:
    """Up to the installer, which the guest runs, with an editor in which nothing is changed."""
    path = put_program(tmp_path / "bin", "sudo", 'exec "$@"')
    for name in ("apt-get", "nano"):
        put_program(tmp_path / "bin", name, "exit 0")
    before, _, _ = text.partition("sudo ./scripts/install")
    _run(before.replace(SETTINGS, str(tmp_path / "etc")), CHECKOUT, PATH=path)
    content = (tmp_path / "etc/config.toml").read_bytes()
    assert config.parse(content, origin=page).media_location.is_absolute()


def test_the_size_of_a_library_is_found(tmp_path: Path) -> None:
    for name in ("upload", "library", "profile"):
        (tmp_path / name).mkdir()
    ((_, words),) = _lines("du")
    said = _run(" ".join(words).replace("/var/lib/immich", str(tmp_path)), tmp_path)
    assert len(said.splitlines()) == 4
    assert said.splitlines()[-1].endswith("total")


def test_a_deleted_photo_is_found(tmp_path: Path) -> None:
    (text,) = (text for path, text in _blocks("sh") if path.name == "deletions.md" and "find" in text)
    photo = tmp_path / "immich-server-backups/deleted/20261121/library/anna/img_1234.JPG"
    photo.parent.mkdir(parents=True)
    photo.touch()
    assert "/img_1234.JPG\n" in _run(text.replace("/media/me/Blue", str(tmp_path)), tmp_path)


@pytest.mark.parametrize(("code", "said"), [(0, "it has begun"), (75, "not plugged in"), (1, "see above")])
def test_a_script_tells_exit_codes_apart(code: int, said: str, tmp_path: Path) -> None:
    (text,) = (text for path, text in _blocks("sh") if path.name == "exit-codes.md")
    path = put_program(tmp_path / "bin", PROGRAM, f"exit {code}")
    put_program(tmp_path / "bin", "sudo", 'exec "$@"')
    done = subprocess.run(
        ["sh", "-c", text], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True
    )
    assert said in done.stdout


@pytest.mark.parametrize("words", [words for _, words in _lines("lsblk")], ids=shlex.join)
def test_the_columns_of_lsblk_are_there(words: list[str]) -> None:
    if shutil.which("lsblk") is None:
        cannot_run("lsblk is not installed")
    assert "NAME" in _run(shlex.join(words), CHECKOUT)


def test_every_measurement_has_the_options_that_are_shown() -> None:
    lines = re.findall(r"-m bench\.(\w+)([^\n`]*)", (CHECKOUT / "bench/README.md").read_text())
    assert len(lines) > 4
    for name, options in lines:
        program = (CHECKOUT / f"bench/{name}.py").read_text()
        assert [option for option in re.findall(r"--[\w-]+", options) if f'"{option}"' not in program] == [], name


# systemd --------------------------------------------------------------------------------------------------


def _systemctl_lines() -> Iterator[list[str]]:
    """In blocks and in sentences."""
    yield from (words for _, words in _lines("systemctl"))
    for _, code in _inline():
        for part in re.split(r"&&|;", code):
            line = part.strip().removeprefix("sudo ")
            if line.startswith("systemctl "):
                yield shlex.split(line)


def test_systemctl_knows_every_verb_and_there_is_every_unit() -> None:
    if shutil.which("systemctl") is None:
        cannot_run("systemctl is not installed")
    help_text = _run("systemctl --help", CHECKOUT, SYSTEMD_COLORS="0")
    verbs = set(re.findall(r"^  ([a-z][a-z-]+)\b", help_text, re.MULTILINE))
    lines = list(_systemctl_lines())
    assert len(lines) > 40
    for words in lines:
        named = [word for word in words[1:] if not word.startswith("-")]
        assert set(named[:1]) <= verbs, words
        for option in (word for word in words[1:] if word.startswith("--")):
            assert option in help_text, words
    strange = {unit for words in lines for unit in _units(words) if "*" not in unit and not _is_ours(unit)}
    assert strange <= SYSTEM_UNITS | THE_READERS_OWN | {"dbus"}


def _drop_ins() -> Iterator[tuple[str, str]]:
    """Each with the unit that the page has the reader edit."""
    pages = {path for path, _ in _blocks("ini")}
    for path in sorted(pages):
        found = re.findall(r"(?ms)systemctl edit ([\w-]+).*?^ *```ini\n(.*?)^ *```$", path.read_text())
        yield from ((unit, re.sub("^ +", "", text, flags=re.MULTILINE)) for unit, text in found)


@pytest.mark.parametrize(("unit", "text"), list(_drop_ins()))
def test_systemd_takes_every_drop_in(unit: str, text: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        cannot_run("systemd-analyze is not installed")
    whole = re.sub("(?m)^ExecStart=.*$", "ExecStart=/bin/true", (SYSTEMD / f"{unit}.service").read_text())
    (tmp_path / f"{unit}.service").write_text(whole)
    (tmp_path / f"{unit}.service.d").mkdir()
    (tmp_path / f"{unit}.service.d/override.conf").write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / f"{unit}.service")],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "override.conf" not in done.stderr


def test_every_drop_in_is_for_a_unit() -> None:
    others = ("rehearse.md",)  # whole units, see test_docs_commands
    blocks = [path.name for path, _ in _blocks("ini") if path.name not in others]
    assert len(list(_drop_ins())) == len(blocks) > 3


def test_the_groups_that_users_join_are_made() -> None:
    made = (SYSTEMD / f"{PROGRAM}.sysusers.conf").read_text()
    joined = {words[-1] for _, words in _lines("gpasswd")}
    joined |= {code.split()[-2] for _, code in _inline() if "usermod --append --groups" in code}
    assert joined
    assert all(f"\ng {group} " in made for group in joined)
