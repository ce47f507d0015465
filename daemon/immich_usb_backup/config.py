"""The configuration: TOML in, one frozen, typed value out, or every mistake at once with its path and a hint."""

from __future__ import annotations

import difflib
import re
import socket
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from immich_usb_backup.errors import ConfigError
from immich_usb_backup.model import Mode, Outcome
from immich_usb_backup.policy.exclude import Excludes
from immich_usb_backup.policy.schedule import normalised

DEFAULT_PATH = Path("/etc/immich-usb-backup/config.toml")
_LONGEST_CONFIG = 1_000_000
UNLIMITED_MINUTES = 1_000_000
"""What ``"unlimited"`` stands for: nearly two years."""
LIBRARY_FOLDERS = ("upload", "library", "profile")
"""Immich's folders with originals, in the order in which a file that Immich moves meanwhile is still met."""


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("must be an absolute path, one that begins with /")
    return path


def _address(text: str) -> str:
    if not text.isprintable() or text.count("@") != 1 or " " in text or text[0] == "@" or text[-1] == "@":
        raise ValueError("must be a plain mail address such as me@example.org")
    return text


def _one_line(text: str) -> str:
    if not text.isprintable() or not text.strip():
        raise ValueError("must be one line of text")
    return text


def _extra_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", name):
        raise ValueError("the name of an extra folder has 1 to 40 letters, digits, - or _")
    if name.lower() in LIBRARY_FOLDERS:
        raise ValueError("this name is taken")
    return name


def _database_url(text: str) -> str:
    try:
        parts = urlsplit(_one_line(text))
        secret = parts.password is not None or re.search(r"(^|&)(ssl)?password=", parts.query)
    except ValueError as error:
        raise ValueError("must be an address such as postgresql://immich@localhost/immich") from error
    if parts.scheme not in {"postgresql", "postgres"}:
        raise ValueError("must begin with postgresql://")
    if secret:
        raise ValueError("must not hold the password, which goes into database.password_file")
    return text


def _web_address(text: str) -> str:
    try:
        parts = urlsplit(_one_line(text))
        whole = parts.hostname is not None and (parts.port is None or parts.port > 0)
    except ValueError:
        whole = False
    if not whole or parts.scheme not in {"http", "https"} or "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("must be an address such as http://localhost:2283")
    return text


def ping_address(text: str) -> str:
    """The address of a monitor as it is. Raises ``ValueError``, which does not show it: there may be a secret in it."""
    try:
        parts = urlsplit(_one_line(text))
        whole = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        whole = False
    if not whole or parts.scheme not in {"http", "https"} or parts.fragment or not text.isascii() or " " in text:
        raise ValueError("must be an address such as https://hc-ping.com/ and what the monitor gave you")
    if "@" in parts.netloc:
        raise ValueError("must not have a user name or password before the name of the host")
    return text


def _textfile(path: Path) -> Path:
    if path.suffix != ".prom":
        raise ValueError("must end with .prom: the node exporter reads no other files")
    return path


def _minutes(value: object) -> object:
    return UNLIMITED_MINUTES if value == "unlimited" else value


def _patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    Excludes.parse(patterns)
    return patterns


def _schedule(text: str) -> str:
    normalised(text)
    return text


AbsolutePath: TypeAlias = Annotated[Path, Field(strict=False), AfterValidator(_absolute)]
Address: TypeAlias = Annotated[str, Field(min_length=3), AfterValidator(_address)]
Line: TypeAlias = Annotated[str, AfterValidator(_one_line)]
DatabaseUrl: TypeAlias = Annotated[str, AfterValidator(_database_url)]
WebAddress: TypeAlias = Annotated[str, AfterValidator(_web_address)]
PingAddress: TypeAlias = Annotated[str, AfterValidator(ping_address)]
Textfile: TypeAlias = Annotated[AbsolutePath, AfterValidator(_textfile)]
OutcomeName: TypeAlias = Annotated[Outcome, Field(strict=False)]
Minutes: TypeAlias = Annotated[int, Field(ge=0, le=UNLIMITED_MINUTES), BeforeValidator(_minutes)]
Patterns: TypeAlias = Annotated[tuple[str, ...], Field(strict=False), AfterValidator(_patterns)]
Schedule: TypeAlias = Annotated[str, AfterValidator(_schedule)]
ExtraName: TypeAlias = Annotated[str, AfterValidator(_extra_name)]
Transport: TypeAlias = Literal["usb", "mmc", "loop"]

_ALL_OUTCOMES = tuple(Outcome)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=False)


