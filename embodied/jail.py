"""Locks the calling process away, for good: it can compute and answer, and nothing else.

Linux only, and with nothing but the kernel: resource limits, no new privileges, Landlock with every
right handled and none given (no file, no TCP port), and a seccomp filter that allows what NumPy
needs to compute. What Python merely tries in passing (to open a file, to sleep) fails with
`PermissionError`; anything else that is not allowed kills the process. Descriptors that are to stay
open are named, all others are closed.

For reward code that a language model wrote; called inside the process that is to run it, before it
reads a line of that.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import signal
import struct
from collections.abc import Mapping, Sequence

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
SECCOMP_MODE_FILTER = 2
KILL, ALLOW, REFUSE = 0x80000000, 0x7FFF0000, 0x00050000 | errno.EACCES
PROT_EXEC = 4
LANDLOCK_CREATE, LANDLOCK_RESTRICT, CLOSE_RANGE = 444, 446, 436
"""Alike on every architecture, as are all system calls from 403 on."""
LANDLOCK_RIGHTS = {1: (13, 0, 0), 2: (14, 0, 0), 3: (15, 0, 0), 4: (15, 2, 0), 5: (16, 2, 0),
                   6: (16, 2, 2)}  # fmt: skip
"""By version of its interface, how many rights there are on files, on networks, and scopes."""

ALLOWED = {
    "read": (0, 63), "write": (1, 64), "sendto": (44, 206), "recvfrom": (45, 207),
    "munmap": (11, 215), "mremap": (25, 216), "brk": (12, 214),
    "futex": (202, 98), "poll": (7, None), "ppoll": (271, 73), "clock_gettime": (228, 113),
    "rt_sigreturn": (15, 139), "rt_sigprocmask": (14, 135), "exit": (60, 93),
    "exit_group": (231, 94), "sched_yield": (24, 124), "gettid": (186, 178), "getpid": (39, 172),
}  # fmt: skip
"""Numbers on x86-64 and aarch64."""
ADVISING, ADVICE = {"madvise": (28, 233)}, (0, 4, 8, 14, 15)
"""Allowed with these alone, which are for memory that is free or large; else refused."""
MAPPING = {"mmap": (9, 222), "mprotect": (10, 226)}
"""Allowed unless the memory is to be executable; their third argument says."""
REFUSED = {
    "open": (2, None), "openat": (257, 56), "openat2": (437, 437), "stat": (4, None),
    "lstat": (6, None), "fstat": (5, 80), "newfstatat": (262, 79), "statx": (332, 291),
    "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439),
    "readlink": (89, None), "readlinkat": (267, 78), "getcwd": (79, 17),
    "getdents64": (217, 61), "ioctl": (16, 29), "fcntl": (72, 25), "lseek": (8, 62),
    "close": (3, 57), "dup": (32, 23), "getrandom": (318, 278), "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115), "select": (23, None), "pselect6": (270, 72),
    "rt_sigaction": (13, 134), "sigaltstack": (131, 132), "getuid": (102, 174),
    "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177), "getppid": (110, 173),
    "uname": (63, 160), "sysinfo": (99, 179), "getrusage": (98, 165), "times": (100, 153),
    "sched_getaffinity": (204, 123), "prlimit64": (302, 261), "unlink": (87, None),
    "unlinkat": (263, 35), "mkdir": (83, None), "mkdirat": (258, 34), "ftruncate": (77, 46),
}  # fmt: skip


LAYERS = ("limits", "landlock", "seccomp")


class JailError(Exception):
    """What the kernel lacks for it."""


def lock(keep: Sequence[int], memory_bytes: int = 1 << 30, layers: Sequence[str] = LAYERS) -> None:
    """Lock this process away; of its open files those in `keep` stay.

    A library that makes threads or buffers when it is first used, as BLAS does, is to be used once
    before. Fewer `layers` than all are for trying what each of them holds back. Raises `JailError`
    where the kernel cannot, and then the process is not to be used.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _prctl(libc, PR_SET_PDEATHSIG, signal.SIGKILL)
    _close_all_but(libc, keep)
    if "limits" in layers:
        _limit(keep, memory_bytes)
    _prctl(libc, PR_SET_DUMPABLE, 0)
    _prctl(libc, PR_SET_NO_NEW_PRIVS, 1)
    if "landlock" in layers:
        restrict_files(libc)
    if "seccomp" in layers:
        restrict_calls(libc)


