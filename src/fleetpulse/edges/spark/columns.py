"""WindowSpec, RuleSet, Arithmetic and Compare compiled to Spark columns.

This interpreter owns no number: sizes, limits and labels all come from the domain objects. There is
no Python UDF, so no row ever leaves the JVM before it is a result.

exact: a value is a decimal of six places, summed in millionths as a 64-bit integer, which makes the
result independent of partitions and order. Spark's ANSI mode (`session.py` insists on it) raises
where such a sum overflows. A quotient is rounded once, in integers:

    hundredths of S/n millionths, half up = (2 S + 10,000 n) div (20,000 n)

float32: a value is the nearest 32-bit float, aggregated as a 64-bit one; Spark turns the result to
a decimal through its shortest text, as its `round` does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pyspark.sql import Column, Window
from pyspark.sql import functions as sql

from fleetpulse.domain.aggregate import Arithmetic
from fleetpulse.domain.metric import Metric, Statistic
from fleetpulse.domain.rule import Compare, Operator, RuleSet, Threshold
from fleetpulse.domain.window import WindowSpec

_MICROS: Final = 1_000_000
_MICROS_IN_HUNDREDTH: Final = 10_000
# Nine digits hold the highest rate (100 million), six more the millionths.
_VALUE_TYPE: Final = "decimal(15,6)"
_REPORTED_TYPE: Final = "decimal(14,2)"


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One metric's column pair in a window: `amount` over `parts`, null where it has no sample.

    The amount is in millionths in `exact` (a sum with its count, or a maximum with 1), and in the
    metric's unit in `float32`, where it is the statistic itself.
    """

    metric: Metric
    arithmetic: Arithmetic
    amount: Column
    parts: Column

    def hundredths(self) -> Column:
        """Return the reported number in hundredths, half up, as a 64-bit integer or null."""
        if self.arithmetic is Arithmetic.FLOAT32:
            return (self.amount.cast(_REPORTED_TYPE) * 100).cast("bigint")
        return sql.when(
            self.amount.isNotNull(),
            sql.call_function(
                "div",
                2 * self.amount + _MICROS_IN_HUNDREDTH * self.parts,
                2 * _MICROS_IN_HUNDREDTH * self.parts,
            ),
        )

    def is_met(self, threshold: Threshold, compare: Compare) -> Column:
        """Return whether the number that `compare` names is over its limit; null without one."""
        if compare is Compare.REPORTED:
            found, limit = (
                self.hundredths() * _MICROS_IN_HUNDREDTH,
                sql.lit(threshold.limit_micros).cast("bigint"),
            )
        elif self.arithmetic is Arithmetic.EXACT:
            found = self.amount
            limit = sql.lit(threshold.limit_micros).cast("bigint") * self.parts
        else:
            # Two doubles compare as their shortest decimals do, and a limit has at most 15 digits.
            found, limit = self.amount, sql.lit(threshold.limit_micros / _MICROS)
        return found >= limit if threshold.operator is Operator.AT_LEAST else found > limit


def read_value(metric: Metric, arithmetic: Arithmetic) -> Column:
    """Return a metric's text column as a number: millionths half up, or a float as a double."""
    text = sql.col(metric.name)
    if arithmetic is Arithmetic.FLOAT32:
        # By way of the double, which is what a value is before this mode narrows it.
        return text.cast("double").cast("float").cast("double").alias(metric.name)
    return (text.cast(_VALUE_TYPE) * _MICROS).cast("bigint").alias(metric.name)


def window_of(at: Column, spec: WindowSpec) -> Column:
    """Return the windows [start, end) that hold a timestamp; Spark multiplies the row by them."""
    return sql.window(
        at,
        f"{spec.size_ms} milliseconds",
        f"{spec.slide_ms} milliseconds",
        f"{spec.origin_ms} milliseconds",
    )


def aggregates_of(metric: Metric, arithmetic: Arithmetic) -> list[Column]:
    """Return what a group computes for a metric; `aggregate` reads the columns back."""
    value = sql.col(metric.name)
    if metric.statistic is Statistic.MAX:
        amount = sql.max(value)
    elif arithmetic is Arithmetic.EXACT:
        amount = sql.sum(value)
    else:
        amount = sql.avg(value)
    return [amount.alias(f"{metric.name}_amount"), sql.count(value).alias(f"{metric.name}_count")]


def aggregate(metric: Metric, arithmetic: Arithmetic) -> Aggregate:
    """Return the columns that `aggregates_of` made, as one value."""
    is_sum = metric.statistic is Statistic.MEAN and arithmetic is Arithmetic.EXACT
    parts = sql.col(f"{metric.name}_count") if is_sum else sql.lit(1).cast("bigint")
    return Aggregate(metric, arithmetic, sql.col(f"{metric.name}_amount"), parts)


def first_pane_start(server_id: Column, start_ms: Column, spec: WindowSpec) -> Column:
    """Return the start of the pane of the server's first sample, over all its windows.

    The earliest window that holds the first sample ends with that sample's pane, so no second pass
    over the samples is needed.
    """
    earliest = sql.min(start_ms).over(Window.partitionBy(server_id))
    return earliest + sql.lit(spec.size_ms - spec.slide_ms).cast("bigint")


def verdict(rules: RuleSet, server_id: Column, found: Sequence[Aggregate]) -> Column:
    """Return the label of a window, or ""; the first override whose glob matches decides."""
    label = _label(rules, rules.thresholds, found)
    for override in reversed(rules.overrides):
        label = sql.when(
            server_id.rlike(override.pattern()), _label(rules, override.thresholds, found)
        ).otherwise(label)
    return label


def is_over(
    rules: RuleSet, side: int, server_id: Column, value: Column, arithmetic: Arithmetic
) -> Column:
    """Return whether one value of a family's first or second metric is over its limit."""
    metric = rules.family.metrics[side]
    found = Aggregate(metric, arithmetic, value, sql.lit(1).cast("bigint"))
    is_met = found.is_met(rules.thresholds[side], Compare.EXACT)
    for override in reversed(rules.overrides):
        is_met = sql.when(
            server_id.rlike(override.pattern()),
            found.is_met(override.thresholds[side], Compare.EXACT),
        ).otherwise(is_met)
    return is_met


def _label(
    rules: RuleSet, thresholds: tuple[Threshold, Threshold], found: Sequence[Aggregate]
) -> Column:
    first, second = (
        one.is_met(threshold, rules.compare)
        for one, threshold in zip(found, thresholds, strict=True)
    )
    # A null (no sample) is not true, hence not over its limit.
    return (
        sql.when(first & second, sql.lit(rules.both_label))
        .when(first, sql.lit(thresholds[0].label))
        .when(second, sql.lit(thresholds[1].label))
        .otherwise(sql.lit(""))
    )
