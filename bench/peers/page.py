"""The page in the documentation: its table and plot are written from the results of a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from peers.plot import Bar, Panel, svg
from peers.table import Line, Results, lines, rates, summary

_DOCS: Final = Path(__file__).parents[2] / "docs"
_PAGE: Final = _DOCS / "benchmarks-live.md"
_PLOT: Final = _DOCS / "benchmarks-live.svg"
_BEGIN: Final = "<!-- written by bench/live.py --page: begin -->\n"
_END: Final = "<!-- end -->\n"


def write_page(results: Results) -> None:
    """Write the plot, and the table and facts of the run between the page's two marks."""
    _PLOT.write_text(svg(_panels(results)), encoding="utf-8")
    page = _PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    _PAGE.write_text(before + _BEGIN + _facts(results) + _END + after, encoding="utf-8")


def _facts(results: Results) -> str:
    machine = results["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    notes = "\n".join(f"- {one['title']}: {one['note']}." for one in results["contestants"])
    return (
        f"Run of {results['date']}: {results['messages']:,} messages of {results['servers']} "
        f"servers, {results['partitions']} partition a topic, rounds: {results['rounds']}; load "
        f"before the run {results['load_before']:g}. Machine: {machine['cores']} cores, "
        f"{machine['memory_gb']} GB, {machine['system']}, Python {machine['python']}, Java "
        f"{machine['java']}; {versions}.\n\n{summary(results)}\n\n{notes}\n"
    )


def _panels(results: Results) -> list[Panel]:
    named = list(zip(map(_kind, results["contestants"]), lines(results), strict=True))

    def bars(number: Callable[[Line], float | None], form: str) -> list[Bar]:
        return [
            Bar(line.title, value, form.format(value), kind)
            for kind, line in named
            if (value := number(line)) is not None
        ]

    return [
        Panel(
            "CPU for each message, as a ratio to raw consumption",
            "shorter is better; start-up included",
            bars(lambda line: line.cpu_ratio, "{:.1f}"),
        ),
        Panel(
            "Draining a backlog, as a ratio to raw consumption",
            "longer is better; from the first message on",
            bars(lambda line: line.drain_ratio, "{:.3f}"),
        ),
        Panel(
            "Start to first message, seconds",
            "shorter is better",
            bars(lambda line: line.start_s, "{:.1f}"),
        ),
        *(_latency(results, rate) for rate in rates(results)),
    ]


def _latency(results: Results, rate: str) -> Panel:
    found = [
        (one, one["latency"][rate])
        for one in results["contestants"]
        if "p50_ms" in one["latency"].get(rate, {})
    ]
    return Panel(
        f"From the record that closes a window to its alert at {int(rate):,} messages/s, ms",
        "shorter is better; the bar is the median, the text median / 99th percentile",
        [
            Bar(
                one["title"],
                # A floor may be seen before its acknowledgement; a logarithm needs more than 0.
                max(latency["p50_ms"], 0.1),
                f"{latency['p50_ms']:.0f} / {latency['p99_ms']:.0f}",
                _kind(one),
            )
            for one, latency in found
        ],
    )


def _kind(contestant: dict[str, Any]) -> str:
    if contestant["name"] == "raw":
        return "limit"
    return "ours" if contestant["is_ours"] else "bar"
