"""The broker as this machine's roles use it: certificates, login, addresses, permissions, topics.

`security` looks at this machine's own files alone; the others ask the broker.
"""

import datetime as dt
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from fleetpulse.config import Settings
from fleetpulse.domain.errors import ServiceUnreachable
from fleetpulse.domain.metric import FAMILIES, TOPICS
from fleetpulse.edges.credentials.certificate import CertificateFacts, certificate_facts
from fleetpulse.edges.kafka.grants import Grant
from fleetpulse.edges.kafka.probe import (
    Greeting,
    Trip,
    brokers,
    certificate_end,
    greet,
    permitted,
    round_trips,
    speaks_tls,
)
from fleetpulse.edges.kafka.tls import Tls, tls_problem
from fleetpulse.edges.kafka.topics import TopicDifference, TopicSpec, create_topics, list_topics
from fleetpulse.edges.kafka.topics import differences as topic_differences
from fleetpulse.edges.link import Reach, addresses_of, reach
from fleetpulse.edges.overlay import Network, is_overlay, overlay_networks
from fleetpulse.roles.access import CONSUMERS, PROBE_TOPIC, grants, kafka_access, tls_of
from fleetpulse.roles.checks.case import Case, is_loopback
from fleetpulse.roles.checks.verdict import Verdict, failed, passed, skipped, warned
from fleetpulse.roles.topics import wanted

_ANSWER_S: Final = 3.0
_LOGIN_S: Final = 3.0
_REACH_S: Final = 1.5
_PATIENCE_S: Final = 4.0
_TRIPS: Final = 5
_WARNING_DAYS: Final = 30
_PROBE_CONFIG: Final = {"retention.ms": "3600000", "message.timestamp.type": "LogAppendTime"}
_CLOCK_WARNING_S: Final = 1.0
_CLOCK_STEP: Final = "let both machines keep their clocks by NTP (timedatectl, chronyc tracking)"


def security(case: Case) -> Verdict:
    """Look at the files of this machine's security, and at what would cross the net openly."""
    warnings: list[str] = []
    case.access = kafka_access(case.settings, warnings.append)
    part = case.settings.security
    if part.ca_file and part.certificate_file:
        # Reading tells of files that are missing, broken, or open to others.
        certificate_facts(part.certificate_file, part.ca_file)
    if login := case.access.login:
        login.read_password(login.password_file)
    if warnings:
        return warned("; ".join(one.removeprefix("warning: ") for one in warnings))
    if not part.tls:
        return passed("unencrypted, and nothing leaves this machine and its VPN")
    who = f", user {part.user}" if part.user else ""
    return passed(f"encrypted{who}; keys and passwords are for their owner alone")


def tls(case: Case) -> Verdict:
    """See that both ends of the connection are secured, or none, and that certificates hold."""
    host, port = case.bootstrap
    files = tls_of(case.settings)
    if files is None:
        return _open_ends(host, port)
    now = dt.datetime.now(dt.UTC)
    part = case.settings.security
    facts = None
    if part.ca_file and part.certificate_file:
        facts = certificate_facts(part.certificate_file, part.ca_file)
        if now < facts.not_before:
            case.clock_problem = (
                f"this machine's certificate was made after {facts.not_before:%Y-%m-%d %H:%M} UTC, "
                f"and its clock says {now:%Y-%m-%d %H:%M}; {_CLOCK_STEP}"
            )
            return skipped("clock")
        if problem := own_problem(facts, now):
            return failed(f"{part.certificate_file}: {problem}")
    return _secured_ends(host, port, files, facts, now)


def _secured_ends(
    host: str, port: int, files: Tls, facts: CertificateFacts | None, now: dt.datetime
) -> Verdict:
    try:
        end_s = certificate_end(host, port, files, _ANSWER_S)
    except TimeoutError:
        return failed(_mute(host, port))
    if problem := tls_problem(host, port, files, _ANSWER_S):
        return failed(f"{host}:{port}: {problem}")
    if end_s is None:
        return failed(
            f"{host}:{port}: it does not speak TLS; set security.tls the same here and on the "
            "broker's machine"
        )
    return judge_days(dt.datetime.fromtimestamp(end_s, dt.UTC), facts, now)


