"""What several of these files need of the machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import host, postgres
from tests.support.needs import cannot_run


@pytest.fixture(scope="module")
def bus() -> Iterator[host.Bus]:
    """The system bus with udev and UDisks2, once for all tests of a file."""
    with host.system_bus() as bus, host.udev(), host.udisks(bus):
        yield bus


@pytest.fixture(scope="module")
def _running_postgres() -> Iterator[postgres.Server]:
    if reason := postgres.missing():
        cannot_run(reason)
    with postgres.server() as running:
        yield running


@pytest.fixture
def postgres_server(_running_postgres: postgres.Server) -> Iterator[postgres.Server]:
    """A PostgreSQL without the databases and users of the test before."""
    yield _running_postgres
    _running_postgres.clean()
