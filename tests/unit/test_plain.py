import pytest

from fleetpulse.codec.message import encode_message
from fleetpulse.codec.plain import PlainForm
from fleetpulse.codec.table import record_line
from fleetpulse.domain.metric import CPU, NET
from fleetpulse.domain.sample import Record

TS_MS = 1_759_697_580_000
RECORD = Record(CPU, TS_MS, "a", (34.74,))


def test_a_plain_message_is_cut_once_its_instant_is_known() -> None:
    form = PlainForm.of(CPU)
    assert form.line(encode_message(RECORD)) is None
    form.learn(RECORD)
    assert form.line(encode_message(RECORD)) == record_line(RECORD).encode()


def test_every_metric_of_the_topic_is_cut() -> None:
    record = Record(NET, TS_MS + 5, "a:b.c-d", (99_999_999, 0.0001))
    form = PlainForm.of(NET)
    form.learn(record)
    assert form.line(encode_message(record)) == record_line(record).encode()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("34.74", "134.74"),
        ("34.74", "100"),
        ("34.74", "-1"),
        ("34.74", "034.74"),
        ("34.74", "34.740"),
        ("34.74", "34.00001"),
        ("34.74", "3e1"),
        ("34.74", '"34.74"'),
        ("Z", "+00:00"),
        ("Z", ".000Z"),
        ('"a"', '"-a"'),
        ('"a"', '"' + "a" * 65 + '"'),
        (",", ", "),
        ("}", ',"x":1}'),
        ("}", "}\n"),
    ],
)
def test_every_other_form_goes_the_long_way(before: str, after: str) -> None:
    form = PlainForm.of(CPU)
    form.learn(RECORD)
    payload = encode_message(RECORD).decode().replace(before, after).encode()
    assert payload != encode_message(RECORD)
    assert form.line(payload) is None


def test_the_instants_that_are_remembered_are_bounded() -> None:
    form = PlainForm.of(CPU)
    records = [Record(CPU, TS_MS + second * 1000, "a", (1,)) for second in range(10_001)]
    for record in records:
        form.learn(record)
    lines = [form.line(encode_message(record)) for record in (records[0], records[-1])]
    assert lines == [None, record_line(records[-1]).encode()]
