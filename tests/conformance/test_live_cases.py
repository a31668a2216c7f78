"""Every live case, step by step, and once more with a restart from a snapshot after each step."""

import datetime as dt
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleetpulse.codec.windows import TimeFormat, format_windows
from fleetpulse.config import Settings
from fleetpulse.domain.clock import TimeReader
from fleetpulse.domain.metric import CPU_MEM
from fleetpulse.domain.position import Partition
from fleetpulse.engine import Closed, Engine, Liveness, Messages

LIVE = Path(__file__).parent / "live"
DAY = dt.date(2025, 10, 5)
TIMES = TimeReader(dt.UTC, DAY)
PARTITIONS = {Partition(topic.key, 0): topic for topic in CPU_MEM.topics}


CASES = [
    pytest.param(case, id=case["name"])
    for path in sorted(LIVE.glob("*.yaml"))
    for case in yaml.safe_load(path.read_text())["cases"]
]


def instant_ms(text: str) -> int:
    found = TIMES.read(text)
    assert isinstance(found, int)
    return found


def engine_of(settings: Settings) -> Engine:
    window = settings.window
    live = Liveness(
        window.lateness_s * 1000, window.idle_close_s * 1000, settings.time.max_skew_s * 1000
    )
    return Engine(settings.rule_set(CPU_MEM), window.spec, settings.arithmetic, live, dt.UTC, DAY)


def shown(closed: Closed) -> list[str]:
    found = []
    for windows in closed.windows:
        lines = format_windows(CPU_MEM, windows.rows(), 0, TimeFormat.CLOCK, dt.UTC)
        found += [f"{line.rstrip()} {windows.closed_by}" for line in list(lines)[1:]]
    return found


def message(where: Partition, offset: int, text: str) -> Messages:
    ts, server_id, value = text.split()
    name = PARTITIONS[where].metrics[0].name
    fields = {"ts": ts, "server_id": server_id, name: float(value)}
    return Messages(where, [offset], [json.dumps(fields).encode()])


@pytest.mark.parametrize("is_restarted", [False, True], ids=["one run", "restarts"])
@pytest.mark.parametrize("case", CASES)
def test_live_case_closes_and_refuses_what_it_says(
    case: dict[str, Any], *, is_restarted: bool
) -> None:
    settings = Settings.model_validate(case.get("settings", {}))
    now_ms = started_ms = instant_ms(case["now"])
    engine = engine_of(settings)
    engine.assign(PARTITIONS, now_ms)
    offsets: Counter[str] = Counter()
    for told in case["steps"]:
        step = dict(told)
        wanted, refused = step.pop("closed", []), step.pop("refused", None)
        ((kind, content),) = step.items()
        if kind == "now":
            now_ms = instant_ms(content)
            closed = engine.advance(now_ms)
        elif kind == "end":
            closed = engine.finish()
        else:
            where = Partition(kind.split("/")[0], int(kind.split("/")[1]))
            offsets[kind] += 1
            closed = engine.receive(message(where, offsets[kind], content), now_ms)
        assert shown(closed) == wanted, step
        found = [f"{one.reject.reject_class} {one.server_id}" for one in closed.refusals]
        assert found == ([refused] if refused else []), step
        if is_restarted and now_ms == started_ms:
            # After a restart every partition counts as heard, so only while no time has passed.
            snapshot = engine.snapshot()
            engine = engine_of(settings)
            engine.restore(snapshot, now_ms, "state.db")
            engine.assign(PARTITIONS, now_ms)
