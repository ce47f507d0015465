"""What several of these files need of the machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import host


@pytest.fixture(scope="module")
def bus() -> Iterator[host.Bus]:
    """The system bus with udev and UDisks2, once for all tests of a file."""
    with host.system_bus() as bus, host.udev(), host.udisks(bus):
        yield bus
