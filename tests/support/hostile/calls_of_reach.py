"""Functions that try to reach what is not theirs: network, files, other processes, the machine."""

from support.hostile.parts import CTYPES

NETWORK_AND_SYSTEM = {
    "network": (
        "import socket\n"
        "def f(x):\n"
        "    s = socket.socket(); s.settimeout(1); s.connect(('1.1.1.1', 80)); return 42"
    ),
    "local network": (
        "import socket\n"
        "def f(x):\n"
        "    s = socket.socket(socket.AF_UNIX); s.bind('\\0name'); return 42"
    ),
    "listen": (
        "import socket\ndef f(x):\n    return 42 if socket.create_server(('127.0.0.1', 0)) else 0"
    ),
    "environment": (
        "import os\ndef f(x):\n    return 42 if len(os.environ) > 5 or 'HOME' in os.environ else 0"
    ),
    "parent environment": (
        "import os\ndef f(x):\n    return open(f'/proc/{os.getppid()}/environ', 'rb').read()"
    ),
    "parent memory": (
        "import os\ndef f(x):\n    return open(f'/proc/{os.getppid()}/mem', 'r+b').read(1)"
    ),
    "parent descriptors": (
        "import os\n"
        "def f(x):\n"
        "    return os.write(os.open(f'/proc/{os.getppid()}/fd/1', os.O_WRONLY), b'{}') and "
        "42"
    ),
    "write system": (
        "def f(x):\n"
        "    for p in ('/usr/lib/x', '/etc/x', '/x', '/dev/x', '/proc/sys/kernel/hostname', "
        "'/package/inside/x'):\n"
        "        try: open(p, 'w').write('x')\n"
        "        except OSError: continue\n"
        "        return 42"
    ),
    "read users": (
        "def f(x):\n"
        "    import glob\n"
        "    return 42 if open('/etc/shadow').read() or glob.glob('/home/*/*') else 0"
    ),
    "mount": (
        CTYPES + "def f(x):\n"
        "    return 42 if libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0 else 0"
    ),
    "namespace": CTYPES + "def f(x):\n    return 42 if libc.unshare(0x10000000) == 0 else 0",
    "ptrace": (
        CTYPES + "def f(x):\n    return 42 if libc.ptrace(16, os.getppid(), 0, 0) == 0 else 0"
    ),
    "shared memory": (
        CTYPES + "def f(x):\n    return 42 if libc.shmget(5, 1 << 20, 0o1666) >= 0 else 0"
    ),
    "become root": (
        "import os\n"
        "def f(x):\n"
        "    try: os.setuid(0)\n"
        "    except OSError: return 0\n"
        "    os.open('/etc/passwd', os.O_WRONLY); return 42"
    ),
    "fill disk": (
        "def f(x):\n"
        "    for i in range(10**6):\n"
        "        open(f'/tmp/{i}', 'wb').write(b'x' * (1 << 20))"
    ),
    "big file": (
        "def f(x):\n"
        "    with open('/tmp/a', 'wb') as g:\n"
        "        for _ in range(1000): g.write(b'x' * (1 << 20))\n"
        "    return 42"
    ),
    "many files": "def f(x):\n    return [open('/dev/null') for _ in range(1000)] and 42",
    "symlinks": (
        "import os\n"
        "os.symlink('/', '/tmp/root')\n"
        "os.symlink('/tmp/loop', '/tmp/loop')\n"
        "def f(x):\n"
        "    return os.listdir('/tmp/root/etc')"
    ),
    "deep folders": "import os\ndef f(x):\n    while True:\n        os.mkdir('d'); os.chdir('d')",
    "locked folder": (
        "import os\n"
        "os.mkdir('d'); open('d/x', 'w').close(); os.chmod('d', 0)\n"
        "def f(x):\n"
        "    return 1"
    ),
    "fifo": "import os\nos.mkfifo('/tmp/p')\ndef f(x):\n    return open('/tmp/p').read()",
}

