"""What every contestant written in Python shares: its options, the verdicts and the shape of a row.

Only the standard library: this runs in the environments of the peers as well as in ours.

Values have two decimals and are summed as whole hundredths, so that a mean is exact in every
contestant and rows can be compared byte by byte.
"""

import argparse
import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SIZE_MS: Final = 30_000
SLIDE_MS: Final = 10_000
_CPU_MEM_LIMITS: Final = (80_00, 89_00)
_NET_DISK_LIMITS: Final = (6100_00, 1800_00)
# Neither is over its limit, the first is, the second is, both are.
_CPU_MEM_LABELS: Final = (
    "",
    "Performance spike suspected",
    "Memory saturation suspected",
    "Intense resource spike",
)
_NET_DISK_LABELS: Final = (
    "",
    "Potential DDoS detection",
    "Disk thrash warning",
    "Sustained load alert",
)


@dataclass(frozen=True, slots=True)
class Options:
    """What the harness asks of a contestant.

    `topics` are those of cpu, mem, net and disk. `messages` is how many there are to drain; 0 means
    that messages keep coming until the process is stopped, and that every row is flushed.
    """

    bootstrap: str
    topics: tuple[str, str, str, str]
    out: Path
    messages: int
    lateness_ms: int
    jars: str

    @property
    def is_live(self) -> bool:
        """Return whether the input has no end."""
        return self.messages == 0


def options() -> Options:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topics", required=True, help="cpu,mem,net,disk")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--messages", type=int, default=0)
    parser.add_argument("--lateness-ms", type=int, default=5000)
    parser.add_argument("--jars", default="")
    given = parser.parse_args()
    cpu, mem, net, disk = given.topics.split(",")
    return Options(
        given.bootstrap,
        (cpu, mem, net, disk),
        given.out,
        given.messages,
        given.lateness_ms,
        given.jars,
    )


def say(event: str, at_s: float | None = None) -> None:
    """Tell the harness that something happened, now or at `at_s` (seconds since 1970)."""
    print(event, time.time() if at_s is None else at_s, flush=True)


class Once:
    """Says one event, the first time it is asked to."""

    def __init__(self, event: str) -> None:
        """Remember what to say."""
        self._event: str | None = event

    def __call__(self) -> None:
        """Say it, once."""
        if self._event is not None:
            say(self._event)
            self._event = None


def hundredths(value: float) -> int:
    """Return a value of two decimals in whole hundredths."""
    return round(value * 100)


def mean(total: int, count: int) -> int:
    """Return a mean of whole hundredths, half up; values are never negative."""
    return (2 * total + count) // (2 * count)


def cpu_mem_row(server: str, start_ms: int, cpu: int | None, mem: int | None) -> str:
    """Return a row without its end; the numbers are hundredths, None without a sample."""
    return _row(server, start_ms, (cpu, mem), _CPU_MEM_LIMITS, _CPU_MEM_LABELS)


def net_disk_row(server: str, start_ms: int, net: int | None, disk: int | None) -> str:
    """Return a row without its end; the numbers are hundredths, None without a sample."""
    return _row(server, start_ms, (net, disk), _NET_DISK_LIMITS, _NET_DISK_LABELS)


def row_file(path: Path, *, is_live: bool) -> io.TextIOWrapper:
    """Open a file for rows; live, a row reaches the disk's cache as soon as its line is whole."""
    return path.open("w", encoding="utf-8", buffering=1 if is_live else 1 << 16)


def _row(
    server: str,
    start_ms: int,
    numbers: tuple[int | None, int | None],
    limits: tuple[int, int],
    labels: tuple[str, str, str, str],
) -> str:
    first, second = numbers
    is_first = first is not None and first >= limits[0]
    is_second = second is not None and second >= limits[1]
    return (
        f"{server},{start_ms},{start_ms + SIZE_MS},{_decimal(first)},{_decimal(second)},"
        + labels[is_first + 2 * is_second]
    )


def _decimal(number: int | None) -> str:
    return "" if number is None else f"{number // 100}.{number % 100:02d}"
