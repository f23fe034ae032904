"""Programs whose rewards are none, that forge replies, that are impure, or no programs at all."""

from __future__ import annotations

from benchmarks.attacks_row import FINE, attack, does


def gives(expression: str) -> str:
    """A program that returns an expression."""
    return does("pass", end=f"return {expression}")


RETURNED = [
    attack("values", name, gives(expression), verdicts)
    for name, expression, verdicts in [
        ("too_long", "{'a': np.zeros(len(action) + 1)}", "error"),
        ("too_short", "{'a': world.cube.height[:-1]}", "error"),
        ("two_axes", "{'a': world.cube.position}", "error"),
        ("column", "{'a': world.cube.height[:, None]}", "error"),
        ("scalar", "{'a': 1.0}", "error"),
        ("none", "None", "error"),
        ("none_as_term", "{'a': None}", "error"),
        ("array", "world.cube.height", "error"),
        ("no_terms", "{}", "error"),
        ("many_terms", "{f'a{k}': world.cube.height for k in range(100_000)}", "error"),
        ("long_name", "{'a' * 10**6: world.cube.height}", "error"),
        ("name_with_escapes", "{'\\x1b[2J': world.cube.height}", "error"),
        ("name_of_bytes", "{b'a': world.cube.height}", "error"),
        ("nan", "{'a': world.cube.height * np.nan}", "not_finite"),
        ("one_nan", "{'a': np.where(np.arange(len(action)) == 3, np.nan, 0.0)}", "not_finite"),
        ("infinite", "{'a': world.cube.height / 0}", "not_finite"),
        ("huge", "{'a': world.cube.height * 0 + 1e30}", "too_large"),
        ("too_large_for_float32", "{'a': np.full(len(action), 1e300)}", "not_finite"),
        ("huge_numbers_of_python", "{'a': np.array([10**400] * len(action))}", "error"),
        ("objects", "{'a': np.array([object()] * len(action))}", "error"),
        ("texts", "{'a': np.array(['1'] * len(action))}", "error"),
        ("complex", "{'a': world.cube.height + 1j}", "error"),
        ("booleans", "{'a': world.cube.height > 0}", "error"),
        ("dates", "{'a': np.zeros(len(action), 'M8[s]')}", "error"),
        ("records", "{'a': np.zeros(len(action), [('x', 'f4')])}", "error"),
    ]
]

PAGE = """
import ctypes
libc = ctypes.CDLL(None)
def page(array):
    return ctypes.c_void_p(array.ctypes.data & ~4095), ctypes.c_size_t(4096)
"""
WRITTEN = [
    attack("values", name, does(statements, before), verdicts, "observations")
    for name, before, statements, verdicts in [
        ("assigns", "", "world.cube.height[:] = 9", "error"),
        ("in_place", "", "world.cube.position.sort(0)", "error"),
        ("out_argument", "", "np.multiply(action, 0, out=action)", "error"),
        ("put", "", "np.put(action, [0], [9])", "error"),
        ("copyto", "", "np.copyto(world.cube.height, 9)", "error"),
        ("set_writeable", "", "action.setflags(write=True)\naction[:] = 9", "error"),
        ("memset", "import ctypes",
         "ctypes.memset(action.ctypes.data, 1, action.nbytes)", "killed"),
        ("protects", PAGE,
         "libc.mprotect(*page(action), 3)\nctypes.memset(action.ctypes.data, 1, 64)", "killed"),
        ("interface", "", """
            class Same:
                __array_interface__ = {**action.__array_interface__,
                                       "data": (action.ctypes.data, False)}
            np.asarray(Same())[:] = 9
            """, "killed"),
        ("fill", "", "action.fill(9)", "error"),
    ]
]  # fmt: skip
REMOVED = [
    attack("values", "removes_pages", does("libc.madvise(*page(action), 9)", PAGE), "fine"),
    attack("values", "remaps_pages", does(
        "libc.mremap(*page(action), ctypes.c_size_t(1 << 20), 1)", PAGE), "fine killed"),
    attack("values", "maps_over", does(
        "libc.mmap(*page(action), 3, 0x32, -1, 0)\naction.setflags()", PAGE),
        "fine impure"),
]  # fmt: skip

