"""The live benchmark: the same windows from the same topics, by us and by other systems.

`make bench-live` measures everything and installs the peers once; `make bench-quick` is a small run
to see that all works. Rounds are interleaved, and only ratios within one run count: the machine may
be busy with other things.
"""

import argparse
import datetime as dt
import json
import os
import platform
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import psutil
from peers.contestants import Contestant, contestants
from peers.fleet import Fleet
from peers.install import LOCK, REQUIREMENTS, relock, set_up
from peers.page import write_page
from peers.rounds import Backlog, Ground, load_average
from peers.table import drain_rate, summary

from fleetpulse.edges.java import Java
from fleetpulse.edges.kafka import broker
from fleetpulse.edges.kafka.address import free_port
from fleetpulse.edges.kafka.broker import BrokerSpec
from fleetpulse.roles.setup import BROKER_JARS, ready_jars, ready_java

RESULTS: Final = Path(__file__).parent / "results" / "live.json"
_FULL: Final = Fleet(servers=100, ticks=2500)
_QUICK: Final = Fleet(servers=100, ticks=240)
# The same windows for each message as in the other backlogs: two for four samples.
_WIDE: Final = Fleet(servers=100_000, ticks=4)
_WIDE_CONTESTANTS: Final = ("raw", "monitor")
_SLOW_PART: Final = 5
_RATES: Final = (4_000, 100_000)


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure: contestants by name (none: all), how much, how often, and for how long."""

    names: tuple[str, ...]
    fleet: Fleet
    slow_fleet: Fleet
    wide: Fleet | None
    rounds: int
    latency_s: float
    rates: tuple[int, ...]
    partitions: int
    results: Path | None


def main() -> int:
    """Measure, print the table, and write the results; 1 when our own rows are wrong."""
    parser = _parser()
    given = parser.parse_args()
    java = ready_java(os.environ)
    if given.setup:
        set_up(os.environ, java, print)
        return 0
    if given.lock:
        relock(os.environ, java)
        return 0
    if given.page:
        write_page(json.loads((given.results or RESULTS).read_text(encoding="utf-8")))
        return 0
    options = _options(given)
    scratch = Path(tempfile.mkdtemp(prefix="fleetpulse-live-"))
    try:
        found = contestants(os.environ, java, scratch, print)
        unknown = set(options.names) - {one.name for one in found}
        if unknown:
            parser.error(f"unknown: {', '.join(sorted(unknown))}")
        chosen = [one for one in found if not options.names or one.name in options.names]
        results = _measure(options, chosen, java, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if options.results:
        options.results.parent.mkdir(parents=True, exist_ok=True)
        options.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(summary(results))
    ours = (one for one in results["contestants"] if one["is_ours"])
    runs = (run for one in ours for run in one["runs"] + one["wide_runs"])
    return int(any("faults" in run or "error" in run for run in runs))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="contestants; default: all")
    parser.add_argument("--setup", action="store_true", help="install the peers and end")
    parser.add_argument("--lock", action="store_true", help="choose the peers' jars again and end")
    parser.add_argument("--page", action="store_true", help="write the page from the results")
    parser.add_argument(
        "--quick", action="store_true", help="96,000 messages, one round, nothing else"
    )
    parser.add_argument("--ticks", type=int, help="samples of each server (2500; quick: 240)")
    parser.add_argument("--rounds", type=int, help="rounds, 0 for none (3; quick: 1)")
    parser.add_argument(
        "--latency-s",
        type=float,
        help="seconds of latency, 0 for none (20; quick: 0); monitor: 3 x",
    )
    parser.add_argument(
        "--rates", type=int, nargs="+", default=_RATES, help="messages a second (4000 100000)"
    )
    parser.add_argument("--no-wide", action="store_true", help="no backlog of 100,000 servers")
    parser.add_argument("--partitions", type=int, default=1, help="of each topic (1)")
    parser.add_argument(
        "--results",
        type=Path,
        help="file of the results (bench/results/live.json; quick or with names: none)",
    )
    return parser


def _options(given: argparse.Namespace) -> Options:
    size, rounds, latency_s = (_QUICK, 1, 0.0) if given.quick else (_FULL, 3, 20.0)
    fleet = Fleet(size.servers, given.ticks or size.ticks)
    return Options(
        tuple(given.names),
        fleet,
        fleet if given.quick else Fleet(fleet.servers, fleet.ticks // _SLOW_PART),
        None if given.quick or given.no_wide else _WIDE,
        rounds if given.rounds is None else given.rounds,
        latency_s if given.latency_s is None else given.latency_s,
        tuple(given.rates),
        given.partitions,
        given.results or (None if given.quick or given.names else RESULTS),
    )


def _measure(
    options: Options, chosen: list[Contestant], java: Java, scratch: Path
) -> dict[str, Any]:
    jars = ready_jars(BROKER_JARS, os.environ, java, print)
    data = scratch / "broker"
    spec = BrokerSpec("127.0.0.1", free_port(), data, java.executable, jars, heap_mb=1024)
    found: dict[str, dict[str, Any]] = {
        one.name: {
            "name": one.name,
            "title": one.title,
            "note": one.note,
            "is_ours": one.is_ours,
            "missing": one.missing,
            "runs": [],
            "wide_runs": [],
            "latency": {},
        }
        for one in chosen
    }
    started, load_before = dt.datetime.now(tz=dt.UTC), load_average()
    with broker.running(spec, print):
        pid = broker.status(data).pid or 0
        ground = Ground(spec.address, pid, scratch, options.partitions)
        able = [one for one in chosen if not one.missing]
        if options.rounds:
            _drain(options, able, ground, found)
        for rate in options.rates if options.latency_s else ():
            _follow(options, able, ground, rate, found)
    for name, command in ground.commands.items():
        found[name]["command"] = command
    return {
        "date": f"{started:%Y-%m-%d}",
        "seconds": round((dt.datetime.now(tz=dt.UTC) - started).total_seconds()),
        "machine": _machine(java),
        "load_before": load_before,
        "messages": options.fleet.messages,
        "servers": options.fleet.servers,
        "wide_messages": options.wide.messages if options.wide else 0,
        "wide_servers": options.wide.servers if options.wide else 0,
        "rounds": options.rounds,
        "latency_s": options.latency_s,
        "partitions": options.partitions,
        "contestants": list(found.values()),
    }


def _drain(
    options: Options, able: list[Contestant], ground: Ground, found: dict[str, dict[str, Any]]
) -> None:
    """Do the rounds: each contestant drains its backlog, one after the other."""
    backlogs = {False: _backlog(ground, "all", options.fleet)}
    backlogs[True] = backlogs[False]
    if options.slow_fleet != options.fleet and any(one.is_slow for one in able):
        backlogs[True] = _backlog(ground, "part", options.slow_fleet)
    wide = None
    if options.wide and any(one.name in _WIDE_CONTESTANTS for one in able):
        wide = _backlog(ground, "wide", options.wide)
    for number in range(1, options.rounds + 1):
        for one in able:
            run = ground.drain(one, backlogs[one.is_slow])
            found[one.name]["runs"].append(run)
            _say(f"round {number}: {one.name}: {_short(run)}")
            if wide and one.name in _WIDE_CONTESTANTS:
                run = ground.drain(one, wide)
                found[one.name]["wide_runs"].append(run)
                _say(f"round {number}: {one.name}, {wide.fleet.servers:,} servers: {_short(run)}")


def _backlog(ground: Ground, prefix: str, fleet: Fleet) -> Backlog:
    _say(f"sending {fleet.messages:,} messages of {fleet.servers:,} servers")
    return ground.backlog(prefix, fleet)


def _follow(
    options: Options,
    able: list[Contestant],
    ground: Ground,
    rate: int,
    found: dict[str, dict[str, Any]],
) -> None:
    """Take the latency of each contestant that can keep up."""
    for one in able:
        if not one.live_times:
            continue
        drains_per_s = drain_rate(found[one.name])
        # A small backlog says little of one that starts slowly, so the lowest rate is always tried.
        if rate > min(options.rates) and drains_per_s is not None and drains_per_s < rate:
            latency = {"error": f"cannot keep up: drains {drains_per_s:,.0f} messages/s"}
        else:
            latency = ground.follow(one, rate, options.latency_s * one.live_times)
        found[one.name]["latency"][str(rate)] = latency
        _say(f"latency at {rate:,}/s: {one.name}: {latency}")


def _short(found: dict[str, Any]) -> str:
    if "error" in found:
        return str(found["error"])
    rows = found.get("rows")
    return (
        f"{found['cpu_s_per_million']} CPU s per million, {found.get('messages_per_s', '-')} "
        f"messages/s, start {found.get('start_s', '-')} s, {found['rss_peak_mb']} MB"
        + (f", rows {rows}" if rows else "")
        + (f", FAULTS {found['faults']}" if "faults" in found else "")
    )


def _say(text: str) -> None:
    print(f"{dt.datetime.now(tz=dt.UTC):%H:%M:%S} {text}", flush=True)


def _machine(java: Java) -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "java": java.major,
        "versions": {name: version(name) for name in ("fleetpulse", "confluent-kafka", "pyspark")}
        | _peer_versions(),
    }


def _peer_versions() -> dict[str, str]:
    """Return what the peers' locks name."""
    texts = [path.read_text(encoding="utf-8") for path in (LOCK, REQUIREMENTS)]
    wanted = r"(?:^|[ :])(kafka-streams|flink-clients|bytewax|quixstreams)(?::|==)([0-9][\w.-]*)"
    return dict(re.findall(wanted, "\n".join(texts), re.MULTILINE))


if __name__ == "__main__":
    sys.exit(main())
