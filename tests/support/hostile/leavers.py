"""Programs that try to leave something to the next program, and one that looks for it."""

from support.hostile.parts import CTYPES

LOOK = (
    "import locale, os, random, resource, signal, stat, sys, threading, time, warnings\n"
    "def tried(function, *arguments):\n"
    "    try: return function(*arguments)\n"
    "    except OSError as error: return error.errno\n"
    "def descriptors():\n"
    "    found = []\n"
    "    for fd in range(1024):\n"
    "        try: found.append((fd, stat.S_IFMT(os.fstat(fd).st_mode)))\n"
    "        except OSError: pass\n"
    "    return found\n"
    "def look():\n"
    "    here = os.stat('.')\n"
    "    limits = [resource.getrlimit(getattr(resource, n))\n"
    "        for n in sorted(dir(resource)) if n.startswith('RLIMIT_') and n != 'RLIMIT_NPROC']\n"
    "    limits.append(min(resource.getrlimit(resource.RLIMIT_NPROC)) > 0)\n"
    "    free = os.statvfs('.')\n"
    "    times = [here.st_mtime, here.st_atime]\n"
    "    pid = os.getpid() if os.getppid() == 1 else 0\n"
    "    return [os.getcwd(), os.listdir('.'), os.listdir(b'.'), oct(here.st_mode), here.st_uid,\n"
    "        here.st_nlink, [abs(t - time.time()) < 600 for t in times],\n"
    "        tried(os.listxattr, '.'), tried(os.getxattr, '.', 'system.posix_acl_default'),\n"
    "        pid, os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid(), os.umask(0),\n"
    "        sorted(os.environ.items()), limits, os.getpriority(0, 0), os.sched_getscheduler(0),\n"
    "        sorted(os.sched_getaffinity(0)), sorted(signal.pthread_sigmask(0, [])),\n"
    "        [str(signal.getsignal(n)) for n in range(1, 65) if n not in (32, 33)],\n"
    "        sorted(signal.sigpending()), [signal.getitimer(n) for n in range(3)],\n"
    "        descriptors(), len(sys.modules), sys.path, len(warnings.filters), random.random(),\n"
    "        sys.getrecursionlimit(), sys.getswitchinterval(), threading.active_count(),\n"
    "        locale.setlocale(locale.LC_ALL), sys.flags.hash_randomization, hash('x'),\n"
    "        [tried(os.path.exists, p) for p in ('/dev/shm/linn-left', '/var/tmp/linn-left')],\n"
    "        os.times().children_user, os.getloadavg is not None, os.cpu_count(),\n"
    "        free.f_blocks - free.f_bfree if pid else 0]\n"
    "def f(x):\n"
    "    return [repr(item) for item in look()]\n"
)
"""Answers with all that a program can see of its surroundings, except clocks and load.

Of the limit of threads it tells only whether there are any: in `plain` it is counted from what the
user runs at that moment, other tests included.
"""

