"""SQLite's write-ahead log, as far as a reader must know it."""

import struct
from pathlib import Path
from typing import Final

from fleetpulse.edges.sink.disk import explained

# https://sqlite.org/fileformat2.html#the_write_ahead_log
_HEADER: Final = struct.Struct(">8I")
_MAGIC: Final = 0x377F0682
_MASK: Final = 0xFFFFFFFF


def is_without_beginning(log: Path) -> bool:
    """Tell whether a power cut left a log without its beginning: then nothing of it counts.

    SQLite knows that too, except where it reads the log through an index in memory: there it tries
    for ten seconds and gives up. Raises DiskError and UsageError.
    """
    try:
        with log.open("rb") as file:
            beginning = file.read(_HEADER.size)
    except OSError as err:
        raise explained(err, log, "read") from err
    if len(beginning) < _HEADER.size:
        return False
    magic, *_, first_sum, second_sum = _HEADER.unpack(beginning)
    # The magic number's last bit is the order of bytes in which sums are made.
    if magic & ~1 != _MAGIC:
        return True
    words = struct.unpack(">6I" if magic & 1 else "<6I", beginning[:24])
    first = second = 0
    for one, other in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) & _MASK
        second = (second + other + first) & _MASK
    return (first, second) != (first_sum, second_sum)
