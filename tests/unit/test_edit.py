"""One value of a settings file is replaced, and nothing else of it."""

from pathlib import Path

import pytest
import yaml

from fleetpulse.config import load, set_value
from fleetpulse.config.edit import with_value
from fleetpulse.domain.errors import UsageError

SHIPPED = Path(__file__).parents[2] / "config/config.yaml"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("hosts: {broker: a, producer: b} # ours\n", "hosts: {broker: NEW, producer: b} # ours\n"),
        (
            "hosts:\n  broker: a   # why\n  producer: b\n",
            "hosts:\n  broker: NEW   # why\n  producer: b\n",
        ),
        ("hosts:\n    producer: b\n", "hosts:\n    broker: NEW\n    producer: b\n"),
        ("hosts: {producer: b}\n", "hosts: {broker: NEW, producer: b}\n"),
        ("hosts: {}\n", "hosts: {broker: NEW}\n"),
        ("hosts:\ntime: {zone: UTC}\n", "hosts: {broker: NEW}\ntime: {zone: UTC}\n"),
        ("hosts:\n  broker:   # not yet\n", "hosts:\n  broker: NEW   # not yet\n"),
        ('hosts: {broker: "a b"}', "hosts: {broker: NEW}"),
        ("time: {zone: UTC}", "time: {zone: UTC}\nhosts:\n  broker: NEW\n"),
        ("", "hosts:\n  broker: NEW\n"),
        ("# only words\n", "# only words\nhosts:\n  broker: NEW\n"),
        ("# ü\r\nhosts: {broker: ü}\r\n", "# ü\r\nhosts: {broker: NEW}\r\n"),
    ],
)
def test_the_value_is_replaced_where_it_stands(before: str, after: str) -> None:
    assert with_value(before, "hosts", "broker", "NEW", "file") == after
    assert yaml.safe_load(after)["hosts"]["broker"] == "NEW"


def test_every_other_line_of_the_shipped_file_stays(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(SHIPPED.read_bytes())
    file.write_text(set_value(file, "hosts", "broker", "10.1.2.3"), encoding="utf-8")
    before, after = (one.read_text(encoding="utf-8").splitlines() for one in (SHIPPED, file))
    differing = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
    assert differing == [("  broker: 127.0.0.1", "  broker: 10.1.2.3")]
    assert load(file, {}).settings.hosts.broker == "10.1.2.3"


def test_a_file_that_is_not_there_is_begun(tmp_path: Path) -> None:
    assert set_value(tmp_path / "none.yaml", "hosts", "broker", "x") == "hosts:\n  broker: x\n"


def test_a_file_with_a_mistake_is_not_touched(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("hosts: {brokr: a}\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"unknown key hosts\.brokr"):
        set_value(file, "hosts", "broker", "x")
