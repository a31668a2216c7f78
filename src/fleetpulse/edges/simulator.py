"""A made-up fleet: quiet load with a daily wave and noise, and incidents whose truth is known.

The limits come from rule sets, so that quiet values stay below 85 % of them and incidents lie over
them whatever the settings say. The same plan gives the same samples on every machine and Python:
only `Random.random` and plain arithmetic are used (no sine, whose last digit depends on the C
library), and every server has a generator of its own.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from fleetpulse.domain.incident import KnownIncident
from fleetpulse.domain.metric import NET_IN, NET_OUT
from fleetpulse.domain.rule import RuleSet, Threshold
from fleetpulse.domain.sample import Sample

_DAY_MS: Final = 86_400_000
# An incident outlasts a default window on any grid (30 s plus a slide), with room to spare.
_INCIDENT_S: Final = (60.0, 180.0)
_GAP_S: Final = (240.0, 1800.0)
# Shares of the limit. The highest quiet value is 0.50 + 0.15 + 0.12 + 0.08 = 0.85 of it.
_BASE: Final = (0.25, 0.50)
_WAVE: Final = 0.15
_SHARED_NOISE: Final = 0.12
_OWN_NOISE: Final = 0.08
_MEMORY_OF_NOISE: Final = 0.85
# Where an incident lies between the limit and the metric's ceiling.
_OVER: Final = (0.15, 0.90)
# Incidents reach up to this share of the limit beyond it, or one unit, within the metric's range.
_HEADROOM: Final = 0.6
_LEAST_HEADROOM: Final = 1.0
_OUT_OF_IN: Final = (0.4, 0.8)


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """What is simulated: servers named server_1 to server_N, each sampled at the same instants.

    The first samples lie at `start_ms`, the last ones before `start_ms + duration_ms`; None goes on
    for ever. `rules` are those of the families whose incidents occur.
    """

    servers: int
    interval_ms: int
    duration_ms: int | None
    seed: int
    start_ms: int
    rules: Sequence[RuleSet]


def simulate_fleet(
    plan: FleetPlan, on_incident: Callable[[KnownIncident], object]
) -> Generator[Sample]:
    """Yield the samples by time, then server; report each incident when it is over.

    Values have two decimals. Incidents that still last when the iterator ends, or is closed, are
    reported with the end of what was yielded.
    """
    servers = [_Server(f"server_{number}", plan) for number in range(1, plan.servers + 1)]
    ts_ms = plan.start_ms
    end_ms = None if plan.duration_ms is None else plan.start_ms + plan.duration_ms
    try:
        while end_ms is None or ts_ms < end_ms:
            for server in servers:
                yield Sample(ts_ms, server.server_id, server.values_at(ts_ms, on_incident))
            ts_ms += plan.interval_ms
    finally:
        for server in servers:
            server.end(on_incident)


@dataclass(slots=True, eq=False)
class _Level:
    """One metric of one server: its quiet base as a share of the limit, and its noise, -1 to 1."""

    threshold: Threshold
    base: float
    noise: float = 0.0
    peak: float = 0.0

    @property
    def limit(self) -> float:
        return self.threshold.limit_micros / 1_000_000

    def over(self, share: float) -> float:
        """Return the value of an incident, from a little over the limit (0) to its worst (1)."""
        lowest, highest = _OVER
        headroom = min(
            self.threshold.metric.highest - self.limit, max(_HEADROOM * self.limit, _LEAST_HEADROOM)
        )
        return self.limit + headroom * (lowest + (highest - lowest) * share)


@dataclass(slots=True, eq=False)
class _FamilyState:
    """A server's incident of one family: under way while `over` holds levels, else due later."""

    rules: RuleSet
    levels: list[_Level]
    next_ms: int
    over: list[_Level] = field(default_factory=list)
    label: str = ""
    start_ms: int = 0
    end_ms: int = 0
    strength: float = 0.0


class _Server:
    """One server's load, and its incidents: at most one of each family at a time."""

    def __init__(self, server_id: str, plan: FleetPlan) -> None:
        self.server_id = server_id
        self._interval_ms = plan.interval_ms
        self._random = Random(f"{plan.seed}:{server_id}")  # noqa: S311  a game, not a secret
        self._phase_ms = int(self._uniform((0, _DAY_MS)))
        self._shared = 0.0
        self._last_ms = plan.start_ms
        # The first gap began anywhere before the start, so that short runs see incidents too.
        self._families = [
            _FamilyState(
                rules,
                [
                    _Level(threshold, self._uniform(_BASE))
                    for threshold in rules.thresholds_for(server_id)
                ],
                plan.start_ms + int(self._uniform((0, _GAP_S[1])) * 1000),
            )
            for rules in plan.rules
        ]

    def values_at(
        self, ts_ms: int, on_incident: Callable[[KnownIncident], object]
    ) -> dict[str, float]:
        """Return the values of the next sample, and report the incidents that have ended."""
        part = (ts_ms + self._phase_ms) % _DAY_MS / _DAY_MS
        wave = 4 * part * (1 - part)
        self._shared = self._noise(self._shared)
        values: dict[str, float] = {}
        for state in self._families:
            if state.over and ts_ms >= state.end_ms:
                self._report(state, ts_ms, on_incident)
            if not state.over and ts_ms >= state.next_ms:
                self._begin(state, ts_ms)
            for level in state.levels:
                level.noise = self._noise(level.noise)
                quiet = (
                    level.base
                    + _WAVE * wave
                    + _SHARED_NOISE * self._shared
                    + _OWN_NOISE * level.noise
                )
                metric = level.threshold.metric
                value = quiet * level.limit
                if metric is NET_IN:
                    values[NET_OUT.name] = round(value * self._uniform(_OUT_OF_IN), 2)
                if level in state.over:
                    value = level.over(0.7 * state.strength + 0.3 * self._random.random())
                    level.peak = max(level.peak, round(value, 2))
                values[metric.name] = round(value, 2)
        self._last_ms = ts_ms
        return values

    def end(self, on_incident: Callable[[KnownIncident], object]) -> None:
        """Report the incidents that still last."""
        for state in self._families:
            if state.over:
                self._report(state, self._last_ms + self._interval_ms, on_incident)

    def _begin(self, state: _FamilyState, ts_ms: int) -> None:
        first, second = state.levels
        kind = int(self._random.random() * 3)
        state.over = ([first], [second], [first, second])[kind]
        state.label = (
            first.threshold.label,
            second.threshold.label,
            state.rules.both_label,
        )[kind]
        state.start_ms = ts_ms
        state.end_ms = ts_ms + int(self._uniform(_INCIDENT_S) * 1000)
        state.strength = self._random.random()
        for level in state.levels:
            level.peak = 0.0

    def _report(
        self, state: _FamilyState, end_ms: int, on_incident: Callable[[KnownIncident], object]
    ) -> None:
        peaks = {level.threshold.metric.name: level.peak for level in state.over}
        on_incident(
            KnownIncident(
                self.server_id, state.rules.family, state.label, state.start_ms, end_ms, peaks
            )
        )
        state.over = []
        state.next_ms = end_ms + int(self._uniform(_GAP_S) * 1000)

    def _noise(self, before: float) -> float:
        step = 2 * self._random.random() - 1
        return _MEMORY_OF_NOISE * before + (1 - _MEMORY_OF_NOISE) * step

    def _uniform(self, ends: tuple[float, float]) -> float:
        return ends[0] + (ends[1] - ends[0]) * self._random.random()
