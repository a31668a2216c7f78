"""One file of the sink: opened as its state says, or not at all; bytes are only ever appended.

What is checked on opening is argued in docs/adr/0004: the last 64 KiB always, the whole file where
its time says that somebody touched it after the last commit.
"""

import os
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from fleetpulse.domain.errors import DataChanged
from fleetpulse.edges.sink.disk import (
    explained,
    open_regular,
    read_range,
    sync_data,
    sync_folder,
    write_all,
)
from fleetpulse.edges.sink.state import FileState

TAIL_BYTES: Final = 64 * 1024
_FILE_MODE: Final = 0o640
_CRC_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class FileSpec:
    """A file by its name, and the header line that it starts with ("" for none)."""

    name: str
    header: str = ""


class DataFile:
    """An open file and what is committed of it.

    Use: `append` and `sync`, then commit `pending`, then `settle`. Raises DataChanged where the
    file is not what the state says, and DiskError where the disk fails.
    """

    def __init__(self, folder: Path, state: FileState) -> None:
        """Open the file, check it against its state and cut what was not committed."""
        self.path = folder / state.name
        self.state = state
        self.pending = state
        self.cut_bytes = 0
        flags = os.O_RDWR if state.committed_bytes else os.O_RDWR | os.O_CREAT
        if state.committed_bytes and not os.path.lexists(self.path):
            raise self._changed("the file is missing")
        self._descriptor = open_regular(self.path, _FILE_MODE, flags)
        try:
            self._tail = self._checked_tail()
            self._cut()
            if not state.committed_bytes:
                sync_folder(folder)
        except OSError as err:
            os.close(self._descriptor)
            raise explained(err, self.path, "read") from err
        except BaseException:
            os.close(self._descriptor)
            raise

    def append(self, data: bytes, lines: int) -> None:
        """Write bytes behind what is there; they count once `pending` is committed.

        Raises DataChanged before it writes where the file's length changed meanwhile.
        """
        state = self.pending
        try:
            size_bytes = os.fstat(self._descriptor).st_size
            if size_bytes != state.committed_bytes:
                raise self._changed(f"it has {size_bytes} bytes now")
            write_all(self._descriptor, data, state.committed_bytes)
        except OSError as err:
            raise explained(err, self.path, "write") from err
        self._tail = (self._tail + data)[-TAIL_BYTES:]
        self.pending = replace(
            state,
            committed_bytes=state.committed_bytes + len(data),
            lines=state.lines + lines,
            running_crc=zlib.crc32(data, state.running_crc),
            tail_crc=zlib.crc32(self._tail),
        )

    def sync(self) -> None:
        """Make the appended bytes durable, and see that the file is still the one at its path.

        A file that was deleted or replaced meanwhile raises DataChanged before anything of it is
        committed.
        """
        try:
            sync_data(self._descriptor)
            ours = os.fstat(self._descriptor)
        except OSError as err:
            raise explained(err, self.path, "sync") from err
        try:
            there = os.lstat(self.path)
        except OSError as err:
            raise self._changed("the file is gone") from err
        if (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino):
            raise self._changed("another file is in its place")
        self.pending = replace(self.pending, modified_ns=ours.st_mtime_ns)

    def settle(self) -> None:
        """Take what is pending as committed."""
        self.state = self.pending

    def close(self) -> None:
        """Close the file; bytes that were not committed stay and are cut on the next start."""
        os.close(self._descriptor)

    def _checked_tail(self) -> bytes:
        state = self.state
        found = os.fstat(self._descriptor)
        if found.st_size < state.committed_bytes:
            raise self._changed(f"the file ends at byte {found.st_size}")
        start = max(0, state.committed_bytes - TAIL_BYTES)
        tail = read_range(self._descriptor, start, state.committed_bytes)
        if zlib.crc32(tail) != state.tail_crc:
            raise self._changed(f"bytes {start} to {state.committed_bytes} differ")
        # A longer file was written by a run that died before its commit: its time tells nothing.
        is_touched = (
            found.st_size == state.committed_bytes and found.st_mtime_ns != state.modified_ns
        )
        if is_touched and self._crc_before(start, tail) != state.running_crc:
            raise self._changed(f"some bytes before byte {start} differ")
        return tail

    def _crc_before(self, start: int, tail: bytes) -> int:
        crc = 0
        for offset in range(0, start, _CRC_BYTES):
            part = read_range(self._descriptor, offset, min(offset + _CRC_BYTES, start))
            crc = zlib.crc32(part, crc)
        return zlib.crc32(tail, crc)

    def _cut(self) -> None:
        self.cut_bytes = os.fstat(self._descriptor).st_size - self.state.committed_bytes
        if self.cut_bytes:
            os.ftruncate(self._descriptor, self.state.committed_bytes)
            sync_data(self._descriptor)

    def _changed(self, found: str) -> DataChanged:
        return DataChanged(
            f"{self.path}: {found}, but {self.state.committed_bytes} bytes of it are committed: "
            "somebody else changed it; put the file back as it was, or move the whole folder away "
            "and start again from the topics"
        )
