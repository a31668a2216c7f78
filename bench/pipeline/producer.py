"""The producer at full speed, against a bare client loop that sends the same bytes."""

from collections.abc import Sequence
from typing import Final

from pipeline.command import Ended
from pipeline.place import Fleet, Place, expect
from pipeline.report import Goal, Measure

FLEET: Final = Fleet(servers=100, interval_s=1, rows=300_000)
_OURS: Final = "producer"
_RAW: Final = "raw"
NOTES: Final = (
    "messages/s: of the role's own seconds, from its connection to the last acknowledgement.",
    "Rows are sent in transactions of 5,000, with the position behind them.",
    (
        "raw: a bare loop, without transactions, with the same client settings over messages that "
        "are made beforehand."
    ),
)


def measure(place: Place) -> tuple[dict[str, int], list[Measure]]:
    """Return sizes and measures; the contestants take turns on one broker."""
    dataset = place.dataset(FLEET)
    messages = 4 * FLEET.rows
    ours: list[Ended] = []
    raw: list[Ended] = []
    with place.node() as node:
        bootstrap = f"127.0.0.1:{node.environ['FLEETPULSE__BROKER__PORT']}"
        for number in range(place.runs):
            ended = node.run(
                _OURS,
                *("producer", "--dataset", dataset, "--run", f"run-{number}"),
                *("--speed", "max", "--json"),
            )
            expect(sum(ended.result()["messages"].values()), messages, "messages acknowledged")
            ours.append(ended)
            raw.append(
                node.run_raw(_RAW, "produce", "--bootstrap", bootstrap, "--dataset", dataset)
            )
            expect(raw[-1].result()["messages"], messages, "messages sent raw")
    return {"rows": FLEET.rows, "messages": messages}, _measures(messages, ours, raw)


def _measures(messages: int, ours: Sequence[Ended], raw: Sequence[Ended]) -> list[Measure]:
    ours_s = [one.result()["seconds"] for one in ours]
    raw_s = [one.result()["seconds"] for one in raw]
    pairs = list(zip(ours, raw, strict=True))
    return [
        Measure(_OURS, "rate", "messages/s", [messages / one for one in ours_s], Goal(over=50_000)),
        Measure(_RAW, "rate", "messages/s", [messages / one for one in raw_s]),
        Measure(
            _OURS, "rate / raw", "", [two / one for one, two in zip(ours_s, raw_s, strict=True)]
        ),
        Measure(_OURS, "wall, process", "s", [one.wall_s for one in ours]),
        Measure(_OURS, "CPU", "s", [one.cpu_s for one in ours]),
        Measure(_RAW, "CPU", "s", [one.result()["cpu_s"] for one in raw]),
        Measure(_OURS, "CPU / raw", "", [one.cpu_s / two.result()["cpu_s"] for one, two in pairs]),
        Measure(_OURS, "peak RSS", "MB", [one.rss_peak_mb for one in ours], Goal(under=200)),
    ]
