"""How checks that hang on each other are run, so that one line names a fault."""

import threading

from fleetpulse.domain.errors import UsageError
from fleetpulse.roles.checks.verdict import (
    Check,
    Finding,
    Outcome,
    Verdict,
    examine,
    failed,
    passed,
    warned,
)
from fleetpulse.roles.doctor import worst

GOOD, DOUBTFUL, BAD = passed("good"), warned("doubtful"), failed("bad")


def check(
    name: str, verdict: Verdict, needs: tuple[str, ...] = (), after: tuple[str, ...] = ()
) -> Check[None]:
    return Check(name, lambda _facts: verdict, needs, after)


def outcomes(*checks: Check[None]) -> dict[str, str]:
    found = examine(checks, None, lambda _finding: None)
    return {one.name: f"{one.outcome} {one.verdict.because or ''}".strip() for one in found}


def test_what_needs_a_failed_check_is_skipped_with_its_name_and_the_rest_runs() -> None:
    assert outcomes(
        check("a", BAD), check("b", GOOD, needs=("a",)), check("c", DOUBTFUL), check("d", BAD)
    ) == {"a": "fail", "b": "skip a", "c": "warn", "d": "fail"}


def test_the_check_that_failed_is_named_however_long_the_chain() -> None:
    assert outcomes(
        check("a", BAD), check("b", GOOD, needs=("a",)), check("c", BAD, needs=("b",))
    ) == {"a": "fail", "b": "skip a", "c": "skip a"}


def test_a_warning_keeps_nothing_from_running() -> None:
    assert outcomes(check("a", DOUBTFUL), check("b", GOOD, needs=("a",))) == {
        "a": "warn",
        "b": "pass",
    }


def test_a_failure_that_an_earlier_one_explains_is_none_and_a_pass_stays_one() -> None:
    assert outcomes(
        check("a", BAD), check("b", BAD, after=("a",)), check("c", GOOD, after=("a",))
    ) == {"a": "fail", "b": "skip a", "c": "pass"}


def test_a_check_that_is_not_run_for_the_role_hinders_nobody() -> None:
    assert outcomes(check("b", GOOD, needs=("a",), after=("z",))) == {"b": "pass"}


def test_an_error_of_ours_is_a_failure_in_one_line() -> None:
    def raises(_facts: None) -> Verdict:
        raise UsageError("first mistake\nsecond mistake")

    (found,) = examine([Check("a", raises)], None, lambda _finding: None)
    assert found.verdict == failed("first mistake; second mistake")


def test_a_check_that_breaks_fails_and_quotes_nothing() -> None:
    def breaks(_facts: None) -> Verdict:
        raise ValueError("canary-secret")

    (found,) = examine([Check("a", breaks)], None, lambda _finding: None)
    assert found.outcome is Outcome.FAIL
    assert "ValueError at test_doctor_verdict.py:" in found.verdict.text
    assert "canary" not in found.verdict.text


def test_a_check_that_hangs_is_left_behind_and_the_next_one_runs() -> None:
    over = threading.Event()

    def hangs(_facts: None) -> Verdict:
        over.wait(60)
        return GOOD

    slow = Check("a", hangs, limit_s=0.05, late="ask the name server")
    found = examine([slow, check("b", GOOD)], None, lambda _finding: None)
    over.set()
    assert [one.verdict for one in found] == [
        failed("no answer within 0.05 s; ask the name server"),
        GOOD,
    ]


def test_each_finding_is_told_as_it_comes() -> None:
    told: list[str] = []

    def looks(_facts: None) -> Verdict:
        return passed(",".join(told))

    examine([check("a", GOOD), Check("b", looks)], None, lambda one: told.append(one.name))
    (_, second) = examine(
        [check("a", GOOD), Check("b", looks)], None, lambda one: told.append(one.name)
    )
    assert second.verdict.text == "a,b,a"


def test_the_worst_decides_and_a_skip_does_not() -> None:
    def ending(*found: Verdict) -> Outcome:
        return worst([Finding("x", one, 0.0) for one in found])

    skip = Verdict(Outcome.SKIP, "", "a")
    assert ending() is Outcome.PASS
    assert ending(GOOD, skip) is Outcome.PASS
    assert ending(DOUBTFUL, GOOD, skip) is Outcome.WARN
    assert ending(DOUBTFUL, BAD, GOOD) is Outcome.FAIL
