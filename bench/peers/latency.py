"""How long it takes from the record that closes a window to its row, by one clock in one thread.

A fleet is sent at a steady rate. A window [start, end) can close once every topic has shown a
record of `end + lateness` or later; its clock starts when the broker has acknowledged the first of
these on the last of the topics, and stops when its line can be read in the contestant's output.
Systems with one clock for each server see that server's own record up to a second later.
"""

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Producer

from fleetpulse.domain.metric import FAMILIES
from fleetpulse.domain.window import WindowSpec
from peers.contestants import Start
from peers.fleet import LATENESS_MS
from peers.process import run
from peers.rows import parse_row, row_paths

_SPEC: Final = WindowSpec()
_TOPICS: Final = 4
_FIRST_ROW_S: Final = 120.0
# Rows of the first seconds belong to the catching up after the start.
_SETTLE_S: Final = 10.0
# Rows of the last windows get this long to come.
_TAIL_S: Final = 10.0
_TICK_S: Final = 0.001
_LEAST_ROWS: Final = 100


@dataclass(slots=True)
class Clock:
    """When the broker acknowledged the records that close windows, by the end of the window."""

    acknowledged: dict[int, list[float]] = field(default_factory=dict)

    def closed_s(self, end_ms: int) -> float | None:
        """Return when the window could close; None while a topic's record is not there yet."""
        instants = self.acknowledged.get(end_ms, [])
        return max(instants) if len(instants) == _TOPICS else None

    def closed_between(self, from_s: float, to_s: float) -> dict[int, float]:
        """Return the windows' ends that could close in [from_s, to_s), and when each could."""
        closed = {end_ms: self.closed_s(end_ms) for end_ms in self.acknowledged}
        return {
            end_ms: at_s
            for end_ms, at_s in closed.items()
            if at_s is not None and from_s <= at_s < to_s
        }


class Sender:
    """Sends one sample of each server a second, spread evenly, with the present as its instant."""

    def __init__(self, bootstrap: str, topics: tuple[str, ...], rate: int, clock: Clock) -> None:
        """Prepare; `rate` is in messages a second over all topics, acknowledged into `clock`."""
        self._producer = Producer(
            {"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 0, "log_level": 0}
        )
        self._topics = topics
        self._servers = rate // _TOPICS
        self._clock = clock
        self._sent = 0
        self._last_closed_ms = 0
        self._start_s = time.monotonic()

    def send_due(self) -> None:
        """Send what is due, and take acknowledgements."""
        due = int((time.monotonic() - self._start_s) * self._servers)
        while self._sent < due:
            self._send(self._sent)
            self._sent += 1
        self._producer.poll(0)

    def _send(self, number: int) -> None:
        now_ms = int(time.time() * 1000)
        server = f"server_{number % self._servers + 1}"
        value = number * 37 % 6000 / 100
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_ms // 1000))
        at = f"{second}.{now_ms % 1000:03d}Z"
        fields = (
            f'"cpu_pct":{value}',
            f'"mem_pct":{value}',
            f'"net_in":{value},"net_out":{value}',
            f'"disk_io":{value}',
        )
        end_ms = _SPEC.pane_start(now_ms - LATENESS_MS)
        on_delivery = None
        if end_ms > self._last_closed_ms:
            self._last_closed_ms = end_ms

            def on_delivery(error: object, _message: object) -> None:
                if error is None:
                    self._clock.acknowledged.setdefault(end_ms, []).append(time.time())

        for topic, values in zip(self._topics, fields, strict=True):
            body = f'{{"ts":"{at}","server_id":"{server}",{values}}}'
            self._producer.produce(
                topic, body.encode(), server.encode(), timestamp=now_ms, on_delivery=on_delivery
            )


class Follower:
    """Reads rows as they appear below a folder."""

    def __init__(self, out: Path) -> None:
        """Begin with no row seen."""
        self._out = out
        self._offsets: dict[Path, int] = {}
        self._partial: dict[Path, bytes] = {}

    def new_rows(self) -> Iterator[tuple[str, str, int]]:
        """Yield family, server and window start of each row that is new."""
        for family in FAMILIES:
            for path in row_paths(self._out, family):
                if path.stat().st_size == self._offsets.get(path, 0):
                    continue
                with path.open("rb") as file:
                    file.seek(self._offsets.get(path, 0))
                    added = file.read()
                self._offsets[path] = self._offsets.get(path, 0) + len(added)
                *lines, rest = (self._partial.get(path, b"") + added).split(b"\n")
                self._partial[path] = rest
                for line in lines:
                    row = parse_row(line.decode())
                    if row is not None:
                        yield family.name, row[0], row[1]


def measure(
    start: Start, bootstrap: str, topics: tuple[str, ...], out: Path, rate: int, seconds: float
) -> dict[str, Any]:
    """Return the latencies in milliseconds of the windows that could close within `seconds`.

    `never` is how many of their rows had not come ten seconds later. With `error` instead where the
    contestant gave too few.
    """
    clock = Clock()
    sender = Sender(bootstrap, topics, rate, clock)
    follower = Follower(out)
    seen: dict[tuple[str, str, int], float] = {}
    began_s = time.monotonic()
    first_row_s: list[float] = []

    def work() -> bool:
        sender.send_due()
        now_s = time.time()
        for key in follower.new_rows():
            seen.setdefault(key, now_s)
        if seen and not first_row_s:
            first_row_s.append(now_s)
        time.sleep(_TICK_S)
        if not first_row_s:
            return time.monotonic() - began_s < _FIRST_ROW_S
        return now_s - first_row_s[0] < _SETTLE_S + seconds + _TAIL_S

    usage = run(start.command, start.environ, out / "log.txt", _FIRST_ROW_S * 2 + seconds, work)
    if not first_row_s:
        end = (out / "log.txt").read_text(encoding="utf-8", errors="replace")[-300:]
        return {"error": f"no row within {_FIRST_ROW_S:g} s: {end}"}
    from_s = first_row_s[0] + _SETTLE_S
    closed = clock.closed_between(from_s, from_s + seconds)
    delays_ms = [
        (seen_s - closed[start_ms + _SPEC.size_ms]) * 1000
        for (_, _, start_ms), seen_s in seen.items()
        if start_ms + _SPEC.size_ms in closed
    ]
    if len(delays_ms) < _LEAST_ROWS:
        return {"error": f"only {len(delays_ms)} rows in {seconds:g} s"}
    cuts = statistics.quantiles(delays_ms, n=100)
    return {
        "rows": len(delays_ms),
        "never": len(closed) * len(FAMILIES) * (rate // _TOPICS) - len(delays_ms),
        "p50_ms": round(cuts[49], 1),
        "p99_ms": round(cuts[98], 1),
        "max_ms": round(max(delays_ms), 1),
        "rss_peak_mb": round(usage.rss_peak_bytes / 1e6, 1),
    }
