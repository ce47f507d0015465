"""The files that tie the daemon into the system: units, udev rule, polkit rule, bus policy, examples, installer."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path

import pytest

from immich_usb_backup import config
from immich_usb_backup.adapters import mail, ping, push
from immich_usb_backup.adapters.file_systems import CHECK_SECONDS
from immich_usb_backup.adapters.polkit import GROUP, Action
from immich_usb_backup.policy.file_system import EXIT_CODES

REPOSITORY = Path(__file__).resolve().parents[2]
SYSTEMD = REPOSITORY / "systemd"
RULE = REPOSITORY / "udev-rules" / "90-immich-usb-backup.rules"
INSTALL = REPOSITORY / "scripts" / "install"

DAEMON = "immich-usb-backup.service"
NOTIFIER = "immich-usb-backup-notifier.service"
NOTIFIER_PATH = "immich-usb-backup-notifier.path"
AGENT = "immich-usb-backup-agent.service"
CHECK = "immich-usb-backup-check@.service"
REPAIR = "immich-usb-backup-repair@.service"
REMIND = "immich-usb-backup-remind.service"
REMIND_TIMER = "immich-usb-backup-remind.timer"
SCHEDULE = "immich-usb-backup-schedule@.service"
STATE = "/var/lib/immich-usb-backup"
BUS_NAME = "io.github.immich_usb_backup1"

PROPERTY = re.compile(r"(?P<name>[A-Za-z]+)=(?P<value>.*)")
DROPPED_CALLS = "~@privileged @resources @keyring @setuid @aio"

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def directives(unit: str) -> Mapping[str, list[str]]:
    """The settings of a unit, every value of each in their order."""
    found: dict[str, list[str]] = {}
    for line in (SYSTEMD / unit).read_text().splitlines():
        if match := PROPERTY.fullmatch(line):
            found.setdefault(match["name"], []).append(match["value"])
    return found


def run(*command: str | Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program; its output is what a test looks at."""
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **(env or {})}
    )


def without_comments(path: Path) -> str:
    return "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith(("#", "//")))