def own_problem(facts: CertificateFacts, now: dt.datetime) -> str | None:
    """Return why this machine's certificate does not hold now; None where it does."""
    if now > facts.not_after:
        return (
            f"this machine's certificate has expired on {facts.not_after:%Y-%m-%d}; renew it "
            "(fleetpulse security renew) and copy it here; or the clock here is wrong"
        )
    if not facts.is_signed_by_ca:
        return (
            "this machine's certificate is not of the authority in security.ca_file; copy this "
            "machine's folder again from the one that security init made"
        )
    return None


def judge_days(broker_end: dt.datetime, own: CertificateFacts | None, now: dt.datetime) -> Verdict:
    """Return what is to be said of certificates that hold, by when they end."""
    ends = {"the broker's certificate": broker_end}
    if own is not None:
        ends["this machine's certificate"] = own.not_after
    soon = [
        f"{name} ends on {end:%Y-%m-%d}, in {(end - now).days} days"
        for name, end in ends.items()
        if end - now < dt.timedelta(days=_WARNING_DAYS)
    ]
    if soon:
        return warned(f"{' and '.join(soon)}; renew in time: fleetpulse security renew")
    days = min(end - now for end in ends.values()).days
    return passed(f"certificates hold, {days} days or more")


def log_in(case: Case) -> Verdict:
    """Let the broker answer a client of this machine."""
    access = case.reached()
    case.brokers = brokers(access, _LOGIN_S)
    if access.login:
        return passed(f"user {access.login.user} is let in")
    return passed("the broker answers, without a login")


def advertised(case: Case) -> Verdict:
    """Try each address that the broker sends its clients to."""
    networks = overlay_networks(case.settings.overlay.network, case.overlay)
    problems = []
    for host, port in case.brokers:
        if problem := _address_problem(case, host, port, networks):
            problems.append(f"the broker tells its clients to use {host}:{port}, {problem}")
    if problems:
        return failed(
            f"{'; '.join(problems)}; let it advertise its overlay address: on its machine run "
            "fleetpulse broker config --advertise-overlay, then broker stop and broker start"
        )
    places = ", ".join(f"{host}:{port}" for host, port in case.brokers)
    return passed(f"{places}: where the broker sends its clients, it accepts")


def permission(case: Case) -> Verdict:
    """Ask the broker what this user may do, and hold it against what the role needs."""
    access, user = case.reached(), case.user
    needed = needed_grants(case.settings, user)
    name = access.login.user if access.login else "everybody"
    may = permitted(
        access,
        sorted({one.name for one in needed if one.resource == "TOPIC"}),
        sorted({one.name for one in needed if one.resource == "GROUP"}),
        _PATIENCE_S,
    )
    lacking = lacks(needed, may)
    if lacking:
        return failed(
            f"user {name} may not {', '.join(lacking)}; check security.user, and run fleetpulse "
            "broker start on the broker's machine, which sets the permissions"
        )
    return passed(f"{name} may do what {user or 'a test message'} needs")


def needed_grants(settings: Settings, user: str | None) -> tuple[Grant, ...]:
    """Return what `user` needs that can be asked for; of an unknown one, to prove it can talk."""
    known = grants(settings)
    wanted_of = user if any(one.user == user for one in known) else CONSUMERS[0]
    return tuple(
        one
        for one in known
        if one.user == wanted_of
        and not one.is_prefix
        and one.resource in ("TOPIC", "GROUP")
        and (user == wanted_of or one.name == PROBE_TOPIC)
    )


def lacks(
    needed: Iterable[Grant], may: Mapping[tuple[str, str], frozenset[str] | None]
) -> list[str]:
    """Return what is needed and not allowed, such as `READ topic-cpu`; a topic may be missing."""
    found: dict[str, list[str]] = {}
    for one in needed:
        allowed = may.get((one.resource, one.name))
        if allowed is not None and one.operation not in allowed:
            found.setdefault(one.name, []).append(one.operation)
    return [f"{' and '.join(sorted(ways))} {name}" for name, ways in sorted(found.items())]


def topics(case: Case) -> Verdict:
    """Hold the topics that the role uses against the settings."""
    used = [one for one in wanted(case.settings) if one.name in _topic_names(case)]
    found = {one.name: one for one in list_topics(case.reached(), _PATIENCE_S)}
    return judge_topics(
        used, [one for spec in used for one in topic_differences(found.get(spec.name), spec)]
    )


