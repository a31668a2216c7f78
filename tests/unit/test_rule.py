import re
from fractions import Fraction

import pytest

from fleetpulse.domain.metric import CPU_MEM, CPU_PCT, MEM_PCT
from fleetpulse.domain.rule import Compare, Operator, Override, RuleSet, Threshold

CPU = Threshold(CPU_PCT, Operator.AT_LEAST, 80_000_000, "cpu")
MEM = Threshold(MEM_PCT, Operator.ABOVE, 89_000_000, "mem")
RULES = RuleSet(CPU_MEM, (CPU, MEM), "both")
STRICT = (
    Threshold(CPU_PCT, Operator.AT_LEAST, 10_000_000, "strict cpu"),
    Threshold(MEM_PCT, Operator.AT_LEAST, 10_000_000, "strict mem"),
)


def test_reported_numbers_are_compared_unless_told_otherwise() -> None:
    assert RULES.compare is Compare.REPORTED


@pytest.mark.parametrize(
    ("operator", "micros", "is_met"),
    [
        (Operator.AT_LEAST, 79_999_999, False),
        (Operator.AT_LEAST, 80_000_000, True),
        (Operator.AT_LEAST, 80_000_001, True),
        (Operator.ABOVE, 79_999_999, False),
        (Operator.ABOVE, 80_000_000, False),
        (Operator.ABOVE, 80_000_001, True),
    ],
)
def test_a_limit_is_met_from_it_on_or_beyond_it(
    operator: Operator, micros: int, *, is_met: bool
) -> None:
    threshold = Threshold(CPU_PCT, operator, 80_000_000, "cpu")
    assert threshold.is_met(Fraction(micros, 1_000_000)) is is_met


def test_a_third_of_a_millionth_over_the_limit_is_over_it() -> None:
    threshold = Threshold(CPU_PCT, Operator.ABOVE, 80_000_000, "cpu")
    assert threshold.is_met(80 + Fraction(1, 3_000_000))


@pytest.mark.parametrize(
    ("cpu", "mem", "label"),
    [
        (79, 89, ""),
        (80, 89, "cpu"),
        (79, 90, "mem"),
        (80, 90, "both"),
        (None, 90, "mem"),
        (80, None, "cpu"),
        (None, None, ""),
        (None, 89, ""),
    ],
)
def test_a_window_gets_the_label_of_what_is_over(
    cpu: int | None, mem: int | None, label: str
) -> None:
    values = [None if value is None else Fraction(value) for value in (cpu, mem)]
    assert RULES.judge("server_1", values) == label


def test_a_verdict_needs_a_value_for_each_metric() -> None:
    with pytest.raises(ValueError, match="zip"):
        RULES.judge("server_1", [Fraction(90)])


def rules_with(*globs: str) -> RuleSet:
    overrides = tuple(Override(glob, STRICT) for glob in globs)
    return RuleSet(CPU_MEM, (CPU, MEM), "both", overrides=overrides)


@pytest.mark.parametrize(
    ("glob", "server_id", "is_strict"),
    [
        ("db-*", "db-1", True),
        ("db-*", "db-", True),
        ("db-*", "mydb-1", False),
        ("*-db", "a-db", True),
        ("*-db", "a-db2", False),
        ("db-?", "db-1", True),
        ("db-?", "db-12", False),
        ("db-?", "db-", False),
        ("db.1", "db.1", True),
        ("db.1", "dbx1", False),
        ("db-1", "db-10", False),
        ("DB-1", "db-1", False),
        ("[a-z]*", "abc", False),
        ("*", "anything:1", True),
    ],
)
def test_a_glob_is_held_against_the_whole_id(glob: str, server_id: str, *, is_strict: bool) -> None:
    expected = STRICT if is_strict else (CPU, MEM)
    assert rules_with(glob).thresholds_for(server_id) == expected


def test_the_first_matching_override_wins() -> None:
    other = Override("db-1", (CPU, MEM))
    rules = RuleSet(CPU_MEM, (CPU, MEM), "both", overrides=(other, Override("db-*", STRICT)))
    assert rules.judge("db-1", [Fraction(20), None]) == ""
    assert rules.judge("db-2", [Fraction(20), None]) == "strict cpu"


def test_both_over_gives_the_family_label_with_an_override_too() -> None:
    assert rules_with("*").judge("db-1", [Fraction(10), Fraction(10)]) == "both"


@pytest.mark.parametrize("glob", ["a.b", "a+b", "(a", "a\\b", "a$", "^a", "{1}", "a|b", "é", "a b"])
def test_a_glob_without_wild_cards_matches_itself_alone(glob: str) -> None:
    pattern = Override(glob, STRICT).pattern()
    assert re.match(pattern, glob)
    assert not re.match(pattern, glob + "x")
    assert not re.match(pattern, "x" + glob)