# Units ----------------------------------------------------------------------------------------------------


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, with a program that exists on every machine in the place of ours."""
    for source in (*SYSTEMD.glob("*.service"), *SYSTEMD.glob("*.path"), *SYSTEMD.glob("*.timer")):
        text = source.read_text().replace("/usr/local/bin/immich-usb-backup", "/bin/true")
        (tmp_path / source.name).write_text(text)
    return tmp_path


@needs_systemd
@pytest.mark.parametrize("unit", [DAEMON, NOTIFIER, NOTIFIER_PATH, CHECK, REPAIR, REMIND, REMIND_TIMER, SCHEDULE])
def test_system_units_are_valid(units: Path, unit: str) -> None:
    done = run("systemd-analyze", "verify", "--recursive-errors=no", units / unit)
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_the_user_unit_is_valid(units: Path, tmp_path: Path) -> None:
    env = {"XDG_RUNTIME_DIR": str(tmp_path)}
    done = run("systemd-analyze", "--user", "verify", "--recursive-errors=no", units / AGENT, env=env)
    assert (done.returncode, done.stderr) == (0, "")


SECURITY = REPOSITORY / "docs" / "reference" / "security.md"
SCORES = dict(re.findall(r"^\| `(immich-usb-backup\S*\.service)` \| (\d\.\d) \|", SECURITY.read_text(), re.MULTILINE))
LIMITS = {DAEMON: 1.5, NOTIFIER: 1.1, "immich-usb-backup-dump.service": 1.0, CHECK: 0.4, REPAIR: 0.4, REMIND: 0.2}
LIMITS |= {SCHEDULE: 0.2, AGENT: 5.9}


def test_the_scores_are_documented_for_each_unit() -> None:
    assert {unit: float(score) for unit, score in SCORES.items()} == LIMITS
    assert LIMITS.keys() == {path.name for path in SYSTEMD.glob("*.service")}


def exposures(units: Path, unit: str) -> tuple[str, set[str]]:
    """The score that systemd gives a unit, and the settings that it finds fault with."""
    done = run("systemd-analyze", "security", "--offline=true", "--no-pager", units / unit, env={"SYSTEMD_COLORS": "0"})
    (score,) = re.findall(r"Overall exposure level for \S+: (\d+\.\d)", done.stdout)
    return score, set(re.findall(r"^✗ (\w+)", done.stdout, re.MULTILINE))


@needs_systemd
@pytest.mark.parametrize("unit", LIMITS)
def test_system_units_are_locked_down(units: Path, unit: str) -> None:
    """Each exception is in the table of docs/reference/security.md, with its reason. Other versions of systemd look at more."""
    score, found = exposures(units, unit)
    assert float(score) <= LIMITS[unit]
    if unit != AGENT and run("systemctl", "--version").stdout.startswith("systemd 252 "):
        rows = re.findall(r"^\| `(\w+)` \| ([a-z, ]+) \| .+ \|$", SECURITY.read_text(), re.MULTILINE)
        short = unit.removeprefix("immich-usb-backup").strip("-").partition(".")[0].rstrip("@") or "service"
        assert {name for name, where in rows if short in where.split(", ")} == found


def test_the_daemon_has_no_network() -> None:
    unit = directives(DAEMON)
    assert unit["RestrictAddressFamilies"] == ["AF_UNIX AF_NETLINK"]
    assert unit["IPAddressDeny"] == ["any"]
    assert "IPAddressAllow" not in unit


def test_the_daemon_reaches_nobody_who_would_use_the_network_for_it() -> None:
    """Its capability opens folders, and sockets in them may be open to everybody, as those of a mail server are."""
    hidden = set(" ".join(directives(DAEMON)["InaccessiblePaths"]).split())
    assert {"-/run/systemd/resolve", "-/run/nscd", "-/run/avahi-daemon", "-/var/spool/postfix"} <= hidden
    assert {"-/run/docker.sock", "-/run/containerd", "-/run/podman"} <= hidden


def test_the_daemon_has_exactly_one_capability() -> None:
    unit = directives(DAEMON)
    assert unit["CapabilityBoundingSet"] == unit["AmbientCapabilities"] == ["CAP_DAC_READ_SEARCH"]
    assert unit["NoNewPrivileges"] == ["yes"]


def test_the_daemon_can_write_nowhere_but_to_disks_and_its_state() -> None:
    unit = directives(DAEMON)
    assert unit["ProtectSystem"] == ["strict"]
    assert unit["ProtectHome"] == ["tmpfs"]
    assert unit["ReadWritePaths"] == ["-/media -/run/media"]
    assert unit["StateDirectory"] == ["immich-usb-backup"]
    assert unit["StateDirectoryMode"] == ["0711"]
    assert "BindPaths" not in unit


def test_the_daemon_cannot_open_files_behind_the_sandbox() -> None:
    """open_by_handle_at needs nothing but CAP_DAC_READ_SEARCH; it is one of @privileged."""
    assert directives(DAEMON)["SystemCallFilter"] == ["@system-service", DROPPED_CALLS]


@needs_systemd
@pytest.mark.parametrize("unit", LIMITS)
def test_no_unit_can_make_sockets_past_its_filter(unit: str) -> None:
    """io_uring does what it is told without system calls, so no filter sees it."""
    _, dropped = directives(unit)["SystemCallFilter"]
    calls = run("systemd-analyze", "syscall-filter", *dropped.removeprefix("~").split()).stdout.split()
    assert {"io_uring_setup", "open_by_handle_at"} <= set(calls)


def test_the_daemon_sees_mounts_that_come_later() -> None:
    hides = {"PrivateDevices", "PrivateMounts", "PrivateUsers", "MountFlags", "RootDirectory"}
    assert not hides & directives(DAEMON).keys()
    (empty,) = directives(DAEMON)["TemporaryFileSystem"]
    assert [one.partition(":")[0] for one in empty.split()] == ["/home", "/root", "/run/user"]
    assert "PrivateNetwork" not in directives(DAEMON), "udev's events come to the host's network namespace only"


def test_the_daemon_is_supervised() -> None:
    unit = directives(DAEMON)
    expected = {
        "Type": "notify",
        "NotifyAccess": "main",
        "ExecStart": "/usr/local/bin/immich-usb-backup daemon",
        "ExecReload": "kill -HUP $MAINPID",
        "WatchdogSec": "2min",
        "Restart": "on-failure",
        "RestartPreventExitStatus": "78",
        "TimeoutStopSec": "3min",
        "KillMode": "mixed",
        "User": "immich-usb-backup",
    }
    assert {name: unit[name] for name in expected} == {name: [value] for name, value in expected.items()}


def test_no_units_folder_lies_in_one_that_another_user_owns() -> None:
    """systemd 253 and later gives a unit's folder to its user, with all that is in it, through a link that lies there."""
    units = [found for found in map(directives, LIMITS) if "StateDirectory" in found and "User" in found]
    owners = {name: found["User"] for found in units for name in found["StateDirectory"][0].split()}
    within = {name: str(parent) for name in owners for parent in Path(name).parents if str(parent) in owners}
    assert [name for name, parent in within.items() if owners[name] != owners[parent]] == []


