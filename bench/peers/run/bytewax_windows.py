"""Bytewax: sliding windows by event time, as its guide on windowing builds them.

One worker: its guide on performance says that workers of one process contend for the interpreter,
and a topic has one partition. `ordered=False`, because sums and maxima need no order.
"""

import datetime as dt
from collections.abc import Callable

import bytewax.operators as op
import bytewax.operators.windowing as win
import orjson
from bytewax.connectors.files import FileSink
from bytewax.connectors.kafka import KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.testing import cluster_main
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
    say,
)

Reading = tuple[dt.datetime, int, int]
State = tuple[int, int, int, int]
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def parser(
    first_field: str, second_field: str, on_message: Callable[[], None]
) -> Callable[[KafkaSourceMessage[bytes, bytes]], tuple[str, Reading]]:
    """Return what turns a message into (server, (instant, which metric, hundredths))."""

    def parse(message: KafkaSourceMessage[bytes, bytes]) -> tuple[str, Reading]:
        on_message()
        found = orjson.loads(message.value)
        at = dt.datetime.fromisoformat(found["ts"])
        value = found.get(first_field)
        if value is not None:
            return found["server_id"], (at, 0, hundredths(value))
        return found["server_id"], (at, 1, hundredths(found[second_field]))

    return parse


def add_up(state: State, reading: Reading) -> State:
    """Return sum and count of both metrics with one reading more."""
    first, first_count, second, second_count = state
    _, which, value = reading
    if which == 0:
        return first + value, first_count + 1, second, second_count
    return first, first_count, second + value, second_count + 1


def keep_highest(state: State, reading: Reading) -> State:
    """Return maximum and count of both metrics with one reading more."""
    first, first_count, second, second_count = state
    _, which, value = reading
    if which == 0:
        return max(first, value), first_count + 1, second, second_count
    return first, first_count, max(second, value), second_count + 1


def merge_sums(one: State, other: State) -> State:
    """Return the sums of both states; only session windows merge, and these are none."""
    return (one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3])


def mean_line(keyed: tuple[str, tuple[int, State]]) -> tuple[str, str]:
    """Return the row of a closed cpu and memory window."""
    server, (number, (first, first_count, second, second_count)) = keyed
    cpu = mean(first, first_count) if first_count else None
    mem = mean(second, second_count) if second_count else None
    return server, cpu_mem_row(server, number * SLIDE_MS, cpu, mem)


def highest_line(keyed: tuple[str, tuple[int, State]]) -> tuple[str, str]:
    """Return the row of a closed net and disk window."""
    server, (number, (first, first_count, second, second_count)) = keyed
    net = first if first_count else None
    disk = second if second_count else None
    return server, net_disk_row(server, number * SLIDE_MS, net, disk)


def build(given: Options) -> Dataflow:
    """Return the flow: for each family its two topics, windows, and one file."""
    flow = Dataflow("fleet")
    clock = win.EventClock(
        ts_getter=lambda reading: reading[0],
        wait_for_system_duration=dt.timedelta(milliseconds=given.lateness_ms),
    )
    windower = win.SlidingWindower(
        length=dt.timedelta(milliseconds=SIZE_MS),
        offset=dt.timedelta(milliseconds=SLIDE_MS),
        align_to=EPOCH,
    )
    say_first = Once("first")
    families = (
        ("cpu_mem", given.topics[:2], ("cpu_pct", "mem_pct"), add_up, mean_line),
        ("net_disk", given.topics[2:], ("net_in", "disk_io"), keep_highest, highest_line),
    )
    for name, topics, fields, folder, line in families:
        source = KafkaSource([given.bootstrap], list(topics), tail=given.is_live)
        messages = op.input(f"{name}_in", flow, source)
        keyed = op.map(f"{name}_parse", messages, parser(*fields, say_first))
        windows = win.fold_window(
            f"{name}_windows",
            keyed,
            clock,
            windower,
            builder=lambda: (0, 0, 0, 0),
            folder=folder,
            merger=merge_sums,
            ordered=False,
        )
        rows = op.map(f"{name}_row", windows.down, line)
        op.output(f"{name}_out", rows, FileSink(given.out / f"{name}.csv"))
    return flow


if __name__ == "__main__":
    # The same entry as `python -m bytewax.run`, which ends by itself when the input does.
    cluster_main(build(options()), [], 0)
    say("done")
