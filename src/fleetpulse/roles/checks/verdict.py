"""What a check says, and how checks that hang on each other are run.

A fault shows in many places. So that one line names it, a check is not run where one that it needs
failed, and a failure that an earlier one explains is no failure of its own: both are skipped, with
the name of the check that failed.
"""

import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Final, Generic, TypeVar

from fleetpulse.domain.errors import FleetpulseError

LIMIT_S: Final = 5.0


class Outcome(StrEnum):
    """How a check ended, from good to bad; a skipped one says nothing."""

    PASS = auto()
    SKIP = auto()
    WARN = auto()
    FAIL = auto()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found; the text ends in the next step where there is one to take.

    `because` names the failed check that explains a skip.
    """

    outcome: Outcome
    text: str
    because: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """A check's name, verdict and time."""

    name: str
    verdict: Verdict
    seconds: float

    @property
    def outcome(self) -> Outcome:
        """Return how it ended."""
        return self.verdict.outcome


Facts = TypeVar("Facts")


@dataclass(frozen=True, slots=True)
class Check(Generic[Facts]):
    """A check: `needs` are those without which it is not run, `after` those that explain its fail.

    `late` says what to do when it has not ended after `limit_s`.
    """

    name: str
    run: Callable[[Facts], Verdict]
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    limit_s: float = LIMIT_S
    late: str = "run this again"


def passed(text: str) -> Verdict:
    """Return the verdict that all is well."""
    return Verdict(Outcome.PASS, text)


def warned(text: str) -> Verdict:
    """Return the verdict that it works, and what may not last."""
    return Verdict(Outcome.WARN, text)


def failed(text: str) -> Verdict:
    """Return the verdict that it does not work."""
    return Verdict(Outcome.FAIL, text)


def skipped(because: str) -> Verdict:
    """Return the verdict that a failed check already explains what this one would find."""
    return Verdict(Outcome.SKIP, f"not checked: see {because}", because)


def examine(
    checks: Sequence[Check[Facts]], facts: Facts, report: Callable[[Finding], None]
) -> tuple[Finding, ...]:
    """Run the checks in their order and return their findings; `report` gets each as it comes."""
    found: dict[str, Finding] = {}
    for check in checks:
        started_s = time.monotonic()
        because = _cause(check.needs, found)
        if because == check.name:
            # An earlier check has seen what this one is to name.
            because = None
        verdict = skipped(because) if because else _bounded(check, facts)
        if verdict.outcome is Outcome.FAIL and (because := _cause(check.after, found)):
            verdict = skipped(because)
        finding = Finding(check.name, verdict, time.monotonic() - started_s)
        found[check.name] = finding
        report(finding)
    return tuple(found.values())


def _cause(names: Iterable[str], found: dict[str, Finding]) -> str | None:
    """Return the first of the checks that failed, or what it was skipped for."""
    for name in names:
        finding = found.get(name)
        if finding is None:
            continue
        if finding.outcome is Outcome.FAIL:
            return name
        if finding.verdict.because is not None:
            return finding.verdict.because
    return None


def _bounded(check: Check[Facts], facts: Facts) -> Verdict:
    """Run a check in a thread of its own: one that hangs is left behind."""
    answer: queue.SimpleQueue[Verdict] = queue.SimpleQueue()
    threading.Thread(
        target=lambda: answer.put(_judged(check, facts)), name=check.name, daemon=True
    ).start()
    try:
        return answer.get(timeout=check.limit_s)
    except queue.Empty:
        return failed(f"no answer within {check.limit_s:g} s; {check.late}")


def _judged(check: Check[Facts], facts: Facts) -> Verdict:
    try:
        return check.run(facts)
    except FleetpulseError as err:
        return failed("; ".join(str(err).splitlines()))
    except Exception as err:  # noqa: BLE001  a defect of one check must not hide the others
        # Its text may quote what nobody should see.
        last = traceback.extract_tb(err.__traceback__)[-1]
        place = f"{last.filename.rpartition('/')[2]}:{last.lineno}"
        return failed(f"this check broke ({type(err).__name__} at {place}); please report it")
