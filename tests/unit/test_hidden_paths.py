"""What the service's walls hide of the configured paths, and that the drop-in opens just that."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.set_up import SetUp, set_up

from immich_usb_backup.adapters.links import every_step, to_open
from immich_usb_backup.config import Config
from immich_usb_backup.doctor import walls
from immich_usb_backup.doctor.checked import Result
from immich_usb_backup.doctor.machine import Ran
from immich_usb_backup.policy.hidden_paths import (
    HOMES,
    NEVER,
    SECRETS,
    configured,
    drop_in,
    hidden,
    is_opened,
    kept_back,
    refused,
)
from immich_usb_backup.policy.photo_walls import HIDDEN, UNITS, hiding, to_hide

ROOT = Path(__file__).parents[2]
AGENT = "immich-usb-backup-agent.service"
UNIT = ROOT / "systemd" / "immich-usb-backup.service"


def test_every_folder_that_the_service_reads_is_looked_at() -> None:
    config = {
        "media_location": "/a",
        "config_files": ["/b", "/c"],
        "extra": {"pictures": "/d"},
        "database": {"dumps": "/e"},
        "mail": {"password_file": "/f"},
    }
    links = [f"/a/{name}" for name in ("backups", "library", "profile", "upload")]
    assert sorted(configured(config)) == ["/a", *links, "/b", "/c", "/d", "/e"]


@pytest.mark.parametrize(
    "config",
    [{}, {"media_location": 7, "config_files": "x", "extra": [1], "database": "x"}, {"config_files": [7, "relative"]}],
)
def test_a_configuration_with_mistakes_opens_nothing(config: dict[str, object]) -> None:
    assert list(configured(config)) == []


def test_only_what_is_hidden_is_opened_and_that_once() -> None:
    paths = [
        "/srv/immich",
        "/home/alice/photos",
        "/home/alice/photos/old",
        "/home/alice/photos/",
        "/rooted",
        "/root/docker",
    ]
    assert hidden(paths) == ("/home/alice/photos", "/root/docker")


def test_a_path_that_goes_around_is_seen() -> None:
    assert hidden(["/srv/../home/alice//./photos", "/home/../srv"]) == ("/home/alice/photos",)


def test_nothing_is_written_where_nothing_is_hidden() -> None:
    assert drop_in(["/var/lib/immich"]) == ""


def test_the_drop_in_opens_for_reading_and_stumbles_over_nothing() -> None:
    lines = drop_in(['/home/my "best" photos/100%', "/home/back\\slash"]).splitlines()
    assert lines[1:] == [
        "[Service]",
        'BindReadOnlyPaths="-/home/back\\\\slash"',
        'BindReadOnlyPaths="-/home/my \\"best\\" photos/100%%"',
    ]


def test_all_homes_at_once_are_opened_once() -> None:
    assert drop_in(["/home", "/home/alice"]).splitlines()[2:] == ['BindReadOnlyPaths="-/home"']


def test_a_path_that_systemd_would_misread_stays_hidden_and_costs_the_others_nothing() -> None:
    paths = ["/home/a\nExecStart=/bin/x", "/home/b"]
    assert refused(paths) == ("/home/a\nExecStart=/bin/x",)
    assert drop_in(paths).splitlines()[2:] == ['BindReadOnlyPaths="-/home/b"']


def test_a_secret_is_opened_by_its_name_and_shadow_never() -> None:
    lines = drop_in(["/etc/wireguard", "/etc/ssl/private/immich.key", "/etc/shadow"]).splitlines()[2:]
    assert lines[0] == "InaccessiblePaths="
    still = lines[1].removeprefix("InaccessiblePaths=").split()
    opened = {"/etc/wireguard", "/etc/ssl/private"}
    assert still == [f"-{path}" for path in (*NEVER, *SECRETS) if path not in opened]
    assert lines[2:] == [
        "TemporaryFileSystem=/etc/ssl/private:ro,mode=0755",
        'BindReadOnlyPaths="-/etc/ssl/private/immich.key"',
        'BindReadOnlyPaths="-/etc/wireguard"',
    ]


def test_what_is_secret_in_a_configured_folder_is_named() -> None:
    assert "/etc/wireguard" in kept_back(["/etc"])
    assert "/etc/wireguard" not in kept_back(["/etc", "/etc/wireguard/wg0.conf"])
    assert kept_back(["/srv"]) == ()


def test_the_unit_hides_what_this_knows_of() -> None:
    text = UNIT.read_text()
    listed = " ".join(re.findall(r"^InaccessiblePaths=(.*)$", text, re.M)).split()
    assert listed == [f"-{path}" for path in (*NEVER, *SECRETS)]
    homes = " ".join(f"{home}:ro,mode=0755" for home in HOMES)
    assert f"\nProtectHome=tmpfs\nTemporaryFileSystem={homes}\n" in text


@pytest.mark.parametrize("path", ["/home/b", "/home/b/photos", "/home"])
def test_what_lies_in_an_opened_folder_is_opened(path: str) -> None:
    assert is_opened(path, drop_in(["/home/b"])) is (path != "/home")


# Links ------------------------------------------------------------------------------------------------------


def test_each_link_on_the_way_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "hop").symlink_to("real")
    (tmp_path / "far").symlink_to(tmp_path / "hop")
    steps = [f"{tmp_path}/{name}/photos" for name in ("far", "hop", "real")]
    assert list(every_step(steps[0])) == steps


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert len(list(every_step(f"{tmp_path}/a"))) < 50


def test_a_link_into_a_home_opens_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "media").symlink_to("/home/nobody here/photos")
    assert to_open([f"{tmp_path}/media", f"{tmp_path}/media/upload"]) == ("/home/nobody here/photos",)


def test_a_secret_that_is_not_there_is_not_opened() -> None:
    """systemd would make its folder."""
    assert to_open(["/run/agenix/no such secret", "/home/not yet"]) == ("/home/not yet",)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link to somebody else")
@pytest.mark.parametrize(("leads_to", "may"), [("/etc", False), ("/root/x", False), ("/home/x", True)])
def test_only_roots_links_lead_to_what_is_roots_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leads_to: str, *, may: bool
) -> None:
    """Immich's user may write to its library, and would have a secret put onto the disk."""
    monkeypatch.setattr("immich_usb_backup.policy.hidden_paths.SECRETS", ("/etc",))
    (tmp_path / "upload").symlink_to(leads_to)
    (tmp_path / "again").symlink_to("upload")
    assert to_open([f"{tmp_path}/again"]) == (leads_to,)
    os.lchown(tmp_path / "upload", 12345, 12345)
    for name in ("upload", "again"):
        assert to_open([f"{tmp_path}/{name}"]) == ((leads_to,) if may else ())