def judge_topics(used: Sequence[TopicSpec], differences: Sequence[TopicDifference]) -> Verdict:
    """Return what is to be said of topics with these differences."""
    missing = [one.name for one in differences if one.found is None]
    if missing:
        return failed(
            f"there is no topic {', '.join(missing)}; make what is missing: fleetpulse topics "
            "create; or correct the names under topics"
        )
    if differences:
        texts = (f"{one.name}: {one.key} is {one.found}, not {one.wanted}" for one in differences)
        return warned(
            f"{'; '.join(texts)}; change the settings, or the topic with Kafka's own tools"
        )
    return passed(f"{', '.join(one.name for one in used)}: as the settings want them")


def round_trip(case: Case) -> Verdict:
    """Send messages to the topic of `doctor`, which is made for it, and read them back."""
    access = case.reached()
    replicas = case.settings.topics.replication_factor
    create_topics(access, [TopicSpec(PROBE_TOPIC, 1, replicas, _PROBE_CONFIG)], _PATIENCE_S)
    case.trips = round_trips(access, PROBE_TOPIC, _TRIPS, _PATIENCE_S)
    times_ms = [one.latency_s * 1000 for one in case.trips]
    return passed(
        f"{len(times_ms)} messages sent and read back, p50 {statistics.median(times_ms):.1f} ms, "
        f"longest {max(times_ms):.1f} ms"
    )


def clock(case: Case) -> Verdict:
    """Hold the broker's clock against this machine's."""
    if case.clock_problem:
        return failed(case.clock_problem)
    return judge_clock(case.trips, case.settings.time.max_skew_s)


def judge_clock(trips: Sequence[Trip], max_skew_s: float) -> Verdict:
    """Return what is to be said of clocks as the messages of a round trip show them."""
    dated = [one for one in trips if one.clock_offset_s is not None]
    best = min(dated, key=lambda one: one.error_s, default=None)
    if best is None or best.clock_offset_s is None:
        return warned(
            f"the topic {PROBE_TOPIC} does not carry the broker's time; delete it with Kafka's own "
            "tools, it is made anew"
        )
    offset_s, error_s = best.clock_offset_s, best.error_s
    side = "ahead of" if offset_s > 0 else "behind"
    text = f"the broker's clock is {abs(offset_s):.3f} s {side} this one (± {error_s:.3f} s)"
    if abs(offset_s) - error_s > max_skew_s:
        return failed(f"{text}, more than time.max_skew_s {max_skew_s}; {_CLOCK_STEP}")
    if abs(offset_s) - error_s > _CLOCK_WARNING_S:
        return warned(f"{text}; {_CLOCK_STEP}")
    return passed(text)


def _open_ends(host: str, port: int) -> Verdict:
    found = greet(host, port, None, _ANSWER_S)
    if found is Greeting.ANSWERED:
        return passed("off here and at the broker")
    if found is Greeting.SILENT:
        return failed(_mute(host, port))
    if speaks_tls(host, port, _ANSWER_S):
        return failed(
            f"{host}:{port}: the broker is secured (TLS), security.tls is off here; use the "
            "settings of this machine's folder that fleetpulse security init made"
        )
    return failed(
        f"{host}:{port}: what listens there is no Kafka broker; correct broker.port, or stop that "
        "program"
    )


def _mute(host: str, port: int) -> str:
    return (
        f"{host}:{port}: something accepts connections and does not answer; see that security.tls "
        "is the same here and on the broker's machine, that no other program has broker.port, and "
        "that the broker is not stopped or overloaded (fleetpulse broker status)"
    )


def _address_problem(case: Case, host: str, port: int, networks: Sequence[Network]) -> str | None:
    try:
        places = addresses_of(host)
    except ServiceUnreachable as err:
        return f"but {err}"
    # The address that is in the settings has been judged before.
    if not set(places) & set(case.addresses):
        if is_loopback(places[0]) and not case.is_at_home:
            return "which leads each of them to itself"
        if networks and not any(is_overlay(one, networks) for one in places):
            return "which is not on the overlay"
    found = reach(host, port, _REACH_S)
    return None if found is Reach.ACCEPTED else "which does not accept from here"


def _topic_names(case: Case) -> set[str]:
    """Return the topics that must be there for the role, or for the user of the settings."""
    names = case.settings.topics
    for user, family in zip(CONSUMERS, FAMILIES, strict=True):
        if case.user == user:
            return {names.name(topic) for topic in family.topics}
    return {names.name(topic) for topic in TOPICS}