LINK = """
import gc, mmap, socket, struct, time
links = [x for x in gc.get_objects() if isinstance(x, socket.socket)]
worker = next((x for x in gc.get_objects() if type(x).__name__ == "Worker"), None)

def send(message):
    for link in links:
        try:
            link.send(message)
        except OSError:
            pass  # not of this process any more

def reply(number=2, status=0, terms=1, text=b"", length=0):
    memory = worker.told
    while not isinstance(memory, mmap.mmap):
        memory = memory.base if isinstance(memory, np.ndarray) else memory.obj
    memory[worker.text_at : worker.text_at + len(text)] = text
    send(struct.pack("<QBII", number, status, terms, length or len(text)))
"""
STEALTHY = """
worker.told[:] = 0
number = 2
while True:
    before = float(action[0, 0])
    reply(number, 0, 1, b'["a"]' if number == 2 else b"")
    while action[0, 0] == before:
        pass
    now = time.perf_counter()
    while time.perf_counter() < now + 3e-4:
        pass
    number += 1
"""
FORGING = [
    attack("forging", name, does(statements, LINK), verdicts)
    for name, statements, verdicts in [
        ("answers_first", "reply(2)", "forged"),
        ("answers_ahead", "reply(3, 0, 1, b'[\"a\"]')", "forged"),
        ("answers_another", "reply(99)", "forged"),
        ("says_it_is_not_locked", "reply(2, 2, 0, b'no Landlock')", "forged error"),
        ("unknown_status", "reply(2, 200, 0, b'\\x1b[2J')", "forged error"),
        ("error_with_escapes", "reply(2, 1, 0, b'\\x1b[2J\\n\\xff' * 1000)", "error"),
        ("flood_of_answers", "for number in range(10_000):\n    reply(number)", "forged"),
        ("flood_of_one_answer", "while True:\n    reply(2)", "forged"),
        ("empty_answer", "send(b'')", "killed forged"),
        ("short_answer", "send(b'x')", "forged"),
        ("long_answer", "send(b'x' * 100_000)", "forged"),
        ("number_of_terms", "reply(2, 0, 2**32 - 1)", "forged"),
        ("length_of_text", "reply(2, 0, 1, b'', 2**32 - 1)", "forged"),
        ("no_terms_told", "reply(2, 0, 0)", "forged"),
        ("names_nested", "reply(2, 0, 1, b'[' * 10**6)", "forged"),
        ("names_deep", "reply(2, 0, 1, b'[' * 900 + b'1' + b']' * 900)", "forged"),
        ("names_of_numbers", "reply(2, 0, 1, b'[1]')", "forged"),
        ("names_long", "reply(2, 0, 1, b'[\"' + b'a' * 10**6 + b'\"]')", "forged"),
        ("names_too_many", "reply(2, 0, 1, b'[\"a\", \"b\"]')", "forged"),
        ("names_alike", "reply(2, 0, 2, b'[\"a\", \"a\"]')", "forged"),
        ("names_no_text", "reply(2, 0, 1, b'\\xff\\xfe\\x00')", "forged"),
        ("number_long", "reply(2, 0, 1, b'1' * 10**6)", "forged"),
        ("swallows_requests", "for link in links:\n    link.recv(99)", "deadline error"),
        ("sends_a_descriptor",
         "for link in links:\n    socket.send_fds(link, [b'x'], [link.fileno()])", "killed"),
        ("shuts_the_link", "for link in links:\n    link.shutdown(2)", "killed"),
        ("closes_the_link", "for link in links:\n    link.close()", "error killed"),
        ("answers_and_goes_on", "reply(2, 0, 1, b'[\"a\"]')\nwhile True: pass", "deadline"),
    ]
] + [
    attack("forging", "answers_without_reading", does(STEALTHY, LINK),
           "forged deadline killed", calls=400),
]  # fmt: skip

KEEPS = "import builtins, gc, os, signal, sys, warnings\n"
SETTINGS = [
    attack("purity", name, does(statements, KEEPS), verdicts, "trainer")
    for name, statements, verdicts in [
        ("patches_numpy", "np.sum = np.linalg.norm = lambda *given, **named: 0.0", "fine error"),
        ("patches_isfinite", "np.isfinite = lambda x: np.ones(np.shape(x), bool)", "fine"),
        ("patches_builtins", "builtins.sorted = list", "fine error"),
        ("patches_modules", "sys.modules['json'] = None", "fine"),
        ("sets_environment", "os.environ['PATH'] = '/tmp'", "fine"),
        ("sets_directory", "os.chdir('/tmp')", "killed error"),
        ("sets_umask", "os.umask(0)", "killed"),
        ("sets_seed", "np.random.seed(0)", "fine"),
        ("sets_errors", "np.seterr(all='raise')", "fine error"),
        ("sets_collection", "gc.disable()", "fine"),
        ("sets_recursion", "sys.setrecursionlimit(200)", "fine"),
        ("sets_profiler", "sys.setprofile(lambda *given: None)", "fine"),
        ("sets_path", "sys.path.insert(0, '/tmp')", "fine"),
        ("sets_filters", "warnings.simplefilter('error')", "fine"),
    ]
]

