"""Prints systemd units: each role under its own user, with as little of the machine as it needs.

Rules of the text, from systemd.syntax(7), systemd.service(5) and systemd.exec(5):

- `%` begins a specifier everywhere and is written `%%`.
- In command lines `$` begins a variable and is written `$$`; a word with blanks, quotes or
  backslashes stands in double quotes, with a backslash before `"` and itself.
- WorkingDirectory= takes the rest of its line as it is, without quotes; the lists (Environment=,
  ReadWritePaths=, StateDirectory=) take words in quotes.

The program's own path knows no escape for `$`, a Java class path none for `:`, and output_dir in
the environment is read as YAML. So folders with such characters are refused, not escaped.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from fleetpulse.domain.errors import UsageError
from fleetpulse.domain.role import Role

_STATE: Final = PurePosixPath("/var/lib")
# What ProtectHome= and PrivateTmp= hide from the service.
_HIDDEN: Final = tuple(
    PurePosixPath(path)
    for path in ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108
)
_NAME: Final = r"[\w.+@=~,%-]+"
_PATH: Final = re.compile(rf"(?:/{_NAME}(?: +{_NAME})*)+")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./:=@,+-]+")
# The names that useradd takes.
_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
JOBS: Final = (Role.SPARK_JOB1, Role.SPARK_JOB2)
_JAVA: Final = (Role.BROKER, Role.SPARK_STREAM, *JOBS)
# Java reads the machine's size below /proc, and so does the producer, whose samples it is.
_BLIND: Final = (Role.CONSUMER1, Role.CONSUMER2, Role.MONITOR)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a role may use: the ceiling of its memory, of its threads, and how long it may end."""

    memory_mb: int
    threads: int
    stop_timeout_s: int


