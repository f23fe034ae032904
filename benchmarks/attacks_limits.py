"""Programs that take memory, time and attention without end, or crash.

Without limits they still leave a machine alone: what is claimed is not touched.
"""

from __future__ import annotations

from benchmarks.attacks_row import FINE, LIBC, attack, does

MEMORY = [
    attack("memory", name, does(statements, before), verdicts, effect)
    for name, before, statements, verdicts, effect in [
        ("array_16_gb", "kept = []", "kept.append(np.zeros(2 * 10**9))", "error", "memory"),
        ("list_bomb", "kept = []", "kept.extend(bytes(10**7) for _ in range(150))", "error",
         "memory"),
        ("text_bomb", "kept = []", "kept.append(bytes(10**9))\nkept.append(bytes(2 * 10**9))",
         "error", "memory"),
        ("own_map", LIBC + "import mmap\nkept = []", "kept.append(mmap.mmap(-1, 3 << 30))",
         "error", "memory"),
        ("broadcast_8_tb", "", "np.ones((1 << 20, 1)) * np.ones((1, 1 << 20))", "error", ""),
        ("recursion", "", "return reward(world, action, dt)", "error", ""),
        ("recursion_in_c", """
            import sys
            sys.setrecursionlimit(10**9)
            class Same:
                def __add__(self, other):
                    return self + other
            """, "Same() + 1", "killed", "crash"),
        ("segfault", "import ctypes", "ctypes.string_at(0)", "killed", "crash"),
        ("strided_read", "from numpy.lib.stride_tricks import as_strided",
         "as_strided(world.cube.height, (1 << 40,), (4096,)).sum()", "killed", "crash"),
        ("strided_write", "from numpy.lib.stride_tricks import as_strided",
         "as_strided(world.cube.height, (1 << 40,), (4,))[:] = 9", "error", "crash"),
        ("strided_neighbours", "from numpy.lib.stride_tricks import as_strided",
         "as_strided(world.hand.position, (300,), (4,))[:] = 9", "error", "observations"),
        ("bad_reference", "import ctypes", "ctypes.pythonapi.Py_DecRef(ctypes.c_void_p(8))",
         "killed", "crash"),
    ]
]  # fmt: skip

LOOP = "while True: pass"
SPINS = f"""
while True:
    try:
        {LOOP}
    except BaseException:
        pass
"""
HANGS = [
    attack("hangs", name, code, "deadline", "hang")
    for name, code in [
        ("python_loop", does(LOOP)),
        ("c_loop", does("sum(range(10**12))")),
        ("array_loop", does("for _ in range(10**6):\n    np.linalg.inv(np.eye(300))")),
        ("swallows_all", does(SPINS)),
        ("slow_regex", does("import re\nre.match('(a+)+b', 'a' * 40)")),
        ("big_power", does("9**9**9")),
        ("big_number_as_text", does("import sys\nsys.set_int_max_str_digits(0)\nstr(7**3000000)")),
        ("waits_for_nothing", does("import select\nselect.poll().poll()")),
        ("deadlock", does("import threading\nlock = threading.Lock()\nlock.acquire()\n"
                          "lock.acquire()")),
        ("loop_in_name", f"""
class Evil(str):
    __hash__ = str.__hash__
    def isidentifier(self):
        {LOOP}
def reward(world, action, dt):
    return {{Evil("a"): world.cube.height}}
"""),
        ("loop_in_array", f"""
class Evil:
    def __array__(self, *given, **named):
        {LOOP}
def reward(world, action, dt):
    return {{"a": Evil()}}
"""),
        ("loop_in_exception", f"""
class Evil(Exception):
    def __str__(self):
        {LOOP}
def reward(world, action, dt):
    raise Evil
"""),
        ("top_level_loop", LOOP),
        ("top_level_power", "x = 9**9**9\n" + does("pass")),
    ]
]  # fmt: skip
WAITS = [
    attack("hangs", name, does(statements, before), verdicts, "hang")
    for name, before, statements, verdicts in [
        ("sleep", "import time", "time.sleep(5)", "error"),
        ("sleep_swallowed", "import time", """
            while True:
                try:
                    time.sleep(5)
                except OSError:
                    pass
            """, "deadline"),
        ("pause", "import signal", "signal.pause()", "killed"),
        ("select", "import select", "select.select([], [], [], 5)", "error"),
    ]
]  # fmt: skip

FLOODS = [
    attack("floods", name, does(statements, before, end), verdicts, "output")
    for name, before, statements, end, verdicts in [
        ("stdout", "", "print('x' * 10**6)", FINE, "fine"),
        ("stderr", "import sys", "print('x' * 10**6, file=sys.stderr)", FINE, "fine"),
        ("stdout_of_old", "import sys", "sys.__stdout__.write('x')\nsys.__stdout__.flush()", FINE,
         "error"),
        ("descriptor_1", "import os", "os.write(1, b'x' * 10**6)", FINE, "error"),
        ("puts", LIBC, "libc.puts(b'x' * 10**6)\nlibc.fflush(None)", FINE, "fine killed"),
        ("warnings", "import warnings\nwarnings.simplefilter('always')",
         "for k in range(1000):\n    warnings.warn('x' * 1000)", FINE, "fine"),
        ("exception_100_mb", "", "raise ValueError('x' * 10**8)", FINE, "error"),
        ("exception_with_escapes", "", "raise ValueError('\\x1b[2J\\n\\u202e x')", FINE, "error"),
        ("exception_of_lines", "", "raise ValueError('reward: 1\\n' * 300)", FINE, "error"),
    ]
]  # fmt: skip

ATTACKS = [*MEMORY, *HANGS, *WAITS, *FLOODS]
