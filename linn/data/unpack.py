"""The lines of a data file, plain, gzip, zstd or Parquet: told by its first bytes, not its name."""

from __future__ import annotations

import gzip
import importlib
import io
import stat
from pathlib import Path
from typing import Any, BinaryIO, cast

from linn.data.parquet import MAGIC, ParquetLines
from linn.errors import UserError

_FOREIGN = {
    b"PK\x03\x04": "a zip archive; unpack it first",
    b"BZh": "bzip2; unpack it first: bunzip2",
    b"\xfd7zXZ": "xz; unpack it first: unxz",
    b"\xff\xfe": "UTF-16 or UTF-32; save it as UTF-8",
    b"\xfe\xff": "UTF-16; save it as UTF-8",
    b"ARROW1": "Arrow; write it as Parquet or JSON Lines first",
}
"""First bytes of files that people hand over for JSON Lines, and what to do with each."""


class Unpacked:
    """A data file being read."""

    def __init__(self, path: Path) -> None:
        """UserError when the file cannot be opened or holds something other than JSON Lines."""
        try:
            about = path.stat()
            if not (stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode)):
                raise UserError(
                    f"{path}: a pipe or device, which can be read but once; "
                    "write it to a file first (gzip and zstd are fine)"
                )

            self._file = open(path, "rb")  # noqa: SIM115 (closed by `close`)
            self._size = about.st_size
            head = self._file.read(8)
            self._file.seek(0)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
        except OSError as error:
            raise UserError(f"{path}: cannot be opened: {error.strerror or error}") from None

        for mark, kind in _FOREIGN.items():
            if head.startswith(mark):
                self._file.close()
                raise UserError(f"{path}: this is {kind}")

        self.packing = ""
        """How the file is packed, `gzip`, `zstd` or `Parquet`; empty: it is not."""
        self.stream: BinaryIO | ParquetLines = self._file
        """The unpacked bytes."""
        if head.startswith(MAGIC):
            self._file.close()
            self.packing = "Parquet"
            self.stream = ParquetLines(path)
        elif head.startswith(b"\x1f\x8b"):
            self.packing = "gzip"
            self.stream = cast(BinaryIO, gzip.GzipFile(fileobj=self._file, mode="rb"))
        elif _is_zstd(head):
            self.packing = "zstd"
            self.stream = io.BufferedReader(_Zstd(self._file, path), 2**18)

    @property
    def share(self) -> float:
        """Share of the file read so far: of its bytes, or of a Parquet file's rows."""
        if isinstance(self.stream, ParquetLines):
            return self.stream.share
        if self._file.closed or self._size == 0:
            return 1.0
        # A file that grows meanwhile would give more than all of it.
        return min(1.0, self._file.tell() / self._size)

    def close(self) -> None:
        """Close the file."""
        self.stream.close()
        self._file.close()


def _is_zstd(head: bytes) -> bool:
    """A frame's magic number, or that of a skippable frame, which may come first."""
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return True
    return head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F


class _Zstd(io.RawIOBase):
    """Every frame of a zstd file.

    A frame that is cut short is an error, where the library's own reader ends quietly.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        try:
            zstandard = importlib.import_module("zstandard")
        except ImportError:
            remedy = f"pip install 'linn[domains]', or unpack it first: zstd -d {path}"
            raise UserError(f"{path}: reading zstd needs the package zstandard: {remedy}") from None

        self._file = file
        # Windows up to the format's largest: `zstd --long=31` writes them.
        self._context = zstandard.ZstdDecompressor(max_window_size=2**31)
        self._frame: Any = None
        """The frame being read, None between frames."""
        self._packed = b""
        """Bytes read and not yet unpacked."""
        self._ready = b""
        """Bytes unpacked and not yet given out."""

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        while not self._ready:
            if not self._packed:
                self._packed = self._file.read(2**14)
            if not self._packed:
                if self._frame is not None:
                    raise EOFError("a zstd frame is cut short")
                return 0

            self._unpack()

        count = min(len(target), len(self._ready))
        target[:count] = self._ready[:count]
        self._ready = self._ready[count:]

        return count

    def _unpack(self) -> None:
        if self._frame is None:
            self._frame = self._context.decompressobj()
        self._ready = self._frame.decompress(self._packed)
        self._packed = b""
        if self._frame.eof:
            # What follows a frame's end is the next frame's.
            self._packed = self._frame.unused_data
            self._frame = None