# The generator ----------------------------------------------------------------------------------------------


def made(folder: Path, text: str) -> tuple[subprocess.CompletedProcess[str], str | None]:
    """What the generator says, and the drop-in that it writes."""
    (folder / "config.toml").write_text(text)
    command = [
        sys.executable,
        "-m",
        "immich_usb_backup",
        "make-units",
        f"--config={folder}/config.toml",
        "--",
        str(folder),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "daemon")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    drop_in = folder / "immich-usb-backup.service.d" / "10-configured-paths.conf"
    return done, drop_in.read_text() if drop_in.exists() else None


def test_the_generator_opens_what_is_configured(tmp_path: Path) -> None:
    done, text = made(tmp_path, 'media_location = "/home/x/photos"\n[extra]\npictures = "/root/50% \\"of\\" them"\n')
    assert (done.returncode, done.stderr) == (0, "")
    assert text == drop_in(["/home/x/photos", '/root/50% "of" them'])


def test_the_generator_tells_of_a_path_that_it_cannot_open(tmp_path: Path) -> None:
    done, text = made(tmp_path, 'config_files = ["/home/a\\nb", "/home/c"]')
    assert done.returncode == 1
    assert "/home/a\\nb stays hidden" in done.stderr
    assert text == drop_in(["/home/c"])