FILES = {
    "sparse file": (
        "import os\ndef f(x):\n    with open('big', 'wb') as g: g.truncate(1 << 45)\n    return 42"
    ),
    "sparse seek": (
        "def f(x):\n"
        "    with open('big', 'wb') as g:\n"
        "        g.seek(1 << 40); g.write(b'x')\n"
        "    return 42"
    ),
    "inodes": "import os\ndef f(x):\n    for i in range(10**7): os.symlink('x', str(i))",
    "hard links": (
        "import os\n"
        "def f(x):\n"
        "    for p in ('/usr/bin/python3', '/bin/sh', '/etc/passwd', '/dev/null'):\n"
        "        try: os.link(p, 'l' + p.replace('/', '_'))\n"
        "        except OSError: continue\n"
        "        return 42"
    ),
    "leave elsewhere": (
        "def f(x):\n"
        "    done = 0\n"
        "    for p in ('/dev/shm', '/var/tmp', '/run', '/var/lock', '/dev/mqueue', '/root', "
        "'/home', '/usr/tmp'):\n"
        "        try: open(p + '/linn-hostile', 'w').write('x'); done = 42\n"
        "        except OSError: pass\n"
        "    return done"
    ),
    "device node": (
        "import os\ndef f(x):\n    os.mknod('d', 0o20666, os.makedev(1, 1)); return 42"
    ),
    "set-user-id": (
        "import os\n"
        "def f(x):\n"
        "    open('s', 'w').write('#!/bin/sh'); os.chmod('s', 0o6777); os.chown('s', 0, 0); "
        "return 42 if os.getuid() else 0"
    ),
    "long name": (
        "import os\n"
        "def f(x):\n"
        "    for i in range(10**6): os.mkdir('n' * 250 + str(i % 1000)) if not "
        "os.path.isdir('n' * 250 + str(i % 1000)) else os.chdir('n' * 250 + str(i % 1000))"
    ),
    "locked deep": (
        "import os\n"
        "for _ in range(50):\n"
        "    os.mkdir('d'); os.chdir('d')\n"
        "    open('x', 'w').close()\n"
        "    os.chmod('.', 0o000)\n"
        "def f(x):\n"
        "    return 1"
    ),
    "sockets in files": (
        "import socket\n"
        "def f(x):\n"
        "    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind('sock'); return 42"
    ),
}

LOOKING_AROUND = {
    "all environments": (
        "import os\n"
        "def f(x):\n"
        "    for p in os.listdir('/proc'):\n"
        "        if p.isdigit():\n"
        "            try: text = open(f'/proc/{p}/environ', 'rb').read()\n"
        "            except OSError: continue\n"
        "            if b'HOME' in text or b'PATH' in text: return 42"
    ),
    "all commands": (
        "import os\n"
        "def f(x):\n"
        "    for p in os.listdir('/proc'):\n"
        "        if p.isdigit() and int(p) != os.getpid():\n"
        "            try: text = open(f'/proc/{p}/cmdline', 'rb').read()\n"
        "            except OSError: continue\n"
        "            if text: return 42"
    ),
    "descriptors of others": (
        "import os\n"
        "def f(x):\n"
        "    for p in os.listdir('/proc'):\n"
        "        if p.isdigit() and int(p) != os.getpid():\n"
        "            try: os.listdir(f'/proc/{p}/fd')\n"
        "            except OSError: continue\n"
        "            return 42"
    ),
    "leftover descriptors": (
        "import os, stat\n"
        "def f(x):\n"
        "    for fd in range(5, 1024):\n"
        "        try: found = os.fstat(fd)\n"
        "        except OSError: continue\n"
        "        if not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o22: return 42  # "
        "the library's folders may be there"
    ),
    "read descriptors": (
        "import os, fcntl\n"
        "def f(x):\n"
        "    for fd in range(64):\n"
        "        try: fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK); "
        "text = os.read(fd, 1000)\n"
        "        except OSError: continue\n"
        "        if text: return 42"
    ),
    "mounts": "def f(x):\n    return 42 if 'ext4' in open('/proc/self/mountinfo').read() else 0",
    "kernel log": "def f(x):\n    return 42 if open('/dev/kmsg', 'rb').read(10) else 0",
    "raw memory": "def f(x):\n    return 42 if open('/dev/mem', 'rb').read(10) else 0",
    "core pattern": (
        "def f(x):\n    open('/proc/sys/kernel/core_pattern', 'w').write('|/tmp/x'); return 42"
    ),
    "control groups": (
        "import os\ndef f(x):\n    os.mkdir('/sys/fs/cgroup/linn-hostile'); return 42"
    ),
}

