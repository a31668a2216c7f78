"""How far a dataset was sent, as a message."""

import datetime as dt
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.codec.replay_position import ReplayPosition, decode_position, encode_position
from fleetpulse.domain.errors import DamagedState

POSITIONS = st.builds(
    ReplayPosition,
    dataset=st.text(),
    run=st.text(),
    next_sample=st.integers(0, 2**63),
    date=st.dates(),
    start_ms=st.none() | st.integers(-(2**62), 2**62),
)


@given(POSITIONS)
def test_what_is_written_is_read_again(position: ReplayPosition) -> None:
    assert decode_position(encode_position(position), "here") == position


@given(st.binary() | st.recursive(st.none() | st.text(), st.lists).map(repr).map(str.encode))
def test_anything_else_is_told_with_its_place(payload: bytes) -> None:
    with pytest.raises(DamagedState, match=r"^here: .*--run NAME"):
        decode_position(payload, "here")


@pytest.mark.parametrize(
    "wrong",
    [
        {"v": 2},
        {"next_sample": -1},
        {"next_sample": True},
        {"next_sample": 1.5},
        {"start_ms": "1"},
        {"date": "yesterday"},
        {"date": None},
    ],
)
def test_a_position_with_one_wrong_part_is_none(wrong: dict[str, object]) -> None:
    good = encode_position(ReplayPosition("d", "r", 1, dt.date(2025, 10, 5), 3))
    with pytest.raises(DamagedState):
        decode_position(json.dumps({**json.loads(good), **wrong}).encode(), "here")
