"""What is in the way of a release. Run it by ./scripts/release-check, which says what is looked at."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
_HEADING = re.compile(r"^## (?P<version>\S+) \((?P<day>[^)]*)\)$", re.MULTILINE)
_IN_THE_WHEEL = ("immich_usb_backup/__main__.py", "immich_usb_backup/system/systemd/immich-usb-backup.service")

Look = Callable[[Path], Iterator[str]]


def main(arguments: Sequence[str], checkout: Path = CHECKOUT) -> int:
    """Look at everything and name all problems. 0: there is none."""
    looks = QUICK if "--quick" in arguments else EVERYTHING
    problems = 0
    for name, look in looks.items():
        found = list(look(checkout))
        problems += len(found)
        for line in found or ["as it should be"]:
            print(f"{'!! ' if found else 'ok '} {name}: {line}", flush=True)
    version = version_of(checkout)
    print(f"{problems} in the way of {version}." if problems else f"Ready. Next: git tag v{version}")
    return 1 if problems else 0


def version_of(checkout: Path) -> str:
    """The one place that has it."""
    return str(tomllib.loads((checkout / "pyproject.toml").read_text())["project"]["version"])


def version(checkout: Path) -> Iterator[str]:
    """Its form, and whether there is a tag of it."""
    found = version_of(checkout)
    if not _VERSION.fullmatch(found):
        yield f"{found!r} in pyproject.toml is not of the form 1.2.3"
    if _git(checkout, "tag", "--list", f"v{found}"):
        yield f"v{found} is released already: raise the version in pyproject.toml"


def changelog(checkout: Path) -> Iterator[str]:
    """The topmost section is this version's, dated, and says something."""
    yield from changelog_problems((checkout / "CHANGELOG.md").read_text(), version_of(checkout), _today())


def changelog_problems(text: str, wanted: str, today: date) -> Iterator[str]:
    """What is wrong with the changelog of a release on this day."""
    top = _HEADING.search(text)
    if top is None or top["version"] != wanted:
        yield f"CHANGELOG.md does not begin with ## {wanted} ({today})"
        return
    if top["day"] != str(today):
        yield f"the section of {wanted} in CHANGELOG.md says ({top['day']}), and not ({today})"
    section = text[top.end() :].partition("\n## ")[0]
    if not re.search(r"^- \S", section, re.MULTILINE):
        yield f"the section of {wanted} in CHANGELOG.md is empty"


def tree(checkout: Path) -> Iterator[str]:
    """Nothing that is not committed."""
    if changed := _git(checkout, "status", "--porcelain").splitlines():
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        yield f"not committed: {', '.join(line[3:] for line in changed[:3])}{more}"


def wheel(checkout: Path) -> Iterator[str]:
    """It can be built and installed, has what install-system needs, and tells its version."""
    with tempfile.TemporaryDirectory(prefix="release-check-") as folder:
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, str(checkout)]
        yield from _failed(command, checkout)
        for built in Path(folder).glob("*.whl"):
            yield from wheel_problems(built)
            yield from _says_its_version(built, Path(folder) / "there", version_of(checkout))


def wheel_problems(built: Path) -> Iterator[str]:
    """What is missing in it."""
    with zipfile.ZipFile(built) as archive:
        names = set(archive.namelist())
    yield from (f"{name} is not in {built.name}" for name in _IN_THE_WHEEL if name not in names)


def _says_its_version(built: Path, place: Path, wanted: str) -> Iterator[str]:
    yield from _failed(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(place), str(built)],
        place.parent,
    )
    code = f"import sys; sys.path.insert(0, {str(place)!r}); from immich_usb_backup.__main__ import main; main(['--version'])"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    if done.stdout.split()[-1:] != [wanted]:
        yield f"what is installed says {done.stdout.strip() or done.stderr.strip()!r}, and not {wanted}"


def package(checkout: Path) -> Iterator[str]:
    """The .deb."""
    with tempfile.TemporaryDirectory(prefix="release-check-") as folder:
        yield from _failed([str(checkout / "scripts/build-deb"), folder], checkout)
        for built in Path(folder).glob("*.deb"):
            yield from _failed(["lintian", "--fail-on=error", "--tag-display-limit=0", str(built)], checkout)


def tests(checkout: Path) -> Iterator[str]:
    """All of them; what they say is shown as they go on."""
    if subprocess.run([checkout / "scripts/test"], check=False).returncode:
        yield "./scripts/test failed"


def _failed(command: Sequence[str], folder: Path) -> Iterator[str]:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        words = (done.stdout + done.stderr).strip()[-2000:]
        yield f"{' '.join(command[:4])} … failed:\n{words}"


def _git(checkout: Path, *words: str) -> str:
    command = ["git", "-c", f"safe.directory={checkout}", *words]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True).stdout


def _today() -> date:
    return datetime.now(UTC).date()


QUICK: Mapping[str, Look] = {"version": version, "changelog": changelog, "tree": tree}
EVERYTHING: Mapping[str, Look] = {**QUICK, "wheel": wheel, "package": package, "tests": tests}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
