"""A sink's file as far as it is committed, read without a lock and without changing anything."""

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fleetpulse.domain.errors import DataChanged
from fleetpulse.edges.sink.disk import explained, open_regular, read_range
from fleetpulse.edges.sink.state import FileState

# Stands behind a last line that lacks its end: no whole line is equal to it.
UNENDED: Final = b" (no line end)"
_READ_BYTES: Final = 1 << 20
# Longer than any line of ours; of a longer one only so much is kept.
_LINE_BYTES: Final = 128 * 1024


class CommittedFile:
    """The committed bytes of a file; what a consumer appends meanwhile does not count.

    `found_bytes` says how many of them are there; `crc` is the CRC-32 of the bytes read
    since byte 0 was.
    """

    def __init__(self, path: Path, state: FileState, descriptor: int | None) -> None:
        """Take an open file, None for one that was not made yet; made by `open_committed`."""
        self.path = path
        self.state = state
        self.crc = 0
        self._descriptor = descriptor
        size_bytes = 0 if descriptor is None else os.fstat(descriptor).st_size
        self.found_bytes = min(size_bytes, state.committed_bytes)

    def lines(self, start: int = 0, end: int | None = None) -> Iterator[list[bytes]]:
        """Yield the lines of bytes [start, end), without their ends, in lists of about 1 MiB.

        By default they go as far as the file is committed. A last line that has no end has UNENDED
        in its place. Raises DiskError where reading fails.
        """
        if start == 0:
            self.crc = 0
        if self._descriptor is None:
            return
        limit = self.found_bytes if end is None else min(end, self.found_bytes)
        rest = b""
        for offset in range(start, limit, _READ_BYTES):
            try:
                part = read_range(self._descriptor, offset, min(offset + _READ_BYTES, limit))
            except OSError as err:
                raise explained(err, self.path, "read") from err
            self.crc = zlib.crc32(part, self.crc)
            lines = (rest + part).split(b"\n")
            rest = lines.pop()[:_LINE_BYTES]
            if lines:
                yield lines
        if rest:
            yield [rest + UNENDED]


@contextmanager
def open_committed(folder: Path, state: FileState) -> Iterator[CommittedFile]:
    """Give a file as its state knows it, for reading.

    Raises DataChanged where it is missing or no regular file of its own, UsageError where it may
    not be read.
    """
    path = folder / state.name
    if not os.path.lexists(path):
        if not state.committed_bytes:
            yield CommittedFile(path, state, None)
            return
        raise DataChanged(
            f"{path}: the file is missing, but {state.committed_bytes} bytes of it are committed: "
            "somebody else changed it; put the file back as it was"
        )
    descriptor = open_regular(path, 0, os.O_RDONLY)
    try:
        yield CommittedFile(path, state, descriptor)
    finally:
        os.close(descriptor)
