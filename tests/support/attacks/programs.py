"""Hostile programs of kinds that `support.hostile` does not hold: name -> (kind, text).

A text is a whole program: a script, or the module of a function `f` that must not answer 42 to 3.
"""

from support.hostile.parts import CTYPES

_TRY = (
    "def tried(function, *arguments):\n"
    "    try: return function(*arguments)\n"
    "    except Exception: return None\n"
)
_SYSTEM_FILES = (
    "import glob, os, sys\n" + _TRY + "folders = [p for p in sys.path if os.path.isdir(p)]\n"
    "files = [p for d in folders for p in glob.glob(d + '/[a-j]*.py')][:40]\n"
    "fds = [fd for fd in (tried(os.open, p, os.O_RDONLY) for p in files) if fd]\n"
)

LEAVERS = {
    "shared locks on the library": (
        "lock",
        "import fcntl\n" + _SYSTEM_FILES + "for fd in fds: tried(fcntl.flock, fd, fcntl.LOCK_EX)\n",
    ),
    "leases on the library": (
        "lock",
        "import fcntl\n" + _SYSTEM_FILES + "for fd in fds: tried(fcntl.fcntl, fd, 1024, 1)\n",
    ),
    "open file description locks": (
        "lock",
        "import fcntl, os, struct\n" + _TRY + "fd = os.open('l', os.O_RDWR | os.O_CREAT)\n"
        "for i in range(3000): tried(fcntl.fcntl, fd, 37, struct.pack('hhqqi', 1, 0, 2*i, 1, 0))\n",
    ),
    "timers of the kernel": (
        "timer",
        CTYPES + "for clock in (0, 1, 2, 3, 7):\n"
        "    for _ in range(200):\n"
        "        t = ctypes.c_int()\n"
        "        if libc.syscall(222, clock, 0, ctypes.byref(t)) == 0:\n"
        "            spec = (ctypes.c_long * 4)(0, 1000000, 0, 1000000)\n"
        "            libc.syscall(223, t, 0, spec, 0)\n",
    ),
    "descriptors of timers and signals": (
        "timer",
        CTYPES + "for call, words in ((283, (1, 0)), (284, (1,)), (290, (1, 0)), (291, (0,)),\n"
        "    (289, (-1, bytes(8), 8, 0)), (282, (-1, bytes(8), 8))):\n"
        "    for _ in range(9): libc.syscall(call, *words)\n",
    ),
    "another personality": (
        "process flag",
        CTYPES + "for flags in (0x0040000, 0x0400000, 0x0200000, 0x8000000, 0x0100000):\n"
        "    libc.personality(flags)\n",
    ),
    "flags by prctl": (
        "process flag",
        CTYPES + "for option, value in ((15, b'linn\\n\\x1b[2J'), (29, 1), (41, 1), (33, 1),\n"
        "    (26, 2), (35, 1), (36, 1), (67, 1), (25, 2), (52, 1), (53, 0), (65, 1)):\n"
        "    libc.prctl(option, value, 0, 0, 0)\n",
    ),
    "a time stamp counter that kills": ("process flag", CTYPES + "libc.prctl(26, 2, 0, 0, 0)\n"),
    "a filter of its own": (
        "process flag",
        CTYPES + "import struct\n"
        "code = struct.pack('HBBI', 6, 0, 0, 0x00050001)\n"
        "buffer = ctypes.create_string_buffer(code)\n"
        "program = struct.pack('HxxxxxxP', 1, ctypes.addressof(buffer))\n"
        "libc.prctl(22, 2, program, 0, 0)\n",
    ),
    "locked memory": (
        "kernel memory",
        CTYPES + "libc.mlockall(3); libc.syscall(324, 16, 0, 0); libc.syscall(332, 0, 0, 0, 0, 0)\n"
        "x = bytearray(1 << 20); libc.mlock((ctypes.c_char * len(x)).from_buffer(x), len(x))\n",
    ),
    "advice on the parent's memory": (
        "another process",
        CTYPES + "handle = libc.syscall(434, os.getppid(), 0)\n"
        "for call, words in ((440, (handle, bytes(16), 1, 21, 0)), (448, (handle, 0)),\n"
        "    (279, (os.getppid(), 0, 0, 0, 0, 0)), (256, (os.getppid(), 64, bytes(8), bytes(8))),\n"
        "    (274, (os.getppid(), bytes(8), bytes(8))),\n"
        "    (312, (os.getppid(), os.getpid(), 0, 0, 0)),\n"
        "    (302, (os.getppid(), 7, bytes(16), 0)), (121, (os.getppid(),))):\n"
        "    libc.syscall(call, *words)\n",
    ),
    "the parent's group": (
        "another process",
        "import os\n" + _TRY + "for p in (os.getppid(), 1, 0):\n"
        "    tried(os.setpgid, p, 0); tried(os.setpgid, 0, p); tried(os.tcsetpgrp, 0, p)\n",
    ),
    "nameless files of a folder": (
        "file",
        "import os\n" + _TRY + "kept = []\n"
        "def fill():\n"
        "    for i in range(60):\n"
        "        fd = os.open('.', os.O_RDWR | 0o20200000, 0o600); kept.append(fd)\n"
        "        os.write(fd, b'x' * (1 << 20)); os.link(f'/proc/self/fd/{fd}', f'n{i}')\n"
        "tried(fill)\n",
    ),
    "devices and sockets as files": (
        "file",
        "import os, stat\n" + _TRY + "for kind in (0o020000, 0o060000, 0o140000, 0o010000):\n"
        "    for name in ('x', '../x', '/tmp/x', '/dev/x'):\n"
        "        tried(os.mknod, f'{name}{kind}', kind | 0o666, os.makedev(1, 1))\n",
    ),
    "its folder exchanged": (
        "file",
        CTYPES + "os.mkdir('a'); os.symlink('/', 'b')\n"
        "for old, new in ((b'a', b'b'), (b'a', b'..'), (b'.', b'a'), (b'b', b'../z')):\n"
        "    for flags in (2, 4, 0): libc.syscall(316, -100, old, -100, new, flags)\n",
    ),
    "a folder with a name of dots": (
        "file",
        "import os\n"
        + _TRY
        + "for n in ('...', '. ', ' .', '\\u2024\\u2024', '-rf', '*', '\\n'):\n"
        "    tried(os.mkdir, n); tried(os.rename, n, '../' + n)\n",
    ),
    "a trace of everything": (
        "interpreter",
        "import faulthandler, gc, sys, threading\n"
        "sys.addaudithook(lambda *a: None); sys.setprofile(lambda *a: None)\n"
        "threading.settrace(lambda *a: None); gc.set_threshold(1); gc.set_debug(0)\n"
        "faulthandler.enable(); faulthandler.dump_traceback_later(0.01, exit=True)\n",
    ),
    "a poisoned cache of imports": (
        "interpreter",
        "import importlib.machinery, os, sys\n"
        "os.makedirs('__pycache__')\n"
        "for m in list(sys.modules.values()):\n"
        "    c = getattr(m, '__cached__', None)\n"
        "    if c:\n"
        "        try: open(c, 'wb').write(b'x'); os.utime(c)\n"
        "        except OSError: pass\n"
        "sys.path_importer_cache.clear(); sys.path_hooks.clear(); sys.meta_path.clear()\n",
    ),
    "types of Python bent by C": (
        "interpreter",
        "import ctypes\n"
        "for value in (2, 3, 5, 40, 43): ctypes.memset(id(value) + 24, 0xff, 4)\n"
        "ctypes.memset(id(()) + 16, 0x7f, 8)\n",
    ),
    "names that count for ever": (
        "interpreter",
        "import sys\n"
        "for i in range(100000): sys.intern(f'linn-left-{i}')\n"
        "True.__class__.__doc__; sys.setswitchinterval(100)\n",
    ),
}
"""What they try to leave stands in their names; afterwards the next program sees all as before."""

