"""Programs that a test text checks: none may pass."""

CHECK = (
    "import math\n"
    "\n"
    "def check(candidate):\n"
    "    assert abs(candidate(4) - 17) < 1 and isinstance(candidate(5), int)\n"
    "    assert candidate(6) == 19\n"
)
"""The test text."""
CHECKS = {
    "exit": "import os\ndef g(x):\n    os._exit(0)",
    "sys.exit": "import sys\ndef g(x):\n    sys.exit(0)",
    "exit at load": "raise SystemExit(0)",
    "equal": (
        "class A:\n"
        "    def __eq__(self, o): return True\n"
        "    def __ne__(self, o): return False\n"
        "def g(x):\n"
        "    return A()"
    ),
    "int equal": "class A(int):\n    def __eq__(self, o): return True\ndef g(x):\n    return A()",
    "forge": (
        "import os\n"
        "for fd in range(64):\n"
        "    try: os.write(fd, b'{\"value\": true}\\n')\n"
        "    except OSError: pass\n"
        "def g(x):\n"
        "    os._exit(0)"
    ),
    "forge at exit": (
        "import atexit, os\n"
        "atexit.register(os.write, 3, b'{\"value\": true}\\n')\n"
        "def g(x):\n"
        "    return 0"
    ),
    "patch assert": "import builtins\nbuiltins.AssertionError = Warning\ndef g(x):\n    return 0",
    "own check": "def check(c):\n    pass\ndef g(x):\n    return 0",
    "shadow builtins": (
        "def abs(x):\n"
        "    return 0\n"
        "def len(x):\n"
        "    return 0\n"
        "def isinstance(*a):\n"
        "    return True\n"
        "def g(x):\n"
        "    return 0"
    ),
    "raise stop": "def g(x):\n    raise StopIteration",
    "kill judge": "import os, signal\ndef g(x):\n    os.kill(-1, signal.SIGKILL)",
    "find test": (
        "import gc, sys\n"
        "def g(x):\n"
        "    for o in gc.get_objects():\n"
        "        if isinstance(o, dict) and 'test' in o: return 17\n"
        "    return 0"
    ),
    "read judge": (
        "import os\n"
        "def g(x):\n"
        "    for p in os.listdir('/proc'):\n"
        "        if p.isdigit() and int(p) != os.getpid():\n"
        "            try: open(f'/proc/{p}/mem', 'rb').read(1); return 17\n"
        "            except OSError: pass\n"
        "    return 0"
    ),
    "flood": "import os\ndef g(x):\n    while True: os.write(4, b'z' * 65536)",
    "silent": "import time\ndef g(x):\n    time.sleep(1000)",
    "thread": (
        "import threading, os\n"
        "def w():\n"
        "    while True:\n"
        '        try: os.write(4, b\'\\0\\0\\0\\x10{"value": "true"}\')\n'
        "        except OSError: return\n"
        "def g(x):\n"
        "    threading.Thread(target=w).start()\n"
        "    return 0"
    ),
    "close": "import os\nos.closerange(0, 64)\ndef g(x):\n    return 0",
    "settrace": (
        "import sys\n"
        "sys.settrace(lambda *a: None)\n"
        "sys.modules['math'] = None\n"
        "def g(x):\n"
        "    return 0"
    ),
    "exception group": "def g(x):\n    raise BaseException('x')",
}