def test_the_notifier_has_no_capability_and_a_user_of_its_own() -> None:
    unit = directives(NOTIFIER)
    assert unit["CapabilityBoundingSet"] == unit["AmbientCapabilities"] == [""]
    assert unit["NoNewPrivileges"] == ["yes"]
    assert unit["User"] == ["immich-usb-backup-notify"] != directives(DAEMON)["User"]
    assert "SupplementaryGroups" not in unit


def test_the_notifier_cannot_see_the_library() -> None:
    unit = directives(NOTIFIER)
    assert unit["ProtectHome"] == ["yes"]
    assert {"-/var/lib/immich", "-/media", "-/run/media"} <= set(unit["InaccessiblePaths"][0].split())
    assert unit["ReadWritePaths"] == [f"{STATE}/outbox"]
    assert unit["StateDirectoryMode"] == ["0700"]


def test_the_notifiers_secrets_are_optional_and_nobody_elses() -> None:
    unit, names = directives(NOTIFIER), (mail.CREDENTIAL, ping.CREDENTIAL, push.CREDENTIAL)
    assert unit["LoadCredential"] == [f"{name}:/etc/immich-usb-backup/{name}" for name in names]
    assert unit["SetCredential"] == [f"{name}:\\n" for name in names], (
        "without a default, a missing file keeps the unit from starting"
    )
    for other in (DAEMON, "immich-usb-backup-dump.service"):
        hidden = " ".join(directives(other)["InaccessiblePaths"]).split()
        assert {f"-/etc/immich-usb-backup/{name}" for name in names} <= set(hidden), other


def test_the_outbox_never_makes_systemd_give_up() -> None:
    """A failed notifier waits for its restart: were it let go, the path unit would start it at once, for ever."""
    unit = directives(NOTIFIER)
    assert unit["Restart"] == ["on-failure"]
    assert unit["StartLimitIntervalSec"] == ["0"]
    assert "RestartPreventExitStatus" not in unit
    assert directives(NOTIFIER_PATH)["DirectoryNotEmpty"] == [f"{STATE}/outbox"]


def test_the_agent_belongs_to_graphical_sessions() -> None:
    unit = directives(AGENT)
    assert unit["PartOf"] == unit["WantedBy"] == ["graphical-session.target"]
    assert unit["RestrictAddressFamilies"] == ["AF_UNIX"]


def test_the_agent_is_held_as_far_as_a_users_manager_can() -> None:
    unit = directives(AGENT)
    assert unit["NoNewPrivileges"] == unit["RestrictNamespaces"] == unit["MemoryDenyWriteExecute"] == ["yes"]
    assert unit["SystemCallFilter"] == ["@system-service", DROPPED_CALLS]
    assert unit["StateDirectory"] == ["immich-usb-backup-agent"]
    assert unit["StateDirectoryMode"] == ["0700"]


