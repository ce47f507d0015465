"""Images: the guest's own, built once and cached, and those of the disks that the tests plug in.

Everything here blocks and needs root (mmdebstrap, loop devices). Call the slow parts from a thread.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .loops import ImageError, loop, run, run_until, telling_of_disks

SECTOR = 512
PARTITION_START = 2048 * SECTOR
BUILD_SECONDS = 1500.0
BUSY_SECONDS = 20.0

HOST_TOOLS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mmdebstrap": "mmdebstrap",
    "mkfs.exfat": "exfatprogs",
    "mount.exfat-fuse": "exfat-fuse",
    "mkfs.ext4": "e2fsprogs",
    "ssh": "openssh-client",
    "sfdisk": "fdisk",
    "losetup": "mount",
    "setpriv": "util-linux",
    "git": "git",
}

PACKAGES = [
    "systemd",
    "systemd-sysv",
    "udev",
    "dbus",
    "dbus-user-session",
    "libpam-systemd",
    "udisks2",
    "polkitd",
    "exfatprogs",
    "rsync",
    "zip",
    "psmisc",
    "python3",
    "python3-venv",
    "python3-pip",
    "python3-aiosmtpd",
    "linux-image-amd64",
    "initramfs-tools",
    "zstd",
    "kmod",
    "iproute2",
    "procps",
    "openssh-server",
    "util-linux",
    "fdisk",
    "e2fsprogs",
    "dmsetup",
    "sudo",
    "make",
    "git",
    "ca-certificates",
]

# The initrd must find the root disk and nothing else: a small one is unpacked in no time, even under TCG.
INITRD_FILES = {
    "etc/initramfs-tools/conf.d/guest": "MODULES=list\nFSTYPE=ext4\nRESUME=none\n",
    "usr/share/initramfs-tools/modules.d/guest": "virtio_pci\nvirtio_blk\next4\n",
}

FILES = {
    "etc/hostname": "guest\n",
    "etc/hosts": "127.0.0.1 localhost guest\n::1 localhost\n",
    "etc/fstab": "",
    "etc/machine-id": "5a1d9c4e0b7f4c2d8e6a3f1b2c4d5e6f\n",  # a known id: no first-boot work
    "etc/default/locale": "LANG=C.UTF-8\n",
    "etc/systemd/network/10-guest.network": (
        "[Match]\nName=eth0\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\n"
        "LinkLocalAddressing=no\nIPv6AcceptRA=no\n"
    ),
    "etc/systemd/journald.conf.d/guest.conf": (
        "[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\nRuntimeMaxUse=400M\nForwardToSyslog=no\n"
    ),
    # guest.py waits for this line on the serial port (`READY`).
    "etc/systemd/system/ssh.service.d/guest.conf": (
        "[Unit]\nAfter=systemd-networkd.service\n"
        "[Service]\nExecStartPost=/bin/sh -c 'echo guest: ssh is up > /dev/ttyS0'\n"
    ),
    # Without PAM a login does not start a session, so ssh stays cheap and looks like no user to logind.
    "etc/ssh/sshd_config.d/guest.conf": (
        "UsePAM no\nUseDNS no\nPermitRootLogin yes\nMaxSessions 100\nMaxStartups 100\nSetEnv LANG=C.UTF-8\n"
    ),
}

ENABLED = ("systemd-networkd.service",)
MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "serial-getty@ttyS0.service",
    "systemd-networkd-wait-online.service",
    "systemd-pstore.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What goes into the guest's image; its hash names the image in the cache."""

    suite: str = "bookworm"
    size: str = "8G"
    packages: tuple[str, ...] = tuple(PACKAGES)
    initrd_files: Mapping[str, str] = field(default_factory=lambda: INITRD_FILES)
    files: Mapping[str, str] = field(default_factory=lambda: FILES)
    enabled: tuple[str, ...] = ENABLED
    masked: tuple[str, ...] = MASKED
    builder: int = 1  # raise when the steps of the build change

    @property
    def hash(self) -> str:
        """A short name for exactly this recipe."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class GuestImage:
    """A built image: what QEMU boots, and the key that opens it."""

    folder: Path

    @property
    def disk(self) -> Path:
        """The root file system, raw; never written to."""
        return self.folder / "root.img"

    @property
    def kernel(self) -> Path:
        """The guest's kernel."""
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """The guest's initial RAM disk."""
        return self.folder / "initrd"

    @property
    def key(self) -> Path:
        """The private ssh key that root accepts."""
        return self.folder / "key"


# --- the guest's image ------------------------------------------------------------


