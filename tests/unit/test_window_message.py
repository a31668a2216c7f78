import json
from fractions import Fraction

import pytest

from fleetpulse.codec.window_message import decode_window, encode_window
from fleetpulse.domain.aggregate import WindowRow
from fleetpulse.domain.closing import ClosedBy, ClosedWindow
from fleetpulse.domain.metric import CPU_MEM, NET_DISK, Family
from fleetpulse.domain.reject import Reject, RejectClass

START_MS = 1_759_697_580_000  # 2025-10-05T20:53:00Z


def window(
    family: Family = CPU_MEM, start_ms: int = START_MS, alert: str = 'hot, "very"'
) -> ClosedWindow:
    row = WindowRow(family, "a:1", start_ms, start_ms + 30_000, (5970, None), alert)
    return ClosedWindow(row, (Fraction(11939, 200), None), (6, 0), (2, 0), ClosedBy.IDLE)


def test_a_message_carries_what_the_row_says_and_what_it_was_made_of() -> None:
    assert encode_window(window()) == (
        b'{"family":"cpu_mem","server_id":"a:1","start":"2025-10-05T20:53:00Z",'
        b'"end":"2025-10-05T20:53:30Z","alert":"hot, \\"very\\"","closed_by":"idle","metrics":{'
        b'"cpu_pct":{"reported":59.70,"exact":"11939/200","samples":6,"samples_over":2},'
        b'"mem_pct":{"reported":null,"exact":null,"samples":0,"samples_over":0}}}'
    )


@pytest.mark.parametrize(
    "found", [window(), window(NET_DISK), window(alert=""), window(start_ms=-10_000)]
)
def test_a_message_reads_back_as_the_same_window(found: ClosedWindow) -> None:
    assert decode_window(encode_window(found)) == found


def test_fields_that_are_not_known_are_ignored() -> None:
    fields = json.loads(encode_window(window())) | {"extra": [1]}
    assert decode_window(json.dumps(fields).encode()) == window()


@pytest.mark.parametrize(
    "payload",
    [
        None,
        b"",
        b"\xff",
        b"[]",
        b"5",
        b"[" * 100_000,
        b"{}",
        encode_window(window()).replace(b"cpu_mem", b"cpu"),
        encode_window(window()).replace(b"cpu_pct", b"cpu"),
        encode_window(window()).replace(b"20:53:30", b"30:53:30"),
        encode_window(window()).replace(b"20:53:30Z", b"20:53:30"),
        encode_window(window()).replace(b"idle", b"nobody"),
        # Ids that no message of ours brings, and that a message of ours would not carry.
        encode_window(window()).replace(b'"server_id":"', b'"server_id":"a\\\\'),
        encode_window(window()).replace(b'"server_id":"', b'"server_id":5,"was":"'),
        encode_window(window()).replace(b"11939/200", b"1/0"),
        encode_window(window()).replace(b"59.70", b'"much"'),
        encode_window(window()).replace(b"59.70", b"Infinity"),
        # Short texts of numbers that take minutes and gigabytes.
        encode_window(window()).replace(b"59.70", b"1e99999999"),
        encode_window(window()).replace(b"11939/200", b"1e999999999"),
        encode_window(window()).replace(b'"samples":6', b'"samples":1e99999999'),
        encode_window(window()).replace(b'"samples":6', b'"samples":true'),
    ],
)
def test_what_is_no_window_is_malformed(payload: bytes | None) -> None:
    found = decode_window(payload)
    assert isinstance(found, Reject)
    assert found.reject_class is RejectClass.MALFORMED