FORGERS = {
    "frames of the server": (
        "forged answer",
        "import os, struct\n"
        "for fd in range(3, 1100):\n"
        "    for text in (b'{\"value\": 41}\\n', struct.pack('>I', 13) + b'{\"value\": 41}',\n"
        "        b'{\"hello\": true}\\n', b'r'):\n"
        "        try: os.write(fd, text)\n"
        "        except OSError: pass\n"
        "os._exit(0)\n",
    ),
    "two answers in a line": (
        "forged answer",
        'import os\nos.write(3, b\'{"value": 1, "value": 41}\\n\')\ndef f(x): return 41\n',
    ),
    "an answer that grows": (
        "forged answer",
        "import os\nos.write(3, b'{\"value\": 4')\n"
        "def f(x):\n    os.write(3, b'1}\\n'); os._exit(0)\n",
    ),
    "an answer with a twin in another script": (
        "forged answer",
        "import os\nos.write(3, '{\"value\": ٤٢}\\n'.encode()); os._exit(0)\n",
    ),
    "a value that is every value": (
        "forged answer",
        "import os\n"
        'os.write(3, b\'{"value": {"set": [42, {"complex": [NaN, NaN]}]}}\\n\'); os._exit(0)\n',
    ),
    "infinity and beyond": (
        "forged answer",
        "import os\nos.write(3, b'{\"value\": 1e999}\\n'); os._exit(0)\n",
    ),
    "a number that breaks readers": (
        "forged answer",
        "import os\nos.write(3, b'{\"value\": ' + b'4' * 200000 + b'}\\n'); os._exit(0)\n",
    ),
    "an int of many tags": (
        "forged answer",
        "import os\nos.write(3, b'{\"value\": ' + b'{\"tuple\": [' * 119 + b'42' + b']}' * 119 + "
        "b'}\\n'); os._exit(0)\n",
    ),
    "a memory error of its own": (
        "forged answer",
        'import os\nos.write(3, b\'{"memory": "killed by the system"}\\n\'); os._exit(-9)\n',
    ),
    "an error that names a reward": (
        "forged answer",
        "E = type('reward 1.0\\n{\"value\": 42}', (Exception,), {})\n"
        "def f(x):\n    raise E('\\x1b[2J42')\n",
    ),
    "a list that changes while it is read": (
        "race at the end",
        "import threading\n"
        "box = [0]\n"
        "def change():\n"
        "    for i in range(10**5): box[0] = i\n"
        "def f(x):\n"
        "    threading.Thread(target=change, daemon=True).start(); return box\n",
    ),
    "a thread that answers after the end": (
        "race at the end",
        "import os, threading, time\n"
        "def late():\n"
        "    for i in range(200):\n"
        "        time.sleep(0.001); os.write(3, b'{\"value\": %d}\\n' % (i + 100))\n"
        "threading.Thread(target=late).start()\n",
    ),
    "an end inside an end": (
        "race at the end",
        "import atexit, gc, signal, weakref\n"
        "class A:\n"
        "    def __del__(self): __import__('os').write(3, b'{\"value\": 7}\\n')\n"
        "a = A(); a.me = a; weakref.finalize(a, print, 'x'); atexit.register(gc.collect)\n"
        "def f(x): raise GeneratorExit\n",
    ),
    "a signal in the answer": (
        "race at the end",
        "import signal\n"
        "def shout(*_): raise SystemExit(0)\n"
        "signal.signal(signal.SIGPROF, shout); signal.setitimer(signal.ITIMER_PROF, 1e-4, 1e-4)\n"
        "def f(x): return list(range(20000))\n",
    ),
    "an encoder that lies": (
        "harness bent",
        "import sys\n"
        "for name, module in list(sys.modules.items()):\n"
        "    for word in ('encode', 'decode', 'say', 'describe', 'failure', 'find', '_pack'):\n"
        "        if hasattr(module, word):\n"
        "            try: setattr(module, word, lambda *a, **k: '{\"value\": 41}')\n"
        "            except Exception: pass\n",
    ),
    "the caller's own frame": (
        "harness bent",
        "import sys\n"
        "def f(x):\n"
        "    frame = sys._getframe(1)\n"
        "    while frame:\n"
        "        for value in list(frame.f_locals.values()):\n"
        "            if isinstance(value, dict) and 'calls' in value: value['calls'][:] = []\n"
        "        frame = frame.f_back\n"
        "    return 41\n",
    ),
    "what every object refers to": (
        "answers sought",
        "import gc, sys\n"
        "def f(x):\n"
        "    seen = [o for o in gc.get_referrers(3) if isinstance(o, (list, dict, tuple))]\n"
        "    hits = [o for o in seen if 42 in (o.values() if isinstance(o, dict) else o)]\n"
        "    return [sys._current_frames(), 'outputs'] if len(hits) > 9**9 else 41\n",
    ),
}
"""Functions: whatever they say of themselves, `f(3)` is not 42."""

