"""The page in the documentation: its table and plot are written from the results of a run."""

from pathlib import Path
from typing import Any, Final

from peers.plot import Bar, Panel, svg
from peers.table import Line, Results, lines, summary

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
        f"servers, {results['partitions']} partition a topic, rounds: {results['rounds']}; latency "
        f"at {results['rate']:,} messages/s. Machine: {machine['cores']} cores, "
        f"{machine['memory_gb']} GB, {machine['system']}, Python {machine['python']}, Java "
        f"{machine['java']}; {versions}.\n\n{summary(results)}\n\n{notes}\n"
    )


def _panels(results: Results) -> list[Panel]:
    named = list(zip(map(_kind, results["contestants"]), lines(results), strict=True))

    def bars(number: str, form: str) -> list[Bar]:
        return [
            Bar(line.title, value, form.format(value), kind)
            for kind, line in named
            if (value := getattr(line, number)) is not None
        ]

    return [
        Panel(
            "CPU for each message, as a ratio to raw consumption",
            "shorter is better; start-up included",
            bars("cpu_ratio", "{:.1f}"),
        ),
        Panel(
            "Draining a backlog, as a ratio to raw consumption",
            "longer is better; from the first message on",
            bars("drain_ratio", "{:.3f}"),
        ),
        Panel("Start to first message, seconds", "shorter is better", bars("start_s", "{:.1f}")),
        Panel(
            "From the record that closes a window to its row, ms",
            "shorter is better; the bar is the median, the text median / 99th percentile",
            [
                Bar(line.title, line.p50_ms, _latency(line), kind)
                for kind, line in named
                if line.p50_ms is not None
            ],
        ),
    ]


def _latency(line: Line) -> str:
    return f"{line.p50_ms:.0f} / {line.p99_ms:.0f}"


def _kind(contestant: dict[str, Any]) -> str:
    if contestant["name"] == "raw":
        return "limit"
    return "ours" if contestant["is_ours"] else "bar"
