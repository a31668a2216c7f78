"""A fleet that is sent at a steady rate, and the instants at which its windows could close."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import KafkaError, Message, Producer

from fleetpulse.domain.metric import TOPICS
from fleetpulse.domain.window import WindowSpec
from peers.fleet import LATENESS_MS

SPEC: Final = WindowSpec()
# One server of this many is over every limit, all the time; the others never are.
ALERT_EVERY: Final = 10
_QUIET: Final = (40.25, 51.5, 2100.75, 700.5)
_OVER: Final = (95.25, 96.5, 9100.75, 2700.5)
_DRAIN_S: Final = 10.0


@dataclass(slots=True)
class Clock:
    """When the broker acknowledged the records that close windows, by the end of the window."""

    acknowledged: dict[int, list[float]] = field(default_factory=dict)

    def closed_s(self, end_ms: int) -> float | None:
        """Return when the window could close; None while a topic's record is not there yet."""
        instants = self.acknowledged.get(end_ms, [])
        return max(instants) if len(instants) == len(TOPICS) else None

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
            {
                "bootstrap.servers": bootstrap,
                "acks": "all",
                "queue.buffering.max.messages": 1_000_000,
                "log_level": 0,
            }
        )
        self._clock = clock
        self._keys = [f"server_{number}".encode() for number in range(rate // len(TOPICS))]
        # What follows the instant in the messages of each topic, by server.
        self._tails = [
            (topic, [_tail(number, at) for number in range(len(self._keys))])
            for at, topic in enumerate(topics)
        ]
        self._last_closed_ms = 0
        self._sent = 0
        self._began_s = time.monotonic()

    @property
    def servers(self) -> int:
        """Return how many servers there are."""
        return len(self._keys)

    @property
    def alerting(self) -> int:
        """Return how many of them are over every limit."""
        return -(-self.servers // ALERT_EVERY)

    def messages_per_s(self) -> float:
        """Return how many messages were sent a second since the start, on all topics."""
        return self._sent * len(TOPICS) / (time.monotonic() - self._began_s)

    def send_due(self) -> None:
        """Send what is due, and take acknowledgements."""
        due = int((time.monotonic() - self._began_s) * self.servers)
        if due > self._sent:
            self._send(range(self._sent, due))
            self._sent = due
        self._producer.poll(0)

    def finish(self) -> None:
        """Forget what is not acknowledged yet."""
        self._producer.purge()
        self._producer.flush(_DRAIN_S)

    def _send(self, numbers: range) -> None:
        now_ms = int(time.time() * 1000)
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_ms // 1000))
        head = f'{{"ts":"{second}.{now_ms % 1000:03d}Z"'.encode()
        end_ms = SPEC.pane_start(now_ms - LATENESS_MS)
        closing = None
        if end_ms > self._last_closed_ms:
            self._last_closed_ms = end_ms
            closing = self._acknowledge(end_ms)
        for topic, tails in self._tails:
            on_delivery = closing
            for number in numbers:
                server = number % self.servers
                value, key = head + tails[server], self._keys[server]
                if on_delivery is None:
                    self._producer.produce(topic, value, key, timestamp=now_ms)
                else:
                    self._producer.produce(
                        topic, value, key, timestamp=now_ms, on_delivery=on_delivery
                    )
                    on_delivery = None

    def _acknowledge(self, end_ms: int) -> Callable[[KafkaError | None, Message], None]:
        def on_delivery(error: KafkaError | None, _message: Message) -> None:
            if error is None:
                self._clock.acknowledged.setdefault(end_ms, []).append(time.time())

        return on_delivery


def _tail(number: int, at: int) -> bytes:
    values = _OVER if number % ALERT_EVERY == 0 else _QUIET
    topic, value = TOPICS[at], values[at]
    fields = ",".join(f'"{name}":{value}' for name in (metric.name for metric in topic.metrics))
    return f',"server_id":"server_{number}",{fields}}}'.encode()