_EACH = "def f(x):\n    return 1\n"
LEAVERS = {
    "attributes": (
        "import os\n"
        "for i in range(3000):\n"
        "    try: os.setxattr('.', f'user.{i}', b'x' * 1000)\n"
        "    except OSError: break\n" + _EACH
    ),
    "attributes by number": (
        CTYPES + "for call in (188, 189, 463): libc.syscall(call, b'.', b'user.a', b'x', 1, 0)\n"
        "fd = os.open('.', os.O_RDONLY); libc.syscall(190, fd, b'user.a', b'x', 1, 0)\n" + _EACH
    ),
    "access list": (
        "import os\n"
        "acl = bytes.fromhex('02000000010007ffffffffff040005ffffffffff200005ffffffffff')\n"
        "for name in ('system.posix_acl_default', 'system.posix_acl_access'):\n"
        "    try: os.setxattr('.', name, acl)\n"
        "    except OSError: pass\n" + _EACH
    ),
    "shut folder": "import os\ntry: os.chmod('.', 0)\nexcept OSError: pass\n" + _EACH,
    "sticky folder": (
        "import os\n"
        "for p in ('.', '..'):\n"
        "    try: os.chmod(p, 0o7777)\n"
        "    except OSError: pass\n" + _EACH
    ),
    "times": "import os\ntry: os.utime('.', (1, 1))\nexcept OSError: pass\n" + _EACH,
    "flags": (
        "import fcntl, os\n"
        "fd = os.open('.', os.O_RDONLY)\n"
        "for flags in (0x10, 0x20, 0x40, 0x80, 0x40000000):\n"
        "    try: fcntl.ioctl(fd, 0x40086602, flags.to_bytes(8, 'little'))\n"
        "    except OSError: pass\n" + _EACH
    ),
    "files of every kind": (
        "import os\n"
        "open('a', 'w').write('x' * 10**6); open(b'\\xff\\xfe', 'w'); os.mkfifo('p')\n"
        "os.link('a', 'b'); os.symlink('/', 'c'); os.symlink('loop', 'loop')\n"
        "os.makedirs('d/' * 200); open('s', 'wb').truncate(1 << 21)\n"
        "open('.hidden', 'w'); open('sitecustomize.py', 'w').write('1/0')\n"
        "open('x.pth', 'w').write('import os'); open('usercustomize.py', 'w').write('1/0')\n"
        "open('json.py', 'w').write('1/0'); os.mkdir('linn')\n" + _EACH
    ),
    "deep and shut": (
        "import os\n"
        "for _ in range(60):\n"
        "    os.mkdir('d'); os.chdir('d')\n"
        "    try: os.chmod('.', 0)\n"
        "    except OSError: pass\n" + _EACH
    ),
    "unlinked": (
        "import os\n"
        "kept = []\n"
        "for i in range(40):\n"
        "    try:\n"
        "        fd = os.open(str(i), os.O_RDWR | os.O_CREAT); os.unlink(str(i)); kept.append(fd)\n"
        "        os.posix_fallocate(fd, 0, 1 << 20)\n"
        "    except OSError: break\n" + _EACH
    ),
    "own limits": (
        "import resource\n"
        "for n in dir(resource):\n"
        "    if n.startswith('RLIMIT_') and n not in ('RLIMIT_CPU', 'RLIMIT_AS'):\n"
        "        try: resource.setrlimit(getattr(resource, n), (0, 0))\n"
        "        except (OSError, ValueError): pass\n" + _EACH
    ),
    "signals": (
        "import signal\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n"
        "for n in range(1, 65):\n"
        "    try: signal.signal(n, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)\n"
        "signal.setitimer(signal.ITIMER_PROF, 100, 1)\n" + _EACH
    ),
    "nice and scheduling": (
        "import os\n"
        "try: os.nice(19)\n"
        "except OSError: pass\n"
        "for f in (lambda: os.sched_setaffinity(0, {0}),\n"
        "    lambda: os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0)),\n"
        "    lambda: os.setpriority(os.PRIO_USER, 0, 19)):\n"
        "    try: f()\n"
        "    except OSError: pass\n" + _EACH
    ),
    "the interpreter": (
        "import builtins, locale, os, random, sys, warnings\n"
        "os.environ['PYTHONPATH'] = '/tmp'; os.putenv('LD_PRELOAD', '/tmp/x.so')\n"
        "sys.modules['json'] = None; sys.path.insert(0, '/tmp'); warnings.simplefilter('error')\n"
        "random.seed(7); sys.setrecursionlimit(77777); sys.setswitchinterval(9)\n"
        "locale.setlocale(locale.LC_ALL, 'C'); builtins.print = None; os.umask(0o777)\n" + _EACH
    ),
    "process ids": (
        "import _thread, time\n"
        "for _ in range(40):\n"
        "    try: _thread.start_new_thread(int, ())\n"
        "    except RuntimeError: time.sleep(0.001)\n" + _EACH
    ),
    "a loose thread": (
        "import _thread, time\n_thread.start_new_thread(time.sleep, (100,))\n" + _EACH
    ),
    "sessions": (
        "import os\n"
        "for f in (os.setsid, lambda: os.setpgid(0, 0), os.fork):\n"
        "    try: f()\n"
        "    except OSError: pass\n" + _EACH
    ),
    "kernel memory": (
        CTYPES + "for call, *words in ((29, 7, 1 << 16, 0o1666), (64, 7, 1, 0o1666),\n"
        "    (68, 7, 0o1666), (240, b'left', 0o102, 0o666, 0), (319, b'left', 0), (447, 0),\n"
        "    (248, b'user', b'left', b'x', 1, -2), (253,), (300, 0, 0), (444, bytes(8), 8, 0)):\n"
        "    libc.syscall(call, *words)\n" + _EACH
    ),
    "socket pairs": (
        "import array, os, socket\n"
        "pairs = []\n"
        "try:\n"
        "    while True:\n"
        "        a, b = socket.socketpair(); a.setblocking(False); pairs += [a, b]\n"
        "        a.sendmsg([b'x'], [(1, 1, array.array('i', [a.fileno(), b.fileno()]))])\n"
        "        while True: a.send(b'x' * 65536)\n"
        "except OSError: pass\n" + _EACH
    ),
    "elsewhere": (
        "for p in ('/dev/shm', '/var/tmp', '/tmp', '/run', '/dev/mqueue', '/usr/lib'):\n"
        "    try: open(p + '/linn-left', 'w').write('x')\n"
        "    except OSError: pass\n" + _EACH
    ),
    "a crash": "import ctypes\nctypes.CFUNCTYPE(None)(0xdeadbeef)()\n" + _EACH,
}
"""Programs that load; what they try to leave stands in their names."""
