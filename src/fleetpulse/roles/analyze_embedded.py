"""Windows of CSV files by the embedded engine, which counts while the files are read."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from threading import Event
from typing import Final

from fleetpulse.config import Settings
from fleetpulse.domain.errors import FleetpulseError
from fleetpulse.domain.metric import Family, Topic
from fleetpulse.domain.position import Partition
from fleetpulse.domain.summary import WindowSummary
from fleetpulse.domain.window import WindowSpec
from fleetpulse.engine import Engine, Liveness, Table, first_instant, printed_file, summary_of
from fleetpulse.roles.intake import Intake, Reading, RejectFile, input_chunks, times_of_file
from fleetpulse.roles.job import Plan

# In a file a sample may stand anywhere, so nothing closes before the end.
# A file, the topic that its rows are of, and what reads it.
_Input = tuple[Topic, Table, Path]
_WHOLE_FILES: Final = Liveness(lateness_ms=None, max_skew_ms=None)


@dataclass(frozen=True, slots=True)
class EmbeddedInterpreter:
    """Reads inputs into an engine in this process, whose panes take up to `most_bytes`."""

    settings: Settings
    most_bytes: int = field(default_factory=lambda: _memory_bytes() // 2)

    def __call__(self, plan: Plan, rejects: RejectFile, stop: Event) -> Reading:
        """Read and count the inputs of a plan.

        Raises UsageError for a file that is no table of its metric, FleetpulseError for inputs that
        take more memory, and AnalysisStopped.
        """
        begun_s = time.monotonic()
        settings, family = self.settings, plan.family
        spec = self._spec(plan, stop)
        engine = Engine(
            settings.rule_set(family),
            lambda _: spec,
            settings.arithmetic,
            _WHOLE_FILES,
            settings.time.tz,
            times_of_file(settings).start_date,
        )
        inputs = self._inputs(plan)
        # Each file is a source of its own, with its own order of clock times.
        sources = {
            Partition(topic.key, number): (topic, table, path)
            for number, (topic, table, path) in enumerate(inputs)
        }
        engine.assign({place: topic for place, (topic, _, _) in sources.items()}, 0)
        for place, (_, table, path) in sources.items():
            for chunk in chain(input_chunks(path, stop), [None]):
                for one in engine.receive_table(place, table, chunk).refusals:
                    rejects.note(path, one.offset, one.reject, one.payload or b"")
                self._check_memory(engine, path)
        return _EmbeddedReading(settings, family, _intake(family, inputs), spec, engine, begun_s)

    def _check_memory(self, engine: Engine, path: Path) -> None:
        # A cell for each server and slide: many servers that each ran for a short time take most.
        if engine.size_bytes > self.most_bytes:
            raise FleetpulseError(
                f"{path}: as many servers over so long a time take more than "
                f"{self.most_bytes / 1e9:.1f} GB, half of this machine's memory; "
                "use --engine spark, or fewer days at a time"
            )

    def _inputs(self, plan: Plan) -> list[_Input]:
        return [
            (topic, Table(metric, times_of_file(self.settings), str(path)), path)
            for topic, metric, paths in zip(
                plan.family.topics, plan.family.metrics, plan.inputs, strict=True
            )
            for path in paths
        ]

    def _spec(self, plan: Plan, stop: Event) -> WindowSpec:
        """Return the windows; a grid that hangs on the first event costs reading twice."""
        if self.settings.window.origin != "first_event":
            return self.settings.window.spec()
        inputs = self._inputs(plan)
        for _, table, path in inputs:
            first_instant(table, input_chunks(path, stop))
        return self.settings.window.spec(_intake(plan.family, inputs).first_ms)


@dataclass(frozen=True, slots=True)
class _EmbeddedReading:
    settings: Settings
    family: Family
    intake: Intake
    spec: WindowSpec
    engine: Engine
    begun_s: float

    def begin(self) -> float:
        return self.begun_s

    def write_windows(self, write: Callable[[str], object]) -> WindowSummary:
        time_part = self.settings.time
        windows = self.engine.finish().windows
        span_ms = self.intake.span_ms(self.spec)
        for lines in printed_file(self.family, windows, span_ms, time_part.output, time_part.tz):
            write(lines.decode())
        return summary_of(windows, self.settings.rule_set(self.family))


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _intake(family: Family, inputs: Sequence[_Input]) -> Intake:
    first, second = (
        sum(table.samples for topic, table, _ in inputs if topic is wanted)
        for wanted in family.topics
    )
    first_ms = [table.first_ms for _, table, _ in inputs if table.first_ms is not None]
    last_ms = [table.last_ms for _, table, _ in inputs if table.last_ms is not None]
    return Intake((first, second), min(first_ms, default=None), max(last_ms, default=None))
