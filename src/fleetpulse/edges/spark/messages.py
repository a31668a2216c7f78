"""Kafka messages -> samples in Spark columns, with the meaning of `codec.message`.

A message is a sample here exactly where the codec takes it as one, but for what Spark's JSON reader
cannot hold: a number of more than 1,000 characters, a name of more than 50,000, and a nesting of
about 1,000 levels (where the codec's own limit hangs on the version of Python).

The reader stops at the end of a value and does not look behind it. So the message is put into an
array, in front of an element that nobody can foresee (`mark`): only one whole value gives two
elements of which the second is the mark.

Fields are read as variants: their JSON text tells a number from a text that looks like one.
"""

from dataclasses import dataclass
from datetime import UTC, tzinfo
from typing import Final

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sql

from fleetpulse.codec.field import MAX_INPUT_BYTES
from fleetpulse.domain.metric import Topic

TS: Final = "ts_ms"
SERVER: Final = "server_id"
# Python's own three words for what is no finite number; the reader knows them and some more.
_READER: Final = {"allowSingleQuotes": "false"}
_ODD_NUMBER: Final = r"INF|\+[IN]"
_STRING: Final = r'"(?:[^"\\]|\\.)*+"'
_ID: Final = r'^"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}"\z'
_CLOCK: Final = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d"
# The form of our own producer, which Spark reads by itself.
_PLAIN: Final = rf"^\d{{4}}-\d\d-\d\d[T ]{_CLOCK}(?:\.\d{{1,9}})?Z\z"
_ISO: Final = (
    rf"^(?<d>\d{{4}}-\d\d-\d\d)[T ](?<t>{_CLOCK})(?:[.,](?<f>\d{{1,9}}))?"
    r"(?:[Zz]|(?<s>[+-])(?<h>[01]\d|2[0-3])(?::?(?<m>[0-5]\d))?)?\z"
)
_HAS_ZONE: Final = r"[Zz]|:.*[+-]"
_CLOCK_ALONE: Final = r"^(?<h>[01]?\d|2[0-3]):(?<m>[0-5]\d):(?<s>[0-5]\d)(?:\.(?<f>\d{1,9}))?\z"
_EPOCH: Final = r"^\d{1,16}(?:\.\d{1,9})?\z"
_NUMBER: Final = r"^-?[0-9]"
_FIRST_EPOCH_MS: Final = 100_000_000_000
_END_MS: Final = 253_402_300_800_000
_DAY_MS: Final = 86_400_000
_HALF_DAY_MS: Final = _DAY_MS // 2
# Up to 15 digits, with a point, are the shortest text of the double that they stand for.
_SHORT_NUMBER: Final = 16
_EPOCH_TEXT: Final = "epoch"


@dataclass(frozen=True, slots=True)
class MessageForm:
    """How the messages of a topic are read: `zone` is that of naive and clock times."""

    topic: Topic
    mark: str
    zone: tzinfo = UTC


def with_samples(raw: DataFrame, form: MessageForm, keep: tuple[str, ...] = ()) -> DataFrame:
    """Return the `keep` columns and each message's sample; `ts_ms` is null where it is none.

    `raw` has Kafka's columns `value` and `timestamp`. Added are `ts_ms`, `server_id` and the
    topic's metrics by name, as text of the shortest decimal.
    """
    names = [metric.name for metric in form.topic.metrics]
    first, ts, server_id = sql.get(sql.col("doc"), sql.lit(0)), sql.col("ts"), sql.col(SERVER)
    # Step by step: what a step names is computed once, however often the next one uses it.
    texts = raw.select(*keep, "timestamp", _document(form).alias("doc")).select(
        *keep,
        "timestamp",
        _is_one_value(form).alias("is_one"),
        *(sql.to_json(first.getField(name)).alias(name) for name in ("ts", SERVER, *names)),
    )
    cells = texts.select(
        *keep,
        "timestamp",
        (sql.col("is_one") & server_id.rlike(_ID)).alias("is_named"),
        sql.when(ts.rlike(_NUMBER), _shortest(ts)).alias(_EPOCH_TEXT),
        sql.when(ts.startswith('"'), _unquoted(ts)).alias("ts"),
        _unquoted(server_id).alias(SERVER),
        *(
            sql.when(sql.col(name).rlike(_NUMBER), _shortest(sql.col(name))).alias(name)
            for name in names
        ),
    )
    is_sample = sql.col("is_named")
    for metric in form.topic.metrics:
        number = sql.col(metric.name).try_cast("double")
        is_sample = is_sample & number.isNotNull() & number.between(0, metric.highest)
    instant_ms = sql.when(is_sample, _instant_ms(form.zone))
    found = cells.select(*keep, instant_ms.alias(TS), SERVER, *names)
    in_time = sql.when(sql.col(TS).between(0, _END_MS - 1), sql.col(TS))
    return found.select(*keep, in_time.alias(TS), SERVER, *names)


