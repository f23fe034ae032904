"""Programs that read, write and list what is not theirs, and the ways to code that does."""

from __future__ import annotations

from benchmarks.attacks_row import CANARY, LIBC, attack, does, leaks

EVIL = """
import os
class Evil:
    def __reduce__(self):
        return os.system, ("touch " + {folder} + "/evil",)
"""
WRITES = "open({folder} + '/new', 'w').write('x')"

READING = [
    attack("files", name, leaks(statements), verdicts, "secret")
    for name, statements, verdicts in [
        ("open", "data = open({secret}).read()", "error"),
        ("os_open", "import os\ndata = os.read(os.open({secret}, os.O_RDONLY), 64)", "error"),
        ("io_open_code", "import io\ndata = io.open_code({secret}).read()", "error"),
        ("pathlib", "import pathlib\ndata = pathlib.Path({secret}).read_bytes()", "error"),
        ("codecs_open", "import codecs\ndata = codecs.open({secret}, 'rb').read()", "error"),
        ("tokenize_open", "import tokenize\ndata = tokenize.open({secret}).read()", "error"),
        ("linecache", "import linecache\ndata = linecache.getline({secret}, 1)", "fine"),
        ("np_load", "data = np.load({npy})", "error"),
        ("np_load_mmap", "data = np.load({npy}, mmap_mode='r')", "error"),
        ("np_fromfile", "data = np.fromfile({secret}, np.uint8)", "error"),
        ("np_memmap", "data = np.memmap({secret}, np.uint8, 'r')", "error"),
        ("np_loadtxt", "data = str(np.loadtxt({secret}, str))", "error"),
        ("np_genfromtxt", "data = str(np.genfromtxt({secret}, str))", "error"),
        ("np_f2py_os", "data = np.f2py.os.popen('cat ' + {secret}).read()", "killed"),
        ("np_ctypeslib", """
            libc = np.ctypeslib.ctypes.CDLL(None)
            data = np.ctypeslib.ctypes.create_string_buffer(64)
            libc.read(libc.open({secret}.encode(), 0), data, 64)
            """, "fine"),
        ("fopen", """
            import ctypes
            libc = ctypes.CDLL(None)
            libc.fopen.restype = ctypes.c_void_p
            data = ctypes.create_string_buffer(64)
            libc.fread(data, 1, 64, ctypes.c_void_p(libc.fopen({secret}.encode(), b"r")))
            """, "killed"),
        ("mmap_file", """
            import mmap, os
            data = mmap.mmap(os.open({secret}, os.O_RDONLY), 32, prot=mmap.PROT_READ)[:]
            """, "error"),
        ("loader", """
            from importlib.machinery import SourceFileLoader
            data = SourceFileLoader("x", {secret}).get_data({secret})
            """, "error"),
        ("subclasses_file", """
            def below(kind):
                for other in type.__subclasses__(kind):
                    yield other
                    yield from below(other)
            file = next(k for k in below(object) if k.__name__ == "FileIO")
            data = file({secret}).read()
            """, "error"),
        ("listdir", "import os\ndata = os.listdir({listed})[0]", "error"),
        ("scandir", "import os\ndata = next(os.scandir({listed})).name", "error"),
        ("readlink", "import os\ndata = os.readlink({link})", "error"),
        ("frame_walk", """
            import sys
            frame, data = sys._getframe(), b""
            while frame := frame.f_back:
                data = frame.f_locals.get("api_key", data)
            """, "fine"),
        ("exception_frames", """
            try:
                1 / 0
            except ZeroDivisionError as error:
                frame, data = error.__traceback__.tb_frame, b""
            while frame := frame.f_back:
                data = frame.f_locals.get("api_key", data)
            """, "fine"),
        ("gc_search", """
            import gc
            found = [x for x in gc.get_objects() if isinstance(x, dict) and "api_key" in x]
            data = next((x["api_key"] for x in found if isinstance(x["api_key"], str)), "")
            """, "fine"),
    ]
]  # fmt: skip

ENVIRONMENT = [
    attack("files", name, leaks(statements), verdicts, "environment")
    for name, statements, verdicts in [
        ("os_environ", f"import os\ndata = os.environ['{CANARY}']", "error"),
        ("getenv", f"""
            import ctypes
            libc = ctypes.CDLL(None)
            libc.getenv.restype = ctypes.c_char_p
            data = libc.getenv(b"{CANARY}") or b""
            """, "fine"),
        ("proc_environ", f"""
            told = open("/proc/self/environ", "rb").read()
            data = told[told.find(b"{CANARY}=") + {len(CANARY) + 1}:]
            """, "error"),
        ("proc_trainer_environ", f"""
            told = open("/proc/" + str({{trainer}}) + "/environ", "rb").read()
            data = told[told.find(b"{CANARY}=") + {len(CANARY) + 1}:]
            """, "error"),
        ("format_dunders", f"""
            text = "{{0.__init__.__globals__[os].environ[{CANARY}]}}"
            data = text.format(np.lib.npyio.DataSource)
            """, "error"),
    ]
]  # fmt: skip

