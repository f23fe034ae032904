"""A locked process computes, answers, and can do nothing else."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied.jail import (
    ADVICE,
    ADVISING,
    ALLOW,
    ALLOWED,
    KILL,
    MAPPING,
    REFUSE,
    REFUSED,
    JailError,
    filter_program,
    landlock_version,
)

ROOT = Path(__file__).parents[1]
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


needs_landlock = pytest.mark.skipif(
    landlock_version(ctypes.CDLL(None)) < 1, reason="this kernel has no Landlock: nothing is locked"
)


def locked(code: str) -> tuple[int, str]:
    """Run code in a locked process: how that ended, and what it said."""
    ours, theirs = os.pipe()
    script = (
        "import os, socket, threading, mmap, time, ctypes\n"
        "import numpy as np\n"
        "from embodied.jail import lock\n"
        "np.ones((300, 300)) @ np.ones((300, 300))\n"
        "libc = ctypes.CDLL(None)\n"
        f"lock([{theirs}])\n"
        "try:\n"
        f"{textwrap.indent(textwrap.dedent(code), '    ')}\n"
        "    said = 'done'\n"
        "except BaseException as error:\n"
        "    said = f'{type(error).__name__}: {error}'\n"
        f"os.write({theirs}, said.encode())\n"
        "os._exit(0)\n"
    )
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with os.fdopen(ours, "rb") as answers:
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            pass_fds=[theirs], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environ,
            cwd=ROOT,
        )  # fmt: skip
        os.close(theirs)
        errors = process.communicate(timeout=120)[1].decode()
        return process.returncode, answers.read().decode() or errors[-500:]


COMPUTES = """
rng = np.random.default_rng(0)
x = rng.normal(size=(1024, 64)).astype(np.float32)
y = np.exp(-np.linalg.norm(x, axis=-1)) + np.where(x[:, 0] > 0, 1.0, 0.0)
assert np.isfinite(y).all() and np.sort(x, 0).shape == x.shape
assert (np.ones((300, 300)) @ np.ones((300, 300))).sum() == 300**3
big = [np.zeros(100_000) for _ in range(100)]
time.monotonic(), time.time()
"""


@needs_landlock
def test_it_computes() -> None:
    assert locked(COMPUTES) == (0, "done")


@needs_landlock
@pytest.mark.parametrize(
    "code",
    [
        "open('/etc/passwd').read()",
        "open('/tmp/from_the_jail', 'w').write('x')",
        "os.listdir('/')",
        "os.stat('/')",
        "np.load('/etc/passwd', allow_pickle=False)",
        "np.zeros(3).tofile('/tmp/from_the_jail')",
        "time.sleep(0.1)",
        "os.urandom(8)",
        "os.unlink('/tmp/from_the_jail')",
    ],
    ids=str,
)
def test_what_is_refused_raises(code: str) -> None:
    status, said = locked(code)
    assert status == 0 and said.startswith(("PermissionError", "OSError"))
    assert not Path("/tmp/from_the_jail").exists()


@needs_landlock
@pytest.mark.parametrize(
    "code",
    [
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "socket.socket()",
        "socket.socket(socket.AF_UNIX)",
        "os.kill(os.getppid(), 9)",
        "os.kill(-1, 9)",
        "os.kill(os.getpid(), 9)",
        "threading.Thread(target=print).start()",
        "mmap.mmap(-1, 4096, prot=7)",
        "libc.mprotect(ctypes.c_void_p(id(1) & ~4095), 4096, 7)",
        "libc.ptrace(16, os.getppid(), 0, 0)",
        "libc.unshare(0x10000000)",
        "libc.syscall(425, 1, 0)",  # io_uring_setup
        "libc.syscall(321, 0, 0, 0)",  # bpf
        "libc.syscall(323, 0)",  # userfaultfd
        "libc.syscall(319, b'x', 0)",  # memfd_create
        "libc.syscall(29, 1, 4096, 0o1666)",  # shmget
        "libc.syscall(0x40000000 + 1, 1, b'x', 1)",  # the x32 numbers
        "os.abort()",
    ],
    ids=str,
)
def test_what_is_not_allowed_kills(code: str) -> None:
    status, said = locked(code)
    assert (status, said) == (-signal.SIGSYS, "")


@needs_landlock
def test_its_limits_hold() -> None:
    assert locked("np.ones(4_000_000_000)")[1].startswith("MemoryError")
    assert locked("[bytes(10_000_000) for _ in range(1000)]")[1].startswith("MemoryError")
    assert locked("f = lambda: f()\nf()")[1].startswith("RecursionError")
    assert locked("os.write(1, b'x')")[1].startswith("OSError: [Errno 9]")
    assert locked("os.write(2, b'x')")[1].startswith("OSError: [Errno 9]")


@needs_landlock
@pytest.mark.parametrize("limit", [64, 1024])
def test_no_other_descriptor_stays_open(limit: int) -> None:
    script = (
        "import os, resource\n"
        "from embodied.jail import lock\n"
        "keep, other = os.pipe()\n"
        "high = [os.dup(other) for _ in range(40)][-1]\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({limit} // 4, {limit}))\n"
        "lock([keep])\n"
        "for fd in (0, 1, 2, other, high):\n"
        "    try:\n"
        "        os.write(fd, b'x')\n"
        "        os._exit(1)\n"
        "    except OSError as error:\n"
        "        assert error.errno == 9\n"
        "os._exit(0)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=60).returncode == 0


def verdict(program: bytes, architecture: int, number: int, third: int = 0) -> int:
    """What a filter says of a system call: the part of classic BPF that it uses, interpreted."""
    data = {0: number, 4: architecture, 32: third}
    lines = [struct.unpack_from("HBBI", program, k) for k in range(0, len(program), 8)]
    word, at = 0, 0
    while True:
        code, yes, no, value = lines[at]
        at += 1
        if code == 0x20:
            word = data[value]
        elif code == 0x15:
            at += yes if word == value else no
        elif code == 0x45:
            at += yes if word & value else no
        else:
            return value


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_the_filter_by_hand(machine: str) -> None:
    column, architecture = ARCHITECTURES[machine]
    program = filter_program(machine)
    for table, expected in ((ALLOWED, ALLOW), (REFUSED, REFUSE), (MAPPING, ALLOW)):
        for numbers in table.values():
            if (number := numbers[column]) is not None:
                assert verdict(program, architecture, number) == expected
                assert verdict(program, architecture ^ 1, number) == KILL
    for numbers in MAPPING.values():
        assert [verdict(program, architecture, numbers[column], p) for p in (3, 4, 7)] == [
            ALLOW, KILL, KILL,
        ]  # fmt: skip
    for numbers in ADVISING.values():
        told = {advice: verdict(program, architecture, numbers[column], advice)
                for advice in range(120)}  # fmt: skip
        assert {advice for advice, said in told.items() if said == ALLOW} == set(ADVICE)
        assert set(told.values()) == {ALLOW, REFUSE}
    with pytest.raises(JailError, match="no seccomp filter for riscv64"):
        filter_program("riscv64")


@given(st.integers(0, 2**32 - 1) | st.integers(0, 600), st.sampled_from(sorted(ARCHITECTURES)))
def test_what_is_not_named_kills(number: int, machine: str) -> None:
    column, architecture = ARCHITECTURES[machine]
    named = {
        row[column] for table in (ALLOWED, REFUSED, ADVISING, MAPPING) for row in table.values()
    }
    told = verdict(filter_program(machine), architecture, number)
    assert (told == KILL) == (number not in named)