class Database(_Section):
    """The database dump: Immich's own newest one, or a fresh one that is made for each backup."""

    dumps: AbsolutePath | None = None
    """Folder with Immich's routine dumps; default: ``backups`` in the media location."""
    keep: int = Field(default=14, ge=1, le=1000)
    """Dumps that stay on the disk, the newest."""
    warn_after_hours: int = Field(default=48, ge=0)
    """A dump that is older makes a backup partial; 0 never does."""
    mode: Literal["latest", "pg_dump", "immich-api", "command"] = "latest"
    """``latest`` takes what Immich made; the others have a fresh dump made first."""
    fresh_minutes: int = Field(default=30, ge=1, le=720)
    """How long making a fresh dump may take."""
    url: DatabaseUrl = "postgresql:///immich?host=/run/postgresql"
    """For ``pg_dump``: where the database is, without a password."""
    password_file: AbsolutePath | None = None
    """First line is the database's password. Default: the systemd credential ``database-password``."""
    api_url: WebAddress = "http://localhost:2283"
    """For ``immich-api``: Immich's address."""
    api_key_file: AbsolutePath | None = None
    """First line is an admin's API key. Default: the systemd credential ``immich-api-key``."""
    command: Annotated[tuple[Line, ...], Field(strict=False)] = ()
    """For ``command``: a program with its arguments, not a shell's line; what it prints is the dump."""

    @model_validator(mode="after")
    def _has_a_command(self) -> Self:
        if self.mode == "command" and not self.command:
            raise ValueError('mode "command" needs a command, such as command = ["docker", "exec", ...]')
        return self


class Disks(_Section):
    """Which disks are looked at and how they are left."""

    transports: Annotated[tuple[Transport, ...], Field(strict=False, min_length=1)] = ("usb",)
    """Buses: ``usb``, ``mmc`` (SD card readers), ``loop`` (for trials)."""
    trust: Literal["marker", "enrolled"] = "marker"
    """Which disks get the photos: every one with the marker, or those only that were enrolled on this server."""
    automounter_grace_seconds: int = Field(default=3, ge=0, le=60)
    """How long a desktop's automounter may have to mount a new disk before we do."""
    power_off: bool = False
    """Switch the disk off after the unmount. Affects every disk in the same enclosure."""
    check_file_system: Literal["repair-own", "check", "never"] = "repair-own"
    """What is done about a disk that was not unmounted properly, before it is written to."""
    walk_after_days: int = Field(default=30, ge=0, le=3650)
    """How long the manifest is believed before the disk is walked from end to end again; 0 walks it every time."""
    reserve_megabytes: int = Field(default=2000, ge=0)
    """Room that the partition must offer beyond the library, in 1,000,000 bytes."""
    on_battery: Literal["wait", "run", "skip"] = "wait"
    """What a plug-in leads to while the server runs on battery: a backup when mains is back, one now, or none."""


class Disk(_Section):
    """What holds for one disk only, by its name, label or UUID."""

    mode: Annotated[Mode, Field(strict=False)] = Mode.QUICK
    """How a plug-in finds out what is to be copied: ``quick``, ``verify`` or ``full``."""
    due_days: int | None = Field(default=None, ge=0, le=3650)
    """Days after the last good backup until this disk is late; 0: never. Default: ``freshness.due_days``."""
    schedule: Schedule = ""
    """When a disk that stays plugged in is backed up to, in systemd's calendar syntax; empty: only when it is plugged in."""


class Freshness(_Section):
    """How long a backup is fresh, and whether somebody is reminded of one that is not."""

    due_days: int = Field(default=30, ge=0, le=3650)
    """Days after its last good backup until a disk is late; 0: never."""
    remind: bool = True
    """Remind of it: in the journal, on desktops and by mail."""


class Deletions(_Section):
    """How many files may leave the disk's copy without being asked about."""

    hold_percent: int = Field(default=10, ge=0, le=100)
    """More than this share of what the disk holds is held until it is approved ..."""
    hold_files: int = Field(default=100, ge=0)
    """... but not fewer than this many files."""


class Verification(_Section):
    """What is read back from the disk, to be sure that it gives back what was written to it."""

    read_back: bool = True
    """Read back what was copied, past the page cache, before success is said."""
    minutes: Minutes = 10
    """How long a plug-in reads files again in turn, once everything is on the disk: 0 is not at all, ``"unlimited"`` until
    all are read, or ``eject``."""
    again_after_days: int = Field(default=30, ge=0, le=3650)
    """A file that was read back less long ago is left alone; 0 reads each file at each plug-in."""


