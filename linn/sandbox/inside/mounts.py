"""The file tree of a process space of our own: what is read-only, hidden, or shown elsewhere.

This file runs inside the sandbox; of bubblewrap's tree only a program's own folder is made here.
All functions but `own_space` need a mount namespace of its own. Numbers are those of linux/mount.h.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct

from . import kernel

_MS_NOSUID = 0x2
_MS_NODEV = 0x4
_MS_REMOUNT = 0x20
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_PRIVATE = 0x40000
_MS_SLAVE = 0x80000
_MNT_DETACH = 2
_CLONE_NEWNS = 0x20000
"""Of unshare(2), linux/sched.h: a mount namespace of its own."""

_MOUNT_SETATTR = 442
"""Call number, the same on every machine."""
_MOUNT_ATTR_RDONLY = 0x1
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000

_SYSTEM = ("usr", "lib", "lib32", "lib64", "libx32", "bin", "sbin", "etc", "dev", "proc")
"""Folders of the root that a workspace command may read."""


def read_only_tree() -> None:
    """Make the whole tree read-only; what is mounted afterwards is not."""
    _keep_private()
    _set_read_only(b"/")


def own_space() -> bool:
    """Give this thread a mount namespace of its own; False where that is refused.

    What the machine mounts later appears in it too, and nothing goes the other way.
    """
    if kernel.libc.unshare(_CLONE_NEWNS) != 0:
        return False
    _mount(b"none", b"/", None, _MS_REC | _MS_SLAVE, None)
    return True


def open_setting(name: str, over: str) -> int:
    """A descriptor that writes to a file of /proc/sys, for this process space alone.

    For a moment /proc is mounted over the folder `over`: the usual one may be read-only, or become
    so, which a file that is open for writing would prevent. Raises OSError.
    """
    _mount(b"proc", over.encode(), b"proc", _MS_NOSUID | _MS_NODEV, None)
    try:
        return os.open(f"{over}/sys/{name}", os.O_WRONLY | os.O_CLOEXEC)
    finally:
        uncover(over)


def may_mount(folder: str) -> bool:
    """Whether this process may mount over a folder; tried."""
    try:
        empty_folder(folder, "size=4k")
        uncover(folder)
    except OSError:
        return False
    return True


def workspace_mounts(
    folder: str,
    target: str,
    size: int,
    hidden: tuple[str, ...],
    prefixes: tuple[str, ...],
    readable: tuple[str, ...],
) -> None:
    """Leave the system's folders, read-only, and a /tmp of its own with the command's folder in it.

    `folder` stands at `target`, writable; /tmp holds `size` bytes. Over all other folders of the
    root, and over the `hidden` ones, an empty one is put. `prefixes` and `readable` folders stay
    within reach of every user: where a parent of one is hidden or shut to others, an empty folder
    is put over the parent, and the wanted folder is shown in it.
    """
    visible = (*prefixes, *readable)
    # Descriptors keep their folders within reach once something is mounted above them.
    handles = {}
    for path in dict.fromkeys((folder, *visible)):
        handles[path] = os.open(path, os.O_PATH | os.O_DIRECTORY)
    covered = _covered(visible)

    _keep_private()
    for path in sorted(covered):
        mode = "1777" if path == "/tmp" else "755"
        empty_folder(path, f"size={size},mode={mode}")

    for path in dict.fromkeys(visible):
        # A readable folder may lie below a hidden one; an interpreter's prefix may not.
        over = (*covered, *hidden) if path in readable else covered
        if any(_is_within(path, parent) for parent in over):
            os.makedirs(path, mode=0o755, exist_ok=True)
            _bind(handles[path], path)
        if path == prefixes[-1]:
            # The hidden folders lie below the prefixes, so they are covered after these.
            for inner in hidden:
                empty_folder(inner, "size=1m,mode=755")

    _set_read_only(b"/")
    _set_writable(b"/tmp")
    os.makedirs(target)
    _bind(handles[folder], target)
    _set_writable(target.encode())
    for handle in handles.values():
        os.close(handle)


def _covered(visible: tuple[str, ...]) -> set[str]:
    """Folders that an empty one is put over, none of them below another.

    They are the root's folders that are not the system's, and the uppermost parent of each
    visible folder that other users may not enter.
    """
    # Links are left as they are: where they lead is the system's, or covered itself.
    covered = set()
    for name in os.listdir("/"):
        path = f"/{name}"
        if name not in _SYSTEM and stat.S_ISDIR(os.lstat(path).st_mode):
            covered.add(path)

    for path in visible:
        parts = path.split("/")
        for count in range(2, len(parts)):
            parent = "/".join(parts[:count])
            if parent in covered or not os.stat(parent).st_mode & stat.S_IXOTH:
                covered.add(parent)
                break  # all below it is covered with it

    # A folder below another needs no cover of its own.
    outermost = set()
    for path in covered:
        if not any(path.startswith(parent + "/") for parent in covered):
            outermost.add(path)

    return outermost


def _is_within(path: str, folder: str) -> bool:
    """Whether a path is a folder or lies below it."""
    return (path + "/").startswith(folder + "/")


def _keep_private() -> None:
    """Let no mount from here on reach the machine's own tree."""
    _mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)


def empty_folder(path: str, options: str) -> None:
    """Put an empty folder in memory over a path; `options`: those of tmpfs(5)."""
    flags = _MS_NOSUID | _MS_NODEV
    _mount(b"tmpfs", path.encode(), b"tmpfs", flags, options.encode())


def resize(path: str, options: str) -> None:
    """Give what `empty_folder` made other limits."""
    flags = _MS_REMOUNT | _MS_NOSUID | _MS_NODEV
    _mount(b"tmpfs", path.encode(), b"tmpfs", flags, options.encode())


def uncover(path: str) -> None:
    """Take away what was mounted last over a path, and with it what it holds in memory."""
    result = kernel.libc.umount2(path.encode(), _MNT_DETACH)
    kernel.require(result == 0, f"unmounting {path}")


def _bind(handle: int, target: str) -> None:
    """Show the folder of a descriptor at `target` too."""
    source = f"/proc/self/fd/{handle}"
    _mount(source.encode(), target.encode(), None, _MS_BIND | _MS_REC, None)


def _mount(
    source: bytes, target: bytes, kind: bytes | None, flags: int, options: bytes | None
) -> None:
    result = kernel.libc.mount(source, target, kind, ctypes.c_ulong(flags), options)
    kernel.require(result == 0, f"mounting {target.decode()}")


def _set_read_only(path: bytes) -> None:
    """Mark a mount, and every mount below it, as read-only."""
    _set_attributes(path, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY, 0)


def _set_writable(path: bytes) -> None:
    """Lift the mark of one mount."""
    _set_attributes(path, 0, 0, _MOUNT_ATTR_RDONLY)


def _set_attributes(path: bytes, flags: int, set_bits: int, cleared_bits: int) -> None:
    # struct mount_attr: bits to set, bits to clear, propagation, user namespace.
    attributes = struct.pack("QQQQ", set_bits, cleared_bits, 0, 0)
    size = ctypes.c_size_t(len(attributes))
    result = kernel.libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, path, flags, attributes, size)
    kernel.require(result == 0, f"remounting {path.decode()}")