def _limit(keep: Sequence[int], memory_bytes: int) -> None:
    limits = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_NOFILE: max(keep) + 1,
    }
    for which, limit in limits.items():
        resource.setrlimit(which, (limit, limit))


def restrict_files(libc: ctypes.CDLL) -> None:
    """Landlock: no file, no TCP port, no socket or signal of others."""
    version = landlock_version(libc)
    if version < 1:
        raise JailError("the kernel has no Landlock (Linux 5.13, enabled at boot)")
    files, ports, scopes = LANDLOCK_RIGHTS[min(version, max(LANDLOCK_RIGHTS))]
    handled = struct.pack("QQQ", (1 << files) - 1, (1 << ports) - 1, (1 << scopes) - 1)
    size = 8 if not ports else 16 if not scopes else 24
    rules = libc.syscall(LANDLOCK_CREATE, handled, ctypes.c_size_t(size), ctypes.c_uint32(0))
    if rules < 0 or libc.syscall(LANDLOCK_RESTRICT, rules, ctypes.c_uint32(0)):
        raise JailError(f"Landlock: {os.strerror(ctypes.get_errno())}")
    os.close(rules)


def landlock_version(libc: ctypes.CDLL) -> int:
    """Of the kernel's interface; below 1 there is none."""
    return int(libc.syscall(LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1)))


def restrict_calls(libc: ctypes.CDLL) -> None:
    """The seccomp filter."""
    program = filter_program(platform.machine())
    buffer = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    told = Program(len(program) // 8, ctypes.addressof(buffer))
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(told), 0, 0):
        raise JailError(f"seccomp: {os.strerror(ctypes.get_errno())}")


def filter_program(machine: str) -> bytes:
    """The filter for a processor, as the kernel takes it (classic BPF)."""
    column, architecture = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}.get(
        machine, (-1, 0)
    )
    if column < 0:
        raise JailError(f"no seccomp filter for {machine} (there are x86_64 and aarch64)")

    def numbers(table: Mapping[str, tuple[int | None, int | None]]) -> list[int]:
        return [number for row in table.values() if (number := row[column]) is not None]

    load, equal, bits, end = 0x20, 0x15, 0x45, 0x06  # of a word, jumps, return
    number, arch, third = 0, 4, 32  # where they are in struct seccomp_data
    lines: list[tuple[int, int, int, int]] = [
        (load, 0, 0, arch),
        (equal, 1, 0, architecture),
        (end, 0, 0, KILL),
        (load, 0, 0, number),
    ]
    for call in numbers(ALLOWED):
        lines += [(equal, 0, 1, call), (end, 0, 0, ALLOW)]
    for call in numbers(REFUSED):
        lines += [(equal, 0, 1, call), (end, 0, 0, REFUSE)]
    for call in numbers(ADVISING):
        lines += [(equal, 0, 2 * len(ADVICE) + 2, call), (load, 0, 0, third)]
        for advice in ADVICE:
            lines += [(equal, 0, 1, advice), (end, 0, 0, ALLOW)]
        lines.append((end, 0, 0, REFUSE))
    for call in numbers(MAPPING):
        lines += [
            (equal, 0, 4, call),
            (load, 0, 0, third),
            (bits, 0, 1, PROT_EXEC),
            (end, 0, 0, KILL),
            (end, 0, 0, ALLOW),
        ]
    lines.append((end, 0, 0, KILL))
    return b"".join(struct.pack("HBBI", *line) for line in lines)


def _close_all_but(libc: ctypes.CDLL, keep: Sequence[int]) -> None:
    edges = [-1, *sorted(set(keep)), 1 << 32]
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        first, last = ctypes.c_uint(low + 1), ctypes.c_uint(high - 1)
        if low + 1 < high and libc.syscall(CLOSE_RANGE, first, last, ctypes.c_uint(0)):
            raise JailError(f"close_range: {os.strerror(ctypes.get_errno())}")


def _prctl(libc: ctypes.CDLL, option: int, value: int) -> None:
    if libc.prctl(option, value, 0, 0, 0):
        raise JailError(f"prctl {option}: {os.strerror(ctypes.get_errno())}")
