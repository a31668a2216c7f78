from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from threading import Event

import pytest

from fleetpulse.codec.incidents import incident_line, incidents_header
from fleetpulse.config import Settings
from fleetpulse.domain.aggregate import Arithmetic, fold
from fleetpulse.domain.errors import UsageError
from fleetpulse.domain.incident import KnownIncident
from fleetpulse.domain.metric import CPU_MEM, CPU_PCT, FAMILIES, MEM_PCT, METRICS, NET_DISK
from fleetpulse.domain.rule import Operator, Override, RuleSet, Threshold
from fleetpulse.domain.sample import Sample
from fleetpulse.domain.window import WindowSpec
from fleetpulse.edges.simulator import FleetPlan, simulate_fleet
from fleetpulse.roles.simulate import Fleet, simulate

DATA = Path(__file__).parents[2] / "data"
START_MS = 1_759_694_400_000  # 2025-10-05T20:00:00Z
RULES = [Settings().rule_set(family) for family in FAMILIES]
HALF_HOUR = FleetPlan(20, 5_000, 1_800_000, seed=7, start_ms=START_MS, rules=RULES)


def run(plan: FleetPlan) -> tuple[list[Sample], list[KnownIncident]]:
    incidents: list[KnownIncident] = []
    return list(simulate_fleet(plan, incidents.append)), incidents


def judged_samples(samples: Sequence[Sample], rules: RuleSet) -> dict[tuple[str, int], str]:
    return {
        (sample.server_id, sample.ts_ms): rules.judge(
            sample.server_id,
            [Fraction(str(sample.values[metric.name])) for metric in rules.family.metrics],
        )
        for sample in samples
    }


def planted(
    plan: FleetPlan, incidents: Sequence[KnownIncident], rules: RuleSet
) -> dict[tuple[str, int], str]:
    return {
        (incident.server_id, ts_ms): incident.label
        for incident in incidents
        if incident.family is rules.family
        for ts_ms in range(incident.start_ms, incident.end_ms, plan.interval_ms)
    }


def test_every_server_is_sampled_at_every_instant_in_order() -> None:
    samples, _ = run(replace(HALF_HOUR, servers=2, duration_ms=15_001))
    assert [(sample.ts_ms - START_MS, sample.server_id) for sample in samples] == [
        (offset_ms, server_id)
        for offset_ms in (0, 5_000, 10_000, 15_000)
        for server_id in ("server_1", "server_2")
    ]


def test_an_instant_on_the_end_of_the_duration_is_outside() -> None:
    samples, _ = run(replace(HALF_HOUR, servers=1, duration_ms=10_000))
    assert [sample.ts_ms - START_MS for sample in samples] == [0, 5_000]


def test_values_are_in_range_with_two_decimals() -> None:
    samples, _ = run(HALF_HOUR)
    for sample in samples:
        assert set(sample.values) == {metric.name for metric in METRICS}
        for metric in METRICS:
            value = sample.values[metric.name]
            assert 0 <= value <= metric.highest
            assert round(value, 2) == value


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rules", RULES, ids=lambda rules: rules.family.name)
def test_the_samples_over_the_limits_are_exactly_those_of_the_incidents(
    seed: int, rules: RuleSet
) -> None:
    plan = replace(HALF_HOUR, seed=seed)
    samples, incidents = run(plan)
    found = {key: label for key, label in judged_samples(samples, rules).items() if label}
    assert found
    assert found == planted(plan, incidents, rules)


@pytest.mark.parametrize("rules", RULES, ids=lambda rules: rules.family.name)
def test_a_window_within_an_incident_has_its_label_and_one_apart_has_none(rules: RuleSet) -> None:
    samples, incidents = run(HALF_HOUR)
    truth = planted(HALF_HOUR, incidents, rules)
    checked: Counter[str] = Counter()
    for row in fold(samples, WindowSpec(), rules, Arithmetic.EXACT):
        instants = range(row.start_ms, row.end_ms, HALF_HOUR.interval_ms)
        labels = {truth.get((row.server_id, ts_ms), "") for ts_ms in instants}
        if len(labels) == 1:
            (label,) = labels
            assert row.alert == label
            checked[label] += 1
    assert len(checked) == 4  # three labels and none


def test_peaks_are_the_highest_values_of_the_metrics_over_their_limit() -> None:
    samples, incidents = run(HALF_HOUR)
    for incident in incidents:
        for name, peak in incident.peaks.items():
            assert peak == max(
                sample.values[name]
                for sample in samples
                if sample.server_id == incident.server_id
                and incident.start_ms <= sample.ts_ms < incident.end_ms
            )


def test_the_same_seed_gives_the_same_fleet_and_another_one_another() -> None:
    assert run(HALF_HOUR) == run(HALF_HOUR)
    assert run(HALF_HOUR)[0] != run(replace(HALF_HOUR, seed=8))[0]


def test_a_server_does_not_change_when_others_join() -> None:
    alone, _ = run(replace(HALF_HOUR, servers=1))
    among, _ = run(HALF_HOUR)
    assert alone == [sample for sample in among if sample.server_id == "server_1"]