def cache_folder() -> Path:
    """Where images and wheels are kept between runs."""
    configured = os.environ.get("IMMICH_USB_BACKUP_CACHE")
    folder = Path(configured) if configured else Path.home() / ".cache" / "immich-usb-backup"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`; wait for whoever has it."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def cached_folder(kind: str, name: str, build: Callable[[Path], None], *, others: int = 0) -> Path:
    """The cached folder `<kind>-<name>`: built by `build(folder)` if missing, whole or not at all. So many `others` of its
    kind stay, those that were used last."""
    cache = cache_folder()
    wanted = cache / f"{kind}-{name}"
    with locked(cache / f"{kind}.lock"):
        if not wanted.exists():
            _remove_all(cache.glob(f".{kind}-building-*"))
            unfinished = Path(tempfile.mkdtemp(prefix=f".{kind}-building-", dir=cache))
            build(unfinished)
            unfinished.rename(wanted)
        os.utime(wanted)
        _remove_all(sorted(cache.glob(f"{kind}-*"), key=lambda used: -used.stat().st_mtime)[1 + others :])
    return wanted


def guest_image(recipe: Recipe | None = None) -> GuestImage:
    """The guest's image, from the cache or built now (one to two minutes)."""
    chosen = recipe or Recipe()
    _require_host_tools()
    return GuestImage(cached_folder("guest", chosen.hash, lambda folder: _build_guest(chosen, GuestImage(folder))))


def _build_guest(recipe: Recipe, image: GuestImage) -> None:
    root = image.folder / "rootfs"
    with tempfile.TemporaryDirectory(prefix="guest-initrd-") as seed:
        _write_files(Path(seed), recipe.initrd_files)
        _mmdebstrap(recipe, root, Path(seed))
    _write_files(root, recipe.files)
    _set_up_units(root, recipe)
    _authorise_key(root, image.key)
    shutil.copy(_only(root / "boot", "vmlinuz-*"), image.kernel)
    shutil.copy(_only(root / "boot", "initrd.img-*"), image.initrd)
    run(["truncate", "-s", recipe.size, image.disk])
    run(["mkfs.ext4", "-q", "-O", "^has_journal", "-d", root, image.disk], seconds=BUILD_SECONDS)
    shutil.rmtree(root)


def _mmdebstrap(recipe: Recipe, root: Path, seed: Path) -> None:
    options = ["--variant=minbase", "--format=directory", "--include=" + ",".join(recipe.packages)]
    options += [f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "locale", "info")]
    options += [f"--essential-hook=cp -R {seed}/. $1/"]
    run(["mmdebstrap", *options, recipe.suite, root], seconds=BUILD_SECONDS)


def _write_files(root: Path, files: Mapping[str, str]) -> None:
    root.chmod(0o755)
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _set_up_units(root: Path, recipe: Recipe) -> None:
    units = root / "etc/systemd/system"
    for unit in recipe.enabled:
        _link(units / "multi-user.target.wants" / unit, f"/lib/systemd/system/{unit}")
    for unit in recipe.masked:
        _link(units / unit, "/dev/null")


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _authorise_key(root: Path, key: Path) -> None:
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "guest", "-f", key])
    folder = root / "root/.ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    shutil.copy(key.with_suffix(".pub"), folder / "authorized_keys")


def _only(folder: Path, pattern: str) -> Path:
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise ImageError(f"expected one {pattern} in {folder}, found {found}")
    return found[0]


def _remove_all(folders: Iterable[Path]) -> None:
    for folder in list(folders):
        shutil.rmtree(folder, ignore_errors=True)


def _require_host_tools() -> None:
    missing = sorted(package for tool, package in HOST_TOOLS.items() if shutil.which(tool) is None)
    if missing:
        raise ImageError(f"the VM tests need these packages: apt-get install {' '.join(missing)}")


def copied(image: GuestImage, folder: Path) -> GuestImage:
    """A copy of an image in a folder that is there."""
    run(["cp", "-a", "--sparse=always", "--reflink=auto", f"{image.folder}/.", folder], seconds=BUILD_SECONDS)
    return GuestImage(folder)


# --- images of disks --------------------------------------------------------------


def exfat_image(
    path: Path,
    size_mib: int = 256,
    label: str = "Blue",
    *,
    partitioned: bool = True,
    populate: Mapping[str, bytes] | None = None,
) -> Path:
    """A raw exFAT disk at `path`, in one partition or on the whole disk; `populate` maps names to bytes."""
    _blank_disk(path, size_mib, partition_type="7" if partitioned else None)
    with loop(path, PARTITION_START if partitioned else 0, writable=True) as device:
        run(["mkfs.exfat", "-L", label, device])
    if populate:
        with mounted_exfat(path, writable=True) as root:
            _populate(root, populate)
    return path


def ext4_image(path: Path, size_mib: int = 256, label: str = "Linux", *, partitioned: bool = True) -> Path:
    """A raw ext4 disk at `path`, for what the backup must leave alone."""
    _blank_disk(path, size_mib, partition_type="83" if partitioned else None)
    with loop(path, PARTITION_START if partitioned else 0, writable=True) as device:
        run(["mkfs.ext4", "-q", "-L", label, device])
    return path


@contextmanager
def mounted_exfat(image: Path, *, writable: bool = False) -> Iterator[Path]:
    """The content of an exFAT image as a folder on the host (FUSE: the host's kernel need not know exFAT)."""
    with (
        telling_of_disks(),
        tempfile.TemporaryDirectory(prefix="exfat-") as folder,
        loop(image, filesystem_offset(image), writable=writable) as device,
    ):
        run(["mount.exfat-fuse", "-o", "rw" if writable else "ro", device, folder])
        try:
            yield Path(folder)
        finally:
            run_until(["umount", folder], BUSY_SECONDS)


def image_hash(path: Path) -> str:
    """The SHA-256 of the whole image, to show that a disk was left bit for bit as it was."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def filesystem_offset(image: Path) -> int:
    """Where the exFAT file system starts: 0 without a partition table, else where the first partition does."""
    with image.open("rb") as file:
        sector = file.read(SECTOR)
    if sector[3:11] == b"EXFAT   ":
        return 0
    return int.from_bytes(sector[0x1BE + 8 : 0x1BE + 12], "little") * SECTOR


def _blank_disk(path: Path, size_mib: int, partition_type: str | None) -> None:
    path.unlink(missing_ok=True)
    run(["truncate", "-s", f"{size_mib}M", path])
    if partition_type:
        table = f"label: dos\nstart={PARTITION_START // SECTOR}, type={partition_type}\n"
        run(["sfdisk", "-q", path], stdin=table)


def _populate(root: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
