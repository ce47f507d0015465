"""What a machine lacks for a test."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def cannot_run(reason: str) -> NoReturn:
    """Skip a test for what this machine lacks; where all must run (`scripts/test`), it fails."""
    if os.environ.get("IMMICH_USB_BACKUP_TESTS") == "all":
        pytest.fail(reason)
    pytest.skip(reason)
