"""Reads topics with a client library that shares no code with ours."""

from collections.abc import Iterator

from kafka import KafkaConsumer, TopicPartition

# Topic, partition and offset of a message.
Place = tuple[str, int, int]


def read_again(bootstrap: str, *names: str) -> Iterator[tuple[Place, bytes | None]]:
    """Yield every committed message of some topics; those of a partition in their order."""
    client = KafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=None,
        enable_auto_commit=False,
        isolation_level="read_committed",
        check_crcs=True,
        allow_auto_create_topics=False,
        max_poll_records=10_000,
        fetch_max_wait_ms=20,
        max_partition_fetch_bytes=4 << 20,
    )
    try:
        where = [
            TopicPartition(name, number)
            for name in names
            for number in sorted(client.partitions_for_topic(name))
        ]
        client.assign(where)
        client.seek_to_beginning(*where)
        ends = client.end_offsets(where)
        while any(client.position(one) < ends[one] for one in where):
            for place, records in client.poll(200).items():
                for record in records:
                    yield (place.topic, place.partition, record.offset), record.value
    finally:
        client.close()
