"""Where everything is expected to run, what cannot run is a failure and not a skip."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from tests.support import host

# The same examples on each machine, however slow it is.
settings.register_profile(
    "steady", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")


def pytest_sessionstart(session: pytest.Session) -> None:
    """`scripts/test` sets `IMMICH_USB_BACKUP_TESTS=all`: it has installed all that the tests need."""
    reason = host.unavailable()
    if os.environ.get("IMMICH_USB_BACKUP_TESTS") == "all" and reason is not None:
        pytest.exit(f"The tests on this machine's real parts cannot run: {reason}", returncode=1)
