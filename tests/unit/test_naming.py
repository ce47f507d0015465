"""Each name of a folder gets a name that every system can open, and keeps it."""

from __future__ import annotations

import re
from hashlib import sha256
from itertools import permutations
from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from immich_usb_backup.policy import naming
from immich_usb_backup.policy.names import fold
from immich_usb_backup.policy.naming import stored_names

DEVICES = ["CON", "prn", "Aux", "nul", "COM0", "com9", "LPT1", "COM¹", "lpt³", "CONIN$", "conout$"]


def _alone(name: bytes) -> bytes:
    return stored_names([name], {})[name]


def _everyone_can_open(stored: bytes) -> bool:
    text = stored.decode()
    device = re.match(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\.|$)", text, re.IGNORECASE)
    return not (
        device
        or not text
        or text[-1] in ". "
        or any(c in '"*/:<>?\\|' or c < " " for c in text)
        or len(text.encode("utf-16-le")) > 510
    )


def _clashes(stored: list[bytes]) -> list[tuple[bytes, bytes]]:
    def decomposed(name: bytes) -> str:
        return fold(normalize("NFD", name.decode()).encode())

    pairs = [(one, other) for at, one in enumerate(stored) for other in stored[:at]]
    return [(a, b) for a, b in pairs if fold(a) == fold(b) or decomposed(a) == decomposed(b)]


@pytest.mark.parametrize(
    "name",
    ["a.jpg", "IMG_1.JPG", " lead", ".immich", "a..b", "Café", "Cafe\u0301", "\U0001f4f7", "x" * 255, "é" * 255,
     "\U0001f4f7" * 127 + "x", "\x7f", "CONSOLE", "con_.txt", "a.con", "com10", "com", "conin", "a~b", "100%", "[x]{y}"],
)  # fmt: skip
def test_a_name_that_can_be_kept_is_kept(name: str) -> None:
    assert _alone(name.encode()) == name.encode()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"12:30.jpg", "12_30~{}.jpg"),
        (b"what?*.jpg.xmp", "what__.jpg~{}.xmp"),
        (b"a\\b", "a_b~{}"),
        (b"a\nb\x01.jpg", "a_b_~{}.jpg"),
        (b"trailing.", "trailing_~{}"),
        (b"photo.jpg. .", "photo___~{}.jpg"),
        (b"...", "___~{}"),
        (b" ", "_~{}"),
        (b"caf\xe9.jpg", "caf_~{}.jpg"),
        (b"half \xed\xa0\xbd.jpg", "half ___~{}.jpg"),
        (b".profile:x", ".profile_x~{}"),
        (b"Rome 1.5: on foot", "Rome 1.5_ on foot~{}"),
        (b"a:." + b"b" * 16, "a_." + "b" * 16 + "~{}"),
        (b"con", "con_~{}"),
        (b"CON.tar.gz", "CON_.tar~{}.gz"),
        (b"aux .jpg", "aux_ ~{}.jpg"),
        (b"x" * 256 + b".jpg", "x" * 242 + "~{}.jpg"),
        # 255 bytes, not 255 units: a plain copy to ext4 must be possible
        ("x.jpg" + "\U0001f4f7" * 128, "x.jpg" + "\U0001f4f7" * 60 + "~{}"),
    ],
)
def test_another_name_is_recognised_and_opens(name: bytes | str, shown: str) -> None:
    stored = _alone(name if isinstance(name, bytes) else name.encode()).decode()
    assert re.fullmatch(re.escape(shown).replace(r"\{\}", "[a-z2-7]{8}"), stored)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("ending", ["", ".jpg", " .jpg", ".tar.gz"])
def test_a_name_that_windows_takes_for_a_device(device: str, ending: str) -> None:
    stored = _alone(f"{device}{ending}".encode())
    assert stored.startswith(f"{device}_".encode())
    assert _everyone_can_open(stored)


def test_the_other_name_follows_from_the_original_alone() -> None:
    assert _alone(b"12:30.jpg") == b"12_30~lan6fd5f.jpg"
    assert _alone(b"12:30.jpg") != _alone(b"12?30.jpg")


def test_the_document_shows_these_names() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/how-to/names.md").read_text()
    shown = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|", page, re.MULTILINE)
    assert len(shown) >= 3
    assert {name: _alone(name.encode()).decode() for name, _ in shown} == dict(shown)
    assert stored_names([b"IMG_1.jpg", b"img_1.jpg"], {})[b"img_1.jpg"].decode() in page
    assert _alone(b"caf\xe9.jpg").decode() in page


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (b"IMG_1.JPG", b"img_1.jpg"),
        ("\u00c4".encode(), "\u00e4".encode()),
        ("Cafe\u0301".encode(), "Caf\u00e9".encode()),
        ("CAFE\u0301".encode(), "caf\u00e9".encode()),
        (b"K", "\u212a".encode()),
    ],
)
def test_of_two_that_are_one_elsewhere_the_first_keeps_its_name(first: bytes, second: bytes) -> None:
    for wanted in permutations((first, second, b"z")):
        stored = stored_names(wanted, {})
        assert stored[first] == first
        assert b"~" in stored[second]
        assert list(stored) == list(wanted)


