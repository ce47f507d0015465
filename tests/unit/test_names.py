"""What exFAT can hold under a name, as measured with the kernel's driver."""

from __future__ import annotations

import pytest

from immich_usb_backup.policy.names import fold, name_problem, path_problem


@pytest.mark.parametrize(
    "name", ["a.jpg", "CON", " lead", "Cafe\u0301", "Caf\u00e9", "\U0001f4f7", "x" * 255, "é" * 255, "\x7f", ".immich"]
)
def test_what_fits(name: str) -> None:
    assert name_problem(name.encode()) is None


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (b"what?.jpg", "its name contains ?"),
        (b"12:30*.jpg", "its name contains * :"),
        (b"a\\b", "its name contains \\"),
        (b"a\nb", "its name contains a control character"),
        (b"trailing.", "its name ends with a dot"),
        (b"caf\xe9.jpg", "its name is not valid UTF-8"),
        (b"x" * 256, "its name is longer than 255 characters"),
        ("\U0001f4f7".encode() * 128, "its name is longer than 255 characters"),
    ],
)
def test_what_does_not_fit_is_said_in_words(name: bytes, problem: str) -> None:
    assert name_problem(name) == problem


def test_trouble_in_a_folders_name_is_told_apart() -> None:
    assert path_problem(b"f 1.8./a.jpg") == "in its folder's name: its name ends with a dot"
    assert path_problem(b"good/a?.jpg") == "its name contains ?"


@pytest.mark.parametrize(("one", "other"), [("IMG_1.JPG", "img_1.jpg"), ("Ä/ß", "ä/ß"), ("é", "É")])
def test_names_that_are_one_for_exfat(one: str, other: str) -> None:
    assert fold(one.encode()) == fold(other.encode())


@pytest.mark.parametrize(("one", "other"), [("Cafe\u0301", "Caf\u00e9"), ("ß", "SS"), ("a", "b"), ("a b", "a_b")])
def test_names_that_are_two_for_exfat(one: str, other: str) -> None:
    assert fold(one.encode()) != fold(other.encode())