@pytest.mark.parametrize(("unit", "leave"), [(CHECK, "r"), (REPAIR, "rw")])
def test_a_check_reaches_one_device_as_nobody(unit: str, leave: str) -> None:
    found = directives(unit)
    assert found["DevicePolicy"] == ["closed"]
    assert found["DeviceAllow"] == [f"/dev/%I {leave}"]
    assert found["DynamicUser"] == found["PrivateNetwork"] == found["NoNewPrivileges"] == ["yes"]
    assert found["SupplementaryGroups"] == ["disk"]
    assert found["CapabilityBoundingSet"] == found["AmbientCapabilities"] == [""]
    assert "User" not in found
    assert "ReadWritePaths" not in found
    assert "PrivateDevices" not in found, "it would hide the disk"


@pytest.mark.parametrize("unit", [CHECK, REPAIR])
def test_the_answer_of_a_check_stays_until_it_is_read(unit: str) -> None:
    found = directives(unit)
    assert found["Type"] == ["oneshot"]
    assert found["RemainAfterExit"] == ["yes"]
    assert found["NotifyAccess"] == ["main"]
    codes = {int(code) for code in found["SuccessExitStatus"][0].split()}
    assert codes | {0} == set(EXIT_CODES.values())


def test_check_and_repair_differ_in_the_leave_to_write_only() -> None:
    check, repair = directives(CHECK), directives(REPAIR)
    assert {name for name in check.keys() | repair.keys() if check.get(name) != repair.get(name)} == {
        "Description",
        "ExecStart",
        "DeviceAllow",
    }
    assert check["ExecStart"] == ["/usr/local/bin/immich-usb-backup check-file-system /dev/%I"]
    assert repair["ExecStart"] == ["/usr/local/bin/immich-usb-backup check-file-system --repair /dev/%I"]


@pytest.mark.parametrize("unit", [REMIND, SCHEDULE])
def test_what_timers_start_has_no_privilege_and_no_network(unit: str) -> None:
    found = directives(unit)
    assert found["User"] == directives(DAEMON)["User"]
    assert found["CapabilityBoundingSet"] == found["AmbientCapabilities"] == [""]
    assert found["PrivateNetwork"] == found["NoNewPrivileges"] == ["yes"]
    assert found["RestrictAddressFamilies"] == ["AF_UNIX"]
    assert "ReadWritePaths" not in found
    assert "-/var/lib/immich" in found["InaccessiblePaths"][0].split()


def test_a_reminder_is_due_each_day_and_made_up_for() -> None:
    timer = directives(REMIND_TIMER)
    assert timer["Persistent"] == ["true"]
    assert timer["OnCalendar"] == ["*-*-* 10:00:00"]
    assert REMIND_TIMER in directives(DAEMON)["Also"][0].split()
    after = directives(REMIND)["After"][0].split()
    assert DAEMON in after, "a daemon that is starting is not one that does not run"


def test_a_disks_name_is_no_variable_and_no_option() -> None:
    assert directives(SCHEDULE)["ExecStart"] == [":/usr/local/bin/immich-usb-backup backup --scheduled -- %I"]


def test_the_units_give_up_after_the_daemon() -> None:
    (minutes,) = re.findall(r"^(\d+)min$", directives(CHECK)["TimeoutStartSec"][0])
    assert int(minutes) * 60 > CHECK_SECONDS


def test_users_and_folders_fit_the_units() -> None:
    users = re.findall(r"^u (\S+)", (SYSTEMD / "immich-usb-backup.sysusers.conf").read_text(), re.MULTILINE)
    assert users == ["immich-usb-backup", "immich-usb-backup-notify", "immich-usb-backup-dump"]
    assert re.findall(r"^g (\S+)", (SYSTEMD / "immich-usb-backup.sysusers.conf").read_text(), re.MULTILINE) == [GROUP]
    rows = [line.split() for line in without_comments(SYSTEMD / "immich-usb-backup.tmpfiles.conf").splitlines()]
    folders = {row[1]: row[2:5] for row in rows}
    assert folders[STATE] == ["0711", "immich-usb-backup", "immich-usb-backup"]
    assert folders[f"{STATE}/outbox"] == ["2770", "immich-usb-backup", "immich-usb-backup-notify"]


# udev -----------------------------------------------------------------------------------------------------