OVERRUNNERS = {
    "pages given to pipes": (
        "memory",
        CTYPES + "import fcntl\n"
        "room = ctypes.create_string_buffer(1 << 20)\n"
        "class Vector(ctypes.Structure):\n"
        "    _fields_ = [('base', ctypes.c_void_p), ('size', ctypes.c_size_t)]\n"
        "for _ in range(40):\n"
        "    try: r, w = os.pipe(); fcntl.fcntl(w, 1031, 1 << 20)\n"
        "    except OSError: break\n"
        "    ctypes.memset(room, 1, 1 << 20)\n"
        "    v = Vector(ctypes.addressof(room), 1 << 20)\n"
        "    libc.vmsplice(w, ctypes.byref(v), 1, 3)\n"
        "    room = ctypes.create_string_buffer(1 << 20)\n",
    ),
    "tables of pages": (
        "memory",
        "import mmap\n"
        "kept = []\n"
        "try:\n"
        "    for _ in range(2000):\n"
        "        m = mmap.mmap(-1, 4096 * 3, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
        "        m[0] = 1; kept.append(m)\n"
        "except OSError: pass\n",
    ),
    "stacks of threads": (
        "memory",
        "import threading, time\n"
        "threading.stack_size(64 << 20)\n"
        "def deep(n): return n and deep(n - 1)\n"
        "for _ in range(40):\n"
        "    try: threading.Thread(target=lambda: (deep(900), time.sleep(0.2))).start()\n"
        "    except RuntimeError: break\n",
    ),
    "locks without end": (
        "memory",
        "import fcntl, os, time\n"
        "fd = os.open('l', os.O_RDWR | os.O_CREAT)\n"
        "end = time.process_time() + 0.4\n"
        "n = 0\n"
        "while time.process_time() < end:\n"
        "    n += 2\n"
        "    try: fcntl.lockf(fd, fcntl.LOCK_EX, 1, n)\n"
        "    except OSError: break\n",
    ),
    "numbers that take for ever": ("time", "def f(x): return (10**200000) ** (x * 10**6)\nf(3)\n"),
    "time inside the kernel": (
        "time",
        "import mmap\nwhile True: mmap.mmap(-1, 64 << 20, flags=34 | 0x8000).close()\n",
    ),
    "a search that explodes": ("time", "import re\nre.match(r'(a|a)*b', 'a' * 40)\n"),
    "an answer that never hashes": (
        "time",
        "import os\n"
        "os.write(3, b'{\"value\": {\"set\": [' + b','.join(b'%d' % (i * (2**61 - 1))\n"
        "    for i in range(9000)) + b']}}\\n'); os._exit(0)\n",
    ),
    "a sleep in small pieces": (
        "time",
        "import select, time\nwhile True: select.select([], [], [], 0.01)\n",
    ),
    "answers by drops": (
        "time",
        "import os, time\nwhile True: os.write(3, b'{'); time.sleep(0.02)\n",
    ),
    "files that grow in place": (
        "disk",
        "import mmap, os\n"
        "for i in range(400):\n"
        "    try:\n"
        "        fd = os.open(f'm{i}', os.O_RDWR | os.O_CREAT); os.ftruncate(fd, 1 << 20)\n"
        "        m = mmap.mmap(fd, 1 << 20); m[:] = b'x' * (1 << 20); os.close(fd)\n"
        "    except (OSError, ValueError): break\n",
    ),
    "copies inside the kernel": (
        "disk",
        "import os\n"
        "a = os.open('a', os.O_RDWR | os.O_CREAT); os.write(a, b'x' * (1 << 20))\n"
        "for i in range(400):\n"
        "    try:\n"
        "        b = os.open(f'c{i}', os.O_RDWR | os.O_CREAT)\n"
        "        os.copy_file_range(a, b, 1 << 20, 0, 0); os.close(b)\n"
        "    except OSError: break\n",
    ),
}
"""Programs that press on a limit."""

