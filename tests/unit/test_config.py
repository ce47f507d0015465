"""The configuration: every mistake at once, each with its path and what was probably meant."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immich_usb_backup import config
from immich_usb_backup.config import Config
from immich_usb_backup.errors import ConfigError
from immich_usb_backup.model import Mode, Outcome

MAIL = '[mail]\nhost = "mail.example.org"\nto = ["me@example.org"]\n'


def _parse(text: str) -> Config:
    return config.parse(text.encode(), origin="config.toml")


def _problems(text: str | bytes) -> tuple[str, ...]:
    content = text.encode() if isinstance(text, str) else text
    with pytest.raises(ConfigError) as refused:
        config.parse(content, origin="config.toml")
    assert refused.value.problems
    return refused.value.problems


def test_an_empty_file_is_a_nixos_immich() -> None:
    parsed = _parse("")
    assert parsed == Config()
    assert parsed.dumps == Path("/var/lib/immich/backups")
    assert (parsed.disks.transports, parsed.mail, parsed.disks.power_off) == (("usb",), None, False)


def test_all_mistakes_come_at_once() -> None:
    text = (
        'media_location = "immich"\nkeep_config_files = 0\ncolour = 1\n[disks]\npower_off = "yes"\n[mail]\nport = 0\n'
    )
    problems = _problems(text)
    paths = [problem.split(": ")[1] for problem in problems]
    assert sorted(paths) == [
        *("colour", "disks.power_off", "keep_config_files", "mail.host", "mail.port", "mail.to", "media_location")
    ]
    assert all(problem.startswith("config.toml: ") for problem in problems)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[disks]\npoweroff = true", "disks.poweroff: there is no such option, did you mean disks.power_off?"),
        ("media-location = '/x'", "media-location: there is no such option, did you mean media_location?"),
        ("power_off = true", "power_off: there is no such option, did you mean disks.power_off?"),
        (MAIL + "form = 'a@b.c'", "mail.form: there is no such option, did you mean mail.from?"),
        ("[database]\nmedia_location = '/x'", "did you mean media_location (before the first [section])?"),
        ("[dsks]\nx = 1", "dsks: there is no such option, did you mean disks?"),
        ("zzz = 1", "zzz: there is no such option"),
    ],
)
def test_an_unknown_option_is_refused_with_what_was_meant(text: str, hint: str) -> None:
    (problem,) = _problems(text)
    assert problem.endswith(hint)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("media_location = 5", "media_location"),
        ("media_location = '~/immich'", "must be an absolute path"),
        ("config_files = ['/etc/nixos', '.env']", "config_files.1: must be an absolute path"),
        ("config_files = '/etc/nixos'", "config_files"),
        ("keep_config_files = '3'", "keep_config_files"),
        ("keep_config_files = true", "keep_config_files"),
        ("[disks]\ntransports = []", "disks.transports"),
        ("[disks]\ntransports = ['usb', 'ata']", "disks.transports.1"),
        ("[disks]\ntransports = 'usb'", "disks.transports"),
        ("[desktop]\non = ['okay']", "desktop.on.0"),
        ("[logging]\nlevel = 'loud'", "logging.level"),
        ("mail = 'me@example.org'", "mail"),
        (MAIL.replace("me@example.org", "me@x, you@y"), "must be a plain mail address"),
        (MAIL + 'from = "a@b\\nBcc: c@d"', "must be a plain mail address"),
        (MAIL + 'username = "a\\nb"', "must be one line"),
        (MAIL + "port = 65536", "mail.port"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(text: str, part: str) -> None:
    assert part in _problems(text)[0]


@pytest.mark.parametrize(
    "content",
    [b"\xff", b"a = ", b"a = 1\na = 2", b"a = " + b"1" * 5000, b"a = " + b"[" * 50_000, b"#" * 1_000_001, b"\0"],
)
def test_what_is_no_toml_is_said_in_one_line(content: bytes) -> None:
    (problem,) = _problems(content)
    assert problem.startswith("config.toml: is ")


@given(st.binary(max_size=200))
def test_no_content_raises_anything_else(content: bytes) -> None:
    with suppress(ConfigError):
        config.parse(content, origin="config.toml")


def test_mail_without_encryption_stays_on_this_machine() -> None:
    (problem,) = _problems(MAIL + 'security = "none"')
    assert "localhost only" in problem
    for name in ("localhost", "127.0.0.1", "::1"):
        mail = _parse(MAIL.replace("mail.example.org", name) + 'security = "none"').mail
        assert mail is not None
        assert mail.effective_port == 25


@pytest.mark.parametrize(("security", "port"), [("starttls", 587), ("tls", 465)])
def test_the_port_follows_from_the_encryption_unless_it_is_given(security: str, port: int) -> None:
    mail = _parse(MAIL + f'security = "{security}"').mail
    other = _parse(MAIL + f'security = "{security}"\nport = 2525').mail
    assert mail is not None
    assert other is not None
    assert (mail.effective_port, other.effective_port) == (port, 2525)


def test_outcomes_are_chosen_by_name() -> None:
    mail = _parse(MAIL + 'on = ["failed", "partial"]').mail
    assert mail is not None
    assert mail.on == (Outcome.FAILED, Outcome.PARTIAL)


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ConfigError, match="cannot be read"):
            config.load(path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[extra]\n"a b" = "/mnt"', "extra.a b: the name of an extra folder has 1 to 40 letters, digits, - or _"),
        ('[extra]\nupload = "/mnt"', "extra.upload: this name is taken"),
        ('[extra]\npics = "/a"\nPics = "/b"', "extra: two names differ only in case"),
        ('[exclude]\nupload = ["[z"]', "exclude.upload: "),
        ('[exclude]\npictures = ["*.tmp"]', "exclude: there is no folder 'pictures'; the folders are upload, library"),
        ("[disk]\nBlue = 1", "disk.Blue: should be a table"),
        ('[disk.Blue]\nmod = "full"', "disk.Blue.mod: there is no such option, did you mean disk.Blue.mode?"),
        ('[disk.Blue]\nmode = "slow"', "disk.Blue.mode: should be 'quick', 'verify' or 'full'"),
        ("[deletions]\nhold_percent = 101", "deletions.hold_percent: should be less than or equal to 100"),
    ],
)
def test_mistakes_in_what_is_mirrored_are_named(text: str, problem: str) -> None:
    assert problem in _problems(text)[0]


def test_the_first_name_of_a_disk_that_is_configured_sets_its_mode() -> None:
    found = _parse('[disk.Blue]\nmode = "verify"\n[disk."ABCD-1234"]\nmode = "full"')
    assert found.mode_of("Blue", "STICK", "ABCD-1234") is Mode.VERIFY
    assert found.mode_of("Red", "STICK", "ABCD-1234") is Mode.FULL
    assert found.mode_of("Red") is Mode.QUICK


# Verification ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "minutes"), [("0", 0), ("60", 60), ('"unlimited"', config.UNLIMITED_MINUTES)])
def test_minutes_of_verification(text: str, minutes: int) -> None:
    assert _parse(f"[verification]\nminutes = {text}").verification.minutes == minutes


@pytest.mark.parametrize("text", ['"ten"', "-1", "true", "1.5", "[]", '"Unlimited"'])
def test_other_minutes_are_one_mistake(text: str) -> None:
    (problem,) = _problems(f"[verification]\nminutes = {text}")
    assert problem.startswith("config.toml: verification.minutes: ")
