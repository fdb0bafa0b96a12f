"""Programs of every kind of attack, each for a script and for a command with processes.

They pass limits where no sum over processes sees it, outlive their end, signal and read others,
and leave things behind. `python -m bench.hostile` runs such files.
"""

from support.hostile.parts import CTYPES

_TRY = (
    "def tried(function, *arguments):\n"
    "    try: return function(*arguments)\n"
    "    except Exception: return None\n"
)
_FORK = "import os\n" + _TRY + "fork = lambda: tried(os.fork)\n"

ATTACKS = {
    "memory in sockets": (
        "import os, socket, time\n" + _TRY + "kept = []\n"
        "for _ in range(20):\n"
        "    for _ in range(100):\n"
        "        pair = tried(socket.socketpair)\n"
        "        if not pair: break\n"
        "        kept.append(pair)\n"
        "        for s in pair:\n"
        "            s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)\n"
        "            s.setblocking(False)\n"
        "            while tried(s.send, b'x' * 65536): pass\n"
        "    if tried(os.fork): time.sleep(1); break\n"
    ),
    "memory in pipes": (
        "import fcntl, os, time\n" + _TRY + "kept = []\n"
        "for _ in range(20):\n"
        "    for _ in range(100):\n"
        "        pair = tried(os.pipe)\n"
        "        if not pair: break\n"
        "        kept.append(pair); os.set_blocking(pair[1], False)\n"
        "        tried(fcntl.fcntl, pair[1], 1031, 1 << 20)\n"
        "        while tried(os.write, pair[1], b'x' * 65536): pass\n"
        "    if tried(os.fork): time.sleep(1); break\n"
    ),
    "memory in files": (
        "import os, time\n" + _TRY + "def fill():\n"
        "    for i in range(200):\n"
        "        fd = os.open(f'/tmp/{os.getpid()}.{i}', os.O_RDWR | os.O_CREAT)\n"
        "        os.write(fd, b'x' * (4 << 20))\n"
        "tried(fill); time.sleep(0.5)\n"
    ),
    "memory that is shared": (
        "import mmap, os, time\n" + _TRY + "def fill():\n"
        "    kept = []\n"
        "    for _ in range(200):\n"
        "        m = mmap.mmap(-1, 4 << 20); kept.append(m)\n"
        "        for at in range(0, 4 << 20, 1 << 20): m[at:at + (1 << 20)] = b'x' * (1 << 20)\n"
        "        m.madvise(mmap.MADV_DONTNEED)\n"
        "tried(fill); time.sleep(0.5)\n"
    ),
    "memory of many": (
        _FORK + "import time\n"
        "for _ in range(8):\n"
        "    if fork() == 0: x = b'x' * (60 << 20); time.sleep(2); os._exit(0)\n"
        "time.sleep(1)\n"
    ),
    "time of the unwaited": (
        _FORK + "import signal, time\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "end = time.time() + 6\n"
        "while time.time() < end:\n"
        "    if fork() == 0:\n"
        "        stop = time.process_time() + 0.01\n"
        "        while time.process_time() < stop: pass\n"
        "        os._exit(0)\n"
        "    time.sleep(0.002)\n"
    ),
    "time of threads": (
        "import hashlib, threading\n"
        "def work():\n"
        "    while True: hashlib.pbkdf2_hmac('sha256', b'x', b'y', 10**5)\n"
        "for _ in range(6): threading.Thread(target=work).start()\n"
    ),
    "nameless files": (
        "import os, time\n" + _TRY + "kept = []\n"
        "def fill():\n"
        "    for i in range(40):\n"
        "        fd = os.open(f'n{i}', os.O_RDWR | os.O_CREAT); os.unlink(f'n{i}')\n"
        "        kept.append(fd); os.posix_fallocate(fd, 0, 8 << 20)\n"
        "tried(fill); time.sleep(1)\n"
    ),
    "nameless files in flight": (
        "import array, os, socket, time\n" + _TRY + "a, b = socket.socketpair()\n"
        "def fill():\n"
        "    for i in range(40):\n"
        "        fd = os.open(f'n{i}', os.O_RDWR | os.O_CREAT); os.unlink(f'n{i}')\n"
        "        os.write(fd, b'x' * (4 << 20))\n"
        "        a.sendmsg([b'x'], [(1, 1, array.array('i', [fd]))]); os.close(fd)\n"
        "tried(fill); time.sleep(1)\n"
    ),
    "many files": (
        "import os\n" + _TRY + "def fill():\n"
        "    for i in range(200000): os.symlink('x', f's{i}')\n"
        "tried(fill)\n"
    ),
    "a deep tree with odd names": (
        "import os\n" + _TRY + "def fill():\n"
        "    for i in range(3000):\n"
        "        name = b'\\xff\\n\\x1b[2J' + b'd' * 100\n"
        "        os.mkdir(name); os.chdir(name)\n"
        "        if i % 7 == 0: os.mkfifo('p'); os.chmod('.', 0o100)\n"
        "tried(fill)\n"
    ),
    "daemons": (
        _FORK + "import signal, time\n"
        "for _ in range(4):\n"
        "    if fork() == 0:\n"
        "        os.setsid()\n"
        "        if fork(): os._exit(0)\n"
        "        for n in range(1, 65): tried(signal.signal, n, signal.SIG_IGN)\n"
        "        tried(os.closerange, 0, 100)\n"
        "        time.sleep(60); os._exit(0)\n"
    ),
    "stopped children": (
        _FORK + "import signal\n"
        "for _ in range(4):\n"
        "    if fork() == 0: os.kill(os.getpid(), signal.SIGSTOP)\n"
    ),
    "forks without end": _FORK + "while True: fork()\n",
    "signals to all": (
        "import os, signal\n" + _TRY + "for n in (9, 15, 19, 11):\n"
        "    for p in (1, os.getppid(), -1, -os.getppid()): tried(os.kill, p, n)\n"
    ),
    "other processes": (
        CTYPES + _TRY + "def look():\n"
        "    for p in [n for n in os.listdir('/proc') if n.isdigit()]:\n"
        "        if int(p) == os.getpid(): continue\n"
        "        libc.ptrace(16, int(p), 0, 0)\n"
        "        for n in ('mem', 'oom_score_adj', 'fd/1', 'fd/3', 'fd/4', 'environ', 'comm'):\n"
        "            tried(lambda: open(f'/proc/{p}/{n}', 'r+b', buffering=0).write(b'1000'))\n"
        "tried(look)\n"
    ),
    "every descriptor": (
        "import os\n" + _TRY + "for fd in range(1024):\n"
        '    tried(os.write, fd, b\'{"value": true}\\n{"ending": "ended", "code": 0}\\n\')\n'
        "    tried(os.ftruncate, fd, 0)\n"
        "os._exit(0)\n"
    ),
    "an early good end": (
        "import atexit, builtins, os, sys\n"
        "builtins.AssertionError = None; sys.stdout = None\n"
        "atexit.register(os._exit, 0); sys.exit(0)\n"
    ),
    "lower limits": (
        "import resource\n" + _TRY + "for n in dir(resource):\n"
        "    if n.startswith('RLIMIT_'): tried(resource.setrlimit, getattr(resource, n), (0, 0))\n"
    ),
    "kernel objects": (
        CTYPES + "for call, *words in ((29, 77, 1 << 20, 0o1666),\n"
        "    (64, 77, 9, 0o1666), (248, b'user', b'l', b'x', 1, -4),\n"
        "    (68, 77, 0o1666), (240, b'linn', 0o102, 0o666, 0), (447, 0),\n"
        "    (425, 8, bytes(120)), (272, 0x10000000), (300, 0, 0), (103, 3, bytes(99), 99),\n"
        "    (188, b'.', b'user.l', b'x', 1, 0), (321, 0, bytes(64), 64),\n"
        "    (310, 1, 0, 0, 0, 0, 0)):\n"
        "    libc.syscall(call, *words)\n"
    ),
    "files of Python": (
        "import os, subprocess, sys\n"
        + _TRY
        + "for n in ('sitecustomize', 'usercustomize', 'os'):\n"
        "    open(n + '.py', 'w').write('raise SystemExit(0)')\n"
        "open('x.pth', 'w').write('import os; os._exit(0)')\n"
        "os.environ.update(PYTHONPATH='.', PYTHONSTARTUP='os.py', LD_PRELOAD='./x.so')\n"
        "tried(subprocess.run, [sys.executable, '-c', ''])\n"
    ),
    "rights of others": (
        "import os, subprocess\n" + _TRY + "for w in (['su', '-c', 'id'], ['mount'], ['passwd']):\n"
        "    tried(lambda: subprocess.run(w, stdin=-3, stdout=-3, stderr=-3, timeout=2))\n"
        "for f in (os.setuid, os.setgid): tried(f, 0)\n"
        "for p in ('.', '/tmp', '/var/tmp', '/usr'):\n"
        "    tried(os.chmod, p, 0o4777); tried(os.utime, p, (1, 1)); tried(os.chown, p, 0, 0)\n"
    ),
    "a flood": "import sys\nwhile True: sys.stdout.write('x' * 65536)\n",
    "its own folder removed": (
        "import os, shutil\n" + _TRY + "here = os.getcwd()\n"
        "tried(shutil.rmtree, here); tried(os.rmdir, here); tried(os.rename, here, here + '2')\n"
        "tried(os.symlink, '/etc', here)\n"
    ),
}
"""Name -> program."""
