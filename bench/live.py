"""The live benchmark: the same windows from the same topics, by us and by other systems.

`bench/live.py --setup` installs the peers once; `bench/live.py` measures everything (about half an
hour, most of it Quix Streams and RocksDB; `--ticks 1500 --latency-s 30` halves it);
`bench/live.py --quick` is a small run to see that all works (two minutes). Rounds are interleaved,
and only ratios within one run count: the machine may be busy with other things.
"""

import argparse
import datetime as dt
import json
import os
import platform
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import psutil
from peers import latency
from peers.contestants import Contestant, Run, contestants
from peers.fleet import LATENESS_MS, Fleet, expected, load, make_topics, topic_names
from peers.install import relock, set_up
from peers.page import write_page
from peers.process import run as run_process
from peers.rows import Check, check
from peers.table import summary

from fleetpulse.edges.java import Java
from fleetpulse.edges.kafka import broker
from fleetpulse.edges.kafka.address import free_port
from fleetpulse.edges.kafka.broker import BrokerSpec
from fleetpulse.roles.setup import BROKER_JARS, ready_jars, ready_java

RESULTS: Final = Path(__file__).parent / "results" / "live.json"
_TIMEOUT_S: Final = 900.0
_FULL: Final = Fleet(servers=100, ticks=3000)
_QUICK: Final = Fleet(servers=100, ticks=240)


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure: contestants by name (none: all), how much, how often, and for how long."""

    names: tuple[str, ...]
    fleet: Fleet
    rounds: int
    latency_s: float
    rate: int
    partitions: int
    results: Path


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
        write_page(json.loads(given.results.read_text(encoding="utf-8")))
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
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(summary(results))
    ours = (one for one in results["contestants"] if one["is_ours"])
    return int(any("faults" in run or "error" in run for one in ours for run in one["runs"]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="contestants; default: all")
    parser.add_argument("--setup", action="store_true", help="install the peers and end")
    parser.add_argument("--lock", action="store_true", help="choose the peers' jars again and end")
    parser.add_argument("--page", action="store_true", help="write the page from the results")
    parser.add_argument("--quick", action="store_true", help="96,000 messages, one round")
    parser.add_argument("--servers", type=int, help="servers of the backlog (100)")
    parser.add_argument("--ticks", type=int, help="samples of each server (3000; quick: 240)")
    parser.add_argument("--rounds", type=int, help="rounds, 0 for none (3; quick: 1)")
    parser.add_argument(
        "--latency-s", type=float, help="seconds of latency for each, 0 for none (60; quick: 0)"
    )
    parser.add_argument("--rate", type=int, default=4000, help="messages a second (4000)")
    parser.add_argument("--partitions", type=int, default=1, help="of each topic (1)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results are written")
    return parser


def _options(given: argparse.Namespace) -> Options:
    size, rounds, latency_s = (_QUICK, 1, 0.0) if given.quick else (_FULL, 3, 60.0)
    return Options(
        tuple(given.names),
        Fleet(given.servers or size.servers, given.ticks or size.ticks),
        rounds if given.rounds is None else given.rounds,
        latency_s if given.latency_s is None else given.latency_s,
        given.rate,
        given.partitions,
        given.results,
    )


def _measure(
    options: Options, chosen: list[Contestant], java: Java, scratch: Path
) -> dict[str, Any]:
    jars = ready_jars(BROKER_JARS, os.environ, java, print)
    data = scratch / "broker"
    spec = BrokerSpec("127.0.0.1", free_port(), data, java.executable, jars, heap_mb=1024)
    runs: dict[str, list[dict[str, Any]]] = {one.name: [] for one in chosen}
    latencies: dict[str, dict[str, Any]] = {}
    started = dt.datetime.now(tz=dt.UTC)
    with broker.running(spec, print):
        broker_pid = broker.status(data).pid or 0
        make_topics(spec.address, "topic", options.partitions)
        print(f"sending {options.fleet.messages:,} messages")
        load(spec.address, "topic", options.fleet)
        print("asking the reference for the rows")
        wanted = expected(options.fleet)
        for number in range(1, options.rounds + 1):
            for one in chosen:
                if one.missing:
                    continue
                out = scratch / f"{one.name}-{number}"
                out.mkdir()
                found = _drain(one, options.fleet, spec.address, out, broker_pid)
                if one.has_rows and "error" not in found:
                    _add_check(found, check(out, wanted, may_hold_back=one.may_hold_back))
                runs[one.name].append(found)
                print(f"round {number}: {one.name}: {_short(found)}")
                shutil.rmtree(out)
        for one in chosen:
            if options.latency_s and one.has_rows and not one.missing:
                latencies[one.name] = _latency(one, options, spec.address, scratch)
                print(f"latency: {one.name}: {latencies[one.name]}")
    return {
        "date": f"{started:%Y-%m-%d}",
        "seconds": round((dt.datetime.now(tz=dt.UTC) - started).total_seconds()),
        "machine": _machine(java),
        "messages": options.fleet.messages,
        "servers": options.fleet.servers,
        "rounds": options.rounds,
        "rate": options.rate,
        "partitions": options.partitions,
        "contestants": [
            {
                "name": one.name,
                "title": one.title,
                "note": one.note,
                "is_ours": one.is_ours,
                "missing": one.missing,
                "runs": runs[one.name],
                "latency": latencies.get(one.name),
            }
            for one in chosen
        ],
    }


def _drain(
    one: Contestant, fleet: Fleet, bootstrap: str, out: Path, broker_pid: int
) -> dict[str, Any]:
    lateness_ms = one.drain_lateness_ms or LATENESS_MS
    start = one.start(Run(bootstrap, topic_names("topic"), out, fleet.messages, lateness_ms))
    log_path = out / "log.txt"
    broker_before_s = _cpu_s(broker_pid)
    try:
        usage = run_process(start.command, start.environ, log_path, _TIMEOUT_S)
    except TimeoutError:
        return {"error": f"not done after {_TIMEOUT_S:g} s"}
    if usage.exit_code:
        end = log_path.read_text(encoding="utf-8", errors="replace")[-500:]
        return {"error": " ".join(f"exit code {usage.exit_code}: {end}".split())}
    first_s, done_s = usage.events.get("first"), usage.events.get("done", usage.ended_s)
    millions = fleet.messages / 1e6
    found: dict[str, Any] = {
        "cpu_s_per_million": round(usage.cpu_s / millions, 3),
        "wall_s": round(usage.ended_s - usage.started_s, 3),
        "rss_peak_mb": round(usage.rss_peak_bytes / 1e6, 1),
        "broker_cpu_s_per_million": round((_cpu_s(broker_pid) - broker_before_s) / millions, 3),
        "messages_per_s_with_start": round(fleet.messages / (done_s - usage.started_s)),
    }
    if first_s is not None:
        busy_cpu_s = usage.cpu_s - usage.cpu_s_at(first_s)
        found["start_s"] = round(first_s - usage.started_s, 3)
        found["messages_per_s"] = round(fleet.messages / max(done_s - first_s, 1e-3))
        found["cpu_s_per_million_without_start"] = round(busy_cpu_s / millions, 3)
    return found


def _latency(one: Contestant, options: Options, bootstrap: str, scratch: Path) -> dict[str, Any]:
    prefix = f"live-{one.name}"
    make_topics(bootstrap, prefix, options.partitions)
    out = scratch / prefix
    out.mkdir()
    start = one.start(Run(bootstrap, topic_names(prefix), out, 0, LATENESS_MS))
    found = latency.measure(
        start, bootstrap, topic_names(prefix), out, options.rate, options.latency_s
    )
    shutil.rmtree(out)
    return found


def _add_check(found: dict[str, Any], checked: Check) -> None:
    found["rows"] = {key: value for key, value in asdict(checked).items() if key != "examples"}
    if not checked.is_right:
        found["faults"] = checked.examples


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


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _machine(java: Java) -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "java": java.major,
        "versions": {name: version(name) for name in ("confluent-kafka", "pyspark")},
    }


if __name__ == "__main__":
    sys.exit(main())
