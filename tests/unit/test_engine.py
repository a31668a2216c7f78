import datetime as dt
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest

from fleetpulse.codec.message import encode_message
from fleetpulse.domain.aggregate import Arithmetic
from fleetpulse.domain.closing import ClosedBy
from fleetpulse.domain.errors import DamagedState, UsageError
from fleetpulse.domain.metric import CPU, CPU_MEM, CPU_PCT, MEM, MEM_PCT, NET, NET_DISK
from fleetpulse.domain.position import ClockState, Partition
from fleetpulse.domain.reject import RejectClass
from fleetpulse.domain.rule import Operator, Override, RuleSet, Threshold
from fleetpulse.domain.sample import Record
from fleetpulse.domain.window import WindowSpec
from fleetpulse.engine import Engine, Liveness, Messages

START_MS = 1_759_697_580_000
DAY = dt.date(2025, 10, 5)
CPU_0, CPU_1, MEM_0 = Partition("cpu", 0), Partition("cpu", 1), Partition("mem", 0)
RULES = RuleSet(
    CPU_MEM,
    (
        Threshold(CPU_PCT, Operator.AT_LEAST, 80_000_000, "hot"),
        Threshold(MEM_PCT, Operator.AT_LEAST, 89_000_000, "full"),
    ),
    "both",
)


def engine_of(
    spec: WindowSpec | None = None,
    live: Liveness | None = None,
    arithmetic: Arithmetic = Arithmetic.EXACT,
    rules: RuleSet = RULES,
) -> Engine:
    grid = spec or WindowSpec()
    return Engine(rules, lambda _: grid, arithmetic, live or Liveness(), dt.UTC, DAY)


def cpu(second: float, server_id: str, value: float) -> bytes:
    return encode_message(Record(CPU, START_MS + int(second * 1000), server_id, (value,)))


def sent(where: Partition, *payloads: bytes | None, first: int = 0) -> Messages:
    return Messages(where, range(first, first + len(payloads)), payloads)


@pytest.fixture
def engine() -> Engine:
    """Only CPU, so that one partition decides."""
    made = engine_of()
    made.assign({CPU_0: CPU}, START_MS)
    return made


def test_nothing_received_closes_nothing(engine: Engine) -> None:
    assert list(engine.finish().rows()) == []
    assert list(engine.advance(START_MS + 10**9).rows()) == []
    assert engine.receive(sent(CPU_0), START_MS).accepted == 0


def test_an_event_on_the_end_belongs_to_the_next_window(engine: Engine) -> None:
    engine.receive(sent(CPU_0, cpu(0, "a", 10), cpu(30, "a", 50)), START_MS)
    rows = list(engine.finish().rows())
    assert [(row.start_ms - START_MS, row.hundredths[0]) for row in rows[:2]] == [
        (0, 1000),
        (10_000, 5000),
    ]


def test_a_closed_window_tells_what_it_was_made_of(engine: Engine) -> None:
    engine.receive(sent(CPU_0, cpu(0, "a", 80), cpu(1, "a", 79.999999), cpu(2, "a", 90)), START_MS)
    (windows,) = engine.finish().windows
    (closed,) = windows.closed()
    assert closed.samples == (3, 0)
    assert closed.samples_over == (2, 0)
    assert closed.exact == (pytest.approx(83.333333), None)
    assert closed.exact[0] is not None
    assert closed.exact[0] * 3_000_000 == 249_999_999
    assert closed.closed_by is ClosedBy.END


def test_rejects_say_which_message_and_why(engine: Engine) -> None:
    good = cpu(0, "a", 1)
    closed = engine.receive(sent(CPU_0, good, None, b"{", good, b'{"ts":1}', first=7), START_MS)
    assert closed.accepted == 2
    assert [(one.offset, one.payload, one.reject.reject_class) for one in closed.refusals] == [
        (8, None, RejectClass.MALFORMED),
        (9, b"{", RejectClass.MALFORMED),
        (11, b'{"ts":1}', RejectClass.MISSING_FIELD),
    ]


def test_refusals_of_all_kinds_come_in_the_order_of_their_offsets(engine: Engine) -> None:
    payloads = [cpu(100, "a", 1), cpu(0, "a", 1), b"", cpu(10_000, "a", 1), cpu(1, "b", 1)]
    closed = engine.receive(sent(CPU_0, *payloads), START_MS + 100_000)
    assert [(one.offset, one.reject.reject_class.value) for one in closed.refusals] == [
        (1, "late"),
        (2, "malformed"),
        (3, "future"),
        (4, "late"),
    ]
    late = closed.refusals[0]
    assert (late.server_id, late.ts_ms, late.payload) == ("a", START_MS, payloads[1])
    assert late.reject.reason == "2025-10-05T20:53:00Z of a came after its windows had closed"
    future = closed.refusals[2].reject.reason
    assert future.endswith("of a is more than 60 s ahead of the receiving clock")