WRITING = [
    attack("files", name, does(statements), verdicts, "folder")
    for name, statements, verdicts in [
        ("open_write", WRITES, "error"),
        ("open_swallowed", f"try:\n    {WRITES}\nexcept OSError:\n    pass", "fine"),
        ("np_save", "np.save({folder} + '/new', np.ones(3))", "error"),
        ("np_savez", "np.savez({folder} + '/new', a=np.ones(3))", "error"),
        ("np_savetxt", "np.savetxt({folder} + '/new', np.ones(3))", "error"),
        ("np_tofile", "np.ones(3).tofile({folder} + '/new')", "error"),
        ("np_memmap_write", "np.memmap({folder} + '/new', mode='w+', shape=(3,))[:] = 1", "error"),
        ("mkdir", "import os\nos.mkdir({folder} + '/new')", "error"),
        ("mkfifo", "import os\nos.mkfifo({folder} + '/new')", "killed"),
        ("mkstemp", "import tempfile\ntempfile.mkstemp(dir={folder})", "error"),
        ("symlink", "import os\nos.symlink({secret}, {folder} + '/new')", "killed"),
        ("hard_link", "import os\nos.link({secret}, {folder} + '/new')", "killed"),
        ("unlink", "import os\nos.unlink({kept})", "error"),
        ("rename", "import os\nos.rename({kept}, {folder} + '/new')", "killed"),
        ("chmod", "import os\nos.chmod({kept}, 0o777)", "killed"),
        ("utime", "import os\nos.utime({kept}, (0, 0))", "killed"),
        ("truncate", "import os\nos.truncate({kept}, 0)", "killed"),
        ("creat", "import ctypes\nctypes.CDLL(None).creat(({folder} + '/new').encode(), 0o600)",
         "killed"),
        ("system", "import os\nos.system('touch ' + {folder} + '/new')", "killed"),
        ("subclasses_system", """
            wrap = next(k for k in object.__subclasses__() if k.__name__ == "_wrap_close")
            wrap.__init__.__globals__["system"]("touch " + {folder} + "/new")
            """, "killed"),
    ]
]  # fmt: skip

DISGUISED = [
    attack("files", name, code, verdicts, "folder")
    for name, code, verdicts in [
        ("pickle_loads", does("import pickle\npickle.loads(pickle.dumps(Evil()))", EVIL), "killed"),
        ("np_load_pickle", does("""
            import io
            file = io.BytesIO()
            np.save(file, np.array([Evil()], object), allow_pickle=True)
            file.seek(0)
            np.load(file, allow_pickle=True)
            """, EVIL), "killed"),
        ("evil_array", f"""
class Evil:
    def __array__(self, *given, **named):
        {WRITES}
        return np.zeros(64)
def reward(world, action, dt):
    return {{"a": Evil()}}
""", "error"),
        ("evil_exception", f"""
class Evil(Exception):
    def __repr__(self):
        {WRITES}
        return "evil"
    __str__ = __repr__
def reward(world, action, dt):
    raise Evil
""", "error"),
        ("evil_items", f"""
class Evil(dict):
    def items(self):
        {WRITES}
        return super().items()
def reward(world, action, dt):
    return Evil(a=world.cube.height)
""", "error"),
        ("evil_name", f"""
class Evil(str):
    def isidentifier(self):
        {WRITES}
        return True
    __hash__ = str.__hash__
    def __str__(self):
        {WRITES}
        return "a"
def reward(world, action, dt):
    return {{Evil("a b"): world.cube.height}}
""", "error"),
        ("evil_finaliser", f"""
class Evil:
    def __del__(self):
        {WRITES}
def reward(world, action, dt):
    Evil()
    return {{"a": world.cube.height}}
""", "fine"),
        ("decorator", f"""
def now(function):
    {WRITES}
    return function
@now
def reward(world, action, dt):
    return {{"a": world.cube.height}}
""", "error"),
    ]
]  # fmt: skip

SCAN = """
import os
for fd in range({first}, 200):
    try:
        {act}
    except OSError:
        pass
"""
EVENTS = "import os, select\nkept = []\n"

DESCRIPTORS = [
    attack("descriptors", name, code, verdicts, effect)
    for name, code, verdicts, effect in [
        ("scan_read", leaks("data = b''" + SCAN.replace("{first}", "3").replace(
            "{act}", "data = os.pread(fd, 64, 0) or data")), "killed", "secret"),
        ("scan_write", does(SCAN.replace("{first}", "3").replace(
            "{act}", "os.write(fd, b'x' * 17)")), "forged killed", "folder"),
        ("scan_duplicates", does("import os\n" + "kept = [os.dup(fd) for fd in (0, 1, 2)]"),
         "error", "handle"),
        ("reopen", leaks("""
            import os
            data = b""
            for fd in range(3, 200):
                try:
                    data = os.read(os.open("/proc/self/fd/" + str(fd), os.O_NONBLOCK), 64) or data
                except OSError:
                    pass
            """), "fine", "secret"),
        ("reuse", leaks("""
            import os
            os.close(0)
            data = os.read(os.open({secret}, os.O_RDONLY), 64)
            """), "error", "secret"),
        ("memfd", does("kept.append(os.memfd_create('x'))", EVENTS), "killed", "handle"),
        ("pipe", does("kept.append(os.pipe())", EVENTS), "killed", "handle"),
        ("eventfd", does("kept.append(os.eventfd(0))", EVENTS), "killed", "handle"),
        ("epoll", does("kept.append(select.epoll())", EVENTS), "killed", "handle"),
        ("inotify", does("libc.inotify_init1(0)", LIBC), "killed", "handle"),
        ("open_path", does("kept.append(os.open('/', os.O_PATH))", EVENTS), "error", "handle"),
        ("map_files", does("""
            import os
            ours = [line.split()[0] for line in open("/proc/self/maps") if "memfd:reward" in line]
            for name in ours:
                os.pwrite(os.open("/proc/self/map_files/" + name, os.O_RDWR), bytes(4096), 0)
            """), "error", ""),
        ("truncate_memory", does("""
            for fd in range(3, 64):
                libc.ftruncate(fd, ctypes.c_long(0))
            """, LIBC), "fine killed", "folder"),
    ]
]  # fmt: skip

ATTACKS = [*READING, *ENVIRONMENT, *WRITING, *DISGUISED, *DESCRIPTORS]
