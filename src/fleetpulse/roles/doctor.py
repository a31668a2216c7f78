"""Looks at this machine, its network and the broker, and names what is wrong and what to do.

The order of the checks is that of the ground up; what each of them needs is in `_CHECKS`.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from fleetpulse.domain.role import Role
from fleetpulse.roles.checks import broker, ground, machine, network
from fleetpulse.roles.checks.case import Case
from fleetpulse.roles.checks.verdict import Check, Finding, Outcome, examine

_SPARK_LIMIT_S: Final = 60.0
_SLOW: Final = "the broker is busy, or the line to it slow or full: look at both"
_CHECKS: Final = (
    Check("settings", ground.settings),
    Check("python", ground.python),
    Check("java", ground.java, limit_s=10.0, late="start that Java yourself and see why it hangs"),
    Check("jars", ground.jars, limit_s=30.0, late="the disk of the cache is very slow: check it"),
    Check(
        "spark",
        ground.spark,
        needs=("java",),
        limit_s=_SPARK_LIMIT_S,
        late="check the memory and the load of this machine",
    ),
    Check("connector", ground.connector),
    Check("zerotier", network.zerotier, needs=("settings",)),
    Check(
        "resolve",
        network.resolve,
        needs=("settings",),
        after=("zerotier",),
        late="the name server does not answer: write an address into hosts.broker",
    ),
    Check("overlay", network.overlay, needs=("settings", "resolve"), after=("zerotier",)),
    Check(
        "security",
        broker.security,
        needs=("settings",),
        after=("zerotier", "resolve", "overlay"),
    ),
    Check("connect", network.connect, needs=("resolve",), after=("zerotier", "overlay")),
    Check("mtu", network.mtu, needs=("connect",)),
    Check("tls", broker.tls, needs=("security", "connect", "mtu"), after=("overlay",)),
    Check("login", broker.log_in, needs=("security", "tls"), after=("overlay",)),
    Check("advertised", broker.advertised, needs=("login",), after=("overlay",)),
    Check("permission", broker.permission, needs=("advertised",), late=_SLOW),
    Check("topics", broker.topics, needs=("advertised",), after=("permission",), late=_SLOW),
    Check(
        "round-trip",
        broker.round_trip,
        needs=("advertised",),
        after=("permission", "topics"),
        late=_SLOW,
    ),
    Check("clock", broker.clock, needs=("round-trip",)),
    Check("disk", machine.disk, needs=("settings",)),
    Check("output", machine.output, needs=("settings",), after=("disk",)),
    Check("ports", machine.ports, needs=("settings",), after=("overlay", "connect")),
)
_LOCAL: Final = frozenset({"settings", "python", "disk", "output", "ports"})
_JAVA: Final = frozenset({"java", "jars"})
_SPARK: Final = _JAVA | {"spark", "connector"}
_EVERY: Final = frozenset(check.name for check in _CHECKS)


def doctor(
    role: Role | None,
    file: Path | None,
    environ: Mapping[str, str],
    report: Callable[[Finding], None],
) -> tuple[Finding, ...]:
    """Run the checks of a role, or (None) all of them, and return their findings.

    `file` is the settings file, None for the usual one. `report` gets each finding as it comes.
    """
    names = names_of(role)
    checks = [one for one in _CHECKS if one.name in names]
    return examine(checks, Case(role, file, environ), report)


def names_of(role: Role | None) -> frozenset[str]:
    """Return the names of the checks that make sense for a role."""
    if role is None:
        return _EVERY
    if role.user is None:
        return _LOCAL | _SPARK
    if role is Role.SPARK_STREAM:
        return _EVERY
    return _EVERY - _SPARK | (_JAVA if role is Role.BROKER else frozenset())


def worst(findings: Iterable[Finding]) -> Outcome:
    """Return the worst of what was found; a skipped check is none of it."""
    found = {one.outcome for one in findings}
    return next((one for one in (Outcome.FAIL, Outcome.WARN) if one in found), Outcome.PASS)
