"""Functions that end early, break what runs them, or answer what is not what it seems."""

ENDINGS = {
    "os._exit": "import os\ndef f(x):\n    os._exit(0)",
    "os._exit at load": "import os\nos._exit(0)",
    "sys.exit": "import sys\nsys.exit(0)",
    "exit in f": "def f(x):\n    raise SystemExit(0)",
    "base exception": "class E(BaseException): pass\ndef f(x):\n    raise E()",
    "keyboard": "def f(x):\n    raise KeyboardInterrupt",
    "atexit": (
        "import atexit, os\n"
        "atexit.register(os.write, 3, b'{\"value\": 42}\\n')\n"
        "def f(x):\n"
        "    raise ValueError"
    ),
    "hostile error": (
        "class E(Exception):\n    def __str__(self): raise self\ndef f(x):\n    raise E()"
    ),
    "hostile error name": (
        "class M(type):\n"
        "    @property\n"
        "    def __name__(self): raise KeyError\n"
        "class E(Exception, metaclass=M): pass\n"
        "def f(x):\n"
        "    raise E()"
    ),
    "equal to all": (
        "class A:\n"
        "    def __eq__(self, other): return True\n"
        "    __hash__ = None\n"
        "def f(x):\n"
        "    return A()"
    ),
    "int equal to all": (
        "class A(int):\n"
        "    def __eq__(self, other): return True\n"
        "    __hash__ = int.__hash__\n"
        "def f(x):\n"
        "    return A(1)"
    ),
    "list equal to all": (
        "class A(list):\n"
        "    def __eq__(self, other): return True\n"
        "    def __iter__(self): return iter([42])\n"
        "def f(x):\n"
        "    return A()"
    ),
    "class lies": (
        "class A:\n"
        "    __class__ = int\n"
        "    def __eq__(self, o): return True\n"
        "def f(x):\n"
        "    return A()"
    ),
    "patched json": (
        "import json\n"
        "json.dumps = lambda *a, **k: '42'\n"
        "json.loads = lambda *a, **k: 42\n"
        "def f(x):\n"
        "    return 1"
    ),
    "patched builtins": (
        "import builtins\n"
        "for n in ('isinstance', 'len', 'repr', 'all', 'any', 'zip', 'type'):\n"
        "    setattr(builtins, n, lambda *a: True)\n"
        "def f(x):\n"
        "    return 1"
    ),
    "patched os": (
        "import os\nos.write = lambda *a: 0\nos._exit = lambda *a: None\ndef f(x):\n    return 1"
    ),
    "import hook": "import sys\nsys.modules.clear()\nsys.path.clear()\ndef f(x):\n    return 1",
    "trace": "import sys\nsys.settrace(lambda *a: 1 / 0)\ndef f(x):\n    return 1",
    "garbage lines": (
        "import os\n"
        "def f(x):\n"
        "    for fd in range(64):\n"
        '        try: os.write(fd, b\'\\xff\\n{"value": {"int": "zz"}}\\n[[\\n\')\n'
        "        except OSError: pass\n"
        "    return 1"
    ),
    "forged answer": (
        "import os\n"
        "def f(x):\n"
        "    for fd in range(64):\n"
        '        try: os.write(fd, b\'{"ending": "ended", "code": 0, "sizes": [0, 0, 0], '
        '"last": false, "seconds": 0}\\n\')\n'
        "        except OSError: pass\n"
        "    return 1"
    ),
    "close all": "import os\nos.closerange(0, 1000)\ndef f(x):\n    return 42",
    "kill all": "import os, signal\ndef f(x):\n    os.kill(-1, signal.SIGKILL)",
    "kill parent": (
        "import os, signal\n"
        "def f(x):\n"
        "    for s in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSEGV):\n"
        "        for p in (os.getppid(), 1):\n"
        "            try: os.kill(p, s)\n"
        "            except OSError: pass\n"
        "    return 1"
    ),
    "stop parent": (
        "import os, signal\ndef f(x):\n    os.kill(os.getppid(), signal.SIGSTOP)\n    return 1"
    ),
    "kill group": "import os, signal\ndef f(x):\n    os.killpg(0, signal.SIGKILL)",
    "segfault": "import ctypes\ndef f(x):\n    return ctypes.string_at(0)",
    "abort": "import os\ndef f(x):\n    os.abort()",
    "bad bytecode": (
        "def f(x): pass\nf.__code__ = f.__code__.replace(co_code=b'\\xff\\xff' * 100, co_consts=())"
    ),
}

ODD_TEXTS = {
    "own frames": (
        "import sys\n"
        "def f(x):\n"
        "    g = sys._getframe(1)\n"
        "    return [v for v in g.f_locals.values() if v == 42]"
    ),
    "search memory": (
        "import gc\n"
        "def f(x):\n"
        "    return [o for o in gc.get_objects() if isinstance(o, dict) and 'outputs' in "
        "o][0]"
    ),
    "read stdin": (
        "import sys, os\ndef f(x):\n    return os.read(0, 100) or sys.stdin.read() or 1"
    ),
    "generator": "def f(x):\n    while True: yield 42",
    "lazy": "def f(x):\n    return map(int, '42')",
    "function": "def f(x):\n    return f",
    "null bytes": "def f(x):\n    return '\\0' * 100\n\x00",
    "not python": "<|im_end|> ``` 42",
    "surrogate": "def f(x):\n    return '\ud800'",
    "encoding": "# -*- coding: nonsense -*-\nf = 1",
    "huge source": "x = [" + "1," * 20000 + "]\ndef f(x):\n    return 1",
    "nested source": "f = " + "(" * 5000 + ")" * 5000,
    "crash parser": "f = " + "-" * 50000 + "1",
    "no function": "g = 1",
    "f is a number": "f = 42",
}

