"""Programs that reach for other processes, the network and the kernel.

What would go on by itself ends within seconds: they also run where nothing stops them. System calls
without a name in libc have the numbers of x86-64.
"""

from __future__ import annotations

from benchmarks.attacks_row import LIBC, attack, does, leaks

SLEEP = "os.execv('/bin/sleep', ['sleep', '5'])"
SOCKET = "import socket\nkept = []\n"
VECTORS = """
class Vector(ctypes.Structure):
    _fields_ = [("at", ctypes.c_void_p), ("size", ctypes.c_size_t)]
ours = ctypes.create_string_buffer(b"x" * 32, 32)
local, remote = Vector(ctypes.addressof(ours), 32), Vector({address}, 32)
"""

STARTING = [
    attack("processes", name, does(statements, before), verdicts, "process")
    for name, before, statements, verdicts in [
        ("fork", "import os", f"if os.fork() == 0:\n    {SLEEP}", "killed"),
        ("fork_bomb", "import os", f"""
            for _ in range(3):
                if os.fork() == 0:
                    {SLEEP}
            """, "killed"),
        ("daemon", "import os", f"""
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    {SLEEP}
                os._exit(0)
            """, "killed"),
        ("libc_fork", LIBC + "import os", f"if libc.fork() == 0:\n    {SLEEP}", "killed"),
        ("clone3", LIBC + "import os, struct", f"""
            arguments = struct.pack("11Q", 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)
            if libc.syscall(435, arguments, ctypes.c_size_t(88)) == 0:
                {SLEEP}
            """, "killed"),
        ("posix_spawn", "import os", "os.posix_spawn('/bin/sleep', ['sleep', '5'], {})", "killed"),
        ("subprocess", "import subprocess", "subprocess.Popen(['/bin/sleep', '5'])",
         "error killed"),
        ("thread", "import threading, time",
         "threading.Thread(target=time.sleep, args=(5,), daemon=True).start()", "killed"),
        ("raw_thread", "import _thread, time",
         "_thread.start_new_thread(time.sleep, (5,))", "killed"),
    ]
]  # fmt: skip

OTHERS = [
    attack("processes", name, does(statements, LIBC + "import os, signal"), verdicts, effect)
    for name, statements, verdicts, effect in [
        ("kill", "os.kill({victim}, signal.SIGKILL)", "killed", "victim"),
        ("kill_group", "os.kill(-{victim}, signal.SIGTERM)", "killed", "victim"),
        ("stop", "os.kill({victim}, signal.SIGSTOP)", "killed", "victim"),
        ("tgkill", "libc.syscall(234, {victim}, {victim}, 9)", "killed", "victim"),
        ("sigqueue", "libc.sigqueue({victim}, 9, None)", "killed", "victim"),
        ("pidfd_signal", "signal.pidfd_send_signal(os.pidfd_open({victim}), 9)", "killed",
         "victim"),
        ("signal_of_a_pipe", """
            import fcntl
            ours, theirs = os.pipe()
            fcntl.fcntl(ours, fcntl.F_SETOWN, {victim})
            fcntl.fcntl(ours, fcntl.F_SETFL, os.O_ASYNC)
            os.write(theirs, b"x")
            """, "killed", "victim"),
        ("ptrace", "libc.ptrace(16, {victim}, 0, 0)", "killed", "victim"),
        ("priority", "os.setpriority(os.PRIO_PROCESS, {victim}, 19)", "killed", "victim"),
        ("limit", "import resource\nresource.prlimit({victim}, resource.RLIMIT_NOFILE, (3, 3))",
         "error", "victim"),
        ("scheduler", "os.sched_setscheduler({victim}, os.SCHED_BATCH, os.sched_param(0))",
         "killed", "victim"),
        ("write_memory", VECTORS + """
libc.process_vm_writev({victim}, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
            """, "killed", "victim"),
        ("handler", "signal.signal(signal.SIGINT, signal.SIG_IGN)", "error", "trainer"),
        ("alarm", "signal.setitimer(signal.ITIMER_REAL, 0.01)\nfor _ in range(10**8): pass",
         "killed", "crash"),
        ("terminate_itself", "os.kill(os.getpid(), signal.SIGKILL)", "killed", "crash"),
        ("execve", "os.execv('/bin/true', ['true'])", "killed", "crash"),
        ("exit_0", "os._exit(0)", "killed", "crash"),
        ("exit_by_libc", "libc.exit(0)", "killed", "crash"),
        ("system_exit", "raise SystemExit", "error", "crash"),
        ("keyboard_interrupt", "raise KeyboardInterrupt", "error", "crash"),
        ("abort", "os.abort()", "killed", "crash"),
    ]
]  # fmt: skip

PARENT = attack(
    "processes", "kill_parent",
    does("os.kill(parent, signal.SIGKILL)", "import os, signal\nparent = os.getppid()"),
    "error killed", "parent",
)  # fmt: skip
"""Once, and never the one that comes after."""
PEEKING = [
    attack("processes", name, leaks(statements, before), verdicts, "secret")
    for name, before, statements, verdicts in [
        ("read_memory", LIBC, VECTORS + """
libc.process_vm_readv({victim}, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
data = ours
            """, "killed"),
        ("proc_memory", "import os", """
            data = os.pread(os.open("/proc/" + str({victim}) + "/mem", 0), 32, {address})
            """, "error"),
        ("pidfd_getfd", LIBC + "import os", """
            data = os.pread(libc.syscall(438, os.pidfd_open({victim}), {handle}, 0), 64, 0)
            """, "killed"),
        ("proc_fd", "", "data = open('/proc/' + str({victim}) + '/fd/' + str({handle})).read()",
         "error"),
    ]
]  # fmt: skip

