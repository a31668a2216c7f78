"""How long it takes from the record that closes a window to its alert, by one clock in one thread.

A fleet is sent at a steady rate. A window [start, end) can close once every topic has shown a
record of `end + lateness` or later; its clock starts when the broker has acknowledged the first of
these on the last of the topics, and stops when the line of its alert can be read in the
contestant's output. Systems with one clock for each server see that server's own record up to a
second later.
"""

import itertools
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fleetpulse.domain.metric import FAMILIES
from peers.outputs import Output
from peers.process import Usage, run
from peers.sender import SPEC, Clock, Sender

_FIRST_ROW_S: Final = 120.0
# Rows of the first seconds belong to the catching up after the start.
_SETTLE_S: Final = 5.0
# Rows of the last windows get this long to come.
_TAIL_S: Final = 10.0
_TICK_S: Final = 0.001
# As many lines are parsed in a tick, about half a millisecond.
_MOST_LINES: Final = 200
_COMPLETE_EVERY_S: Final = 0.1
_LEAST_ALERTS: Final = 2
_BEHIND: Final = 0.97


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent, and for how long it is measured; `rate` is in messages a second."""

    bootstrap: str
    topics: tuple[str, ...]
    rate: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Job:
    """A command that reads the fleet until it is stopped, and where its output is found.

    `alerts` and `rows` may be one. One that `is_floor` gives a single line for each window.
    """

    command: Sequence[str]
    environ: Mapping[str, str]
    log_path: Path
    alerts: Output
    rows: Output
    is_floor: bool = False


@dataclass(slots=True)
class _Watch:
    """The output so far: when each alert and each row could first be read."""

    job: Job
    alerts: dict[tuple[str, str, int], float] = field(default_factory=dict)
    rows: dict[tuple[str, str, int], float] = field(default_factory=dict)
    first_s: float = 0.0

    def look(self) -> None:
        """Take what is new, and parse a little of what was taken."""
        is_one = self.job.rows is self.job.alerts
        self.job.alerts.look()
        if not is_one:
            self.job.rows.look()
        for seen in self.job.alerts.take(_MOST_LINES):
            self.first_s = self.first_s or seen.at_s
            if seen.is_alert:
                self.alerts.setdefault((seen.family, seen.server, seen.start_ms), seen.at_s)
            if is_one:
                self.rows.setdefault((seen.family, seen.server, seen.start_ms), seen.at_s)
        for seen in [] if is_one else self.job.rows.take(_MOST_LINES):
            self.rows.setdefault((seen.family, seen.server, seen.start_ms), seen.at_s)

    def is_complete(self, closed: Mapping[int, float], each: int) -> bool:
        """Return whether all alerts of these windows are there."""
        return len(_delays_ms(self.alerts, closed)) >= len(closed) * len(FAMILIES) * each


def measure(job: Job, load: Load) -> dict[str, Any]:
    """Return the latencies in milliseconds of the windows that could close within the time.

    `never` is how many of their alerts had not come ten seconds later. With `error` instead where
    the contestant gave too few.
    """
    clock = Clock()
    sender = Sender(load.bootstrap, load.topics, load.rate, clock)
    watch = _Watch(job)
    each = 1 if job.is_floor else sender.alerting
    rates: list[float] = []
    looks = [0.0]
    ticks_s: list[float] = []
    began_s = time.monotonic()

    def work() -> bool:
        ticks_s.append(time.monotonic())
        sender.send_due()
        watch.look()
        time.sleep(_TICK_S)
        if not watch.first_s:
            return time.monotonic() - began_s < _FIRST_ROW_S
        until_s = watch.first_s + _SETTLE_S + load.seconds
        if time.time() < until_s:
            return True
        if not rates:
            rates.append(sender.messages_per_s())
        if time.time() < looks[-1] + _COMPLETE_EVERY_S:
            return True
        looks.append(time.time())
        is_over = watch.is_complete(clock.closed_between(until_s - load.seconds, until_s), each)
        return not is_over and time.time() < until_s + _TAIL_S

    timeout_s = _FIRST_ROW_S * 2 + load.seconds
    usage = run(job.command, job.environ, job.log_path, timeout_s, work)
    sender.finish()
    if not watch.first_s:
        end = job.log_path.read_text(encoding="utf-8", errors="replace")[-300:]
        cpu_s = usage.cpu_s / (usage.ended_s - usage.started_s)
        error = (
            f"no row within {_FIRST_ROW_S:g} s, {cpu_s:.2f} CPU s per s: {' '.join(end.split())}"
        )
        return {"error": error}
    from_s = watch.first_s + _SETTLE_S
    closed = clock.closed_between(from_s, from_s + load.seconds)
    found = _found(watch, closed, each)
    if "error" not in found:
        found |= _used(usage, from_s, load.seconds) | {"sent_per_s": round(rates[0])}
        found["is_sender_behind"] = rates[0] < load.rate * _BEHIND
        # How exact the instants are: the time from one look to the next.
        gaps_s = [after - before for before, after in itertools.pairwise(ticks_s)]
        found["look_p50_ms"], found["look_p99_ms"] = _cuts([gap_s * 1000 for gap_s in gaps_s])
    return found


def _found(watch: _Watch, closed: Mapping[int, float], each: int) -> dict[str, Any]:
    delays_ms = _delays_ms(watch.alerts, closed)
    if len(delays_ms) < _LEAST_ALERTS:
        return {"error": f"only {len(delays_ms)} alerts"}
    p50_ms, p99_ms = _cuts(delays_ms)
    row_p50_ms, row_p99_ms = _cuts(_delays_ms(watch.rows, closed))
    return {
        "alerts": len(delays_ms),
        "never": len(closed) * len(FAMILIES) * each - len(delays_ms),
        "windows": len(closed),
        "p50_ms": p50_ms,
        "p99_ms": p99_ms,
        "max_ms": round(max(delays_ms), 1),
        "row_p50_ms": row_p50_ms,
        "row_p99_ms": row_p99_ms,
    }


def _used(usage: Usage, from_s: float, seconds: float) -> dict[str, float]:
    cpu_s = usage.cpu_s_at(from_s + seconds) - usage.cpu_s_at(from_s)
    return {
        "rss_peak_mb": round(usage.rss_peak_bytes / 1e6, 1),
        "cpu_s_per_s": round(cpu_s / seconds, 3),
    }


def _delays_ms(
    seen: Mapping[tuple[str, str, int], float], closed: Mapping[int, float]
) -> list[float]:
    return [
        (seen_s - closed[start_ms + SPEC.size_ms]) * 1000
        for (_, _, start_ms), seen_s in seen.items()
        if start_ms + SPEC.size_ms in closed
    ]


def _cuts(delays_ms: Sequence[float]) -> tuple[float, float] | tuple[None, None]:
    """Return the median and the 99th percentile; none of fewer than two."""
    if len(delays_ms) < 2:  # noqa: PLR2004  quantiles need two
        return None, None
    cuts = statistics.quantiles(delays_ms, n=100, method="inclusive")
    return round(cuts[49], 1), round(cuts[98], 1)
