"""How a hostile or broken reward program is written down.

A program may name what the harness keeps ready for it: `{secret}`, a file that nobody may read;
`{npy}`, the same for NumPy; `{listed}`, a folder that lists a secret, and `{link}`, which leads to
one; `{folder}` and `{kept}` in it, which nobody may change; the ports `{tcp}` and `{udp}` and the
sockets `{unix}` and `{path}`, which nobody may reach; the process `{victim}`, which has a secret at
`{address}` and open as `{handle}`; `{trainer}`, the process that asks for rewards; `{name}` and
`{key}`, by which it may make shared memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import dedent, indent
from typing import Any

FAMILIES = (
    "files", "descriptors", "processes", "network", "kernel", "memory", "hangs", "floods", "values",
    "forging", "purity", "syntax",
)  # fmt: skip
EFFECTS = {
    "secret": "what a file or a process keeps comes out",
    "environment": "a variable of the trainer's environment comes out",
    "folder": "a file appears, changes or goes",
    "tcp": "a port is reached",
    "udp": "a datagram arrives",
    "unix": "a socket is reached",
    "process": "there are other processes or threads than before",
    "parent": "the process that started it ends",
    "victim": "another process ends, stops, is traced or is changed",
    "shared": "there is other shared memory than before",
    "handle": "the process has a descriptor that it was not given",
    "code": "the process has memory that it may execute and that is no file's",
    "namespace": "the process is in other namespaces than before",
    "memory": "the process has more than `MOST_MEMORY`",
    "output": "something is written to where the trainer writes, or a text is not one short line",
    "observations": "what the trainer handed out has changed",
    "trainer": "modules or settings of the trainer's process have changed",
    "crash": "the trainer ends, or meets an exception that is not meant for it",
    "hang": "the trainer waits for longer than it said",
}
CANARY = "EMBODIED_CANARY"
"""A variable of the environment that nobody may see."""
MOST_MEMORY = 2 << 30
LIBC = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
FINE = "return {'a': world.cube.height * 1.0}"


@dataclass(frozen=True)
class Attack:
    """A program, what a whole sandbox may say of it, and what it tries to bring about outside.

    `verdicts` are names of `CodeFault`, and "fine" where rewards may come back. `calls` are asked
    of it before its purity is checked.
    """

    family: str
    name: str
    code: str
    verdicts: frozenset[str]
    effect: str = ""
    calls: int = 2

    def source(self, places: Mapping[str, Any]) -> str:
        """The program with its place-holders filled in."""
        code = self.code
        for name, value in places.items():
            code = code.replace("{" + name + "}", repr(value))
        return code


def attack(
    family: str, name: str, code: str, verdicts: str, effect: str = "", calls: int = 2
) -> Attack:
    """An `Attack` whose verdicts are in one string."""
    return Attack(family, name, code, frozenset(verdicts.split()), effect, calls)


def does(statements: str, before: str = "", end: str = FINE) -> str:
    """A program that does something whenever it is asked, and then gives rewards."""
    body = indent(dedent(statements).strip("\n"), "    ")
    return f"{dedent(before)}\ndef reward(world, action, dt):\n{body}\n    {end}\n"


def leaks(statements: str, before: str = "") -> str:
    """A program that puts `data`, bytes or text, into its rewards, one byte a world."""
    told = """
    data = data.encode() if isinstance(data, str) else bytes(data)
    told = np.zeros(len(action))
    told[: len(data)] = list(data[: len(told)])"""
    return does(dedent(statements).strip("\n") + dedent(told), before, "return {'a': told}")
