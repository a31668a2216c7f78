"""Spark against the reference on random fleets: few examples, each a large one."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetpulse.config import Settings
from fleetpulse.domain.aggregate import Arithmetic
from fleetpulse.domain.clock import iso_text
from fleetpulse.domain.metric import FAMILIES, Family
from fleetpulse.domain.rule import Compare

# PySpark leaves the end of its sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)

START_MS = 1_759_697_580_000
SERVERS = ("a", "A", "server_1", "server_10", "server_2", "server-2", "s.2", "s:2", "0")
# Around limits and ties, and with more decimals than are kept.
PERCENTAGES = st.one_of(
    st.integers(0, 100),
    st.integers(0, 10_000).map(lambda number: number / 100),
    st.integers(0, 100_000).map(lambda number: number / 1000),
    st.integers(79_990_000, 80_010_000).map(lambda number: number / 1_000_000),
    st.integers(0, 1_000_000_000).map(lambda number: number / 10_000_000),
)
RATES = st.one_of(
    PERCENTAGES,
    st.integers(0, 10_000_000).map(lambda number: number / 1000),
    st.integers(16_777_210, 16_777_230),
    st.integers(0, 10**15).map(lambda number: number / 10_000_000),
)
INSTANTS = st.one_of(
    st.integers(-60_000, 60_000).map(lambda ms: ms // 10_000 * 10_000),
    st.integers(-120_000, 120_000),
    st.integers(3_600_000, 3_660_000),
)
WINDOWS = st.fixed_dictionaries(
    {
        "size_s": st.sampled_from([10, 30, 60]),
        "slide_s": st.sampled_from([5, 10]),
        "origin": st.sampled_from(["epoch", "first_event", 0, 3]),
        "leading": st.sampled_from(["drop", "keep"]),
    }
)


def lines_of(values: st.SearchStrategy[float]) -> st.SearchStrategy[list[str]]:
    number = st.none() | values
    line = st.tuples(INSTANTS, st.sampled_from(SERVERS), number, number)
    text = line.map(
        lambda one: (
            f"{iso_text(START_MS + one[0])},{one[1]},"
            + ",".join("" if cell is None else repr(cell) for cell in one[2:])
            + "\n"
        )
    )
    return st.lists(text, min_size=50, max_size=250)


@pytest.mark.parametrize("compare", Compare)
@pytest.mark.parametrize("arithmetic", Arithmetic)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_spark_gives_the_reference_rows(
    family: Family,
    arithmetic: Arithmetic,
    compare: Compare,
    spark_batch: Callable[[Settings, Family, Path], str],
    reference: Callable[[Settings, Family, Path], str],
) -> None:
    values = PERCENTAGES if family.name == "cpu_mem" else RATES

    @settings(
        max_examples=4,
        deadline=None,
        suppress_health_check=[HealthCheck.data_too_large, HealthCheck.too_slow],
    )
    @given(lines=lines_of(values), window=WINDOWS)
    def check(lines: list[str], window: dict[str, object]) -> None:
        chosen = Settings.model_validate(
            {"arithmetic": arithmetic, "compare": compare, "window": window}
        )
        names = ",".join(metric.name for metric in family.metrics)
        with TemporaryDirectory() as folder:
            path = Path(folder) / "samples.csv"
            path.write_text(f"ts,server_id,{names}\n" + "".join(lines))
            assert spark_batch(chosen, family, path) == reference(chosen, family, path)

    check()