class Mail(_Section):
    """Mail through an SMTP server, sent by the notifier. Without ``host`` no mail is sent."""

    host: Line
    port: int | None = Field(default=None, ge=1, le=65535)
    """Default by ``security``: 587, 465 or 25."""
    security: Literal["starttls", "tls", "none"] = "starttls"
    """``none`` is for a server on this machine only."""
    username: Line | None = None
    password_file: AbsolutePath | None = None
    """First line is the password. Default: the systemd credential ``smtp-password``, where there is one."""
    ca_file: AbsolutePath | None = None
    """Certificates to trust instead of the system's, for a server with a certificate of your own."""
    sender: Address = Field(default_factory=lambda: f"immich-usb-backup@{socket.getfqdn()}", alias="from")
    to: Annotated[tuple[Address, ...], Field(strict=False, min_length=1)]
    on: Annotated[tuple[OutcomeName, ...], Field(strict=False)] = _ALL_OUTCOMES
    """Outcomes that are mailed."""

    @field_validator("security")
    @classmethod
    def _plain_only_at_home(cls, value: str, others: ValidationInfo) -> str:
        if value == "none" and others.data.get("host") not in {None, "localhost", "127.0.0.1", "::1"}:
            raise ValueError('"none" is allowed for localhost only: anybody on the way could read the mail')
        return value

    @property
    def effective_port(self) -> int:
        """The port, by ``security`` where none is given."""
        return self.port or {"starttls": 587, "tls": 465, "none": 25}[self.security]


class Ping(_Section):
    """A monitor that is told when a backup begins and how it ends, by the notifier. An empty section takes the address from
    a file; without the section nothing is told."""

    url: PingAddress | None = None
    """Address as of Healthchecks. One with a secret in it is better kept in ``url_file``."""
    url_file: AbsolutePath | None = None
    """First line is the address. Default: the systemd credential ``ping-url``."""

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        if self.url is not None and self.url_file is not None:
            raise ValueError("there is a url and a url_file: one of them is enough")
        return self


class Metrics(_Section):
    """Figures for Prometheus, written by the daemon."""

    textfile: Textfile | None = None
    """A file for the node exporter's textfile collector; without it none is written."""


class Push(_Section):
    """Messages to phones and chats through Apprise, sent by the notifier. Without the section none is sent."""

    urls_file: AbsolutePath | None = None
    """One Apprise URL in each line. Default: the systemd credential ``push-urls``."""
    on: Annotated[tuple[OutcomeName, ...], Field(strict=False)] = _ALL_OUTCOMES
    """Outcomes that are pushed."""


class Desktop(_Section):
    """What the agents in users' sessions show."""

    on: Annotated[tuple[OutcomeName, ...], Field(strict=False)] = _ALL_OUTCOMES
    """Outcomes that are shown."""
    progress: bool = True
    """Show that a backup has begun and how far it is."""
    group: Line = "immich-usb-backup-admins"
    """Its members are shown everything always; everybody else only while they are the ones at the screen."""


class Logging(_Section):
    """How much goes to the journal."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(_Section):
    """Everything a user can set. Every default fits Immich on NixOS."""

    media_location: AbsolutePath = Path("/var/lib/immich")
    """The folder that holds Immich's upload, library, profile and backups."""
    config_files: Annotated[tuple[AbsolutePath, ...], Field(strict=False)] = ()
    """Files and folders that are zipped to the disk: docker-compose.yml and .env, or /etc/nixos."""
    keep_config_files: int = Field(default=30, ge=1, le=1000)
    """Zips of the configuration that stay on the disk, the newest."""
    keep_deleted_days: int = Field(default=30, ge=0, le=36500)
    """How long what Immich no longer has is kept in ``deleted/`` on the disk."""
    extra: Mapping[ExtraName, AbsolutePath] = Field(default_factory=dict)
    """Further folders by name, such as Immich's external libraries."""
    exclude: Mapping[str, Patterns] = Field(default_factory=dict)
    """Patterns, in rsync's syntax, of what is left out, by folder: ``upload``, ``library``, ``profile`` or an extra's name."""
    deletions: Deletions = Deletions()
    disk: Mapping[str, Disk] = Field(default_factory=dict)
    freshness: Freshness = Freshness()
    database: Database = Database()
    disks: Disks = Disks()
    verification: Verification = Verification()
    mail: Mail | None = None
    ping: Ping | None = None
    push: Push | None = None
    metrics: Metrics = Metrics()
    desktop: Desktop = Desktop()
    logging: Logging = Logging()

    @field_validator("extra")
    @classmethod
    def _different_on_exfat(cls, value: Mapping[str, Path]) -> Mapping[str, Path]:
        if len({name.lower() for name in value}) < len(value):
            raise ValueError("two names differ only in case, which exFAT takes for one")
        return value

    @field_validator("exclude")
    @classmethod
    def _for_known_folders(cls, value: Mapping[str, Patterns], others: ValidationInfo) -> Mapping[str, Patterns]:
        folders = [*LIBRARY_FOLDERS, *others.data.get("extra", {})]
        if unknown := [name for name in value if name not in folders]:
            raise ValueError(f"there is no folder {unknown[0]!r}; the folders are {', '.join(folders)}")
        return value

    def mode_of(self, *names: str) -> Mode:
        """The mode of a disk that goes by these names (its name, label, UUID); the first that is configured holds."""
        return next((self.disk[name].mode for name in names if name in self.disk), Mode.QUICK)

    def due_days_of(self, *names: str) -> int:
        """After how many days a disk that goes by these names is late; 0: never."""
        own = (self.disk[name].due_days for name in names if name in self.disk)
        return next((days for days in own if days is not None), self.freshness.due_days)

    def schedule_of(self, *names: str) -> str:
        """The schedule of a disk that goes by these names, as systemd takes it; empty: it has none."""
        schedules = (normalised(self.disk[name].schedule) for name in names if name in self.disk)
        return next(filter(None, schedules), "")

    @property
    def dumps(self) -> Path:
        """Where Immich puts its dumps."""
        return self.database.dumps or self.media_location / "backups"


