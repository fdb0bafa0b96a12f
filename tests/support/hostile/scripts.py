"""Scripts: what they print is compared with SECRET, which they must not get hold of."""

_HUNT = (
    "import re\n"
    "found = lambda data: "
    "[print(t.decode()) for t in re.findall(rb'hidden-\\d{4}-answer', data)]\n"
)
SCRIPTS = {
    "nothing": "pass",
    "exit": "import os\nos._exit(0)",
    "sys.exit": "import sys\nsys.exit(0)",
    "exit with a claim": "import sys\nsys.exit('passed')",
    "loop": "while True: pass",
    "sleep": "import time\ntime.sleep(1000)",
    "flood": "while True: print('x' * 1000)",
    "flood of errors": "import sys\nwhile True: sys.stderr.write('x' * 1000)",
    "flood of lines": "import sys\nsys.stdout.write('\\n' * 10**7)",
    "flood of both": "import os\nwhile True: os.write(1, b'x'); os.write(2, b'x')",
    "claims": (
        "print('ok'); print('passed'); print('{\"reward\": 1.0}'); print('{\"value\": true}')"
    ),
    "forged channel": (
        "import os\n"
        "for fd in range(3, 64):\n"
        '    try: os.write(fd, b\'{"value": true}\\n{"ending": "ended", "code": 0}\\n\')\n'
        "    except OSError: pass\n"
        "os._exit(0)"
    ),
    "closed output": "import os, sys\nos.close(1); os.close(2)\nprint('x')",
    "input in place of output": "import sys\nprint(sys.stdin.read())",
    "own memory": (
        _HUNT + "for line in open('/proc/self/maps'):\n"
        "    a, b = [int(v, 16) for v in line.split()[0].split('-')]\n"
        "    m = open('/proc/self/mem', 'rb'); m.seek(a)\n"
        "    try: found(m.read(b - a))\n"
        "    except OSError: pass"
    ),
    "own memory by C": (
        _HUNT + "import ctypes, gc\n"
        "for o in gc.get_objects():\n"
        "    try: found(ctypes.string_at(id(o), 200))\n"
        "    except Exception: pass"
    ),
    "heap by C": (
        _HUNT + "import ctypes\n"
        "b = ctypes.create_string_buffer(1 << 20)\n"
        "found(ctypes.string_at(ctypes.addressof(b), 1 << 20))\n"
        "x = [bytearray(1 << 16) for _ in range(100)]\n"
        "for y in x: found(bytes(y))"
    ),
    "freed memory": (
        _HUNT + "import ctypes, gc, os\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.sbrk.restype = ctypes.c_void_p\n"
        "r, w = os.pipe()\n"
        "top = libc.sbrk(0) >> 12\n"
        "near = {q for o in gc.get_objects() for q in range((id(o) >> 12) - 64, (id(o) >> "
        "12) + 65)}\n"
        "for page in near | set(range(top - 4096, top + 1)):\n"
        "    if libc.write(w, ctypes.c_void_p(page << 12), 1) == 1:\n"
        "        os.read(r, 1); found(ctypes.string_at(page << 12, 4096))"
    ),
    "objects": (
        _HUNT + "import gc\n"
        "for o in gc.get_objects():\n"
        "    if not isinstance(o, type): found(repr(o)[:10000].encode('utf-8', 'replace'))"
    ),
    "frames": (
        _HUNT + "import sys\n"
        "g = sys._getframe()\n"
        "while g:\n"
        "    found(repr(g.f_locals).encode('utf-8', 'replace')); g = g.f_back"
    ),
    "modules": (
        _HUNT + "import sys\n"
        "for m in list(sys.modules.values()): found(repr(getattr(m, '__dict__', "
        "'')).encode('utf-8', 'replace'))"
    ),
    "processes": (
        _HUNT + "import os\n"
        "for p in os.listdir('/proc'):\n"
        "    for n in ('cmdline', 'environ', 'mem', 'stack', 'fd/0', 'fd/1', 'fd/3'):\n"
        "        try: found(open(f'/proc/{p}/{n}', 'rb').read(1 << 20))\n"
        "        except (OSError, ValueError): pass"
    ),
    "environment": (
        _HUNT + "import os, sys\nfound(repr((os.environ, sys.argv, sys.orig_argv)).encode())"
    ),
    "files": (
        _HUNT + "import os\n"
        "for d, _, names in os.walk('/tmp'):\n"
        "    for n in names: found(open(os.path.join(d, n), 'rb').read())"
    ),
    "descriptors": (
        _HUNT + "import os, fcntl\n"
        "for fd in range(1024):\n"
        "    try: fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK); "
        "found(os.read(fd, 1 << 20)); found(os.pread(fd, 1 << 20, 0))\n"
        "    except OSError: pass"
    ),
    "next input": (
        _HUNT + "import os, sys\n"
        "sys.stdin.read()\n"
        "os.lseek(0, 0, 2)\n"
        "found(os.read(0, 1 << 20)); found(os.pread(0, 1 << 20, 1 << 12))"
    ),
    "rewrite the input": (
        "import os\n"
        "for fd in range(10):\n"
        "    try: os.pwrite(fd, b'x' * 100, 0); os.ftruncate(fd, 0)\n"
        "    except OSError: pass"
    ),
    "surrogates": "import sys\nsys.stdout.buffer.write(b'\\xed\\xa0\\x80\\xff' * 100)",
    "NULs": "print('\\0' * 10000)",
    "terminal": "import os\nos.ttyname(1)",
    "deep recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
    "recursion in C": (
        "import sys\n"
        "sys.setrecursionlimit(10**9)\n"
        "from functools import lru_cache\n"
        "@lru_cache(None)\n"
        "def f(n): return f(n + 1)\n"
        "f(0)"
    ),
    "print replaced": (
        "import builtins, sys\nbuiltins.print = None\nsys.stdout = None\nsys.__stdout__ = None"
    ),
    "signal at the end": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    "not python": "int main() { return 0; }",
}
