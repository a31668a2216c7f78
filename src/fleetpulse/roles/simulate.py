"""Make a dataset file, and the file of its known incidents, from a simulated fleet."""

import math
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from fleetpulse.codec.incidents import incident_line, incidents_header
from fleetpulse.codec.table import sample_line, table_header
from fleetpulse.config import Settings
from fleetpulse.domain.errors import UsageError
from fleetpulse.domain.incident import KnownIncident
from fleetpulse.domain.metric import FAMILIES, METRICS
from fleetpulse.edges.files import atomic_writer
from fleetpulse.edges.simulator import FleetPlan, simulate_fleet


@dataclass(frozen=True, slots=True)
class SimulateSummary:
    """What was written: rows of the dataset, and known incidents by label."""

    samples: int
    incidents: Mapping[str, int]
    seconds: float


@dataclass(frozen=True, slots=True)
class Fleet:
    """A made-up fleet; `start_ms` None is the present second."""

    servers: int = 20
    interval_s: float = 1.0
    seed: int = 1
    start_ms: int | None = None

    def plan(self, settings: Settings, duration_s: float) -> FleetPlan:
        """Return the fleet's plan, with incidents over the limits in the settings.

        `duration_s` may be infinite. Raises UsageError for a number that makes no fleet.
        """
        interval_ms = round(self.interval_s * 1000)
        if self.servers < 1:
            raise UsageError(f"--servers {self.servers}: wanted 1 or more")
        if interval_ms < 1:
            raise UsageError(f"--interval {self.interval_s:g} s: wanted a millisecond or more")
        return FleetPlan(
            servers=self.servers,
            interval_ms=interval_ms,
            duration_ms=None if duration_s == math.inf else round(duration_s * 1000),
            seed=self.seed,
            start_ms=int(time.time()) * 1000 if self.start_ms is None else self.start_ms,
            rules=[settings.rule_set(family) for family in FAMILIES],
        )


def simulate(plan: FleetPlan, out: Path, incidents_out: Path, stop: Event) -> SimulateSummary:
    """Write both files, each whole or not at all; `stop` ends them early, after a sample.

    Incidents stand in the order of their ends. Raises UsageError and DiskError as files do.
    """
    if out == incidents_out:
        raise UsageError(f"{out}: wanted two files, one for the samples and one for the incidents")
    started_s = time.monotonic()
    samples = 0
    by_label: Counter[str] = Counter()
    with atomic_writer(out) as write, atomic_writer(incidents_out) as write_incident:

        def note(incident: KnownIncident) -> None:
            by_label[incident.label] += 1
            write_incident(incident_line(incident))

        write(table_header(METRICS))
        write_incident(incidents_header())
        with closing(simulate_fleet(plan, note)) as fleet:
            for sample in fleet:
                if stop.is_set():
                    break
                write(sample_line(sample))
                samples += 1
    return SimulateSummary(samples, dict(by_label), time.monotonic() - started_s)