def load(path: Path) -> Config:
    """Read a configuration file. Raises ``ConfigError`` with every problem."""
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST_CONFIG + 1)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}", problems=(f"{path}: {error.strerror}",)
        ) from error
    return parse(content, origin=str(path))


def parse(content: bytes, *, origin: str) -> Config:
    """Turn TOML into a ``Config``; ``origin`` names the file in errors. Raises ``ConfigError``."""
    if len(content) > _LONGEST_CONFIG:
        raise _invalid(origin, ["is larger than 1 MB"])
    try:
        raw = tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _invalid(origin, [f"is not UTF-8 text (byte {error.start})"]) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a plain ValueError
        raise _invalid(origin, [f"is not TOML: {error}"]) from error
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise _invalid(origin, [_problem(detail) for detail in error.errors()]) from error


def _invalid(origin: str, problems: Iterable[str]) -> ConfigError:
    lines = tuple(f"{origin}: {problem}" for problem in problems)
    return ConfigError(
        f"{origin} has {len(lines)} mistake{'s' * (len(lines) != 1)}: {'; '.join(lines)}", problems=lines
    )


def _problem(detail: Mapping[str, Any]) -> str:
    location = tuple(detail["loc"])
    path = ".".join(str(part) for part in location if part != "[key]")
    if detail["type"] == "extra_forbidden":
        return f"{path}: there is no such option{_did_you_mean(location)}"
    if detail["type"] == "missing":
        return f"{path}: is required"
    text = (
        str(detail["msg"])
        .removeprefix("Value error, ")
        .replace("Input should be", "should be")
        .replace("valid tuple", "list")
        .replace("valid dictionary", "table")
    )
    text = re.sub(r" or instance of \w+", "", text)
    secret = "password" in text or path == "ping.url"
    got = "" if isinstance(detail["input"], dict) or secret else f" (it is {_shown(detail['input'])})"
    return f"{path or 'the file'}: {text}{got}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) < 60 else text[:57] + "..."


def _did_you_mean(location: tuple[Any, ...]) -> str:
    """Close names at the same place, else the same name in another section."""
    *parents, wrong = (str(part) for part in location)
    if close := difflib.get_close_matches(wrong, _options_at(tuple(parents)), n=1, cutoff=0.6):
        return f", did you mean {'.'.join([*parents, close[0]])}?"
    elsewhere = [f"{section}.{wrong}" for section in _SECTIONS if wrong in _options_at((section,))]
    if wrong in _options_at(()) and parents:
        elsewhere.append(f"{wrong} (before the first [section])")
    return f", did you mean {elsewhere[0]}?" if elsewhere else ""


_SECTIONS: dict[str, type[_Section]] = {
    "deletions": Deletions,
    "freshness": Freshness,
    "database": Database,
    "disks": Disks,
    "verification": Verification,
    "mail": Mail,
    "ping": Ping,
    "push": Push,
    "metrics": Metrics,
    "desktop": Desktop,
    "logging": Logging,
}


def _options_at(parents: tuple[str, ...]) -> list[str]:
    model: type[_Section] | None = Config if not parents else _SECTIONS.get(".".join(parents))
    if len(parents) == 2 and parents[0] == "disk":
        model = Disk
    if model is None:
        return []
    return [field.alias or name for name, field in model.model_fields.items()]
