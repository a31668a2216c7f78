"""The limit: messages are taken from the broker in batches, and nothing is done with them.

Live, it writes a line as soon as each topic has shown a message that closes a window: the floor of
what any consumer in Python can reach. For that it looks at the messages' timestamps.
"""

import uuid

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from work import SIZE_MS, SLIDE_MS, Once, Options, options, row_file, say

_BATCH = 10_000


def main() -> None:
    """Take as many messages as were asked for, from the first of each topic, or live for ever."""
    given = options()
    consumer = Consumer(
        {
            "bootstrap.servers": given.bootstrap,
            "group.id": f"raw-{uuid.uuid4()}",
            "enable.auto.commit": False,
            # The default, a second, leaves the queue empty most of the time: a sixth of the rate.
            "fetch.queue.backoff.ms": 10,
        }
    )
    partitions = [
        TopicPartition(topic, number, OFFSET_BEGINNING)
        for topic in given.topics
        for number in consumer.list_topics(topic).topics[topic].partitions
    ]
    consumer.assign(partitions)
    if given.is_live:
        follow(consumer, given)
    say_first = Once("first")
    seen = 0
    while seen < given.messages:
        # More than there are would be waited for.
        batch = consumer.consume(min(_BATCH, given.messages - seen), 1.0)
        if batch:
            say_first()
        seen += len(batch)
    say("done")
    consumer.close()


def follow(consumer: Consumer, given: Options) -> None:
    """Write a line for each window that can close, in both files, until the process is ended."""
    files = [row_file(given.out / f"{name}.csv", is_live=True) for name in ("cpu_mem", "net_disk")]
    latest_ms = dict.fromkeys(given.topics, 0)
    # The first window that is not closed yet; 0 before the first message.
    end_ms = 0
    while True:
        first = consumer.poll(1.0)
        # A larger batch is not waited for.
        for message in [first, *consumer.consume(_BATCH, 0)] if first else []:
            topic, instant_ms = message.topic(), message.timestamp()[1]
            latest_ms[topic] = max(latest_ms[topic], instant_ms)
        watermark_ms = min(latest_ms.values()) - given.lateness_ms
        if watermark_ms <= 0:
            continue
        if not end_ms:
            end_ms = watermark_ms // SLIDE_MS * SLIDE_MS + SLIDE_MS
        while end_ms <= watermark_ms:
            for file in files:
                file.write(f"floor,{end_ms - SIZE_MS},{end_ms},,,floor\n")
            end_ms += SLIDE_MS


if __name__ == "__main__":
    main()
