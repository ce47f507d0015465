"""What exFAT can hold under a name, as measured with the kernel's driver."""

from __future__ import annotations

import pytest

from immich_usb_backup.policy.names import can_be_kept, claims, fold


@pytest.mark.parametrize(
    "name", ["a.jpg", "CON", " lead", "Cafe\u0301", "Caf\u00e9", "\U0001f4f7", "x" * 255, "é" * 255, "\x7f", ".immich"]
)
def test_what_fits(name: str) -> None:
    assert can_be_kept(name.encode()) is (name not in {"CON"})


@pytest.mark.parametrize(
    "name", [b"what?.jpg", b"a\\b", b"a\nb", b"trailing.", b"caf\xe9.jpg", b"x" * 256, "\U0001f4f7".encode() * 128]
)
def test_what_does_not_fit(name: bytes) -> None:
    assert not can_be_kept(name)


@pytest.mark.parametrize(
    ("one", "other"),
    [("IMG_1.JPG", "img_1.jpg"), ("Ä/ß", "ä/ß"), ("é", "É"), ("ς", "σ"), ("ÿ", "Ÿ"), ("ｆ", "Ｆ")],
)
def test_names_that_are_one_for_exfat(one: str, other: str) -> None:
    assert fold(one.encode()) == fold(other.encode())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Cafe\u0301", "Caf\u00e9"),
        ("ß", "SS"),
        ("a", "b"),
        ("a b", "a_b"),
        ("ı", "I"),
        ("K", "\u212a"),
        ("\U00010428", "\U00010400"),
    ],
)
def test_names_that_are_two_for_exfat(one: str, other: str) -> None:
    assert fold(one.encode()) != fold(other.encode())


def test_names_of_bytes_that_are_no_text_are_told_apart() -> None:
    assert fold(b"\xe9A") == fold(b"\xe9a") != fold(b"\xe8a")


@pytest.mark.parametrize("name", [b"", b"a ", b"a.", b"nul.txt", "com\u00b2".encode(), b"a|b", b"\xff", b"x" * 256])
def test_what_some_system_cannot_open_is_not_kept(name: bytes) -> None:
    assert not can_be_kept(name)


def test_composed_and_decomposed_letters_claim_the_same_name() -> None:
    assert set(claims("caf\u00e9".encode())) & set(claims("CAFE\u0301".encode()))
    assert not set(claims("caf\u00e9".encode())) & set(claims(b"cafe"))