def test_a_late_record_alone_keeps_no_partition_awake(engine: Engine) -> None:
    engine.receive(sent(CPU_0, cpu(0, "a", 1), cpu(60, "a", 1)), START_MS)
    engine.receive(sent(CPU_0, cpu(0, "a", 1)), START_MS + 14_000)
    assert [row.start_ms for row in engine.advance(START_MS + 15_000).rows()]


def test_messages_waiting_in_a_partition_keep_it_awake() -> None:
    engine = engine_of()
    engine.assign({CPU_0: CPU, MEM_0: MEM}, START_MS)
    engine.receive(sent(CPU_0, cpu(0, "a", 1), cpu(60, "a", 1)), START_MS)
    assert not engine.advance(START_MS + 20_000, behind={CPU_0, MEM_0}).windows
    assert not engine.advance(START_MS + 34_999, behind={CPU_0}).windows
    assert engine.advance(START_MS + 35_000, behind={CPU_0}).windows


def test_a_clock_that_is_set_back_keeps_no_partition_awake(engine: Engine) -> None:
    engine.receive(sent(CPU_0, cpu(0, "a", 1)), START_MS + 50_000)
    assert not engine.advance(START_MS).windows
    assert len(list(engine.advance(START_MS + 15_000).rows())) == 1


def test_a_silent_partition_does_not_save_late_records_of_a_batch() -> None:
    engine = engine_of()
    engine.assign({CPU_0: CPU, MEM_0: MEM}, START_MS)
    engine.advance(START_MS + 15_000)
    closed = engine.receive(
        sent(CPU_0, cpu(0, "a", 1), cpu(60, "a", 1), cpu(12, "a", 1)), START_MS + 15_000
    )
    assert [one.offset for one in closed.refusals] == [2]


def test_records_of_a_batch_that_miss_different_windows_count_in_the_others(
    engine: Engine,
) -> None:
    # 36 closes [0,30), which 25 misses; 46 closes [10,40), which 35 misses.
    seconds_and_values = ((0, 10), (36, 20), (25, 30), (46, 40), (35, 50))
    payloads = [cpu(second, "a", value) for second, value in seconds_and_values]
    rows = [*engine.receive(sent(CPU_0, *payloads), START_MS).rows(), *engine.finish().rows()]
    assert [row.hundredths[0] for row in rows] == [
        1000,  # [0,30) 10
        2500,  # [10,40) 20 and 30
        3500,  # [20,50) 20, 30, 40 and 50
        3667,  # [30,60) 20, 40 and 50
        4000,  # [40,70) 40
    ]


def test_a_second_partition_of_a_topic_holds_the_watermark() -> None:
    engine = engine_of()
    engine.assign({CPU_0: CPU, CPU_1: CPU}, START_MS)
    assert not engine.receive(sent(CPU_0, cpu(0, "a", 1), cpu(60, "a", 1)), START_MS).windows
    closed = engine.receive(sent(CPU_1, cpu(35, "b", 1)), START_MS)
    assert [(row.server_id, row.start_ms) for row in closed.rows()] == [("a", START_MS)]
    assert engine.latest_ms == {CPU_0: START_MS + 60_000, CPU_1: START_MS + 35_000}


def test_a_partition_given_away_holds_nothing_any_more() -> None:
    engine = engine_of()
    engine.assign({CPU_0: CPU, CPU_1: CPU}, START_MS)
    engine.receive(sent(CPU_0, cpu(0, "a", 1), cpu(60, "a", 1)), START_MS)
    engine.assign({CPU_0: CPU}, START_MS)
    assert len(list(engine.advance(START_MS).rows())) == 1
    with pytest.raises(KeyError):
        engine.receive(sent(CPU_1, cpu(0, "a", 1)), START_MS)


def test_a_topic_of_another_family_is_refused() -> None:
    with pytest.raises(ValueError, match="not in"):
        engine_of().assign({Partition("net", 0): NET}, START_MS)


def test_clock_times_go_on_over_midnight_and_restarts() -> None:
    engine = engine_of(live=Liveness(max_skew_ms=None))
    engine.assign({CPU_0: CPU}, 0)
    text = '{"ts":"%s","server_id":"a","cpu_pct":1}'
    engine.receive(sent(CPU_0, (text % "23:59:59").encode()), 0)
    other = engine_of(live=Liveness(max_skew_ms=None))
    other.restore(engine.snapshot(), 0, "state")
    other.receive(sent(CPU_0, (text % "00:00:01").encode()), 0)
    midnight = int(dt.datetime(2025, 10, 6, tzinfo=dt.UTC).timestamp()) * 1000
    assert other.latest_ms == {CPU_0: midnight + 1000}
    assert other.clocks == {CPU_0: ClockState(DAY, midnight + 1000)}