def test_the_udev_rule_disturbs_nobody() -> None:
    rule = without_comments(RULE).strip()
    assert not re.findall(r"/bin/|/usr/|RUN|PROGRAM|IMPORT|UDISKS|OPTIONS", rule)
    assigned = set(re.findall(r'([\w{}]+\+?=)"', re.sub(r'[\w{}]+[=!]="', "", rule)))
    assert assigned == {"GOTO=", "LABEL=", "TAG+=", "ENV{SYSTEMD_WANTS}+="}


def test_the_udev_rule_starts_the_daemon_for_exfat_on_usb_and_not_on_remove() -> None:
    rule = without_comments(RULE).strip()
    assert rule.startswith('ACTION=="remove", GOTO="immich_usb_backup_end"')
    assert 'ENV{ID_FS_TYPE}!="exfat", GOTO="immich_usb_backup_end"' in rule
    assert 'SUBSYSTEMS=="usb"' in rule, "in an enclosure ID_BUS may be ata"
    assert 'TAG+="immich-usb-backup", TAG+="systemd"' in rule
    wants = f'ACTION=="add", ENV{{SYSTEMD_WANTS}}+="{DAEMON}"'
    assert wants in rule, "on a change event, which unmounting makes, a stopped service would start again"


def test_udev_accepts_the_rule() -> None:
    helped = run("udevadm", "verify", "--help") if shutil.which("udevadm") else None
    if helped is None or helped.returncode:
        pytest.skip("udevadm is missing or cannot verify (before systemd 254)")
    done = run("udevadm", "verify", "--no-style", RULE)
    assert done.returncode == 0, done.stdout + done.stderr


# polkit ---------------------------------------------------------------------------------------------------

UDISKS = "org.freedesktop.udisks2"
LOGIN = "org.freedesktop.login1"
ALLOWED_FOR_EXFAT = {
    f"{UDISKS}.filesystem-mount",
    f"{UDISKS}.filesystem-mount-other-seat",
    f"{UDISKS}.filesystem-mount-system",
    f"{UDISKS}.filesystem-unmount-others",
}
ALLOWED_FOR_REMOVABLE = {f"{UDISKS}.power-off-drive", f"{UDISKS}.power-off-drive-other-seat"}
USB_STICK = {"id.type": "exfat", "drive.removable": "true"}
ALLOWED = {
    *(ALLOWED_FOR_EXFAT | ALLOWED_FOR_REMOVABLE),
    f"{LOGIN}.inhibit-block-shutdown",
    f"{LOGIN}.inhibit-block-sleep",
}
REFUSED = {
    f"{UDISKS}.filesystem-fstab",
    f"{UDISKS}.filesystem-take-ownership",
    f"{UDISKS}.modify-device",
    f"{UDISKS}.modify-device-system",
    f"{UDISKS}.open-device",
    f"{UDISKS}.loop-setup",
    f"{UDISKS}.power-off-drive-system",
    f"{LOGIN}.power-off",
    f"{LOGIN}.inhibit-handle-power-key",
    "org.freedesktop.systemd1.manage-units",
    "org.freedesktop.policykit.exec",
    "constructor",
    "",
}
QUESTIONS = """
const fs = require("fs"), vm = require("vm");
const [rules, questions] = [process.argv[1], JSON.parse(process.argv[2])];
const added = [];
const polkit = {
    Result: { NO: "no", YES: "yes", AUTH_ADMIN: "auth_admin", NOT_HANDLED: null },
    addRule: (rule) => added.push(rule),
};
vm.runInNewContext('"use strict";' + fs.readFileSync(rules, "utf8"), { polkit });
if (added.length !== 1) throw new Error(`${added.length} rules`);
const answer = ([user, id, details]) => added[0]({ id, lookup: (key) => details[key] },
    { user, groups: [user], local: false, active: false, isInGroup: (name) => name === "GROUP" && user === "bob" });
console.log(JSON.stringify(questions.map(answer)));
""".replace("GROUP", GROUP)


def polkit_says(
    questions: list[tuple[str, str, dict[str, str]]], rule: Path = SYSTEMD / "50-immich-usb-backup.rules"
) -> list[str | None]:
    """What the rule answers to (user, action, details); None leaves the question to others."""
    done = run("node", "-e", QUESTIONS, rule, json.dumps(questions))
    assert done.returncode == 0, done.stderr
    answers: list[str | None] = json.loads(done.stdout)
    return answers


