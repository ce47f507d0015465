"""The commands that need no daemon, as a user runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from immich_usb_backup.__main__ import main


@pytest.fixture
def settings(tmp_path: Path, media: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(f'media_location = "{media}"\n')
    return path


def test_a_right_configuration_is_called_so(settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", str(settings)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{settings}: no mistakes"
    assert all(line.startswith("ok ") for line in said[1:])
    assert len(said) == 5


def test_every_mistake_is_named_at_once(settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings.write_text('media_locaton = "/x"\n[mail]\nhost = "smtp.example.org"\nsecurity = "none"\n')
    assert main(["check-config", str(settings)]) == 78
    said = capsys.readouterr().out
    for part in ("did you mean media_location?", "mail.to: is required", "localhost only"):
        assert part in said


def test_what_is_not_there_is_a_problem_and_no_bug(
    settings: Path, media: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (media / "library/.immich").unlink()
    settings.write_text(
        f'media_location = "{media}"\nconfig_files = ["/nonexistent/file"]\n[database]\ndumps = "/none"\n'
    )
    assert main(["check-config", str(settings)]) == 1
    said = capsys.readouterr().out
    assert "!!  config_files: /nonexistent/file does not exist" in said
    assert f"!!  media_location: {media}/library/.immich does not exist" in said
    assert "!!  database dumps: /none" in said


def test_a_history_before_the_first_run_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "--state", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "There has been no run yet.\n"


def test_a_daemon_without_its_configuration_says_where_it_looked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["daemon", "--config", str(tmp_path / "none.toml")]) == 78
    assert "none.toml" in capsys.readouterr().err


def test_the_check_of_a_disk_loads_little_as_each_plug_in_waits_for_it() -> None:
    program = (
        "import contextlib, sys\n"
        "from immich_usb_backup.__main__ import main\n"
        "with contextlib.suppress(SystemExit): main(['check-file-system', '--help'])\n"
        "print(sorted({'asyncio', 'importlib.metadata', 'pydantic', 'sqlite3'} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
