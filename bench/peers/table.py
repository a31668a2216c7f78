"""Medians and ratios of a run, for the terminal and for the page."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Results = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """Medians of one contestant; a number that was not measured is None."""

    title: str
    missing: str
    cpu_s: float | None
    cpu_ratio: float | None
    busy_cpu_s: float | None
    per_s: float | None
    drain_ratio: float | None
    start_s: float | None
    rss_mb: float | None
    p50_ms: float | None
    p99_ms: float | None
    rows: str


def lines(results: Results) -> list[Line]:
    """Return the contestants in the order of the run; ratios are medians of ratios to raw's round.

    A ratio is None where raw did not take part.
    """
    named = {one["name"]: one["runs"] for one in results["contestants"]}
    return [_line(one, named.get("raw", [])) for one in results["contestants"]]


def summary(results: Results) -> str:
    """Return the table as Markdown."""
    head = (
        "contestant",
        "CPU s per million messages",
        "x raw",
        "without start",
        "drain, messages/s",
        "x raw",
        "start s",
        "peak RSS MB",
        "latency p50 / p99 ms",
        "rows",
    )
    body = [
        (line.title, f"cannot run: {line.missing}", *[""] * (len(head) - 2))
        if line.missing
        else (
            line.title,
            _text(line.cpu_s, "{:.2f}"),
            _text(line.cpu_ratio, "{:.2f}"),
            _text(line.busy_cpu_s, "{:.2f}"),
            _text(line.per_s, "{:,.0f}"),
            _text(line.drain_ratio, "{:.3f}"),
            _text(line.start_s, "{:.1f}"),
            _text(line.rss_mb, "{:.0f}"),
            _text(line.p50_ms, "{:.0f}") + " / " + _text(line.p99_ms, "{:.0f}"),
            line.rows,
        )
        for line in lines(results)
    ]
    return _markdown([head, ("---",) * len(head), *body])


def _markdown(table: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in table)


def _line(one: dict[str, Any], raw_runs: list[dict[str, Any]]) -> Line:
    runs = [run for run in one["runs"] if "error" not in run]
    errors = [run["error"] for run in one["runs"] if "error" in run]
    pairs = [
        (run, raw)
        for run, raw in zip(one["runs"], raw_runs, strict=False)
        if "error" not in run and "error" not in raw
    ]
    latency = one["latency"] or {}
    return Line(
        one["title"],
        one["missing"] or (errors[0][:80] if errors and not runs else ""),
        _median(runs, lambda run: run["cpu_s_per_million"]),
        _median(pairs, lambda pair: pair[0]["cpu_s_per_million"] / pair[1]["cpu_s_per_million"]),
        _median(runs, lambda run: run.get("cpu_s_per_million_without_start")),
        _median(runs, lambda run: run.get("messages_per_s")),
        _median(pairs, _drain_ratio),
        _median(runs, lambda run: run.get("start_s")),
        _median(runs, lambda run: run["rss_peak_mb"]),
        latency.get("p50_ms"),
        latency.get("p99_ms"),
        _rows(runs),
    )


def _drain_ratio(pair: tuple[dict[str, Any], dict[str, Any]]) -> float | None:
    ours, raw = (run.get("messages_per_s") for run in pair)
    return ours / raw if ours and raw else None


def _median(found: Sequence[Any], number: Callable[[Any], float | None]) -> float | None:
    numbers = [value for value in map(number, found) if value is not None]
    return statistics.median(numbers) if numbers else None


def _rows(runs: list[dict[str, Any]]) -> str:
    rows = [run["rows"] for run in runs if "rows" in run]
    if not rows:
        return "none"
    worst = max(rows, key=lambda one: one["wrong"] + one["missing"] + one["repeated"])
    faults = [
        f"{worst[kind]:,} {kind}"
        for kind in ("wrong", "missing", "repeated", "unknown")
        if worst[kind]
    ]
    text = ", ".join(faults) or f"equal ({worst['equal']:,})"
    left_out = [
        f"{worst[kind]:,} {name}"
        for kind, name in (("open_at_end", "open at the end"), ("held_back", "held back"))
        if worst[kind]
    ]
    return "; ".join((text, *left_out))


def _text(number: float | None, form: str) -> str:
    return "-" if number is None else form.format(number)