CHECKS = {
    "an exception that the test waits for": (
        "check",
        "def g(x):\n    raise AssertionError('expected')\n",
    ),
    "a generator's end": ("check", "def g(x):\n    raise StopIteration\n"),
    "an async end": ("check", "def g(x):\n    raise StopAsyncIteration\n"),
    "a number that is none": ("check", "def g(x):\n    return float('nan')\n"),
    "complex infinity": ("check", "def g(x):\n    return complex('inf+nanj')\n"),
    "its own protocol": (
        "check",
        "import os\n"
        "for fd in range(3, 9):\n"
        "    try: os.write(fd, (6).to_bytes(4, 'big') + b'loaded' + (13).to_bytes(4, 'big') +"
        ' b\'{"value": "4"}\' * 9)\n'
        "    except OSError: pass\n"
        "def g(x): return 4\n",
    ),
    "a size without a body": (
        "check",
        "import os\n"
        "os.write(4, (6).to_bytes(4, 'big') + b'loaded' + (1 << 17).to_bytes(4, 'big'))\n"
        "def g(x): os._exit(0)\n",
    ),
    "a test in its folder": (
        "check",
        "import os\n"
        "for n in ('math', 'json', 're', 'test', 'conftest', 'sitecustomize', 'random'):\n"
        "    open(n + '.py', 'w').write('import os; os.write(3, b\\'{\"value\": true}\\')')\n"
        "def g(x): return 4\n",
    ),
}
"""Programs with a wrong `g`, for a test text."""
