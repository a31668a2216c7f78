import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count

import pytest

from fleetpulse.codec.field import check_server_id
from fleetpulse.domain.sample import Sample
from fleetpulse.edges.host import (
    Reading,
    host_samples,
    host_server_id,
    read_host,
    values_between,
)

START = Reading(
    at_s=100.0,
    cpu_pct=0.0,
    mem_pct=40.0,
    bytes_in={"eth0": 1_000_000, "wifi": 0},
    bytes_out={"eth0": 500_000, "wifi": 0},
    disk_ops={"sda": 1_000, "sdb": 10},
)


class Clock:
    """Clocks that only `wait` moves; wakes `early_s` before the time asked for."""

    def __init__(self, now_s: float, early_s: float = 0.0) -> None:
        self.now_s = now_s
        self.early_s = early_s
        self.monotonic_s = 0.0

    def wait(self, seconds: float) -> bool:
        self.pass_by(max(0.0, seconds - self.early_s))
        return False

    def pass_by(self, seconds: float) -> None:
        self.now_s += seconds
        self.monotonic_s += seconds

    def read(self) -> Reading:
        return replace(START, at_s=self.monotonic_s)

    def samples(self) -> Iterator[Sample]:
        return host_samples("me", self.wait, self.read, lambda: self.now_s)


def after(at_s: float = 101.0, **changes: object) -> Reading:
    return replace(START, at_s=at_s, **changes)  # type: ignore[arg-type]


def test_rates_are_sums_over_devices_divided_by_the_time_between_readings() -> None:
    values = values_between(
        START,
        after(
            102.0,
            cpu_pct=12.5,
            bytes_in={"eth0": 1_300_000, "wifi": 100_000},
            bytes_out={"eth0": 502_000, "wifi": 0},
            disk_ops={"sda": 1_090, "sdb": 20},
        ),
    )
    assert values == {
        "cpu_pct": 12.5,
        "mem_pct": 40.0,
        "net_in": 200.0,
        "net_out": 1.0,
        "disk_io": 50.0,
    }


def test_a_counter_that_goes_back_contributes_what_it_shows_now() -> None:
    values = values_between(START, after(bytes_in={"eth0": 3_000, "wifi": 7_000}))
    assert values["net_in"] == 10.0


def test_a_wrapped_disk_counter_is_never_a_negative_rate() -> None:
    values = values_between(START, after(disk_ops={"sda": 5, "sdb": 10}))
    assert values["disk_io"] == 5.0


def test_an_interface_that_appears_does_not_bring_its_past() -> None:
    past = {"eth0": 1_000_000, "wifi": 0, "usb0": 9_000_000_000}
    assert values_between(START, after(bytes_in=past))["net_in"] == 0.0


def test_an_interface_that_disappears_takes_nothing_away() -> None:
    assert values_between(START, after(bytes_in={"eth0": 1_002_000}))["net_in"] == 2.0


def test_a_rate_beyond_its_range_is_no_value() -> None:
    values = values_between(START, after(bytes_in={"eth0": 10**18, "wifi": 0}))
    assert "net_in" not in values
    assert "net_out" in values


def test_a_host_without_disks_has_no_disk_io() -> None:
    values = values_between(replace(START, disk_ops=None), after(disk_ops=None))
    assert set(values) == {"cpu_pct", "mem_pct", "net_in", "net_out"}


def test_two_readings_at_one_instant_have_no_rate() -> None:
    with pytest.raises(ValueError, match="time between"):
        values_between(START, START)


def test_the_first_sample_lies_a_whole_second_of_counting_after_the_first_tick() -> None:
    # 10.4   11          12          13
    # start  counting... sample 12   sample 13
    samples = Clock(10.4).samples()
    assert [next(samples).ts_ms for _ in range(3)] == [12_000, 13_000, 14_000]


def test_waking_early_gives_each_second_once() -> None:
    samples = Clock(10.4, early_s=0.004).samples()
    assert [next(samples).ts_ms for _ in range(50)] == [second * 1000 for second in range(12, 62)]


def test_slow_readings_do_not_make_the_ticks_drift() -> None:
    clock = Clock(10.0)

    def slow() -> Reading:
        clock.pass_by(0.3)
        return clock.read()

    samples = host_samples("me", clock.wait, slow, lambda: clock.now_s)
    assert [next(samples).ts_ms for _ in range(20)] == [second * 1000 for second in range(12, 32)]


def test_missed_seconds_are_left_out() -> None:
    clock = Clock(10.0)
    samples = clock.samples()
    assert next(samples).ts_ms == 12_000
    clock.pass_by(3600.5)
    assert next(samples).ts_ms == 3_613_000


def test_samples_follow_a_clock_that_is_set_back() -> None:
    clock = Clock(50_000.0)
    samples = clock.samples()
    next(samples)
    clock.now_s -= 7200.0
    assert next(samples).ts_ms == 42_803_000


@pytest.mark.parametrize("ends_at", [1, 2, 3])
def test_a_wait_that_says_stop_ends_the_samples(ends_at: int) -> None:
    calls = count(1)
    wait: Callable[[float], bool] = lambda _: next(calls) == ends_at  # noqa: E731
    clock = count(10)
    samples = host_samples(
        "me", wait, lambda: replace(START, at_s=float(next(clock))), lambda: 10.5
    )
    assert len(list(samples)) == max(0, ends_at - 2)


def test_this_host_can_be_read_and_its_values_are_in_range() -> None:
    before = read_host()
    values = values_between(before, replace(read_host(), at_s=before.at_s + 1))
    assert {"cpu_pct", "mem_pct", "net_in", "net_out"} <= set(values)
    assert all(math.isfinite(value) and value >= 0 for value in values.values())
    assert 0 < values["mem_pct"] <= 100


def test_loopback_is_no_interface() -> None:
    assert not {"lo", "lo0"} & set(read_host().bytes_in)


@pytest.mark.parametrize(
    ("name", "server_id"),
    [
        ("web-01.example.org", "web-01.example.org"),
        ("Ann's Mac.local", "Ann-s-Mac.local"),
        ("--edge", "edge"),
        ("köln", "k-ln"),
        ("ü", "host"),
        ("", "host"),
        ("x" * 100, "x" * 64),
    ],
)
def test_a_host_name_becomes_a_valid_server_id(name: str, server_id: str) -> None:
    assert host_server_id(name) == server_id
    assert check_server_id(server_id) is None


def test_this_host_has_a_valid_server_id() -> None:
    assert check_server_id(host_server_id()) is None
