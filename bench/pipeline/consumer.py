"""The consumers draining full topics, against a bare client loop that drains the same ones."""

from contextlib import ExitStack
from typing import Final

from pipeline.command import CommandFailed, Ended
from pipeline.place import Fleet, Place, expect
from pipeline.report import Goal, Measure

FLEET: Final = Fleet(servers=100, interval_s=1, rows=1_000_000)
_NAMES: Final = ("consumer1", "consumer2")
_FILES: Final = {
    "consumer1": ("cpu_data.csv", "mem_data.csv"),
    "consumer2": ("net_data.csv", "disk_data.csv"),
}
_RAW: Final = "raw"
_UNSYNCED: Final = "consumer1, unsynced"
NOTES: Final = (
    "Each topic holds as many messages as there are rows; a consumer drains two topics.",
    (
        "draining: from the line that tells where reading begins to the last write of a row file, "
        "which a synced commit follows at once."
    ),
    (
        "A last batch that is not full waits for its commit, up to a second, which is counted; the "
        "idle wait behind that is not."
    ),
    (
        "raw: consume(10000) with the same client settings over the topics of consumer1, "
        "nothing parsed."
    ),
    (
        "unsynced: the same with every wait for the disk left out; time for syncing: what draining "
        "takes longer with it, of each pair of runs."
    ),
    "at once: both consumers as processes side by side.",
)

Drained = tuple[Ended, float]


def measure(place: Place) -> tuple[dict[str, int], list[Measure]]:
    """Return sizes and measures; the contestants take turns on topics that are loaded once."""
    dataset = place.dataset(FLEET)
    messages = 2 * FLEET.rows
    raw: list[Ended] = []
    alone: list[Drained] = []
    unsynced: list[Drained] = []
    together: dict[str, list[Drained]] = {name: [] for name in _NAMES}
    with place.node() as node:
        node.run("load", "producer", "--dataset", dataset, "--speed", "max", "--json")
        bootstrap = f"127.0.0.1:{node.environ['FLEETPULSE__BROKER__PORT']}"
        for number in range(place.runs):
            raw.append(
                node.run_raw(
                    _RAW,
                    *("consume", "--bootstrap", bootstrap, "--topics", "topic-cpu,topic-mem"),
                    *("--messages", str(messages)),
                )
            )
            alone += _drain(node, f"alone-{number}", _NAMES[:1])
            unsynced += _drain(node, f"unsynced-{number}", _NAMES[:1], is_synced=False)
            for name, found in zip(_NAMES, _drain(node, f"together-{number}", _NAMES), strict=True):
                together[name].append(found)
    measures = [*_against_raw(messages, alone, raw), *_cost_of_syncs(messages, alone, unsynced)]
    for name, drained in together.items():
        measures += _own(f"{name}, at once", messages, drained)
    return {"rows": FLEET.rows, "messages a consumer": messages}, measures


def _drain(
    node: Place, output: str, names: tuple[str, ...], *, is_synced: bool = True
) -> list[Drained]:
    place = node.writing_to(output)
    with ExitStack() as kept:
        running = []
        for name in names:
            arguments = (name, "--until-idle", "1s", "--json")
            if is_synced:
                command = place.start(name, *arguments)
            else:
                command = place.start_unsynced(_UNSYNCED, *arguments)
            running.append(kept.enter_context(command))
        ended = [one.finish() for one in running]
    found = []
    for name, one in zip(names, ended, strict=True):
        expect(one.result()["rows"], dict.fromkeys(_FILES[name], FLEET.rows), f"{name}: rows")
        paths = [place.folder / output / file for file in _FILES[name]]
        begin_s, _ = one.event("reading from offset 0")
        found.append((one, max(path.stat().st_mtime for path in paths) - begin_s))
    for path in (place.folder / output).iterdir():
        path.unlink()
    return found


def _against_raw(messages: int, alone: list[Drained], raw: list[Ended]) -> list[Measure]:
    raw_s = [one.result()["seconds"] for one in raw]
    if len(raw) != len(alone):
        raise CommandFailed("contestants must take turns")
    rates = [two / one for (_, one), two in zip(alone, raw_s, strict=True)]
    costs = [one.cpu_s / two.cpu_s for (one, _), two in zip(alone, raw, strict=True)]
    return [
        *_own("consumer1", messages, alone),
        Measure(_RAW, "rate", "messages/s", [messages / one for one in raw_s]),
        Measure(_RAW, "CPU", "s", [one.cpu_s for one in raw]),
        Measure("consumer1", "rate / raw", "", rates),
        Measure("consumer1", "CPU / raw", "", costs),
    ]


def _cost_of_syncs(messages: int, synced: list[Drained], unsynced: list[Drained]) -> list[Measure]:
    costs = [one / two - 1 for (_, one), (_, two) in zip(synced, unsynced, strict=True)]
    return [
        Measure(_UNSYNCED, "rate", "messages/s", [messages / drain_s for _, drain_s in unsynced]),
        Measure("consumer1", "time for syncing", "", costs, Goal(under=0.25)),
    ]


def _own(contestant: str, messages: int, found: list[Drained]) -> list[Measure]:
    rates = [messages / drain_s for _, drain_s in found]
    return [
        Measure(contestant, "rate", "messages/s", rates, Goal(over=100_000)),
        Measure(contestant, "draining", "s", [drain_s for _, drain_s in found]),
        Measure(contestant, "wall, process", "s", [one.wall_s for one, _ in found]),
        Measure(contestant, "CPU", "s", [one.cpu_s for one, _ in found]),
        Measure(
            contestant, "peak RSS", "MB", [one.rss_peak_mb for one, _ in found], Goal(under=200)
        ),
    ]
