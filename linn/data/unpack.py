"""The bytes of a data file, plain, gzip or zstd: told by its first bytes, never by its name."""

from __future__ import annotations

import gzip
import importlib
import io
import stat
from pathlib import Path
from typing import Any, BinaryIO, cast

from linn.errors import UserError

_FOREIGN = {
    b"PAR1": "Parquet; write it as JSON Lines first, e.g. pandas.read_parquet(…).to_json(…, orient='records', lines=True)",
    b"PK\x03\x04": "a zip archive; unpack it first",
    b"BZh": "bzip2; unpack it first: bunzip2",
    b"\xfd7zXZ": "xz; unpack it first: unxz",
    b"\xff\xfe": "UTF-16 or UTF-32; save it as UTF-8",
    b"\xfe\xff": "UTF-16; save it as UTF-8",
    b"ARROW1": "Arrow; write it as JSON Lines first",
}
"""First bytes of files that people hand over for JSON Lines, and what to do with each."""


class Unpacked:
    """A data file being read: `stream` gives its unpacked bytes, `share` how much of the file they come from."""

    def __init__(self, path: Path) -> None:
        """Raises UserError when the file cannot be opened or holds something other than JSON Lines."""
        try:
            about = path.stat()
            if not (stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode)):
                raise UserError(
                    f"{path}: a pipe or device, which can be read but once; write it to a file first (gzip and zstd are fine)"
                )
            self._file = open(path, "rb")  # noqa: SIM115 (closed by `close`)
            self._size = about.st_size
            head = self._file.read(8)
            self._file.seek(0)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
        except OSError as error:
            raise UserError(f"{path}: cannot be opened: {error.strerror or error}") from None
        if found := next((what for mark, what in _FOREIGN.items() if head.startswith(mark)), None):
            self._file.close()
            raise UserError(f"{path}: this is {found}")
        self.packing = "gzip" if head.startswith(b"\x1f\x8b") else "zstd" if _is_zstd(head) else ""
        """How the file is packed; empty: it is not."""
        self.stream: BinaryIO = self._file
        if self.packing == "gzip":
            self.stream = cast(BinaryIO, gzip.GzipFile(fileobj=self._file, mode="rb"))
        elif self.packing == "zstd":
            self.stream = io.BufferedReader(_Zstd(self._file, path), 2**18)

    @property
    def share(self) -> float:
        """Share of the file's bytes read so far."""
        return (
            1.0 if self._file.closed or not self._size else min(1.0, self._file.tell() / self._size)
        )

    def close(self) -> None:
        """Close the file."""
        self.stream.close()
        self._file.close()


def _is_zstd(head: bytes) -> bool:
    """A frame's magic number, or that of a skippable frame, which may come first."""
    return head.startswith(b"\x28\xb5\x2f\xfd") or (
        head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F
    )


class _Zstd(io.RawIOBase):
    """Every frame of a zstd file; a frame that is cut short is an error, where the library's own reader ends quietly."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        try:
            zstandard = importlib.import_module("zstandard")
        except ImportError:
            remedy = f"pip install 'linn[domains]', or unpack it first: zstd -d {path}"
            raise UserError(f"{path}: reading zstd needs the package zstandard: {remedy}") from None
        self._file = file
        self._context = zstandard.ZstdDecompressor(max_window_size=2**31)
        self._frame: Any = None
        self._packed = self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        while not self._ready:
            self._packed = self._packed or self._file.read(2**14)
            if not self._packed:
                if self._frame is not None:
                    raise EOFError("a zstd frame is cut short")
                return 0
            if self._frame is None:
                self._frame = self._context.decompressobj()
            self._ready = self._frame.decompress(self._packed)
            self._packed = b""
            if self._frame.eof:
                self._packed, self._frame = self._frame.unused_data, None
        given = self._ready[: len(target)]
        target[: len(given)] = given
        self._ready = self._ready[len(given) :]
        return len(given)
