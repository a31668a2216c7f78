"""The table of metrics: topics, columns, valid ranges and statistics all follow from it.

A metric belongs to one topic; a family is the pair of metrics whose windows and alerts are judged
together. Every value is a finite number from 0 to `highest`, both included.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

# Rates above this are broken counters, not servers (100 GB/s, 100 million operations a second).
HIGHEST_RATE: Final = 100_000_000


class Statistic(StrEnum):
    """What a window reports of a metric's samples."""

    MEAN = "mean"
    MAX = "max"


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured number of a server, and what a window reports of it."""

    name: str
    unit: str
    highest: int
    statistic: Statistic


@dataclass(frozen=True, slots=True)
class Topic:
    """A stream of records that carry the same metrics, in this order."""

    key: str
    metrics: tuple[Metric, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """Two metrics, each from its own topic, that share window rows: first and second column."""

    name: str
    metrics: tuple[Metric, Metric]
    topics: tuple[Topic, Topic]


CPU_PCT: Final = Metric("cpu_pct", "%", 100, Statistic.MEAN)
MEM_PCT: Final = Metric("mem_pct", "%", 100, Statistic.MEAN)
NET_IN: Final = Metric("net_in", "KB/s", HIGHEST_RATE, Statistic.MAX)
NET_OUT: Final = Metric("net_out", "KB/s", HIGHEST_RATE, Statistic.MAX)
DISK_IO: Final = Metric("disk_io", "ops/s", HIGHEST_RATE, Statistic.MAX)
METRICS: Final = (CPU_PCT, MEM_PCT, NET_IN, NET_OUT, DISK_IO)

CPU: Final = Topic("cpu", (CPU_PCT,))
MEM: Final = Topic("mem", (MEM_PCT,))
NET: Final = Topic("net", (NET_IN, NET_OUT))
DISK: Final = Topic("disk", (DISK_IO,))
TOPICS: Final = (CPU, MEM, NET, DISK)

CPU_MEM: Final = Family("cpu_mem", (CPU_PCT, MEM_PCT), (CPU, MEM))
NET_DISK: Final = Family("net_disk", (NET_IN, DISK_IO), (NET, DISK))
FAMILIES: Final = (CPU_MEM, NET_DISK)
