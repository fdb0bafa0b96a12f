"""What several hostile programs begin with."""

CTYPES = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
