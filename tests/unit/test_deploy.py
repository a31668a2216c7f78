import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from fleetpulse.domain.errors import (
    DamagedState,
    DataChanged,
    FleetpulseError,
    ServiceUnreachable,
    UsageError,
)
from fleetpulse.domain.role import Role
from fleetpulse.roles.deploy import JOBS, Place, service_text, timer_text

PLACE = Place(
    "fleetpulse",
    PurePosixPath("/opt/fleetpulse"),
    PurePosixPath("/etc/fleetpulse/config.yaml"),
    PurePosixPath("/var/lib/fleetpulse"),
)
JAVA = (Role.BROKER, Role.SPARK_STREAM, Role.SPARK_JOB1, Role.SPARK_JOB2)
# Of 10, without --network; systemd 252 says 1.1.
EXPOSURE_LIMIT = 1.2


def place(
    app_dir: str = "/opt/fleetpulse",
    config: str = "/etc/fleetpulse/config.yaml",
    data_dir: str = "/var/lib/fleetpulse",
    user: str = "fleetpulse",
    network: str | None = None,
) -> Place:
    paths = (PurePosixPath(app_dir), PurePosixPath(config), PurePosixPath(data_dir))
    return Place(user, *paths, network)


def unit(role: Role, where: Place = PLACE, *arguments: str) -> dict[str, list[str]]:
    """Return every key of a service with its values in order, as systemd reads lines."""
    if role is Role.PRODUCER:
        arguments = arguments or ("--live",)
    keys: dict[str, list[str]] = {}
    for line in service_text(role, where, arguments).splitlines():
        if line and line[0] not in "#[":
            key, equals, value = line.partition("=")
            assert equals
            assert re.fullmatch(r"[A-Z][A-Za-z]+", key)
            keys.setdefault(key, []).append(value)
    return keys


def undoubled(text: str, sign: str) -> str:
    parts = text.split(sign * 2)
    assert all(sign not in part for part in parts), f"a lone {sign} in {text}"
    return sign.join(parts)


def list_words(value: str) -> list[str]:
    """Return the words of a list, read as systemd.syntax(7) says."""
    return [undoubled(word, "%") for word in shlex.split(value)]


def command_words(value: str) -> list[str]:
    """Return the words of a command line, read as systemd.service(5) says."""
    return [undoubled(word, "$") for word in list_words(value)]


