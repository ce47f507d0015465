"""The indexes lead to every page, and the README keeps its promises."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.support import told
from tests.support.told import NOW
from tests.unit.test_golden import GOLDEN, SAFE, local_time

from immich_usb_backup.policy.cells import plain
from immich_usb_backup.policy.status_words import status_lines

CHECKOUT = Path(__file__).resolve().parents[2]
DOCS = CHECKOUT / "docs"

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^ *(```+)(\w*)\n(.*?)^ *\1$", re.MULTILINE | re.DOTALL)


def _linked_from(index: Path) -> set[Path]:
    links = (link.partition("#")[0] for link in _LINK.findall(index.read_text()))
    return {(index.parent / link).resolve() for link in links}


def test_the_index_leads_to_every_page() -> None:
    index = DOCS / "README.md"
    pages = {*DOCS.glob("*.md"), *(DOCS / "how-to").glob("*.md"), *(DOCS / "reference").glob("*.md")} - {index}
    assert {page.name for page in pages - _linked_from(index)} == set()


def test_the_index_of_decisions_has_each_by_its_title() -> None:
    folder = DOCS / "decisions"
    records = sorted(path for path in folder.glob("*.md") if path.name != "README.md")
    titles = [f"- [{path.read_text().splitlines()[0].removeprefix('# ')}]({path.name})" for path in records]
    assert sorted(re.findall(r"^- .*$", (folder / "README.md").read_text(), re.MULTILINE)) == titles


def test_each_world_is_installed_in_five_lines() -> None:
    text = (CHECKOUT / "README.md").read_text().partition("\n## Install it\n")[2].partition("\n## ")[0]
    worlds = re.findall(r"^\*\*(NixOS|Debian, Ubuntu|Docker compose)\*\*", text, re.MULTILINE)
    assert worlds == ["NixOS", "Debian, Ubuntu", "Docker compose"]
    assert [len(block.splitlines()) <= 5 for _, _, block in _FENCE.findall(text)] == [True] * 3


def test_every_picture_is_there() -> None:
    pictures = re.findall(r'(?:src|srcset)="([^"]+)"', (CHECKOUT / "README.md").read_text())
    assert len(pictures) == 2
    assert all((CHECKOUT / path).is_file() for path in pictures)


def test_contributors_are_shown_every_room() -> None:
    text = (CHECKOUT / "CONTRIBUTING.md").read_text().partition("\n## Manners\n")[0]
    inner = (path.name for path in (CHECKOUT / "daemon/immich_usb_backup").iterdir() if (path / "__init__.py").exists())
    outer = (path.parent.name for path in CHECKOUT.glob("[a-z]*/*"))
    made = {line.strip("/") for line in (CHECKOUT / ".gitignore").read_text().splitlines()}
    assert [name for name in sorted({*inner, *outer} - made) if f"`{name}/" not in text] == []


def test_every_file_of_the_guests_tests_is_told_of() -> None:
    folder = CHECKOUT / "tests/vm"
    told_of = re.findall(r"^\| `(test_\w+\.py)` \|", (folder / "README.md").read_text(), re.MULTILINE)
    assert sorted(told_of) == sorted(path.name for path in folder.glob("test_*.py"))


def test_the_status_in_the_readme_is_what_the_command_shows() -> None:
    assert (GOLDEN / "status-safe-80.txt").read_text() in (CHECKOUT / "README.md").read_text()


@pytest.mark.parametrize("page", ["reference/commands.md", "how-to/rotate-disks.md"])
@pytest.mark.usefixtures(local_time.__name__)
def test_the_status_of_two_disks_is_what_the_command_shows(page: str) -> None:
    late = told.disk("Green", days=41, history="ooooooooo", size=64_000_000_000)
    shown = "".join(f"{plain(line)}\n" for line in status_lines([SAFE, late], NOW, 80))
    assert shown in (DOCS / page).read_text()