@needs_node
def test_a_rule_of_ones_own_as_the_page_has_it_gives_what_it_says(tmp_path: Path) -> None:
    page = (SYSTEMD.parent / "docs/reference/dbus.md").read_text()
    (tmp_path / "rule").write_text(page.partition("```js\n")[2].partition("```")[0])
    asked: list[tuple[str, str, dict[str, str]]] = [
        (user, str(action), {}) for user in ("alice", "carol") for action in Action
    ]
    answers = dict(
        zip([(user, action) for user, action, _ in asked], polkit_says(asked, tmp_path / "rule"), strict=True)
    )
    assert [key for key, answer in answers.items() if answer is not None] == [("alice", str(Action.OPERATE))]
    assert answers["alice", str(Action.OPERATE)] == "yes"


@needs_node
def test_polkit_allows_the_daemon_what_it_needs() -> None:
    questions = [("immich-usb-backup", action, USB_STICK) for action in sorted(ALLOWED)]
    assert set(polkit_says(questions)) == {"yes"}


@needs_node
def test_polkit_lets_the_daemon_mount_and_unmount_nothing_but_exfat() -> None:
    kinds: list[dict[str, str]] = [{"id.type": "ext4"}, {"id.type": "vfat"}, {"id.type": ""}, {}]
    details = [{"drive.removable": "true", **kind} for kind in kinds]
    questions = [("immich-usb-backup", action, detail) for action in sorted(ALLOWED_FOR_EXFAT) for detail in details]
    assert set(polkit_says(questions)) == {None}


@needs_node
def test_polkit_lets_the_daemon_switch_off_nothing_that_is_built_in() -> None:
    details: list[dict[str, str]] = [{"id.type": "exfat"}, {"id.type": "exfat", "drive.removable": "false"}]
    questions = [("immich-usb-backup", action, one) for action in sorted(ALLOWED_FOR_REMOVABLE) for one in details]
    assert set(polkit_says(questions)) == {None}


@needs_node
def test_polkit_lets_the_group_do_everything_with_the_service_and_nothing_else() -> None:
    ours = [str(action) for action in Action]
    assert set(polkit_says([("bob", action, {}) for action in ours])) == {"yes"}
    assert set(polkit_says([(user, action, {}) for user in ("alice", "immich-usb-backup") for action in ours])) == {
        None
    }
    others = [
        *ALLOWED,
        *REFUSED,
        f"x{ours[0]}",
        f"{ours[0]}x",
        ours[0].replace(".", "x"),
        "toString",
    ]
    assert set(polkit_says([("bob", action, USB_STICK) for action in others])) == {None}


def test_the_daemons_own_actions_are_described() -> None:
    actions = list(ElementTree.parse(SYSTEMD / f"{BUS_NAME}.policy").iter("action"))
    assert {action.get("id") for action in actions} == {str(action) for action in Action}
    for action in actions:
        owner = action.find("annotate[@key='org.freedesktop.policykit.owner']")
        assert owner is not None
        assert owner.text == "unix-user:immich-usb-backup", "else the daemon may not ask about others"
        defaults = {default.text for default in action.iterfind("defaults/*")}
        keeps = action.get("id") == str(Action.DECIDE)
        assert defaults == {"auth_admin_keep" if keeps else "auth_admin"}


@needs_node
def test_polkit_allows_the_daemon_nothing_else() -> None:
    questions = [("immich-usb-backup", action, USB_STICK) for action in sorted(REFUSED)]
    assert set(polkit_says(questions)) == {None}


UNITS = "org.freedesktop.systemd1.manage-units"


@needs_node
def test_polkit_lets_the_daemon_start_and_stop_the_checks() -> None:
    units = [
        f"immich-usb-backup-{what}@{name}.service" for what in ("check", "repair") for name in ("sda1", r"dm\x2d0")
    ]
    details = [{"unit": unit, "verb": verb} for unit in units for verb in ("start", "stop")]
    assert set(polkit_says([("immich-usb-backup", UNITS, detail) for detail in details])) == {"yes"}
    for user in ("immich-usb-backup-notify", "alice", "root"):
        assert set(polkit_says([(user, UNITS, detail) for detail in details])) == {None}


