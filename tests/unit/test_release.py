"""The list before a release, and the version, which stands in one place."""

from __future__ import annotations

import re
import subprocess
import zipfile
from datetime import date
from pathlib import Path

import pytest
from scripts import release_check

from immich_usb_backup.__main__ import main

CHECKOUT = Path(__file__).resolve().parents[2]
TODAY = date(2026, 11, 21)
GOOD = "# Changes\n\nWhat a user sees.\n\n## 1.2.3 (2026-11-21)\n\n- Better.\n\n## 1.2.2 (2026-10-01)\n\n- Good.\n"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One that may be released, today."""
    monkeypatch.setattr(release_check, "_today", lambda: TODAY)
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text(GOOD)
    _git(tmp_path, "init", "--quiet")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "--quiet", "--message=x")
    return tmp_path


def _git(folder: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=folder, check=True)


def test_nothing_is_in_the_way(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert release_check.main(["--quick"], checkout) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "Ready. Next: git tag v1.2.3"


def test_everything_that_is_in_the_way_is_named_at_once(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _git(checkout, "tag", "v1.2.3")
    (checkout / "CHANGELOG.md").write_text(GOOD.replace("2026-11-21", "unreleased"))
    assert release_check.main(["--quick"], checkout) == 1
    assert capsys.readouterr().out.splitlines() == [
        "!!  version: v1.2.3 is released already: raise the version in pyproject.toml",
        "!!  changelog: the section of 1.2.3 in CHANGELOG.md says (unreleased), and not (2026-11-21)",
        "!!  tree: not committed: CHANGELOG.md",
        "3 in the way of 1.2.3.",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD, []),
        (GOOD.replace("1.2.3", "1.2.4"), ["CHANGELOG.md does not begin with ## 1.2.3 (2026-11-21)"]),
        ("# Changes\n", ["CHANGELOG.md does not begin with ## 1.2.3 (2026-11-21)"]),
        (GOOD.replace("- Better.\n", ""), ["the section of 1.2.3 in CHANGELOG.md is empty"]),
    ],
)
def test_what_is_wrong_with_a_changelog(text: str, said: list[str]) -> None:
    assert list(release_check.changelog_problems(text, "1.2.3", TODAY)) == said


@pytest.mark.parametrize("version", ["1.2", "1.2.3.dev1", "01.2.3"])
def test_a_version_of_another_form_is_refused(checkout: Path, version: str) -> None:
    (checkout / "pyproject.toml").write_text(f'[project]\nversion = "{version}"\n')
    assert list(release_check.version(checkout)) == [f"{version!r} in pyproject.toml is not of the form 1.2.3"]


def test_a_wheel_without_the_units_is_noticed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr("immich_usb_backup/__main__.py", "")
    assert list(release_check.wheel_problems(tmp_path / "a.whl")) == [
        "immich_usb_backup/system/systemd/immich-usb-backup.service is not in a.whl"
    ]


def test_the_changelog_begins_with_the_version_and_ends_with_the_first() -> None:
    versions = re.findall(r"^## (\S+) \(", (CHECKOUT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == release_check.version_of(CHECKOUT)
    assert versions[-1] == "0.1.0"


def test_the_version_stands_in_one_place() -> None:
    """Documents may tell of versions; what is built and run takes it from pyproject.toml."""
    version = release_check.version_of(CHECKOUT)
    folders = ("daemon", "packaging", "scripts", "systemd", "completions", "udev-rules")
    files = [CHECKOUT / name for name in ("package.nix", "flake.nix", "nixos-module.nix")]
    files += [path for folder in folders for path in (CHECKOUT / folder).rglob("*")]
    files = [path for path in files if path.suffix != ".pyc" and "/." not in str(path.relative_to(CHECKOUT))]
    pattern = re.compile(rf"(?<![\d.]){re.escape(version)}(?![\d.])")
    assert [path for path in files if path.is_file() and pattern.search(path.read_text())] == []


def test_the_version_is_said_where_a_pipe_finds_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    said = capsys.readouterr()
    assert (end.value.code, said.err) == (0, "")
    assert re.fullmatch(r"immich-usb-backup \S+\n", said.out)
