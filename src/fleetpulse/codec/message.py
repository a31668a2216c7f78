"""Record <-> Kafka message, a UTF-8 JSON object.

Such as `{"ts":"2025-10-05T20:53:00Z","server_id":"server_1","cpu_pct":34.74}`.
"""

import json
from functools import lru_cache
from typing import Final

from fleetpulse.codec.field import MAX_INPUT_BYTES, check_number, check_server_id, number_text
from fleetpulse.domain.clock import TimeReader, iso_text
from fleetpulse.domain.metric import Topic
from fleetpulse.domain.reject import Reject, RejectClass
from fleetpulse.domain.sample import Record

# Servers are sampled together, so the same instants are printed again and again.
_instant_text = lru_cache(maxsize=4096)(iso_text)
_decode_json: Final = json.JSONDecoder().decode


def encode_message(record: Record) -> bytes:
    """Return the value of a record's Kafka message; its key is the server id in ASCII."""
    values = ",".join(
        f'"{metric.name}":{number_text(value)}'
        for metric, value in zip(record.topic.metrics, record.values, strict=True)
    )
    # Server ids hold no character that JSON escapes.
    text = f'{{"ts":"{_instant_text(record.ts_ms)}","server_id":"{record.server_id}",{values}}}'
    return text.encode()


def decode_message(topic: Topic, payload: bytes | None, times: TimeReader) -> Record | Reject:
    """Return the record in a message's value, or why it is none. Unknown fields are ignored.

    `times` reads the timestamps of the message's partition, in the order of its offsets.
    """
    if payload is None:
        return Reject(RejectClass.MALFORMED, "message has no value, wanted a JSON object")
    if len(payload) > MAX_INPUT_BYTES:
        return Reject(
            RejectClass.OVERSIZED, f"{len(payload)} bytes, wanted at most {MAX_INPUT_BYTES}"
        )
    try:
        found = _decode_json(payload.decode())
    except (RecursionError, ValueError) as err:
        # ValueError: not UTF-8, not JSON, or an integer of thousands of digits.
        return Reject(RejectClass.MALFORMED, f"not JSON in UTF-8: {str(err)[:80]}")
    if not isinstance(found, dict):
        return Reject(RejectClass.MALFORMED, f"JSON {type(found).__name__}, wanted an object")
    return _record(topic, found, times)


def _record(topic: Topic, found: dict[str, object], times: TimeReader) -> Record | Reject:
    try:
        stamp, server_id = found["ts"], found["server_id"]
        raw = [found[metric.name] for metric in topic.metrics]
    except KeyError as err:
        return Reject(RejectClass.MISSING_FIELD, f"field {err.args[0]} is missing")
    values = []
    for metric, number in zip(topic.metrics, raw, strict=True):
        value = check_number(metric, number)
        if isinstance(value, Reject):
            return value
        values.append(value)
    if (bad := check_server_id(server_id)) is not None:
        return bad
    ts_ms = times.read(stamp)
    if isinstance(ts_ms, Reject):
        return ts_ms
    return Record(topic, ts_ms, str(server_id), tuple(values))
