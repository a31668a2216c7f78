"""Medians and ratios of a run, for the terminal and for the page."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

Results = dict[str, Any]
_LIMIT: Final = "raw"
_OURS: Final = "monitor"


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of a quantity's runs, with the lowest and the highest."""

    median: float
    low: float
    high: float

    def text(self, form: str) -> str:
        """Return `median (low to high)`, or the median alone where all print the same."""
        median, low, high = (form.format(one) for one in (self.median, self.low, self.high))
        return median if low == high else f"{median} ({low} to {high})"


@dataclass(frozen=True, slots=True)
class Line:
    """What one contestant's drains show; a number that was not measured is None.

    Ratios are medians of the rounds' ratios: to raw consumption, and to our monitor.
    """

    title: str
    missing: str
    cpu_s: Spread | None
    cpu_ratio: float | None
    ours_ratio: float | None
    busy_cpu_s: float | None
    per_s: Spread | None
    drain_ratio: float | None
    start_s: float | None
    rss_mb: float | None
    rows: str


def lines(results: Results) -> list[Line]:
    """Return the contestants in the order of the run; ratios are medians of ratios to raw's round.

    A ratio is None where the other contestant did not take part.
    """
    named = {one["name"]: one["runs"] for one in results["contestants"]}
    return [
        _line(one, named.get(_LIMIT, []), named.get(_OURS, [])) for one in results["contestants"]
    ]


def drain_rate(contestant: dict[str, Any]) -> float | None:
    """Return the median messages a second of a contestant's drains; None without any."""
    return _median(_good(contestant["runs"]), lambda run: run.get("messages_per_s"))


def summary(results: Results) -> str:
    """Return the tables as Markdown."""
    tables = [_drains(results), _latencies(results), _wide(results)]
    return "\n\n".join(table for table in tables if table)


def _drains(results: Results) -> str:
    if not results["rounds"]:
        return ""
    head = (
        "contestant",
        "CPU s per million messages",
        "x raw",
        "x monitor",
        "without start",
        "drain, messages/s",
        "x raw",
        "start s",
        "peak RSS MB",
        "rows",
    )
    body = [
        (line.title, f"cannot run: {line.missing}", *[""] * (len(head) - 2))
        if line.missing
        else (
            line.title,
            line.cpu_s.text("{:.2f}") if line.cpu_s else "-",
            _text(line.cpu_ratio, "{:.2f}"),
            _text(line.ours_ratio, "{:.2f}"),
            _text(line.busy_cpu_s, "{:.2f}"),
            line.per_s.text("{:,.0f}") if line.per_s else "-",
            _text(line.drain_ratio, "{:.3f}"),
            _text(line.start_s, "{:.2f}"),
            _text(line.rss_mb, "{:.0f}"),
            line.rows,
        )
        for line in lines(results)
    ]
    return _markdown([head, ("---",) * len(head), *body])


def rates(results: Results) -> list[str]:
    """Return the message rates at which latencies were taken, lowest first."""
    found = {rate for one in results["contestants"] for rate in one["latency"]}
    return sorted(found, key=int)


def _latencies(results: Results) -> str:
    at = rates(results)
    if not at:
        return ""
    head = ["contestant"]
    for rate in at:
        shown = f"{int(rate):,}/s"
        head += [f"p50 / p99 / highest ms at {shown}", "CPU s per s", "peak RSS MB"]
    body = [
        [one["title"], *(cell for rate in at for cell in _latency(one["latency"].get(rate)))]
        for one in results["contestants"]
        if one["latency"]
    ]
    return _markdown([head, ["---"] * len(head), *body])


def _latency(found: dict[str, Any] | None) -> tuple[str, str, str]:
    if found is None:
        return "-", "-", "-"
    if "error" in found:
        return found["error"][:80], "", ""
    text = f"{found['p50_ms']:.0f} / {found['p99_ms']:.0f} / {found['max_ms']:.0f}"
    if found["never"]:
        text += f"; {found['never']:,} of {found['never'] + found['alerts']:,} never came"
    if found["is_sender_behind"]:
        text += f"; only {found['sent_per_s']:,}/s were sent"
    return text, f"{found['cpu_s_per_s']:.2f}", f"{found['rss_peak_mb']:.0f}"


def _wide(results: Results) -> str:
    body = []
    for one in results["contestants"]:
        runs, wide = _good(one["runs"]), _good(one["wide_runs"])
        if not wide:
            continue
        pairs = [
            (few, many)
            for few, many in zip(one["runs"], one["wide_runs"], strict=False)
            if "error" not in few and "error" not in many
        ]
        body.append(
            (
                one["title"],
                _text(_median(runs, _busy), "{:.2f}"),
                _text(_median(wide, _busy), "{:.2f}"),
                _text(_median(pairs, _growth), "{:.2f}"),
                _text(_median(wide, lambda run: run.get("messages_per_s")), "{:,.0f}"),
                _text(_median(wide, lambda run: run["rss_peak_mb"]), "{:.0f}"),
                _rows(wide),
            )
        )
    few, many = f"{results['servers']:,}", f"{results['wide_servers']:,}"
    head = (
        "contestant",
        f"CPU s per million messages, {few} servers, without start",
        f"{many} servers",
        "growth",
        "drain, messages/s",
        "peak RSS MB",
        "rows",
    )
    return _markdown([head, ("---",) * len(head), *body]) if body else ""


def _busy(run: dict[str, Any]) -> float | None:
    return run.get("cpu_s_per_million_without_start")


def _growth(pair: tuple[dict[str, Any], dict[str, Any]]) -> float | None:
    few, many = map(_busy, pair)
    return many / few if few and many else None


def _markdown(table: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in table)


def _line(one: dict[str, Any], raw_runs: list[Any], our_runs: list[Any]) -> Line:
    runs = _good(one["runs"])
    errors = [run["error"] for run in one["runs"] if "error" in run]
    return Line(
        one["title"],
        one["missing"] or (errors[0][:80] if errors and not runs else ""),
        _spread(runs, lambda run: run["cpu_s_per_million"]),
        _ratio(one["runs"], raw_runs, "cpu_s_per_million"),
        _ratio(one["runs"], our_runs, "cpu_s_per_million"),
        _median(runs, _busy),
        _spread(runs, lambda run: run.get("messages_per_s")),
        _ratio(one["runs"], raw_runs, "messages_per_s"),
        _median(runs, lambda run: run.get("start_s")),
        _median(runs, lambda run: run["rss_peak_mb"]),
        _rows(runs),
    )


def _good(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [run for run in runs if "error" not in run]


def _ratio(runs: list[Any], others: list[Any], key: str) -> float | None:
    """Return the median of the rounds' ratios; rounds that one of both failed do not count."""
    pairs = [(run.get(key), other.get(key)) for run, other in zip(runs, others, strict=False)]
    return _median(pairs, lambda pair: pair[0] / pair[1] if pair[0] and pair[1] else None)


def _numbers(found: Sequence[Any], number: Callable[[Any], float | None]) -> list[float]:
    return [value for value in map(number, found) if value is not None]


def _median(found: Sequence[Any], number: Callable[[Any], float | None]) -> float | None:
    numbers = _numbers(found, number)
    return statistics.median(numbers) if numbers else None


def _spread(found: Sequence[Any], number: Callable[[Any], float | None]) -> Spread | None:
    numbers = _numbers(found, number)
    if not numbers:
        return None
    return Spread(statistics.median(numbers), min(numbers), max(numbers))


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