def _document(form: MessageForm) -> Column:
    """Return the message and the mark as an array, null where it is not JSON."""
    value = sql.col("value")
    text = value.cast("string")
    names = ("ts", SERVER, *(metric.name for metric in form.topic.metrics))
    schema = "array<struct<" + ",".join(f"{name} variant" for name in names) + ">>"
    wrapped = sql.concat(sql.lit("["), text, sql.lit(f',{{"ts":"{form.mark}"}}]'))
    is_text = (sql.octet_length(value) <= MAX_INPUT_BYTES) & sql.is_valid_utf8(text)
    # What looks odd counts only outside of strings, and they are cut out only where it does.
    is_odd = text.rlike(_ODD_NUMBER) & sql.regexp_replace(text, _STRING, "").rlike(_ODD_NUMBER)
    return sql.when(is_text & ~is_odd, sql.from_json(wrapped, schema, _READER))


def _is_one_value(form: MessageForm) -> Column:
    doc = sql.col("doc")
    mark = sql.to_json(sql.get(doc, sql.lit(1)).getField("ts"))
    return (sql.size(doc) == 2) & (mark == sql.lit(f'"{form.mark}"'))  # noqa: PLR2004  see above


def _unquoted(text: Column) -> Column:
    return text.substr(sql.lit(2), sql.length(text) - 2)


def _shortest(text: Column) -> Column:
    """Return a number's text as that of the shortest decimal of its double."""
    return sql.when(sql.length(text) <= _SHORT_NUMBER, text).otherwise(
        text.try_cast("double").cast("string")
    )


def _instant_ms(zone: tzinfo) -> Column:
    """Return the instant in the column `ts`, or in `epoch` where that is a JSON number."""
    text, epoch = sql.col("ts"), sql.col(_EPOCH_TEXT)
    return (
        sql.when(text.rlike(_PLAIN), sql.unix_millis(text.try_cast("timestamp")))
        .when(text.rlike(_ISO), _iso_ms(text, zone))
        .when(text.rlike(_CLOCK_ALONE), _clock_ms(text, zone))
        .when(text.rlike(_EPOCH), _epoch_ms(text))
        .when(epoch.isNotNull(), _epoch_ms(epoch))
    )


def _iso_ms(text: Column, zone: tzinfo) -> Column:
    # A day that no month has gives null; digits behind the microsecond are cut.
    local = _part(text, _ISO, "${d} ${t}.${f}0").try_cast("timestamp")
    minutes = _integer(text, _ISO, "${s}0${h}") * 60 + _integer(text, _ISO, "${s}0${m}")
    utc_ms = sql.unix_millis(local) - minutes * 60_000
    if zone is UTC:
        return utc_ms
    naive_ms = sql.unix_millis(sql.to_utc_timestamp(local, str(zone)))
    return sql.when(text.rlike(_HAS_ZONE), utc_ms).otherwise(naive_ms)


def _clock_ms(text: Column, zone: tzinfo) -> Column:
    """Return the instant of a clock time that is nearest to the time of its message in Kafka."""
    near = sql.col("timestamp")
    if zone is not UTC:
        near = sql.from_utc_timestamp(near, str(zone))
    time_of_day = _part(text, _CLOCK_ALONE, "1970-01-01 ${h}:${m}:${s}.${f}0")
    clock_ms = sql.unix_millis(time_of_day.try_cast("timestamp"))
    near_ms = sql.unix_millis(near)
    step_ms = clock_ms - near_ms % _DAY_MS
    days = sql.when(step_ms > _HALF_DAY_MS, -1).when(step_ms < -_HALF_DAY_MS, 1).otherwise(0)
    local_ms = near_ms - near_ms % _DAY_MS + days * _DAY_MS + clock_ms
    if zone is UTC:
        return local_ms
    return sql.unix_millis(sql.to_utc_timestamp(sql.timestamp_millis(local_ms), str(zone)))


def _epoch_ms(text: Column) -> Column:
    # Decimals, because 1.001 * 1000 falls short of 1001 in binary and would lose a millisecond.
    number = text.try_cast("decimal(38,20)")
    from_s = sql.floor(text.try_cast("decimal(31,20)") * sql.lit(1000).cast("decimal(4,0)"))
    is_ms = number >= sql.lit(_FIRST_EPOCH_MS).cast("bigint")
    exact = sql.when(is_ms, sql.floor(number)).otherwise(from_s)
    # Beyond 64 bits is beyond all times that count.
    return sql.when(text.try_cast("double").between(-1, _END_MS), exact.cast("bigint"))


def _part(text: Column, pattern: str, form: str) -> Column:
    return sql.regexp_replace(text, pattern, form)


def _integer(text: Column, pattern: str, form: str) -> Column:
    return _part(text, pattern, form).cast("bigint")
