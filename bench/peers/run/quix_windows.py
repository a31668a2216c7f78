"""Quix Streams: two topics concatenated, hopping windows, several aggregations, final results."""

import uuid
from typing import Any

import quixstreams.dataframe.windows.aggregations as agg
from quixstreams import Application
from quixstreams.dataframe import StreamingDataFrame
from work import (
    SIZE_MS,
    SLIDE_MS,
    Once,
    Options,
    cpu_mem_row,
    hundredths,
    mean,
    net_disk_row,
    options,
    row_file,
    say,
)


def build(app: Application, given: Options) -> None:
    """Declare both families; closed windows are written as they come."""

    def readings(topic_name: str, field: str, name: str) -> StreamingDataFrame:
        topic = app.topic(topic_name, key_deserializer="str", value_deserializer="json")
        return app.dataframe(topic).apply(lambda found: {name: hundredths(found[field])})

    cpu, mem, net, disk = given.topics
    cpu_mem_file = row_file(given.out / "cpu_mem.csv", is_live=given.is_live)
    net_disk_file = row_file(given.out / "net_disk.csv", is_live=given.is_live)

    def write_cpu_mem(window: dict[str, Any], key: str, *_: object) -> None:
        first = mean(window["cpu"], window["cpus"]) if window["cpus"] else None
        second = mean(window["mem"], window["mems"]) if window["mems"] else None
        cpu_mem_file.write(cpu_mem_row(key, window["start"], first, second) + "\n")

    def write_net_disk(window: dict[str, Any], key: str, *_: object) -> None:
        row = net_disk_row(key, window["start"], window["net"], window["disk"])
        net_disk_file.write(row + "\n")

    readings(cpu, "cpu_pct", "cpu").concat(readings(mem, "mem_pct", "mem")).hopping_window(
        duration_ms=SIZE_MS, step_ms=SLIDE_MS, grace_ms=given.lateness_ms
    ).agg(
        cpu=agg.Sum("cpu"), cpus=agg.Count("cpu"), mem=agg.Sum("mem"), mems=agg.Count("mem")
    ).final().update(write_cpu_mem, metadata=True)
    readings(net, "net_in", "net").concat(readings(disk, "disk_io", "disk")).hopping_window(
        duration_ms=SIZE_MS, step_ms=SLIDE_MS, grace_ms=given.lateness_ms
    ).agg(net=agg.Max("net"), disk=agg.Max("disk")).final().update(write_net_disk, metadata=True)


def main() -> None:
    """Run until every message was processed, or for ever."""
    given = options()
    say_first = Once("first")
    processed = 0

    def count(_topic: str, _partition: int, _offset: int) -> None:
        nonlocal processed
        say_first()
        processed += 1
        if processed == given.messages:
            app.stop()

    app = Application(
        broker_address=given.bootstrap,
        consumer_group=f"quix-{uuid.uuid4()}",
        auto_offset_reset="earliest",
        state_dir=given.out / "state",
        on_message_processed=count,
        loglevel="WARNING",
    )
    build(app, given)
    app.run()
    say("done")


if __name__ == "__main__":
    main()