# Twice to four times the peaks of docs/performance.md and docs/benchmarks-live.md. The page cache
# counts, too, but gives way. A broker has 30 s to end before its command kills it.
_NEEDS: Final = {
    Role.BROKER: Needs(2048, 1024, 60),
    Role.PRODUCER: Needs(512, 128, 30),
    Role.CONSUMER1: Needs(512, 128, 30),
    Role.CONSUMER2: Needs(512, 128, 30),
    Role.MONITOR: Needs(1024, 128, 30),
    Role.SPARK_STREAM: Needs(3072, 1024, 60),
    Role.SPARK_JOB1: Needs(3072, 1024, 60),
    Role.SPARK_JOB2: Needs(3072, 1024, 60),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where Fleetpulse lies on a machine, and under which user it runs there.

    `app_dir` is the folder in which `make setup` ran; `data_dir` is the only one that the service
    may write. With `network` (a CIDR) it speaks with that network and with this machine only.
    Raises UsageError for what a unit cannot hold, or what the service could not see or protect.
    """

    user: str
    app_dir: PurePosixPath
    config: PurePosixPath
    data_dir: PurePosixPath
    network: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not _USER.fullmatch(self.user) or self.user == "root":
            raise UsageError(
                f"--user {self.user!r}: wanted a user of its own, such as fleetpulse (a-z, 0-9, _ "
                "and -, at most 31 of them, and not root)"
            )
        paths = {
            "--app-dir": self.app_dir,
            "--config": self.config,
            "--data-dir": self.data_dir,
        }
        for option, path in paths.items():
            _refuse_odd(option, path)
        for option in ("--app-dir", "--config"):
            if paths[option].is_relative_to(self.data_dir):
                raise UsageError(
                    f"{option} {paths[option]}: the service may write below --data-dir "
                    f"{self.data_dir} and could change it there; use two folders"
                )
        if self.data_dir == _STATE:
            raise UsageError(f"--data-dir {_STATE}: wanted a folder of its own below it")
        if self.network is not None:
            _refuse_no_network(self.network)


def service_text(role: Role, place: Place, arguments: Sequence[str]) -> str:
    """Return the unit file of a role, run with `arguments` behind its own.

    Raises UsageError for arguments that a unit cannot hold, and for a producer without a source.
    """
    _refuse_wrong_arguments(role, arguments)
    parts = [
        _head(role, place, "service"),
        _unit_section(role, place),
        _service_section(role, place, arguments),
        _RESTART_OF_BROKER if role is Role.BROKER else "" if role in JOBS else _RESTART,
        _limits(role),
        _SANDBOX,
        _more_sandbox(role, place),
    ]
    if role not in JOBS:
        parts.append("\n[Install]\nWantedBy=multi-user.target\n")
    return "".join(parts)


def timer_text(role: Role, place: Place) -> str:
    """Return the unit file that starts a Spark job every ten minutes; UsageError for others."""
    if role not in JOBS:
        raise UsageError(f"--timer: {role} runs until it is stopped; wanted spark-job1 or 2")
    return f"""\
{_head(role, place, "timer")}
[Unit]
Description=Fleetpulse {role}, again and again

[Timer]
# Every ten minutes; `systemd-analyze calendar TEXT` explains others.
OnCalendar=*:0/10
AccuracySec=1s

[Install]
WantedBy=timers.target
"""


def _refuse_odd(option: str, path: PurePosixPath) -> None:
    if not _PATH.fullmatch(str(path)) or ".." in path.parts:
        raise UsageError(
            f"{option} {str(path)!r}: wanted a whole path of letters, digits, blanks and "
            "_ . + @ = ~ , % -, such as /opt/fleetpulse"
        )
    for hidden in _HIDDEN:
        if path.is_relative_to(hidden):
            raise UsageError(
                f"{option} {path}: the service is not shown {hidden}; put it elsewhere, such as "
                "below /opt, /etc or /var/lib"
            )


def _refuse_no_network(network: str) -> None:
    try:
        found = ipaddress.ip_network(network)
    except ValueError as err:
        raise UsageError(
            f"--network {network}: {err}; wanted the overlay's network, such as 10.147.17.0/24"
        ) from err
    if found.prefixlen == 0:
        raise UsageError(f"--network {network}: that is every address; leave the option out")


def _refuse_wrong_arguments(role: Role, arguments: Sequence[str]) -> None:
    for argument in arguments:
        if not argument.isprintable():
            raise UsageError(f"argument {argument!r}: a unit file holds only printable text")
    sources = {"--live", "--simulate", "--dataset"}
    if role is Role.PRODUCER and not sources & {one.split("=")[0] for one in arguments}:
        raise UsageError("the producer needs a source: put -- --live behind the options")


def _head(role: Role, place: Place, kind: str) -> str:
    name = f"fleetpulse-{role}"
    first = f"# Fleetpulse: {role}. Save as /etc/systemd/system/{name}.{kind}, then:\n"
    if kind == "timer":
        return f"{first}#   systemctl daemon-reload && systemctl enable --now {name}.timer\n"
    start = f"start {name}" if role in JOBS else f"enable --now {name}"
    again = "or with its timer: --timer" if role in JOBS else f"its lines: journalctl -u {name}"
    return f"""\
{first}#   systemctl daemon-reload && systemctl {start}      ({again})
# It needs the user (useradd --system --user-group {place.user}), Fleetpulse and its downloads in
# {place.app_dir}, owned by root, and the settings. docs/deploy.md has each step.
"""


def _unit_section(role: Role, place: Place) -> str:
    after = "network-online.target zerotier-one.service"
    if role is not Role.BROKER:
        after += f" fleetpulse-{Role.BROKER}.service"
    guide = (place.app_dir / "docs" / "deploy.md").as_uri()
    return f"""
[Unit]
Description=Fleetpulse {role}
Documentation={_quoted(guide)}
Wants=network-online.target
After={after}
{"" if role in JOBS else _START_LIMIT}"""


# A failing role is started every 5 s. One that fails at once gives up after about six minutes; one
# that waits for its broker (30 s a start) never does.
_START_LIMIT: Final = """\
# Gives up after 60 starts that all failed at once; waiting 30 s for a broker never comes to that.
StartLimitIntervalSec=10min
StartLimitBurst=60
"""


def _service_section(role: Role, place: Place, arguments: Sequence[str]) -> str:
    words = [
        str(place.app_dir / ".venv" / "bin" / "fleetpulse"),
        *(["broker", "start", "--foreground"] if role is Role.BROKER else [role.value]),
        *("--config", str(place.config), *arguments),
    ]
    command = " ".join(_word(word) for word in words)
    cache = _quoted(f"FLEETPULSE_CACHE={place.app_dir / '.cache'}")
    output = _quoted(f"FLEETPULSE__OUTPUT_DIR={place.data_dir}")
    return f"""
[Service]
Type={"oneshot" if role in JOBS else "exec"}
ExecStart={command}
User={place.user}
Group={place.user}
UMask=0027
WorkingDirectory={_specifiers_escaped(str(place.data_dir))}
# Wins over output_dir in the settings, because only this folder can be written.
Environment={output}
Environment={cache}
{_writable(place)}
# Reports of defects, which /tmp would lose.
LogsDirectory=fleetpulse/{role}
LogsDirectoryMode=0750
# Only the command itself is asked to end; it ends its Java process in order.
KillMode=mixed
KillSignal=SIGTERM
TimeoutStopSec={_NEEDS[role].stop_timeout_s}
"""


def _writable(place: Place) -> str:
    if place.data_dir.is_relative_to(_STATE):
        below = _quoted(str(place.data_dir.relative_to(_STATE)))
        return f"StateDirectory={below}\nStateDirectoryMode=0750"
    return (
        f"# Make it first: install -d -o {place.user} -g {place.user} -m 0750 FOLDER\n"
        f"ReadWritePaths={_quoted(str(place.data_dir))}"
    )


_RESTART: Final = """\
Restart=on-failure
RestartSec=5
# A person has to act: wrong use or settings (2), damaged state (78), data changed by others (79).
# The rest may pass by itself: no broker (69), disk (74), another process at work (75), access (77).
RestartPreventExitStatus=2 78 79
"""
_RESTART_OF_BROKER: Final = """\
Restart=on-failure
RestartSec=5
# A person has to act: damaged state (78), data changed by others (79). Code 2 is tried again: after
# a start of the machine the overlay's address may come later than this service.
RestartPreventExitStatus=78 79
"""


def _limits(role: Role) -> str:
    needs = _NEEDS[role]
    files = 100_000 if role is Role.BROKER else 16_384
    return f"""\
MemoryMax={needs.memory_mb}M
TasksMax={needs.threads}
LimitNOFILE={files}
LimitCORE=0
"""


_SANDBOX: Final = """
# What the service can see and do.
ProtectSystem=strict
ProtectHome=true
PrivateTmp=true
PrivateDevices=true
PrivateUsers=true
PrivateIPC=true
PrivateMounts=true
DevicePolicy=closed
ProtectProc=invisible
ProtectClock=true
ProtectControlGroups=true
ProtectHostname=true
ProtectKernelLogs=true
ProtectKernelModules=true
ProtectKernelTunables=true
NoNewPrivileges=true
CapabilityBoundingSet=
AmbientCapabilities=
LockPersonality=true
RestrictNamespaces=true
RestrictRealtime=true
RestrictSUIDSGID=true
RemoveIPC=true
KeyringMode=private
# AF_NETLINK lists this machine's addresses.
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
"""


def _more_sandbox(role: Role, place: Place) -> str:
    if role in _JAVA:
        lines = ["# Java compiles while it runs: it needs memory that is written, then executed."]
    else:
        lines = ["MemoryDenyWriteExecute=true"]
    if role in _BLIND:
        lines += ["ProcSubset=pid"]
    if place.network is not None:
        lines += ["IPAddressDeny=any", f"IPAddressAllow=localhost {place.network}"]
    return "".join(f"{line}\n" for line in lines)


def _specifiers_escaped(text: str) -> str:
    return text.replace("%", "%%")


def _quoted(text: str) -> str:
    """Return a word of a list of words; in quotes where it holds more than plain characters."""
    escaped = _specifiers_escaped(text)
    if _PLAIN.fullmatch(text):
        return escaped
    escaped = escaped.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _word(text: str) -> str:
    """Return a word of a command line."""
    return _quoted(text).replace("$", "$$")