NETWORK = [
    attack("network", name, does(statements, SOCKET), verdicts, effect)
    for name, statements, verdicts, effect in [
        ("tcp", "kept.append(socket.create_connection(('127.0.0.1', {tcp}), 1))",
         "error killed", "tcp"),
        ("tcp_raw", """
            kept.append(socket.socket())
            kept[-1].connect(("127.0.0.1", {tcp}))
            """, "killed", "tcp"),
        ("tcp_fast_open", """
            kept.append(socket.socket())
            kept[-1].sendto(b"x", 0x20000000, ("127.0.0.1", {tcp}))
            """, "killed", "tcp"),
        ("tcp_multipath", """
            kept.append(socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262))
            kept[-1].connect(("127.0.0.1", {tcp}))
            """, "killed", "tcp"),
        ("np_genfromtxt_url", "np.genfromtxt('http://127.0.0.1:' + str({tcp}) + '/')",
         "error killed", "tcp"),
        ("np_datasource", "np.lib.npyio.DataSource(None).open('http://127.0.0.1:' + str({tcp}))",
         "error killed", "tcp"),
        ("urlopen", "import urllib.request\n"
         "urllib.request.urlopen('http://127.0.0.1:' + str({tcp}), timeout=0.1)",
         "error killed", "tcp"),
        ("udp", """
            kept.append(socket.socket(type=socket.SOCK_DGRAM))
            kept[-1].sendto(b"x", ("127.0.0.1", {udp}))
            """, "killed", "udp"),
        ("udp_question", """
            kept.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            question = bytes([0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 97, 2, 97, 97, 0, 0, 16, 0, 1])
            kept[-1].connect(("127.0.0.1", {udp}))
            kept[-1].send(question)
            """, "killed", "udp"),
        ("unix_abstract", """
            kept.append(socket.socket(socket.AF_UNIX))
            kept[-1].connect({unix})
            """, "killed", "unix"),
        ("unix_path", """
            kept.append(socket.socket(socket.AF_UNIX))
            kept[-1].connect({path})
            """, "killed", "unix"),
        ("listen", "kept.append(socket.create_server(('127.0.0.1', 0)))", "killed", "handle"),
        ("socketpair", "kept.append(socket.socketpair())", "killed", "handle"),
        ("netlink", "kept.append(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))", "killed",
         "handle"),
    ]
]  # fmt: skip

PERF = "import ctypes, struct\nlibc = ctypes.CDLL(None)\n"
KERNEL = [
    attack("kernel", name, does(statements, before), verdicts, effect)
    for name, before, statements, verdicts, effect in [
        ("executable_map", "import mmap\nkept = []", "kept.append(mmap.mmap(-1, 4096, prot=7))",
         "killed", "code"),
        ("executable_protect", LIBC + "import mmap\nkept = mmap.mmap(-1, 4096)", """
            at = ctypes.addressof(ctypes.c_char.from_buffer(kept))
            libc.mprotect(ctypes.c_void_p(at), ctypes.c_size_t(4096), 5)
            """, "killed", "code"),
        ("executable_by_key", LIBC + "import mmap\nkept = mmap.mmap(-1, 4096)", """
            at = ctypes.addressof(ctypes.c_char.from_buffer(kept))
            libc.syscall(329, ctypes.c_void_p(at), ctypes.c_size_t(4096), 7, -1)
            """, "killed", "code"),
        ("personality", LIBC + "import mmap\nkept = []", """
            libc.personality(ctypes.c_ulong(0x0400000))
            kept.append(mmap.mmap(-1, 4096))
            """, "killed", "code"),
        ("io_uring", LIBC, "libc.syscall(425, 1, ctypes.create_string_buffer(120))", "killed",
         "handle"),
        ("bpf", LIBC + "import struct",
         "libc.syscall(321, 0, struct.pack('5I', 2, 4, 4, 1, 0).ljust(72, b'\\0'), 72)", "killed",
         "handle"),
        ("userfaultfd", LIBC, "libc.syscall(323, 1)", "killed", "handle"),
        ("perf", PERF, """
            about = struct.pack("IIQQQQQ", 1, 64, 0, 0, 0, 0, 1 << 5 | 1 << 6).ljust(64, b"\\0")
            libc.syscall(298, about, 0, -1, -1, ctypes.c_ulong(0))
            """, "killed", "handle"),
        ("landlock_rules", LIBC, "libc.syscall(444, ctypes.c_uint64(1), ctypes.c_size_t(8), 0)",
         "fine killed", ""),
        ("unshare_user", LIBC, "libc.unshare(0x10000000)", "killed", "namespace"),
        ("unshare_network", LIBC, "libc.unshare(0x10000000 | 0x40000000)", "killed", "namespace"),
        ("own_filter", LIBC, "libc.prctl(22, 1, 0, 0, 0)", "killed", "crash"),
        ("x32_numbers", LIBC, "libc.syscall(0x40000000 + 39)", "killed", ""),
        ("shm_open", LIBC, "libc.shm_open({name}.encode(), 0o102, 0o600)", "error fine killed",
         "shared"),
        ("shared_memory", "from multiprocessing import resource_tracker, shared_memory\n"
         "resource_tracker.register = lambda *given: None\nkept = []",
         "kept.append(shared_memory.SharedMemory({name}, True, 4096))", "error killed",
         "shared"),
        ("shmget", LIBC, "libc.shmget({key}, ctypes.c_size_t(4096), 0o1600)", "killed", "shared"),
        ("semget", LIBC, "libc.semget({key}, 1, 0o1600)", "killed", "shared"),
        ("msgget", LIBC, "libc.msgget({key}, 0o1600)", "killed", "shared"),
    ]
]  # fmt: skip

ATTACKS = [*STARTING, *OTHERS, PARENT, *PEEKING, *NETWORK, *KERNEL]
