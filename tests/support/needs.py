"""What a machine lacks for a test."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def need_chromium() -> None:
    """Skip a test that needs the browser where there is none to be had: Ubuntu has it as a snap only, which sees no files of
    the tests."""
    if shutil.which("chromium") is not None:
        return
    if os.environ.get("IMMICH_USB_BACKUP_BROWSER") == "none":
        pytest.skip("Ubuntu has no Chromium but a snap")
    cannot_run("not installed: apt-get install chromium")


def cannot_run(reason: str) -> NoReturn:
    """Skip a test for what this machine lacks; where all must run (`scripts/test`), it fails."""
    if os.environ.get("IMMICH_USB_BACKUP_TESTS") == "all":
        pytest.fail(reason)
    pytest.skip(reason)