@pytest.fixture
def systemd_analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        reason = "systemd-analyze is not installed here"
        if os.environ.get("FLEETPULSE_CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.mark.parametrize("role", Role)
def test_each_role_runs_as_itself_under_its_own_user(role: Role) -> None:
    keys = unit(role)
    words = command_words(keys["ExecStart"][0])
    assert words[0] == "/opt/fleetpulse/.venv/bin/fleetpulse"
    assert words[1 : words.index("--config")] == (
        ["broker", "start", "--foreground"] if role is Role.BROKER else [role.value]
    )
    assert words[words.index("--config") + 1] == "/etc/fleetpulse/config.yaml"
    assert (keys["User"], keys["Group"], keys["UMask"]) == (
        ["fleetpulse"],
        ["fleetpulse"],
        ["0027"],
    )
    assert keys["WorkingDirectory"] == ["/var/lib/fleetpulse"]


@pytest.mark.parametrize("role", Role)
def test_every_role_is_shut_in(role: Role) -> None:
    keys = unit(role)
    wanted = {
        "ProtectSystem": ["strict"],
        "ProtectHome": ["true"],
        "PrivateTmp": ["true"],
        "NoNewPrivileges": ["true"],
        "CapabilityBoundingSet": [""],
        "RestrictAddressFamilies": ["AF_INET AF_INET6 AF_UNIX AF_NETLINK"],
        "SystemCallFilter": ["@system-service", "~@privileged @resources"],
        "KillMode": ["mixed"],
        "KillSignal": ["SIGTERM"],
    }
    assert {key: keys[key] for key in wanted} == wanted
    for limit in ("MemoryMax", "TasksMax", "LimitNOFILE", "TimeoutStopSec"):
        assert len(keys[limit]) == 1


@pytest.mark.parametrize("role", Role)
def test_memory_may_be_written_and_run_only_where_java_compiles(role: Role) -> None:
    assert ("MemoryDenyWriteExecute" in unit(role)) == (role not in JAVA)


@pytest.mark.parametrize("error", [UsageError, DamagedState, DataChanged, ServiceUnreachable])
def test_a_role_that_ends_for_a_reason_that_passes_is_started_again(
    error: type[FleetpulseError],
) -> None:
    keys = unit(Role.CONSUMER1)
    assert keys["Restart"] == ["on-failure"]
    is_final = str(error.exit_code) in keys["RestartPreventExitStatus"][0].split()
    assert is_final == (error is not ServiceUnreachable)


def test_a_broker_whose_address_comes_late_is_started_again() -> None:
    assert unit(Role.BROKER)["RestartPreventExitStatus"] == ["78 79"]


def test_a_role_that_waits_for_its_broker_never_uses_up_its_starts() -> None:
    keys = unit(Role.MONITOR)
    assert keys["StartLimitIntervalSec"] == ["10min"]
    starts = int(keys["StartLimitBurst"][0])
    # Each start waits 30 s for a broker, and the next one comes RestartSec later.
    assert starts * (30 + int(keys["RestartSec"][0])) > 600
    # One that fails at once comes to an end.
    assert starts * (1 + int(keys["RestartSec"][0])) < 600


@pytest.mark.parametrize("role", JOBS)
def test_a_job_runs_once_and_its_timer_starts_it_again(role: Role) -> None:
    keys = unit(role)
    assert keys["Type"] == ["oneshot"]
    assert not {"Restart", "WantedBy", "StartLimitBurst"} & keys.keys()
    text = timer_text(role, PLACE)
    assert "OnCalendar=" in text
    assert "WantedBy=timers.target" in text


def test_a_role_that_runs_until_stopped_has_no_timer() -> None:
    with pytest.raises(UsageError, match=r"--timer: monitor runs until it is stopped"):
        timer_text(Role.MONITOR, PLACE)


def test_a_data_folder_below_var_lib_is_made_by_systemd() -> None:
    keys = unit(Role.BROKER, place(data_dir="/var/lib/site/fleet"))
    assert (keys["StateDirectory"], keys["StateDirectoryMode"]) == (["site/fleet"], ["0750"])
    assert "ReadWritePaths" not in keys


def test_the_report_of_a_defect_outlives_the_service(tmp_path: Path) -> None:
    assert unit(Role.BROKER)["LogsDirectory"] == ["fleetpulse/broker"]
    # systemd gives the folder's name to the service.
    code = "from fleetpulse.cli.console import run; exit(run(lambda *_, **__: 1 / 0, []))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "LOGS_DIRECTORY": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    (report,) = tmp_path.iterdir()
    assert done.returncode == 1
    assert str(report) in done.stderr
    assert "ZeroDivisionError" in report.read_text()


def test_a_data_folder_elsewhere_is_the_only_one_that_can_be_written() -> None:
    keys = unit(Role.BROKER, place(data_dir="/srv/fleet"))
    assert keys["ReadWritePaths"] == ["/srv/fleet"]
    assert "StateDirectory" not in keys


def test_blanks_and_percent_signs_in_folders_reach_the_service_as_they_are() -> None:
    where = place("/opt/my 100% fleet", "/etc/my 50%/c.yaml", "/var/lib/of 5%/data")
    keys = unit(Role.CONSUMER1, where)
    words = command_words(keys["ExecStart"][0])
    assert words[0] == "/opt/my 100% fleet/.venv/bin/fleetpulse"
    assert words[3] == "/etc/my 50%/c.yaml"
    assert list_words(keys["StateDirectory"][0]) == ["of 5%/data"]
    assert keys["WorkingDirectory"] == ["/var/lib/of 5%%/data"]
    variables = [word for value in keys["Environment"] for word in list_words(value)]
    assert variables == [
        "FLEETPULSE__OUTPUT_DIR=/var/lib/of 5%/data",
        "FLEETPULSE_CACHE=/opt/my 100% fleet/.cache",
    ]


@pytest.mark.parametrize(
    "argument",
    ["a b", 'a"b', "a'b", "a\\b", "a\\\\", "$HOME", "${x}", "100%", "%n", ";", "é", "#", "", "~"],
)
def test_an_argument_of_the_role_reaches_it_as_it_is(argument: str) -> None:
    keys = unit(Role.PRODUCER, PLACE, "--live", "--server-id", argument)
    assert command_words(keys["ExecStart"][0])[-2:] == ["--server-id", argument]


@pytest.mark.parametrize("argument", ["a\nUser=root", "a\tb", "a\x00", "\u2028"])
def test_an_argument_that_a_line_cannot_hold_is_refused(argument: str) -> None:
    with pytest.raises(UsageError, match="a unit file holds only printable text"):
        service_text(Role.MONITOR, PLACE, [argument])


@pytest.mark.parametrize("option", ["app_dir", "config", "data_dir"])
@pytest.mark.parametrize(
    "path",
    [
        "opt/fleet",
        "/opt/../etc",
        "/opt/a\nUser=root",
        '/opt/a"b',
        "/opt/a'b",
        "/opt/a\\b",
        "/opt/$a",
        "/opt/a:b",
        "/opt/a#b",
        "/opt/a ",
        "/opt/ a",
        "/opt/a /b",
        "/",
    ],
)
def test_a_folder_that_systemd_java_or_yaml_would_read_otherwise_is_refused(
    option: str, path: str
) -> None:
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')} .*wanted a whole path"):
        place(**{option: path})


@pytest.mark.parametrize("option", ["app_dir", "config", "data_dir"])
@pytest.mark.parametrize("hidden", ["home", "root", "run/user", "tmp", "var/tmp"])
def test_a_folder_that_the_service_is_not_shown_is_refused(option: str, hidden: str) -> None:
    with pytest.raises(UsageError, match="the service is not shown /" + hidden):
        place(**{option: str(PurePosixPath("/", hidden, "fleet", "x"))})


@pytest.mark.parametrize("option", ["app_dir", "config"])
def test_what_the_service_runs_by_does_not_lie_where_it_may_write(option: str) -> None:
    with pytest.raises(UsageError, match="use two folders"):
        place(**{option: "/var/lib/fleetpulse/x"})


def test_all_of_var_lib_is_no_data_folder() -> None:
    with pytest.raises(UsageError, match="wanted a folder of its own"):
        place(data_dir="/var/lib")


@pytest.mark.parametrize("user", ["root", "", "Fleet", "a b", "x\ny", "1a", "a" * 32, "%u"])
def test_a_user_that_is_none_of_its_own_is_refused(user: str) -> None:
    with pytest.raises(UsageError, match="wanted a user of its own"):
        place(user=user)


def test_with_a_network_the_service_speaks_with_it_and_this_machine_only() -> None:
    keys = unit(Role.MONITOR, place(network="10.147.17.0/24"))
    assert keys["IPAddressDeny"] == ["any"]
    assert keys["IPAddressAllow"] == ["localhost 10.147.17.0/24"]
    assert "IPAddressDeny" not in unit(Role.MONITOR)


@pytest.mark.parametrize("network", ["10.147.17.1/24", "any", "", "0.0.0.0/0", "::/0"])
def test_a_network_that_is_none_or_all_is_refused(network: str) -> None:
    with pytest.raises(UsageError, match="--network"):
        place(network=network)


@pytest.mark.parametrize("arguments", [[], ["--servers", "3"]])
def test_a_producer_without_a_source_is_refused(arguments: list[str]) -> None:
    with pytest.raises(UsageError, match="put -- --live behind the options"):
        service_text(Role.PRODUCER, PLACE, arguments)


@pytest.mark.parametrize("arguments", [["--dataset", "/a.csv"], ["--dataset=/a.csv"]])
def test_a_producer_may_send_a_dataset(arguments: list[str]) -> None:
    keys = unit(Role.PRODUCER, PLACE, *arguments)
    assert command_words(keys["ExecStart"][0])[-len(arguments) :] == arguments


def test_systemd_accepts_every_unit_without_a_word(systemd_analyze: str, tmp_path: Path) -> None:
    # A name that needs escaping in every place of a unit; the tested folder has to be there.
    program = tmp_path / "my 100% app" / ".venv" / "bin" / "fleetpulse"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    units = []
    for role in Role:
        where = place("/opt/my 100% app", "/etc/a 5%/c.yaml", "/var/lib/a 5%/b", network="fd00::/8")
        arguments = ["--live", "--server-id", "a \"b\" 'c' $d %e ; \\"]
        text = service_text(role, where, arguments if role is Role.PRODUCER else [])
        units.append(tmp_path / f"fleetpulse-{role}.service")
        units[-1].write_text(text.replace("/opt/", f"{tmp_path}/"))
    for role in JOBS:
        units.append(tmp_path / f"fleetpulse-{role}.timer")
        units[-1].write_text(timer_text(role, PLACE))
    done = subprocess.run(
        [systemd_analyze, "verify", "--man=no", *units],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("role", Role)
def test_systemd_finds_little_that_the_service_could_harm(
    systemd_analyze: str, tmp_path: Path, role: Role
) -> None:
    path = tmp_path / f"fleetpulse-{role}.service"
    arguments = ["--live"] if role is Role.PRODUCER else []
    path.write_text(service_text(role, PLACE, arguments))
    done = subprocess.run(
        [systemd_analyze, "security", "--offline=true", "--no-pager", path],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    level = re.search(r"Overall exposure level for .*: ([0-9.]+)", done.stdout)
    assert level
    assert float(level[1]) <= EXPOSURE_LIMIT