def test_names_that_exfat_tells_apart_stay() -> None:
    wanted = ["\u00df".encode(), b"SS", "\u0131".encode(), b"I", "\U00010428".encode(), "\U00010400".encode()]
    assert stored_names(wanted, {}) == {name: name for name in wanted}


def test_what_lies_on_the_disk_is_never_renamed() -> None:
    known = {b"img.JPG": b"img.JPG", b"gone:": b"gone_", b"odd?": b"odd~x"}
    stored = stored_names([b"img.JPG", b"IMG.jpg", b"gone_", b"odd?", b"odd~X"], known)
    assert stored[b"img.JPG"] == b"img.JPG"
    assert stored[b"odd?"] == b"odd~x"
    assert [b"~" in stored[name] for name in (b"IMG.jpg", b"gone_")] == [True, True]
    assert stored[b"odd~X"] != b"odd~X"


def test_a_plain_name_beside_a_letter_that_macos_takes_for_it() -> None:
    kelvin = "\u212a".encode()
    assert stored_names([b"k"], {kelvin: kelvin})[b"k"] != b"k"


def test_two_names_with_the_same_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "sha256", lambda _: sha256(b""))
    for wanted in permutations((b"a:", b"a?")):
        assert stored_names(wanted, {}) == {b"a:": b"a_~4oymiquy", b"a?": b"a_~4oymiquy-2"}


def test_names_that_are_taken_by_others() -> None:
    assert stored_names([b"a", b"b"], {}, [b"A"]) == {b"a": _altered(b"a"), b"b": b"b"}
    assert stored_names([b".PARTIAL"], {}, reserved=frozenset({b".partial"})) == {b".PARTIAL": _altered(b".PARTIAL")}
    assert stored_names([b"\xc3\xa9"], {}, [b"E\xcc\x81"]) == {b"\xc3\xa9": _altered(b"\xc3\xa9")}


def _altered(name: bytes) -> bytes:
    return stored_names([name], {}, [name.swapcase()])[name]


def test_where_the_other_name_is_taken_too_it_is_counted_up() -> None:
    other = _alone(b"12:30.jpg")
    second = other.replace(b".jpg", b"-2.jpg")
    assert stored_names([b"12:30.jpg", other], {}) == {b"12:30.jpg": second, other: other}
    assert stored_names([b"12:30.jpg"], {}, [other, second])[b"12:30.jpg"] == other.replace(b".jpg", b"-3.jpg")


_CHARACTERS = st.sampled_from(
    "aAbB.~ _:?\n\u00e9\u00c9e\u0301\u0345\u00ff\u0178\u03c3\u03c2\u1fcc\u01c5\u212a\U0001f4f7\U00010428"
)
_TEXT = st.text(_CHARACTERS, min_size=1, max_size=5).map(str.encode)
_NASTY = (
    _TEXT
    | st.binary(min_size=1, max_size=4).map(lambda name: name.replace(b"/", b"a").replace(b"\0", b"b"))
    | st.sampled_from(DEVICES).flatmap(lambda word: st.sampled_from([word, f"{word}.jpg", f"{word} .", f"{word}_"])).map(str.encode)
    | st.sampled_from(["x", "X", "\u00e9", "e\u0301", "\U0001f4f7", "x."]).map(lambda part: (part * 300).encode())
    | _TEXT.map(_alone)
    | _TEXT.map(_alone).map(_alone)
    | _TEXT.map(lambda name: _alone(name + b":").swapcase())
    | _TEXT.map(lambda name: _alone(name + b":") + b"-2")
    | st.text(min_size=1, max_size=3).filter(lambda text: not {"/", "\0"} & set(text)).map(str.encode)
)  # fmt: skip
_FOLDERS = st.sets(_NASTY, max_size=12)


@given(_FOLDERS)
@example({b"a", b"A", _alone(b"a:"), b"a:"})
def test_any_names(names: set[bytes]) -> None:
    stored = stored_names(names, {})
    assert stored.keys() == names
    assert [name for name in stored.values() if not _everyone_can_open(name)] == []
    assert _clashes([*stored.values()]) == []
    assert stored_names(sorted(names, reverse=True), {}) == stored
    assert len({name: original for original, name in stored.items()}) == len(names)


@given(_NASTY)
def test_one_name_alone_stays_where_it_can(name: bytes) -> None:
    try:
        assert (_alone(name) == name) == _everyone_can_open(name)
    except UnicodeDecodeError:
        assert _alone(name) != name


@given(_FOLDERS, _FOLDERS, _FOLDERS)
def test_names_that_are_added_rename_nothing(first: set[bytes], second: set[bytes], reserved: set[bytes]) -> None:
    before = stored_names(first, {}, reserved=frozenset(reserved))
    after = stored_names(first | second, before, reserved=frozenset(reserved))
    assert {name: after[name] for name in first} == before
    assert not {fold(stored) for stored in after.values()} & {fold(name) for name in reserved}
    assert _clashes([*after.values()]) == []
    assert all(_everyone_can_open(stored) for stored in after.values())
    gone = stored_names(second - first, before)
    assert _clashes([*before.values(), *gone.values()]) == []
