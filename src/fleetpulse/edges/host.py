"""This machine's own metrics through psutil: one sample a second, on the second.

Rates are counted between two readings. 1 KB is 1000 bytes. Traffic is summed over all interfaces
but loopback, disk operations (reads and writes) over whole disks: neither partitions nor devices
that only map others (LVM, RAID, loop), which would count the same operation again.

A counter that went back was wrapped or reset: it contributes what it shows now, which is at most
what has passed. An interface or disk that was not there before contributes nothing, because its
counter holds its past. A rate beyond its metric's range is a broken counter and no value.
"""

import re
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from fleetpulse.domain.errors import FleetpulseError
from fleetpulse.domain.metric import CPU_PCT, DISK_IO, MEM_PCT, METRICS, NET_IN, NET_OUT
from fleetpulse.domain.sample import Sample

_KB: Final = 1000
_ID_LENGTH: Final = 64
_SYS_BLOCK: Final = Path("/sys/block")
# A clock that is set back further than this moves the ticks with it.
_EARLY_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Reading:
    """The host at one instant: loads in %, and counters since its start by device name.

    `disk_ops` is None where the host shows no disk (many containers). `at_s` is monotonic.
    """

    at_s: float
    cpu_pct: float
    mem_pct: float
    bytes_in: Mapping[str, int]
    bytes_out: Mapping[str, int]
    disk_ops: Mapping[str, int] | None


def read_host() -> Reading:
    """Return the host's metrics now; `cpu_pct` is the mean since the last call (0 at the first).

    Raises FleetpulseError where the system does not show its counters to this user.
    """
    try:
        return _read()
    except (psutil.Error, OSError) as err:
        raise FleetpulseError(
            f"this host does not show its metrics ({err}); run as a user who may read them"
        ) from err


def _read() -> Reading:
    nics = psutil.net_io_counters(pernic=True, nowrap=False)
    loopbacks = {name for name, nic in psutil.net_if_stats().items() if "loopback" in nic.flags}
    try:
        disks = psutil.disk_io_counters(perdisk=True, nowrap=False)
    except NotImplementedError:  # a container without /proc/diskstats and /sys/block
        disks = None
    ops = {
        name: disk.read_count + disk.write_count
        for name, disk in (disks or {}).items()
        if _is_whole_disk(name)
    }
    return Reading(
        at_s=time.monotonic(),
        cpu_pct=psutil.cpu_percent(interval=None),
        mem_pct=psutil.virtual_memory().percent,
        bytes_in={name: nic.bytes_recv for name, nic in nics.items() if name not in loopbacks},
        bytes_out={name: nic.bytes_sent for name, nic in nics.items() if name not in loopbacks},
        disk_ops=ops or None,
    )


def values_between(before: Reading, after: Reading) -> dict[str, float]:
    """Return the sample's values by metric name, two decimals; `disk_io` is absent without disks.

    Raises ValueError where no time lies between the readings.
    """
    elapsed_s = after.at_s - before.at_s
    if elapsed_s <= 0:
        raise ValueError("two readings need some time between them")
    values = {
        CPU_PCT.name: after.cpu_pct,
        MEM_PCT.name: after.mem_pct,
        NET_IN.name: _grown(before.bytes_in, after.bytes_in) / _KB / elapsed_s,
        NET_OUT.name: _grown(before.bytes_out, after.bytes_out) / _KB / elapsed_s,
    }
    if before.disk_ops is not None and after.disk_ops is not None:
        values[DISK_IO.name] = _grown(before.disk_ops, after.disk_ops) / elapsed_s
    return {
        metric.name: round(values[metric.name], 2)
        for metric in METRICS
        if metric.name in values and 0 <= values[metric.name] <= metric.highest
    }


def host_server_id(name: str | None = None) -> str:
    """Return a server id made of the host's name (or `name`); what an id cannot hold becomes `-`.

    >>> host_server_id("Ann's Mac.local")
    'Ann-s-Mac.local'
    """
    found = re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname() if name is None else name)
    return found.lstrip("._-")[:_ID_LENGTH] or "host"


def host_samples(
    server_id: str,
    wait: Callable[[float], bool],
    read: Callable[[], Reading] = read_host,
    wall_s: Callable[[], float] = time.time,
) -> Iterator[Sample]:
    """Yield a sample each second of the wall clock; the first one after a whole second of counting.

    `wait` pauses for some seconds and returns True to end the iterator. Seconds that were missed
    (a suspended laptop) are left out; when the clock is set back, the samples follow it.
    """
    tick_s = _next_tick_s(None, wall_s())
    if wait(max(0.0, tick_s - wall_s())):
        return
    before = read()
    while True:
        tick_s = _next_tick_s(tick_s, wall_s())
        if wait(max(0.0, tick_s - wall_s())):
            return
        after = read()
        yield Sample(tick_s * 1000, server_id, values_between(before, after))
        before = after


def _next_tick_s(last_s: int | None, now_s: float) -> int:
    following_s = int(now_s) + 1
    if last_s is None or following_s > last_s:
        return following_s
    # Woken a moment early, the clock may still show the second before the last tick.
    return last_s + 1 if last_s + 1 - now_s <= _EARLY_S else following_s


def _grown(before: Mapping[str, int], after: Mapping[str, int]) -> int:
    return sum(
        count - before[name] if count >= before[name] else count
        for name, count in after.items()
        if name in before
    )


def _is_whole_disk(name: str) -> bool:
    if sys.platform != "linux":
        return True
    # Only real disks have a device behind them; "/" in a name is "!" there.
    return (_SYS_BLOCK / name.replace("/", "!") / "device").exists()