def test_the_grid_hangs_on_the_first_event_also_after_a_restart() -> None:
    def spec_of(first_ms: int | None) -> WindowSpec:
        return WindowSpec(30_000, 10_000, 0 if first_ms is None else first_ms % 10_000)

    def made() -> Engine:
        return Engine(RULES, spec_of, Arithmetic.EXACT, Liveness(), dt.UTC, DAY)

    engine = made()
    engine.assign({CPU_0: CPU}, START_MS)
    engine.receive(sent(CPU_0, cpu(4, "a", 1), cpu(3, "a", 1)), START_MS)
    other = made()
    other.restore(engine.snapshot(), START_MS, "state")
    other.receive(sent(CPU_0, cpu(5, "a", 1)), START_MS)
    (row,) = other.finish().rows()
    assert (row.start_ms - START_MS, row.hundredths) == (3000, (100, None))


def test_windows_of_one_step_come_by_end_and_then_by_the_bytes_of_the_id(engine: Engine) -> None:
    names = ["server_2", "server_10", "A", "a", "server-1", "x" * 64, "x" * 8]
    payloads = [cpu(second, name, 1) for second in (0, 10) for name in names]
    engine.receive(sent(CPU_0, *payloads), START_MS)
    found = [(row.end_ms, row.server_id) for row in engine.finish().rows()]
    assert len(found) == 2 * len(names)
    assert found == sorted(found, key=lambda one: (one[0], one[1].encode()))


def test_a_drain_of_many_windows_at_once_is_the_same_as_one_by_one() -> None:
    payloads = [cpu(second, f"s{second % 3}", second % 100) for second in range(0, 30_000, 7)]
    found = []
    for size in (1, 97, len(payloads)):
        engine = engine_of(live=Liveness(max_skew_ms=None))
        engine.assign({CPU_0: CPU}, 0)
        rows = []
        for at in range(0, len(payloads), size):
            rows += engine.receive(sent(CPU_0, *payloads[at : at + size]), 0).rows()
        found.append([*rows, *engine.finish().rows()])
    assert found[0] == found[1] == found[2]


def test_instants_far_apart_take_no_panes_between_them() -> None:
    engine = engine_of(live=Liveness(lateness_ms=None, max_skew_ms=None))
    engine.assign({CPU_0: CPU}, 0)
    engine.receive(sent(CPU_0, cpu(-1_500_000_000, "a", 1), cpu(0, "a", 1)), 0)
    assert engine.size_bytes < 100_000
    assert len(list(engine.finish().rows())) == 4


def test_memory_grows_with_active_servers_not_with_those_of_the_past() -> None:
    engine = engine_of(live=Liveness(max_skew_ms=None))
    engine.assign({CPU_0: CPU}, 0)
    for second in range(0, 4000, 10):
        names = [f"s{second}-{number}" for number in range(20)]
        engine.receive(sent(CPU_0, *(cpu(second, name, 1) for name in names)), 0)
    # 20 new servers every 10 s, of which those of about 40 s are in open panes: 80.
    assert engine.size_bytes == 2 * 8 * 256 * (4 + 4 + 8)


