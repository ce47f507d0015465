"""Tries to break out of the walls around it, says what it could do, as JSON, and does so again in a child, as rsync would.

It runs inside of a unit, with Python alone: it imports nothing of ours. Each try is made in a process of its own, so that one
that works does not help the next. Arguments: a JSON object with the lists ``write``, ``read``, ``list``, ``open`` and
``connect`` of paths, ``setuid`` (a setuid program that prints its user id), ``process`` and ``scratch`` (a folder that may be
written to, or nothing). Numbers of system calls are those of x86-64.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
INIT_MODULE, BPF, OPEN_BY_HANDLE, IO_URING = 175, 321, 304, 425
CLONE_NEWNS, CLONE_NEWUSER, PTRACE_ATTACH = 0x20000, 0x10000000, 16
SYS_ADMIN = 1 << 21


def called(result: int) -> None:
    """Raise what a C function complains about."""
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def write(folder: str) -> None:
    name = f"{folder}/walls-{os.getpid()}"
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o600))
    os.unlink(name)


def read(path: str) -> None:
    """systemd puts an empty file in the place of what it hides."""
    with open(path, "rb") as file:
        if not file.read(1):
            raise OSError("it is empty")


def list_folder(path: str) -> None:
    if not os.listdir(path):
        raise OSError("it is empty")


def open_node(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))


def open_for_writing(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY))


def connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(path)


def make_socket(family: int, kind: int = socket.SOCK_STREAM) -> None:
    socket.socket(family, kind).close()


def gain_a_capability() -> None:
    """The one with which all others can be had."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    called(LIBC.capset(header, (ctypes.c_uint32 * 6)(SYS_ADMIN, SYS_ADMIN, 0, 0, 0, 0)))


def run_setuid(program: str) -> None:
    if subprocess.run([program, "-u"], capture_output=True, text=True).stdout.strip() != "0":
        raise OSError("it did not become root")


def mount() -> None:
    called(LIBC.mount(b"tmpfs", b"/mnt", b"tmpfs", 0, None))
    called(LIBC.umount2(b"/mnt", 2))


def load_module() -> None:
    """With what is no module: whoever may load one is told just that."""
    LIBC.syscall(INIT_MODULE, b"no module", 9, b"")
    if ctypes.get_errno() != errno.ENOEXEC:
        called(-1)


def answered(number: int) -> None:
    """Whether a system call is answered at all; its arguments are wrong."""
    LIBC.syscall(number, -1, 0, 0)
    if ctypes.get_errno() in {errno.EPERM, errno.ENOSYS}:
        called(-1)


def set_hostname() -> None:
    name = os.uname().nodename.encode()
    called(LIBC.sethostname(name, len(name)))


def with_scratch(scratch: str, do: Callable[[str], None]) -> None:
    name = f"{scratch or '/tmp'}/walls-{os.getpid()}"
    try:
        do(name)
    finally:
        if os.path.lexists(name):
            os.unlink(name)


def make_setuid(name: str) -> None:
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o600))
    os.chmod(name, 0o4755)


def make_device(name: str) -> None:
    os.mknod(name, stat.S_IFBLK | 0o600, os.makedev(7, 0))


def write_and_execute() -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def tries(asked: dict[str, Any]) -> Iterator[tuple[str, Callable[[], None]]]:
    kinds = {"write": write, "read": read, "list": list_folder, "open": open_node, "connect": connect}
    for kind, do in kinds.items():
        for path in asked[kind]:
            yield f"{kind} {path}", partial(do, path)
    process, scratch = asked["process"], asked["scratch"]
    yield "IPv4", lambda: make_socket(socket.AF_INET)
    yield "IPv6", lambda: make_socket(socket.AF_INET6)
    yield "packets", lambda: make_socket(socket.AF_PACKET, socket.SOCK_RAW)
    yield "become root", lambda: os.setuid(0)
    yield "a capability", gain_a_capability
    yield "setuid program", lambda: run_setuid(asked["setuid"])
    yield "user namespace", lambda: called(LIBC.unshare(CLONE_NEWUSER))
    yield "mount namespace", lambda: called(LIBC.unshare(CLONE_NEWNS))
    yield "mount", mount
    yield "trace a process", lambda: called(LIBC.ptrace(PTRACE_ATTACH, process, 0, 0))
    yield "signal a process", lambda: os.kill(process, 0)
    yield "another's environment", lambda: read(f"/proc/{process}/environ")
    yield "load a module", load_module
    yield "kernel setting", lambda: open_for_writing("/proc/sys/kernel/domainname")
    yield "host name", set_hostname
    yield "bpf", lambda: answered(BPF)
    yield "files by handle", lambda: answered(OPEN_BY_HANDLE)
    yield "io_uring", lambda: answered(IO_URING)
    yield "make a device", lambda: with_scratch(scratch, make_device)
    yield "make a setuid file", lambda: with_scratch(scratch, make_setuid)
    yield "writable code", write_and_execute


def one_try(do: Callable[[], None]) -> str:
    """What kept it from being done; nothing where it was done."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            do()
            said = ""
        except BaseException as error:  # noqa: BLE001
            said = repr(error) or "?"
        os.write(writing, said.encode()[:2000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        said = file.read().decode()
    _, status = os.waitpid(child, 0)
    return said or ("" if status == 0 else f"killed: {status}")


def main() -> None:
    asked = json.loads(sys.argv[1])
    found = {name: one_try(do) for name, do in tries(asked)}
    if "child" in sys.argv:
        print(json.dumps(found))
        return
    child = subprocess.run([sys.executable, "-I", *sys.argv, "child"], capture_output=True, text=True)
    print(json.dumps({"itself": found, "child": json.loads(child.stdout or "{}"), "said": child.stderr}))


main()
