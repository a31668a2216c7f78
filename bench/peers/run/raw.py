"""The limit: messages are taken from the broker in batches, and nothing is done with them."""

import uuid

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from work import Once, options, say

_BATCH = 10_000


def main() -> None:
    """Take as many messages as were asked for, from the first of each topic."""
    given = options()
    consumer = Consumer(
        {
            "bootstrap.servers": given.bootstrap,
            "group.id": f"raw-{uuid.uuid4()}",
            "enable.auto.commit": False,
        }
    )
    partitions = [
        TopicPartition(topic, number, OFFSET_BEGINNING)
        for topic in given.topics
        for number in consumer.list_topics(topic).topics[topic].partitions
    ]
    consumer.assign(partitions)
    say_first = Once("first")
    seen = 0
    while seen < given.messages:
        batch = consumer.consume(_BATCH, 1.0)
        if batch:
            say_first()
        seen += len(batch)
    say("done")
    consumer.close()


if __name__ == "__main__":
    main()