@needs_node
@pytest.mark.parametrize(
    "unit",
    [
        "immich-usb-backup.service",
        "immich-usb-backup-check@.service",
        "immich-usb-backup-check.service",
        "immich-usb-backup-check@disk-x.service",
        "immich-usb-backup-check@..service",
        "immich-usb-backup-check@sda1.service.d",
        "immich-usb-backup-check@sda1.service\n",
        "x-immich-usb-backup-check@sda1.service",
        "immich-usb-backup-format@sda1.service",
        "immich-usb-backup-check@sda1.mount",
        r"immich-usb-backup-check@\x2f.service",
        "ssh.service",
        "",
    ],
)
def test_polkit_lets_the_daemon_start_no_other_unit(unit: str) -> None:
    details = [{"unit": unit, "verb": verb} for verb in ("start", "stop")]
    assert set(polkit_says([("immich-usb-backup", UNITS, detail) for detail in details])) == {None}


@needs_node
@pytest.mark.parametrize("verb", ["restart", "kill", "set-property", "clean", "freeze", "reset-failed", "started", ""])
def test_polkit_lets_the_daemon_do_nothing_else_with_the_checks(verb: str) -> None:
    unit = "immich-usb-backup-check@sda1.service"
    details: list[dict[str, str]] = [{"unit": unit, "verb": verb}, {"unit": unit}, {"verb": verb}]
    assert set(polkit_says([("immich-usb-backup", UNITS, detail) for detail in details])) == {None}


@needs_node
def test_polkit_changes_nothing_for_anybody_else() -> None:
    users = ("immich-usb-backup-notify", "immich", "root", "alice", "immich-usb-backup ", "")
    actions = sorted(ALLOWED | REFUSED)
    questions = [(user, action, USB_STICK) for user in users for action in actions]
    assert set(polkit_says(questions)) == {None}


@pytest.mark.skipif(not Path("/usr/share/polkit-1/actions").is_dir(), reason="polkit is not installed")
@pytest.mark.parametrize(("policy", "prefix"), [("org.freedesktop.UDisks2", UDISKS), ("org.freedesktop.login1", LOGIN)])
def test_the_actions_exist(policy: str, prefix: str) -> None:
    path = Path(f"/usr/share/polkit-1/actions/{policy}.policy")
    if not path.exists():
        pytest.skip(f"{path} is not installed")
    known = {action.get("id") for action in ElementTree.parse(path).iter("action")}
    assert {action for action in ALLOWED if action.startswith(prefix)} <= known


# D-Bus ----------------------------------------------------------------------------------------------------


def test_only_the_daemon_and_root_may_own_the_name() -> None:
    policy = ElementTree.parse(SYSTEMD / f"{BUS_NAME}.conf").getroot()
    owners = {section.get("user") for section in policy if section.find("allow[@own]") is not None}
    assert owners == {"root", "immich-usb-backup"}
    assert {rule.get("own") for rule in policy.iter("allow") if rule.get("own")} == {BUS_NAME}


def _may_send(sections: list[ElementTree.Element]) -> set[tuple[str | None, str | None]]:
    rules = (rule for section in sections for rule in section.iter("allow") if rule.get("send_destination"))
    return {(rule.get("send_interface"), rule.get("send_member")) for rule in rules}


def test_everybody_may_call_and_listen_and_the_daemon_asks_polkit() -> None:
    policy = ElementTree.parse(SYSTEMD / f"{BUS_NAME}.conf").getroot()
    standard = ("Introspectable", "Properties", "ObjectManager", "Peer")
    assert _may_send(policy.findall("policy[@context='default']")) == {
        *((f"{BUS_NAME}.{name}", None) for name in ("Manager", "Disk", "Run")),
        *((f"org.freedesktop.DBus.{name}", None) for name in standard),
    }
    default = [rule for section in policy.findall("policy[@context='default']") for rule in section.iter("allow")]
    assert all(rule.get("send_destination") == BUS_NAME for rule in default if rule.get("send_interface"))
    denials = {(section.get("user"), rule.get("send_type")) for section in policy for rule in section.iter("deny")}
    assert denials == {("immich-usb-backup", "method_call")}, "by destination, signals would be kept from the daemon"