OTHER_CALLS = {
    "names": (
        "import socket\ndef f(x):\n    return 42 if socket.gethostbyname('example.com') else 0"
    ),
    "datagram": (
        "import socket\n"
        "def f(x):\n"
        "    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
        "s.sendto(b'x', ('127.0.0.1', 53)); return 42"
    ),
    "raw socket": (
        "import socket\ndef f(x):\n    socket.socket(socket.AF_PACKET, socket.SOCK_RAW); return 42"
    ),
    "netlink": (
        "import socket\ndef f(x):\n    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW); return 42"
    ),
    "socket pair": (
        "import socket\ndef f(x):\n    a, b = socket.socketpair(); a.send(b'x'); return 1"
    ),
    "io_uring": (
        CTYPES + "def f(x):\n    return 42 if libc.syscall(425, 8, bytes(120)) >= 0 else 0"
    ),
    "perf": (
        CTYPES + "def f(x):\n"
        "    return 42 if libc.syscall(298, bytes(128), 0, -1, -1, 0) >= 0 else 0"
    ),
    "bpf": CTYPES + "def f(x):\n    return 42 if libc.syscall(321, 0, bytes(64), 64) >= 0 else 0",
    "clone": (
        CTYPES + "def f(x):\n"
        "    pid = libc.syscall(56, 17, 0, 0, 0, 0)\n"
        "    return 42 if pid > 0 else 0"
    ),
    "clone with a namespace": (
        CTYPES + "def f(x):\n"
        "    return 42 if libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0) > 0 else 0"
    ),
    "32-bit calls": CTYPES + "def f(x):\n    return 42 if libc.syscall(0x40000039) > 0 else 0",
    "process memory": (
        CTYPES + "def f(x):\n"
        "    return 42 if libc.syscall(310, os.getppid(), 0, 0, 0, 0, 0) >= 0 else 0"
    ),
    "clock": "import time\ndef f(x):\n    time.clock_settime(time.CLOCK_REALTIME, 0); return 42",
    "host name": "import socket\ndef f(x):\n    socket.sethostname('hostile'); return 42",
    "nice": (
        "import os\n"
        "def f(x):\n"
        "    os.setpriority(os.PRIO_USER, 0, 19); "
        "return 42 if os.getpriority(os.PRIO_PROCESS, os.getppid()) == 19 else 0"
    ),
    "limits of the parent": (
        CTYPES + "def f(x):\n"
        "    return 42 if libc.syscall(302, os.getppid(), 0, bytes(16), 0) == 0 else 0"
    ),
    "more processor time": (
        "import resource, time\n"
        "for l in (resource.RLIMIT_CPU, resource.RLIMIT_AS):\n"
        "    try: resource.setrlimit(l, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "    except (OSError, ValueError): pass\n"
        "def f(x):\n"
        "    while True: pass"
    ),
    "alarm swallowed": (
        "import signal\n"
        "signal.signal(signal.SIGXCPU, signal.SIG_IGN)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)\n"
        "signal.signal(signal.SIGALRM, lambda *a: None)\n"
        "def f(x):\n"
        "    while True: pass"
    ),
    "forged lines for time": (
        "import os\n"
        "def f(x):\n"
        "    while True:\n"
        "        for _ in range(10**6): pass\n"
        "        os.write(3, b'\\n')"
    ),
}

SIGNALS_AND_MEMORY = {
    "signals by a descriptor": (
        "import fcntl, os\n"
        "def f(x):\n"
        "    r, w = os.pipe()\n"
        "    for p in (os.getppid(), os.getpid()):\n"
        "        for how, what in ((8, p), (15, bytes([1, 0, 0, 0]) + p.to_bytes(4, "
        "'little'))):\n"
        "            try: fcntl.fcntl(r, how, what); return 42\n"
        "            except OSError: pass"
    ),
    "signals by a socket": (
        "import fcntl, os, socket\n"
        "def f(x):\n"
        "    s, _ = socket.socketpair()\n"
        "    fcntl.ioctl(s, 0x8901, os.getppid().to_bytes(4, 'little')); return 42"
    ),
    "outlive the server": (
        CTYPES + "def f(x):\n    return 42 if libc.prctl(1, 0, 0, 0, 0) == 0 else 0"
    ),
    "open memory to others": (
        CTYPES + "def f(x):\n    return 42 if libc.prctl(4, 1, 0, 0, 0) == 0 else 0"
    ),
    "priority by other calls": (
        CTYPES + "def f(x):\n"
        "    return 42 if libc.syscall(314, os.getppid(), bytes([48, 0, 0, 0, 5]) + "
        "bytes(43), 0) == 0 or libc.syscall(251, 1, os.getppid(), 3 << 13) == 0 else 0"
    ),
    "through the library's folder": (
        "import os\n"
        "def f(x):\n"
        "    for fd in range(3, 1024):\n"
        "        for path in ('/etc/passwd', '/root/.profile', ''):\n"
        "            try: os.open('../' * 9 + path, os.O_RDONLY, dir_fd=fd); return 42\n"
        "            except OSError: pass"
    ),
}
