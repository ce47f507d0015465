"""Who may receive the photos, on values: the secret is bound to the file system, and what people are told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.fakes import seen_stick
from tests.support.telling import HOSTILE_NAMES, NOON

from immich_usb_backup.model import BACKUP_FOLDER, Marker, Notice
from immich_usb_backup.policy.disk_state import DiskState
from immich_usb_backup.policy.enrolment import Enrolment, Trust, digest_of, judge, name_for, name_problem, refusal
from immich_usb_backup.policy.text import printable
from immich_usb_backup.policy.trust_words import not_trusted_line, stranger_notice, trust_lines

SECRET, OTHER = "5a" * 32, "c3" * 32
SEEN = seen_stick()
UUID = SEEN.uuid


def _enrolment(secret: str = SECRET, uuid: str = UUID, name: str = "Blue") -> Enrolment:
    return Enrolment(uuid=uuid, name=name, time=NOON, digest=digest_of(secret, uuid))


def _marker(secret: str = SECRET, name: str | None = "Blue") -> Marker:
    return Marker(entry=BACKUP_FOLDER, is_folder=True, name=name, secret=secret)


def _state(server_id: str) -> DiskState:
    return DiskState(
        server_id=server_id, server_name="old\x1bnas", generation="", run_id="r", since=NOON, writing=False
    )


def test_what_the_server_keeps_tells_no_secret_and_holds_for_one_file_system() -> None:
    assert SECRET not in digest_of(SECRET, UUID)
    assert digest_of(SECRET, UUID) == digest_of(SECRET, UUID.lower())
    assert len({digest_of(SECRET, UUID), digest_of(OTHER, UUID), digest_of(SECRET, "ABCD-0002")}) == 3


@pytest.mark.parametrize(
    ("secret", "uuid", "expected"),
    [
        (SECRET, UUID, Trust.TRUSTED),
        (SECRET, UUID.lower(), Trust.TRUSTED),
        (SECRET, "FFFF-0001", Trust.CLONED),
        (OTHER, UUID, Trust.CHANGED),
        ("", UUID, Trust.CHANGED),
        (OTHER, "FFFF-0001", Trust.UNKNOWN),
        ("", "FFFF-0001", Trust.UNKNOWN),
    ],
)
def test_only_the_secret_on_its_own_file_system_is_trusted(secret: str, uuid: str, expected: Trust) -> None:
    assert judge(secret, uuid, [_enrolment(OTHER, "ABCD-0009", "Red"), _enrolment()][1:])[0] is expected


def test_a_revoked_disk_and_one_of_no_server_are_strangers() -> None:
    assert judge(SECRET, UUID, ()) == (Trust.UNKNOWN, None)


def test_the_secret_of_one_enrolled_disk_on_another_enrolled_one_is_a_copy() -> None:
    red = _enrolment(OTHER, "ABCD-0009", "Red")
    assert judge(SECRET, red.uuid, [red, _enrolment()]) == (Trust.CLONED, _enrolment())


@given(st.text(alphabet="0123456789abcdef", min_size=64, max_size=64), st.text(max_size=20))
def test_no_guess_is_trusted(secret: str, uuid: str) -> None:
    assert (judge(secret, uuid, [_enrolment()])[0] is Trust.TRUSTED) == (secret == SECRET and uuid.upper() == UUID)


@pytest.mark.parametrize("name", ["Blue", "Größe 2", 'a"b\\c', "<b>", "x" * 60])
def test_names_that_a_disk_can_have(name: str) -> None:
    assert name_problem(name) == ""


@pytest.mark.parametrize(
    "name", ["", " ", " Blue", "x" * 61, "a\nb", "\x1b[2J", "\u202e", "a\udcff", "/dev/sdb1", "\0"]
)
def test_names_that_it_cannot_have(name: str) -> None:
    assert name_problem(name)


def test_without_a_wish_a_disk_keeps_its_name() -> None:
    assert name_for("Red", marker=_marker(), seen=SEEN) == "Red"
    assert name_for("", marker=_marker(), seen=SEEN) == "Blue"
    assert name_for("", marker=_marker(name=None), seen=replace(SEEN, label=" LA\x07BEL ")) == "LA\\u0007BEL"
    assert name_for("", marker=None, seen=replace(SEEN, label="")) == UUID


@pytest.mark.parametrize("label", HOSTILE_NAMES)
def test_whatever_a_disk_calls_itself_it_gets_a_name_that_is_allowed(label: str) -> None:
    assert name_problem(name_for("", marker=None, seen=replace(SEEN, label=label))) == ""


def _refused(
    marker: Marker | None, state: DiskState | None, *enrolled: Enrolment, wanted: str = "", over: bool = False
) -> str:
    found = refusal(
        uuid=UUID, wanted=wanted, marker=marker, state=state, server_id="me", taken_over=over, enrolled=enrolled
    )
    return " ".join(found) if found else ""


def test_a_disk_without_a_marker_or_with_the_owners_is_enrolled() -> None:
    assert _refused(None, None) == ""
    assert _refused(_marker(""), None) == ""
    assert _refused(_marker(""), _state("me")) == ""


def test_enrolling_again_is_allowed() -> None:
    assert _refused(_marker(), _state("me"), _enrolment()) == ""
    assert _refused(_marker(OTHER), None, _enrolment()) == ""  # cut off, or the marker was changed
    assert _refused(_marker(), _state("me")) == ""  # forgotten here


def test_a_copied_marker_of_ours_may_be_replaced() -> None:
    assert _refused(_marker(), None, _enrolment(SECRET, "ABCD-0009")) == ""


def test_another_servers_disk_is_named_and_refused_until_it_is_adopted() -> None:
    assert r"another server, 'old\u001bnas'" in _refused(_marker(""), _state("other"))
    assert "adopt" in _refused(_marker(""), _state("other"))
    assert _refused(_marker(OTHER), _state("other"), over=True) == ""


def test_a_disk_that_is_enrolled_elsewhere_is_refused_with_the_way_out() -> None:
    assert f"remove the file {BACKUP_FOLDER}.toml" in _refused(_marker(OTHER), None)


def test_two_disks_do_not_get_one_name() -> None:
    assert "Another enrolled disk" in _refused(None, None, _enrolment(uuid="ABCD-0009"), wanted="Blue")
    assert _refused(None, None, _enrolment(), wanted="Blue") == ""
    assert "cannot be called" in _refused(None, None, wanted="a\nb")


def _notice(trust: Trust, about: Enrolment | None = None, *, name: str = "Blue", known_as: str | None = None) -> Notice:
    seen = replace(SEEN, label=name, uuid=SEEN.uuid if name == "Blue" else name)
    return stranger_notice(
        seen, _marker(name=name), trust=trust, about=about, known_as=known_as, server="nas", time=NOON
    )


def test_a_stranger_is_told_with_what_it_means_and_what_to_do() -> None:
    notice = _notice(Trust.UNKNOWN)
    text = "\n".join((notice.headline, *notice.lines, *notice.todo))
    assert "What it means: nothing was written to it, and no photo has left the server." in notice.lines
    assert "sudo immich-usb-backup enroll /dev/sdb1 --name NAME" in notice.todo[0]
    assert "not enrolled on this server" in text
    assert "before" not in text
    assert "backed up to before, as 'Old'" in "\n".join(_notice(Trust.UNKNOWN, known_as="Old").lines)


def test_a_copy_and_a_changed_marker_have_words_of_their_own() -> None:
    words = {not_trusted_line(trust, _enrolment()) for trust in (Trust.UNKNOWN, Trust.CLONED, Trust.CHANGED)}
    assert len(words) == 3
    assert "copy of that of 'Blue'" in not_trusted_line(Trust.CLONED, _enrolment())


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("trust", [Trust.UNKNOWN, Trust.CLONED, Trust.CHANGED])
def test_a_strangers_name_is_harmless_and_in_no_command(name: str, trust: Trust) -> None:
    notice = _notice(trust, _enrolment(name=name), name=name, known_as=name)
    texts = (notice.headline, *notice.lines, *notice.todo, notice.disk_name, notice.disk_uuid)
    assert all("\n" not in text and "\r" not in text and "\x1b" not in text for text in texts)
    assert all(printable(text[:100]) == text[:100] for text in texts)
    assert all(set(name) <= set(" ") or name not in text for text in notice.todo)
    assert notice.notice_id.replace("-", "").isalnum()


def test_a_plug_in_is_told_once_and_the_next_one_again() -> None:
    again = replace(SEEN, plug_in=replace(SEEN.plug_in, disk_sequence=2), label="other")
    ids = [
        stranger_notice(
            seen, _marker(), trust=Trust.UNKNOWN, about=None, known_as=None, server="n", time=NOON
        ).notice_id
        for seen in (SEEN, replace(SEEN, label="renamed"), again)
    ]
    assert ids[0] == ids[1] != ids[2]


def test_what_doctor_says() -> None:
    line, how = trust_lines("marker", 0)
    assert "carry them away" in line
    assert 'trust = "enrolled"' in how
    assert "none is enrolled: nothing will be backed up" in trust_lines("enrolled", 0)[0]
    assert trust_lines("enrolled", 2) == ("Only enrolled disks are backed up to; 2 disks enrolled.", "")


def test_no_secret_is_no_secret_whatever_the_list_says() -> None:
    assert judge("", UUID, [_enrolment("")])[0] is Trust.CHANGED