def test_a_server_that_comes_back_after_its_number_was_given_away_has_no_leading_windows() -> None:
    engine = engine_of(live=Liveness(max_skew_ms=None))
    engine.assign({CPU_0: CPU}, 0)
    engine.receive(sent(CPU_0, cpu(0, "old", 1)), 0)
    for second in range(10, 2000, 10):
        payloads = [cpu(second, f"s{second}-{number}", 1) for number in range(20)]
        engine.receive(sent(CPU_0, *payloads), 0)
    other = engine_of(live=Liveness(max_skew_ms=None))
    other.restore(engine.snapshot(), 0, "state")
    for one in (engine, other):
        one.receive(sent(CPU_0, cpu(2020, "old", 7), cpu(2020, "new", 7)), 0)
        rows = [row for row in one.finish().rows() if row.server_id in ("old", "new")]
        starts = [(row.server_id, (row.start_ms - START_MS) // 1000) for row in rows]
        assert starts == [("old", 2000), ("old", 2010), ("new", 2020), ("old", 2020)]


def test_numbers_of_servers_are_given_away_without_mixing_their_data() -> None:
    engine = engine_of(live=Liveness(max_skew_ms=None))
    engine.assign({CPU_0: CPU}, 0)
    rows = []
    for second in range(0, 3000, 10):
        passing = [cpu(second, f"passing{second}-{number}", number) for number in range(20)]
        # Behind the others, so that the kept ones move.
        kept = [cpu(second, f"kept-{number}", number) for number in range(10)]
        rows += engine.receive(sent(CPU_0, *passing, *kept), 0).rows()
    rows += engine.finish().rows()
    assert len(rows) == 300 * 30
    assert all(row.hundredths[0] == 100 * int(row.server_id.split("-")[1]) for row in rows)


def test_columns_that_are_free_again_are_empty() -> None:
    # Without dropping leading windows, a new server shows what its column held before it came.
    keep = WindowSpec(is_leading_dropped=False)
    engine = engine_of(spec=keep, live=Liveness(max_skew_ms=None))
    engine.assign({CPU_0: CPU}, 0)
    rows = []
    for second in range(0, 1000, 10):
        passing = [cpu(second, f"passing{second}-{number}", number) for number in range(20)]
        rows += engine.receive(sent(CPU_0, *passing), 0).rows()
    rows += engine.finish().rows()
    assert len(rows) == 100 * 20 * 3
    assert all(row.hundredths[0] == 100 * int(row.server_id.split("-")[1]) for row in rows)


def test_a_batch_of_messages_takes_memory_by_its_size_alone() -> None:
    engine = engine_of(live=Liveness(max_skew_ms=None))
    engine.assign({CPU_0: CPU}, 0)
    payloads = [cpu(second / 10, f"s{second % 100}", 1) for second in range(5000)]
    engine.receive(sent(CPU_0, *payloads), 0)
    tracemalloc.start()
    for turn in range(1, 20):
        later = [cpu(second / 10 + 500 * turn, f"s{second % 100}", 1) for second in range(5000)]
        engine.receive(sent(CPU_0, *later), 0)
    left_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert left_bytes < 2_000_000


class TestSnapshot:
    def test_a_snapshot_of_a_restored_engine_is_the_same(self, engine: Engine) -> None:
        engine.receive(sent(CPU_0, cpu(0, "a", 1), cpu(12, "b" * 64, 3)), START_MS)
        first = engine.snapshot()
        other = engine_of()
        other.restore(first, START_MS, "state")
        assert other.snapshot() == first

    @pytest.mark.parametrize(
        ("damage", "wanted"),
        [
            (lambda data: data[:0], "no state of the engine"),
            (lambda data: b"x" + data[1:], "no state of the engine"),
            (lambda data: data[:10], "no state of the engine"),
            (lambda data: data[:-1], "does not match its checksum"),
            (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "does not match its checksum"),
            (lambda data: data[:20] + b"\x02" + data[21:], "of version 2, wanted 1"),
        ],
        ids=["empty", "foreign", "cut", "short", "changed", "newer"],
    )
    def test_other_bytes_are_damaged_state(
        self, engine: Engine, damage: Callable[[bytes], bytes], wanted: str
    ) -> None:
        data = damage(engine.snapshot())
        with pytest.raises(DamagedState, match=f"^monitor.db: .*{wanted}"):
            engine_of().restore(data, START_MS, "monitor.db")

    @pytest.mark.parametrize(
        "other",
        [
            engine_of(spec=WindowSpec(60_000, 10_000)),
            engine_of(spec=WindowSpec(30_000, 5_000)),
            engine_of(arithmetic=Arithmetic.FLOAT32),
            engine_of(rules=RuleSet(NET_DISK, RULES.thresholds, "both")),
        ],
        ids=["size", "slide", "arithmetic", "family"],
    )
    def test_other_settings_are_named(self, engine: Engine, other: Engine) -> None:
        with pytest.raises(UsageError, match=r"^monitor.db: .*arithmetic exact, but"):
            other.restore(engine.snapshot(), START_MS, "monitor.db")

    def test_a_snapshot_of_many_servers_is_compact(self, engine: Engine) -> None:
        payloads = [
            cpu(second, f"server_{number}", 50) for second in (0, 10) for number in range(1000)
        ]
        engine.receive(sent(CPU_0, *payloads), START_MS)
        # An id with its size and first instant, and in each of two panes a total and four counts.
        each = len("server_123") + 1 + 8 + 2 * (8 + 1 + 1) + 2 * (8 + 1 + 1)
        assert len(engine.snapshot()) < 1000 * each + 1000


def test_a_server_that_moves_to_a_lower_number_keeps_its_own_thresholds() -> None:
    never = Threshold(CPU_PCT, Operator.ABOVE, 100_000_000, "never"), RULES.thresholds[1]
    rules = replace(RULES, overrides=(Override("kept", never),))
    engine = engine_of(live=Liveness(max_skew_ms=None), rules=rules)
    engine.assign({CPU_0: CPU}, 0)
    labels = set()
    for second in range(0, 1000, 10):
        passing = [cpu(second, f"s{second}-{number}", 90) for number in range(20)]
        closed = engine.receive(sent(CPU_0, *passing, cpu(second, "kept", 90)), 0)
        labels |= {(row.server_id == "kept", row.alert) for row in closed.rows()}
    assert labels == {(True, ""), (False, "hot")}