def test_an_incident_that_still_lasts_is_reported_when_the_fleet_is_closed() -> None:
    plan = replace(HALF_HOUR, duration_ms=None)
    incidents: list[KnownIncident] = []
    with closing(simulate_fleet(plan, incidents.append)) as fleet:
        samples = list(islice(fleet, 20 * 100))
    last_ms = samples[-1].ts_ms
    cut = [one for one in incidents if one.end_ms == last_ms + plan.interval_ms]
    assert cut
    assert all(one.start_ms <= last_ms for one in cut)


def test_a_fleet_without_duration_goes_on() -> None:
    with closing(simulate_fleet(replace(HALF_HOUR, duration_ms=None), lambda _: None)) as fleet:
        assert next(islice(fleet, 50_000, None)).ts_ms == START_MS + 2_500 * 5_000


def test_limits_come_from_the_rules_and_their_overrides() -> None:
    low = (
        Threshold(CPU_PCT, Operator.ABOVE, 10_000_000, "warm"),
        Threshold(MEM_PCT, Operator.ABOVE, 20_000_000, "full"),
    )
    rules = replace(
        Settings().rule_set(CPU_MEM), overrides=(Override("server_2", low),), both_label="both"
    )
    plan = replace(HALF_HOUR, servers=2, duration_ms=7_200_000, rules=[rules])
    samples, incidents = run(plan)
    quiet = max(
        sample.values["cpu_pct"]
        for sample in samples
        if not judged_samples([sample], rules)[sample.server_id, sample.ts_ms]
        and sample.server_id == "server_2"
    )
    assert quiet < 10
    assert {one.label for one in incidents if one.server_id == "server_2"} <= {
        "warm",
        "full",
        "both",
    }


def test_an_incident_line_quotes_its_label_and_leaves_other_peaks_empty() -> None:
    incident = KnownIncident(
        "server_1", NET_DISK, 'Flood, "big"', START_MS, START_MS + 60_000, {"net_in": 7000.5}
    )
    assert incidents_header() == (
        "server_id,label,start,end,peak_cpu_pct,peak_mem_pct,peak_net_in,peak_disk_io\n"
    )
    assert incident_line(incident) == (
        'server_1,"Flood, ""big""",2025-10-05T20:00:00Z,2025-10-05T20:01:00Z,,,7000.5,\n'
    )


def test_the_committed_sample_data_is_what_the_simulator_makes(tmp_path: Path) -> None:
    plan = Fleet(servers=20, interval_s=5, seed=2025, start_ms=START_MS).plan(Settings(), 1800)
    simulate(plan, tmp_path / "samples.csv", tmp_path / "incidents.csv", Event())
    samples, incidents = DATA / "sample_data.csv", DATA / "sample_incidents.csv"
    assert (tmp_path / "samples.csv").read_bytes() == samples.read_bytes()
    assert (tmp_path / "incidents.csv").read_bytes() == incidents.read_bytes()


def test_all_six_labels_occur_in_the_sample_data() -> None:
    text = (DATA / "sample_incidents.csv").read_text()
    for rules in RULES:
        labels = [rules.both_label, *(threshold.label for threshold in rules.thresholds)]
        assert all(f",{label}," in text for label in labels)


def test_a_simulation_that_is_stopped_leaves_whole_files(tmp_path: Path) -> None:
    stop = Event()
    stop.set()
    plan = Fleet(start_ms=START_MS).plan(Settings(), 3600)
    summary = simulate(plan, tmp_path / "a.csv", tmp_path / "b.csv", stop)
    assert summary.samples == 0
    header = "ts,server_id,cpu_pct,mem_pct,net_in,net_out,disk_io\n"
    assert (tmp_path / "a.csv").read_text() == header


def test_the_summary_counts_rows_and_incidents_by_label(tmp_path: Path) -> None:
    plan = Fleet(servers=3, start_ms=START_MS).plan(Settings(), 3600)
    summary = simulate(plan, tmp_path / "a.csv", tmp_path / "b.csv", Event())
    assert summary.samples == len((tmp_path / "a.csv").read_text().splitlines()) - 1 == 10_800
    assert sum(summary.incidents.values()) == len((tmp_path / "b.csv").read_text().splitlines()) - 1


@pytest.mark.parametrize(
    ("fleet", "option"), [(Fleet(servers=0), "--servers"), (Fleet(interval_s=0), "--interval")]
)
def test_a_fleet_of_nothing_is_a_usage_error(fleet: Fleet, option: str) -> None:
    with pytest.raises(UsageError, match=option):
        fleet.plan(Settings(), 60)


def test_samples_and_incidents_cannot_share_a_file(tmp_path: Path) -> None:
    plan = Fleet(start_ms=START_MS).plan(Settings(), 60)
    with pytest.raises(UsageError, match="two files"):
        simulate(plan, tmp_path / "a.csv", tmp_path / "a.csv", Event())