HEIGHT = "world.cube.height"
KEPT = "kept = {'n': 0, 'last': None}\n"
IMPURE = [
    attack("purity", name, does(statements, before, f"return {{'a': {expression}}}"), "impure")
    for name, before, statements, expression in [
        ("counter", KEPT, "kept['n'] += 1", f"{HEIGHT} + kept['n']"),
        ("patient_counter", KEPT, "kept['n'] += 1", f"{HEIGHT} * (kept['n'] < 3)"),
        ("running_mean", KEPT, f"kept['n'] = 0.9 * kept['n'] + {HEIGHT}.mean()",
         f"{HEIGHT} - kept['n']"),
        ("novelty", "seen = set()", "new = [x not in seen for x in map(float, action[:, 1])]\n"
         "seen.update(map(float, action[:, 1]))", "np.array(new, float)"),
        ("clock", "import time", "pass", f"{HEIGHT} + time.perf_counter() % 100"),
        ("row_index", "", "pass", f"{HEIGHT} + np.arange(len(action))"),
        ("first_row", "", "pass", f"{HEIGHT} * np.eye(1, len(action))[0]"),
        ("batch_mean", "", "pass", f"{HEIGHT} - {HEIGHT}.mean()"),
        ("batch_rank", "", "pass", f"np.argsort(np.argsort({HEIGHT}))"),
        ("batch_best", "", "pass", f"1.0 * ({HEIGHT} == {HEIGHT}.max())"),
        ("number_of_worlds", "", "pass", f"{HEIGHT} + len(action)"),
        ("neighbour", "", "pass", f"np.roll({HEIGHT}, 1)"),
        ("random", "", "pass", "np.random.normal(size=len(action))"),
        ("random_own", "rng = np.random.default_rng(0)", "pass", "rng.normal(size=len(action))"),
        ("address", "kept = []", "kept.append(object())", f"{HEIGHT} + id(kept[-1]) % 8192"),
    ]
]  # fmt: skip
UNGIVEN = [
    attack("purity", "success_flag", gives("{'a': world.success}"), "error"),
    attack("purity", "task_object", gives("{'a': world.task.success()}"), "error"),
    attack("purity", "env_by_gc", does("""
        import gc
        env = next(x for x in gc.get_objects() if hasattr(x, "terminated"))
        """), "error"),
]  # fmt: skip

SYNTAX = [
    attack("syntax", name, code, verdicts)
    for name, code, verdicts in [
        ("no_colon", "def reward(world, action, dt)\n    pass\n", "error"),
        ("indentation", "def reward(world, action, dt):\nreturn {}\n", "error"),
        ("prose", "Sure! Here is the reward function you asked for.\n", "error"),
        ("fenced", f"```python\n{does('pass')}```\n", "error"),
        ("no_text", "", "error"),
        ("nul_byte", does("x = 'a\0b'"), "error"),
        ("lone_surrogate", does("x = '\ud800'"), "fine error"),
        ("another_encoding", "# -*- coding: utf-16 -*-\n" + does("pass"), "fine error"),
        ("parentheses_5000", does(f"x = {'(' * 5000}1{')' * 5000}"), "error killed"),
        ("minus_20000", does(f"x = {'-' * 20_000}1"), "error killed"),
        ("lists_5000", f"x = {'[' * 5000}", "error killed"),
        ("sums_30000", does(f"x = {'1+' * 30_000}1"), "fine error killed"),
        ("attributes_20000", "x = y" + ".a" * 20_000, "error killed"),
        ("huge_source", f"# {'x' * 70_000}\n" + does("pass"), "too_long"),
        ("folded_power", "x = 'a' * 10**12\n" + does("pass"), "error"),
        ("no_function", "x = 1\n", "error"),
        ("another_name", does("pass").replace("def reward", "def compute_reward"), "error"),
        ("not_callable", "reward = 3\n", "error"),
        ("fewer_arguments", "def reward(world):\n    return {'a': world.cube.height}\n", "error"),
        ("no_coroutine", "async " + does("pass").strip(), "error"),
        ("generator", does("yield world", end=FINE), "error"),
        ("unknown_name", gives("{'a': torch.zeros(3)}"), "error"),
        ("unknown_module", "import isaacgym\n" + does("pass"), "error"),
        ("unknown_readout", gives("{'a': world.cube.speed}"), "error"),
        ("division", gives("{'a': action[:, 0] * (1 / 0)}"), "error"),
        ("asserts", does("assert action.shape == (1, 1)"), "error"),
    ]
]

ATTACKS = [
    *RETURNED, *WRITTEN, *REMOVED, *FORGING, *SETTINGS, *IMPURE, *UNGIVEN, *SYNTAX,
]  # fmt: skip