# Configuration --------------------------------------------------------------------------------------------


def test_the_example_fits_a_native_immich() -> None:
    assert config.load(SYSTEMD / "config.example.toml") == config.Config()


def test_the_example_fits_docker_compose() -> None:
    loaded = config.load(SYSTEMD / "config.docker.example.toml")
    assert loaded.media_location == Path("/opt/immich-app/library")
    assert loaded.config_files == (Path("/opt/immich-app/docker-compose.yml"), Path("/opt/immich-app/.env"))


@pytest.mark.parametrize("name", ["config.example.toml", "config.docker.example.toml"])
def test_what_is_commented_out_is_valid_too(name: str) -> None:
    """Every line that looks like TOML behind a ``# `` can be used as it is, all of them at once."""
    text = (SYSTEMD / name).read_text()
    loaded = config.parse(re.sub(r"(?m)^# (?=\[|[a-z_]+ = )", "", text).encode(), origin=name)
    assert loaded.mail is not None
    assert loaded.mail.effective_port == 587


def test_the_defaults_in_the_example_are_the_defaults() -> None:
    text = re.sub(r"(?m)^# (?=\[|[a-z_]+ = )", "", (SYSTEMD / "config.example.toml").read_text())
    loaded = config.parse(text.encode(), origin="example")
    default = config.Config()
    assert loaded.database.keep == default.database.keep
    assert loaded.dumps == default.dumps
    assert loaded.keep_config_files == default.keep_config_files
    assert (loaded.disks, loaded.desktop, loaded.logging) == (default.disks, default.desktop, default.logging)


# The installer --------------------------------------------------------------------------------------------

PLACES = (
    *(
        "/etc/immich-usb-backup",
        "/usr/local/lib/systemd/system",
        "/usr/local/lib/systemd/user",
        "/etc/udev/rules.d",
        "/etc/sysusers.d",
    ),
    *("/etc/polkit-1/rules.d", "/etc/dbus-1/system.d", "/etc/tmpfiles.d", "/opt", "/usr/local/bin", "/var/lib"),
    *("/usr/local/lib/systemd/catalog", "/usr/local/share/man/man1", "/usr/local/share/man/man5"),
    *("/usr/local/share/bash-completion/completions", "/usr/local/share/zsh/site-functions", "/etc/fish/completions"),
)


def listing() -> dict[str, tuple[str, ...]]:
    return {place: tuple(sorted(os.listdir(place))) for place in PLACES if os.path.isdir(place)}


@pytest.mark.parametrize("arguments", [(), ("--no-start",), ("--uninstall",), ("--uninstall", "--purge")])
def test_a_dry_run_tells_all_and_changes_nothing(arguments: tuple[str, ...]) -> None:
    before = listing()
    done = run(INSTALL, "--dry-run", *arguments)
    assert done.returncode in {0, 69}, done.stderr  # 69: this machine lacks something, and the run says so
    assert done.stdout
    assert listing() == before


def test_a_dry_run_works_from_a_path_with_spaces(tmp_path: Path) -> None:
    checkout = tmp_path / "my own checkout"
    for folder in ("scripts", "systemd", "udev-rules", "completions", "daemon"):
        shutil.copytree(REPOSITORY / folder, checkout / folder, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    (checkout / "the wheels").mkdir()
    done = run(checkout / "scripts/install", "--dry-run", "--wheels", checkout / "the wheels")
    assert done.returncode in {0, 69}, done.stderr
    assert f"from {checkout}/the wheels" in done.stdout


@pytest.mark.parametrize("arguments", [("--frobnicate",), ("--wheels",), ("--wheels", "/nonexistent"), ("--purge",)])
def test_wrong_usage_is_said_and_nothing_done(arguments: tuple[str, ...]) -> None:
    done = run(INSTALL, *arguments, "--dry-run")
    assert done.returncode == 64
    assert done.stderr
    assert not done.stdout


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing() -> None:
    done = run("shellcheck", INSTALL)
    assert done.returncode == 0, done.stdout