@pytest.mark.parametrize(
    "text", ['media_location = "/srv/immich"', "not toml [", 'media_location = "/home/a\\u0000b"', ""]
)
def test_where_nothing_can_be_opened_there_is_no_drop_in(tmp_path: Path, text: str) -> None:
    done, text_made = made(tmp_path, text)
    assert text_made is None
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_takes_the_drop_in(tmp_path: Path) -> None:
    unit = tmp_path / "immich-usb-backup.service"
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/immich-usb-backup", "/bin/true"))
    folder = tmp_path / "immich-usb-backup.service.d"
    folder.mkdir()
    names = ['/home/my "best" photos/100%', "/home/back\\slash", "/home/a:b", "/home/it's $HOME ü", "/etc/wireguard/x"]
    (folder / "10.conf").write_text(drop_in(names))
    (folder / "20.conf").write_text(hiding(names))
    verify = ["systemd-analyze", "verify", "--recursive-errors=no", str(unit)]
    done = subprocess.run(verify, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# What the others do not see -----------------------------------------------------------------------------------


def test_the_photos_are_hidden_from_what_has_the_network(tmp_path: Path) -> None:
    """Where docker compose has them, open to everybody; a link is followed."""
    (tmp_path / "link").symlink_to("/tank/50% of: photos")
    done, _ = made(tmp_path, f'media_location = "/opt/immich-app/library"\n[extra]\npictures = "{tmp_path}/link"\n')
    assert (done.returncode, done.stderr) == (0, "")
    for unit in UNITS:
        lines = (tmp_path / f"{unit}.d" / "10-configured-paths.conf").read_text().splitlines()
        assert 'InaccessiblePaths="-/opt/immich-app/library"' in lines
        assert 'InaccessiblePaths="-/tank/50%% of\\: photos"' in lines


def test_secrets_of_other_units_are_hidden_wherever_they_are(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/tank/the password")
    text = (
        f'[mail]\npassword_file = "{tmp_path}/link"\n[ping]\nurl_file = "/etc/ping url"\n[push]\nurls_file = "/etc"\n'
        '[database]\npassword_file = "/etc/database"\napi_key_file = "/etc/api"\n'
    )
    done, text_made = made(tmp_path, text)
    assert (done.returncode, done.stderr) == (0, "")
    files = (f"{tmp_path}/link", "/tank/the password", "/etc/ping url", "/etc/database", "/etc/api")
    assert sorted((text_made or "").splitlines()[2:]) == sorted(f'InaccessiblePaths="-{path}"' for path in files)


def test_each_unit_but_the_service_hides_photos() -> None:
    assert {f"{unit}" for unit in UNITS} == {
        path.name for path in (ROOT / "systemd").glob("*.service") if path.name not in {UNIT.name, AGENT}
    }
    for unit in UNITS:
        text = (ROOT / "systemd" / unit).read_text()
        hidden = " ".join(re.findall(r"^InaccessiblePaths=(.*)$", text, re.M)).split()
        assert {f"-{path}" for path in HIDDEN if path not in HOMES} <= set(hidden)
        assert "\nProtectHome=yes\n" in text


@pytest.mark.parametrize("path", ["/", "/var", "/var/lib", "/opt", "/usr/share", "/srv/photos", "/home/x", "/nix"])
def test_what_a_unit_needs_or_hides_anyway_is_not_hidden(path: str) -> None:
    assert to_hide([path], program="/opt/immich-usb-backup/1.0") == ()


def test_photos_in_a_folder_that_cannot_be_hidden_are_hidden_themselves() -> None:
    """All of /var is backed up, too, and the units have their state in it."""
    assert to_hide(["/var", "/var/photos", "/var/photos/upload"], program="/opt/x") == ("/var/photos",)


# What people are told ---------------------------------------------------------------------------------------

PHOTOS = "/home/alice/photos"


@pytest.fixture
def server(tmp_path: Path) -> SetUp:
    """Its library lies below /home; systemd runs, the service does not."""
    whole = set_up(tmp_path / "root")
    whole.write(f"{PHOTOS}/it")
    whole.write("/run/systemd/system/x")
    whole.programs["systemctl show"] = Ran(0, "0\n")
    return whole


def told(server: SetUp, config: Config | None = None) -> list[tuple[Result, str, str]]:
    chosen = config or Config(media_location=Path(PHOTOS))
    return [(one.result, one.text, one.todo) for one in walls.look(server.machine(), chosen)]


def test_before_a_reload_it_is_told_that_the_library_is_hidden(server: SetUp) -> None:
    ((result, text, todo),) = told(server)
    assert (result, PHOTOS in text) == (Result.PROBLEM, True)
    assert todo == "sudo systemctl daemon-reload && sudo systemctl restart immich-usb-backup"


def test_after_a_reload_it_is_open(server: SetUp) -> None:
    server.write(walls.GENERATED, drop_in([PHOTOS]))
    assert [result for result, _, _ in told(server)] == [Result.OK]


@pytest.mark.parametrize(("answer", "result"), [(f"{PHOTOS}\0", Result.PROBLEM), ("", Result.OK)])
def test_a_service_that_runs_is_asked_what_it_sees(server: SetUp, answer: str, result: Result) -> None:
    """It has begun before the drop-in was there; or it sees the folder, by whatever way."""
    server.write(walls.GENERATED, drop_in([PHOTOS]))
    server.programs["systemctl show"] = Ran(0, "42\n")
    server.programs["nsenter --target=42"] = Ran(0, answer)
    assert [found for found, _, _ in told(server)] == [result]


def test_where_nothing_is_hidden_nothing_is_told(server: SetUp) -> None:
    assert told(server, Config()) == []


def test_secrets_that_are_left_out_of_the_zip_are_told(server: SetUp) -> None:
    server.write("/etc/wireguard/wg0.conf", "x")
    ((result, text, todo),) = told(server, Config(config_files=(Path("/etc"),)))
    assert result is Result.UNSEEN
    assert text.endswith("stays hidden, and is not in the zip: /etc/wireguard")
    assert "name it itself" in todo