LYING_ANSWERS = {
    "str subclass": (
        "class S(str):\n"
        "    def __eq__(self, o): return True\n"
        "    __hash__ = str.__hash__\n"
        "    def __str__(self): return '42'\n"
        "def f(x):\n"
        "    return S('1')"
    ),
    "float subclass": (
        "class F(float):\n"
        "    def __eq__(self, o): return True\n"
        "    __hash__ = float.__hash__\n"
        "def f(x):\n"
        "    return F(1)"
    ),
    "dict subclass": (
        "class D(dict):\n"
        "    def items(self): return [(42, 42)]\n"
        "    def __eq__(self, o): return True\n"
        "def f(x):\n"
        "    return D()"
    ),
    "numbers that lie": (
        "class A(int):\n"
        "    def __int__(self): return 42\n"
        "    def __index__(self): return 42\n"
        "    def __add__(self, o): return 42\n"
        "    def __repr__(self): return '42'\n"
        "def f(x):\n"
        "    return A(1)"
    ),
    "pickle": (
        "import os\n"
        "class P:\n"
        "    def __reduce__(self): return (os.system, ('echo',))\n"
        "def f(x):\n"
        "    return P()"
    ),
    "patched encoder": (
        "import sys\n"
        "for m in list(sys.modules.values()):\n"
        "    for n in ('encode', 'say', '_pack', 'failure', 'dumps'):\n"
        "        if hasattr(m, n):\n"
        "            try: setattr(m, n, lambda *a: '42')\n"
        "            except Exception: pass\n"
        "def f(x):\n"
        "    return 1"
    ),
    "patched through frames": (
        "import sys\n"
        "def f(x):\n"
        "    g = sys._getframe()\n"
        "    while g:\n"
        "        if 'out' in g.f_locals: __import__('os').write(g.f_locals['out'], "
        "b'{\"value\": 42')\n"
        "        g = g.f_back\n"
        "    return 1"
    ),
    "half a line": "import os\ndef f(x):\n    os.write(3, b'{\"value\": 4'); os._exit(0)",
    "excepthook": (
        "import sys\nsys.excepthook = lambda *a: print(42)\ndef f(x):\n    raise ValueError"
    ),
    "unraisable": (
        "import sys\n"
        "class D:\n"
        "    def __del__(self): raise SystemExit\n"
        "def f(x):\n"
        "    D(); return 1"
    ),
    "audit hook": "import sys\nsys.addaudithook(lambda *a: 1 / 0)\ndef f(x):\n    return 1",
    "profiler": (
        "import sys, threading\nsys.setprofile(lambda *a: 1 / 0)\ndef f(x):\n    return 1"
    ),
    "endless error": (
        "class E(Exception):\n"
        "    def __str__(self):\n"
        "        while True: pass\n"
        "def f(x):\n"
        "    raise E"
    ),
    "endless del": (
        "class D:\n"
        "    def __del__(self):\n"
        "        while True: pass\n"
        "def f(x):\n"
        "    d = D(); return 1"
    ),
    "metaclass": (
        "class M(type):\n"
        "    def __instancecheck__(c, o): return True\n"
        "    def __eq__(c, o): return True\n"
        "    __hash__ = type.__hash__\n"
        "class A(metaclass=M): pass\n"
        "def f(x):\n"
        "    return A"
    ),
    "coroutine": "async def f(x):\n    return 42",
    "millions of lines": "def f(x):\n    for _ in range(10**7): print(42)\n    return 1",
    "giant error": "def f(x):\n    raise ValueError('x' * (1 << 26))",
    "collector": (
        "import gc\n"
        "gc.disable()\n"
        "gc.get_objects = lambda: [42]\n"
        "def f(x):\n"
        "    a = []\n"
        "    while True:\n"
        "        b = []; b.append(b); a.append(b)"
    ),
    "closing by collector": (
        "import gc, os\n"
        "for o in gc.get_objects():\n"
        "    if hasattr(o, 'close') and not isinstance(o, type):\n"
        "        try: o.close()\n"
        "        except BaseException: pass\n"
        "def f(x):\n"
        "    return 1"
    ),
    "colliding members": "def f(x):\n    return {i * (2 ** 61 - 1) for i in range(1, 1500)}",
    "colliding keys": (
        "import itertools\n"
        "def f(x):\n"
        "    return dict.fromkeys(itertools.islice(itertools.product((-1, -2), repeat=16), "
        "1500))"
    ),
    "bending literals": (
        "import ctypes\n"
        "ctypes.c_int64.from_address(id(1) + 24).value = 42\n"
        "ctypes.c_int64.from_address(id(0) + 24).value = 1\n"
        "def f(x):\n"
        "    return None"
    ),
}
