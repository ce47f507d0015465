"""Stand-ins for what is behind the daemon's D-Bus face: who answers requests, who says who may, and polkit itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from immich_usb_backup.adapters.bus import Bus, Caller
from immich_usb_backup.adapters.polkit import Action
from immich_usb_backup.model import Disk, Mode, Outcome, PlanCategory, PlanReport, RunReport, Trigger
from immich_usb_backup.policy.disk_facts import DiskFacts, DiskState
from immich_usb_backup.requests import Candidate, Refusal, Refused, mode_of, not_here, rereading_of
from tests.support.serving import ServedMethod, serve
from tests.support.telling import make_report

POLKIT = "org.freedesktop.PolicyKit1"
POLKIT_PATH = "/org/freedesktop/PolicyKit1/Authority"
AUTHORITY = "org.freedesktop.PolicyKit1.Authority"

BLUE = DiskFacts(
    uuid="1234-ABCD",
    name="Blue",
    label="Blue",
    model="Stick",
    size=64_000_000_000,
    device="/dev/sdb1",
    state=DiskState.IDLE,
    last=make_report(),
    good=make_report().ended,
    strip="ofo",
)


class Service:
    """Implements ``requests.Requests`` with one disk, Blue; ``trouble`` is raised instead of an answer. ``asked`` has each
    request with its words."""

    def __init__(self) -> None:
        self.trouble: Exception | None = None
        self.plan_may_end = asyncio.Event()
        self.plan_may_end.set()
        self.planning = asyncio.Event()
        self.verified: list[str] = []
        self.name = "Bl\udcffue\0"
        self.given_up = asyncio.Event()
        self.asked: list[tuple[Any, ...]] = []
        self.facts: tuple[DiskFacts, ...] = (BLUE,)
        self.over: tuple[RunReport, ...] = (make_report(mode=Mode.QUICK, trigger=Trigger.SCHEDULE),)
        """The newest first."""
        self.changed: Callable[[], None] = lambda: None

    def _check(self, disk: str, mode: str = "") -> None:
        mode_of(mode)
        if self.trouble is not None:
            raise self.trouble
        if disk not in {"Blue", "1234-ABCD"}:
            raise not_here(disk, ())

    async def plan(self, disk: str, mode: str) -> PlanReport:
        """With ten thousand photos to copy."""
        self.planning.set()
        try:
            await self.plan_may_end.wait()
        except asyncio.CancelledError:
            self.given_up.set()
            raise
        self._check(disk, mode)
        items = tuple(f"upload/user/aa/bb/{number}-é\x1b.jpg" for number in range(5000))
        new = PlanCategory(code="new", count=10_000, bytes=34_500_000, items=items)
        return PlanReport(disk=make_report().disk, mode=mode_of(mode) or Mode.QUICK, categories=(new,), findings=())

    async def backup(self, disk: str, mode: str, *, trigger: Trigger = Trigger.ASKED) -> str:
        """Its name."""
        self._check(disk, mode)
        self.asked.append(("backup", disk, mode, trigger))
        return self.name

    async def verify(self, disk: str, what: str) -> Candidate:
        """The run is over at once, which may be said before the answer is sent."""
        rereading_of(what)
        self._check(disk)
        self.asked.append(("verify", disk, what))
        self.verified.append(what)
        return Candidate(name=disk, uuid="1234-ABCD", label=disk)

    async def eject(self, disk: str) -> str:
        """Its name."""
        return self._named("eject", disk)

    async def approve(self, disk: str) -> int:
        """More than fits into 16 bits."""
        self._named("approve", disk)
        return 70_000

    async def adopt(self, disk: str) -> str:
        """Its name."""
        return self._named("adopt", disk)

    async def cancel(self, disk: str) -> str:
        """Its name."""
        return self._named("cancel", disk or "Blue")

    async def forget(self, disk: str) -> str:
        """Its name."""
        return self._named("forget", disk)

    async def retry(self, run_id: str) -> str:
        """Blue's."""
        await self.report(run_id)
        self.asked.append(("retry", run_id))
        return "Blue"

    async def enroll(self, device: str, name: str) -> str:
        """Its name."""
        self._named("enroll", device)
        return name

    async def remind(self) -> int:
        """Of two."""
        self._named("remind", "Blue")
        return 2

    def _named(self, what: str, disk: str) -> str:
        self._check(disk)
        self.asked.append((what, disk))
        return "Blue"

    async def disks(self) -> tuple[DiskFacts, ...]:
        """What the test has set."""
        return self.facts

    async def runs(self, disk: str, number: int, *, failed: bool) -> tuple[RunReport, ...]:
        """What the test has set."""
        if disk:
            self._check(disk)
        return tuple(one for one in self.over if not (failed and one.outcome is Outcome.OK))[:number]

    async def report(self, run_id: str) -> RunReport:
        """One of those, or one of long ago."""
        if self.trouble is not None:
            raise self.trouble
        if run_id == "long-ago":
            return replace(make_report(), run_id=run_id)
        found = [one for one in self.over if one.run_id == run_id]
        if not found:
            raise Refused(Refusal.NO_SUCH_RUN, "There is no such backup")
        return found[0]

    def going(self, disk: Disk) -> tuple[Mode, Trigger] | None:
        """As if a person had asked for it."""
        del disk
        return Mode.VERIFY, Trigger.ASKED

    def watch(self, changed: Callable[[], None]) -> None:
        """Remember whom to tell."""
        self.changed = changed


@dataclass
class StandInGuard:
    """Implements ``dbus_methods.Guard``: remembers what it was asked about."""

    allows: bool = True
    user: int = 0
    asked: list[tuple[Action, bool]] = field(default_factory=list)

    async def check(self, caller: Caller, action: Action, *, own_user: bool = False) -> int:
        """Whatever the test has set."""
        assert caller.name.startswith(":")
        self.asked.append((action, own_user))
        if not self.allows:
            raise Refused(Refusal.NOT_ALLOWED, "No")
        return self.user


@dataclass
class StandInPolkit:
    """polkit's authority with its real signatures. ``allows`` has the actions that it allows; while ``answers`` is not set
    it thinks."""

    bus: Bus
    allows: set[str] = field(default_factory=set)
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[tuple[Mapping[str, Any], str, int]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    async def start(self) -> None:
        """Own the name."""
        self.answers.set()
        methods = {
            "CheckAuthorization": ServedMethod("(sa{sv})sa{ss}us", "(bba{ss})", self._check),
            "CancelCheckAuthorization": ServedMethod("s", "", self._cancel),
        }
        serve(self.bus, POLKIT_PATH, AUTHORITY, methods)
        await self.bus.request_name(POLKIT)

    async def _check(
        self, subject: Sequence[Any], action: str, details: Mapping[str, str], flags: int, cancellation: str
    ) -> Sequence[Any]:
        kind, values = subject
        assert (kind, details) == ("system-bus-name", {}), "who is no root may pass no details"
        assert cancellation
        self.asked.append((values, action, flags))
        await self.answers.wait()
        return [[action in self.allows, False, {}]]

    async def _cancel(self, cancellation: str) -> Sequence[Any]:
        self.cancelled.append(cancellation)
        return []
