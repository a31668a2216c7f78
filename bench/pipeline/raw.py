"""The client alone: the same bytes sent or taken by a bare loop, nothing parsed, nothing kept.

It prints one JSON object: messages, and the seconds and CPU seconds of its loop.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from fleetpulse.codec.message import encode_message
from fleetpulse.codec.table import read_table
from fleetpulse.config import Settings
from fleetpulse.domain.clock import EPOCH, TimeReader
from fleetpulse.domain.metric import METRICS
from fleetpulse.domain.sample import split
from fleetpulse.edges.files import read_chunks
from fleetpulse.edges.kafka import consumer, producer

_BATCH: Final = 10_000
_POLL_EVERY: Final = 500
_WAIT_S: Final = 1.0

Message = tuple[str, bytes, bytes, int]


def main() -> None:
    """Produce or consume as the command line says, and print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=("produce", "consume"))
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--dataset", type=Path, help="produce: what to send")
    parser.add_argument("--topics", default="", help="consume: names, with commas between")
    parser.add_argument("--messages", type=int, default=0, help="consume: how many, in all")
    given = parser.parse_args()
    if given.way == "produce":
        found = _produce(given.bootstrap, list(_messages(given.dataset)))
    else:
        found = _consume(given.bootstrap, given.topics.split(","), given.messages)
    print(json.dumps(found))


def _messages(dataset: Path) -> Iterator[Message]:
    settings = Settings()
    times = TimeReader(settings.time.tz, EPOCH.date())
    for _, row in read_table(read_chunks(dataset), METRICS, times, str(dataset)):
        if row.sample is None:
            sys.exit(f"{dataset}: wanted samples only, found {row.rejects}")
        for record in split(row.sample):
            name = settings.topics.name(record.topic)
            yield name, encode_message(record), record.server_id.encode(), record.ts_ms


def _produce(bootstrap: str, messages: list[Message]) -> dict[str, float]:
    started_s, used_s = time.monotonic(), _cpu_s()
    client = Producer({**producer.client_settings(), "bootstrap.servers": bootstrap})
    until_poll = _POLL_EVERY
    for name, value, key, ts_ms in messages:
        while True:
            try:
                client.produce(name, value, key, timestamp=ts_ms)
            except BufferError:
                client.poll(_WAIT_S)
            else:
                break
        until_poll -= 1
        if not until_poll:
            client.poll(0)
            until_poll = _POLL_EVERY
    client.flush()
    return _cost(len(messages), started_s, used_s)


def _consume(bootstrap: str, topics: list[str], messages: int) -> dict[str, float]:
    started_s, used_s = time.monotonic(), _cpu_s()
    # Without the messages that only tell of a partition's end.
    settings = {
        **consumer.client_settings("raw"),
        "bootstrap.servers": bootstrap,
        "enable.partition.eof": False,
    }
    client = Consumer(settings)
    client.assign([TopicPartition(topic, 0, OFFSET_BEGINNING) for topic in topics])
    taken = 0
    while taken < messages:
        taken += len(client.consume(_BATCH, _WAIT_S))
    cost = _cost(taken, started_s, used_s)
    client.close()
    return cost


def _cost(messages: int, started_s: float, used_s: float) -> dict[str, float]:
    seconds = time.monotonic() - started_s
    return {"messages": messages, "seconds": seconds, "cpu_s": _cpu_s() - used_s}


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
