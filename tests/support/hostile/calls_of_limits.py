"""Functions that try to overrun their limits: time, memory, output, processes, threads."""

from support.hostile.parts import CTYPES

OVERRUNNING = {
    "loop": "def f(x):\n    while True: pass",
    "loop at load": "while True: pass",
    "loop in C": "def f(x):\n    return sum(range(10**12))",
    "sleep": "import time\ndef f(x):\n    time.sleep(1000)",
    "pause": "import signal\ndef f(x):\n    signal.pause()",
    "stop itself": "import os, signal\ndef f(x):\n    os.kill(os.getpid(), signal.SIGSTOP)",
    "ignore signals": (
        "import signal\n"
        "for s in range(1, 65):\n"
        "    try: signal.signal(s, signal.SIG_IGN)\n"
        "    except Exception: pass\n"
        "while True: pass"
    ),
    "raise limits": (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (100, 100))\n"
        "def f(x):\n"
        "    while True: pass"
    ),
    "catch all": (
        "def f(x):\n"
        "    while True:\n"
        "        try:\n"
        "            while True: pass\n"
        "        except BaseException: pass"
    ),
    "regex": "import re\ndef f(x):\n    return re.match(r'(a+)+$', 'a' * 60 + 'b')",
    "big power": "def f(x):\n    return 9 ** 9 ** 9",
    "memory list": "def f(x):\n    a = []\n    while True: a.append(bytearray(1 << 20))",
    "memory one": "def f(x):\n    return bytearray(1 << 40)",
    "memory string": "def f(x):\n    return 'x' * (1 << 34)",
    "memory mmap": "import mmap\ndef f(x):\n    return len(mmap.mmap(-1, 1 << 40))",
    "deep recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef f(x):\n    return f(x)",
    "deep answer": "def f(x):\n    a = []\n    for _ in range(10**5): a = [a]\n    return a",
    "cyclic answer": "def f(x):\n    a = []\n    a.append(a)\n    return a",
    "big answer": "def f(x):\n    return 'y' * (1 << 22)",
    "big integer": "def f(x):\n    return 1 << (1 << 24)",
    "many digits": "def f(x):\n    return str(10 ** 10**6)",
    "endless output": "import os\ndef f(x):\n    while True: os.write(3, b'z' * 65536)",
    "endless print": "def f(x):\n    while True: print('z' * 10000)",
    "fork bomb": "import os\ndef f(x):\n    while True: os.fork()",
    "fork once": (
        "import os\ndef f(x):\n    if os.fork() == 0:\n        while True: pass\n    return 1"
    ),
    "vfork by C": (
        CTYPES + "def f(x):\n"
        "    pids = [libc.fork() for _ in range(10)]\n"
        "    return pids[0] if min(pids) >= 0 else 1 / 0"
    ),
    "spawn": (
        "import subprocess\n"
        "def f(x):\n"
        "    return subprocess.run(['/bin/sh', '-c', 'echo 42'], capture_output=True).stdout"
    ),
    "exec": "import os\ndef f(x):\n    os.execv('/bin/sh', ['sh', '-c', 'sleep 100'])",
    "system": "import os\ndef f(x):\n    return 42 if os.system('true') == 0 else 0",
    "daemon": "import os\ndef f(x):\n    os.setsid()\n    os.fork()\n    os.setsid()",
    "multiprocessing": (
        "import multiprocessing as m\n"
        "def g(): pass\n"
        "def f(x):\n"
        "    p = m.Process(target=g); p.start(); p.join(); return 42"
    ),
    "threads": (
        "import threading, time\n"
        "def f(x):\n"
        "    for _ in range(1000):\n"
        "        threading.Thread(target=time.sleep, args=(100,)).start()"
    ),
    "thread left": (
        "import threading\n"
        "def g():\n"
        "    while True: pass\n"
        "threading.Thread(target=g).start()\n"
        "def f(x):\n"
        "    return 7"
    ),
    "thread at exit": (
        "import threading, time\n"
        "def f(x):\n"
        "    threading.Thread(target=time.sleep, args=(100,), daemon=False).start()\n"
        "    return 7"
    ),
}

BY_OTHER_WAYS = {
    "memory touched": (
        "import mmap\n"
        "def f(x):\n"
        "    m = [mmap.mmap(-1, 1 << 24) for _ in range(1000)]\n"
        "    for p in m:\n"
        "        for i in range(0, 1 << 24, 4096): p[i] = 1\n"
        "    return 42"
    ),
    "memory shared": (
        "import os\n"
        "def f(x):\n"
        "    for i in range(1000):\n"
        "        with open(f'/dev/shm/{i}', 'wb') as g: g.write(b'x' * (1 << 20))\n"
        "    return 42"
    ),
    "memory file": (
        "import os\n"
        "def f(x):\n"
        "    fds = [os.memfd_create('x') for _ in range(50)]\n"
        "    for fd in fds: os.truncate(fd, 1 << 30)\n"
        "    return 42"
    ),
    "memory growing dict": (
        "def f(x):\n    d = {}\n    i = 0\n    while True:\n        d[i] = [i] * 1000; i += 1"
    ),
    "thread loops": (
        "import threading\n"
        "def g():\n"
        "    while True: pass\n"
        "def f(x):\n"
        "    for _ in range(7): threading.Thread(target=g).start()\n"
        "    while True: pass"
    ),
    "low-level threads": (
        "import _thread\n"
        "def f(x):\n"
        "    n = 0\n"
        "    while n < 10000:\n"
        "        _thread.start_new_thread(f, (x,)); n += 1\n"
        "    return 42"
    ),
}
