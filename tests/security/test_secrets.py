"""A whole run of all roles: it works, it shows no secret, and no other user reads its files."""

import json
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from installation import Installation, Role, awaited, columns

from fleetpulse.domain.metric import TOPICS
from fleetpulse.edges.kafka.broker_folder import BrokerFolder

LOOKS_EVERY_S = 0.2
# A shorter line, the last of a key, may be anywhere by chance.
SHORTEST = 32
# Of a run of Spark, which takes ten seconds where nothing else runs.
SPARK_S = 240
SAMPLES = 200
DATA = tuple(topic.key for topic in TOPICS)
FOR_OTHERS = 0o007
KEEPS_SECRETS = ("password", "identity.pem", "ca.key")


@dataclass
class Watch:
    """What was seen of processes: their commands, and where a secret was."""

    looked_at: set[str] = field(default_factory=set)
    found: set[str] = field(default_factory=set)

    def look(self, processes: Iterable[psutil.Process], secrets: set[str]) -> None:
        for process in processes:
            with suppress(psutil.Error):
                command = " ".join(process.cmdline())
                told = command + " ".join(f"{k}={v}" for k, v in process.environ().items())
                self.looked_at.add(command)
                self.found |= {command for one in secrets if one in told}


@contextmanager
def watching(secrets: set[str], broker: psutil.Process) -> Iterator[Watch]:
    """Look at all processes of this test, again and again, until the end."""
    watch, end, own = Watch(), Event(), psutil.Process()

    def run() -> None:
        while not end.wait(LOOKS_EVERY_S):
            watch.look([broker, *own.children(recursive=True)], secrets)

    thread = Thread(target=run)
    thread.start()
    try:
        yield watch
    finally:
        end.set()
        thread.join()


def secrets_of(folder: Path) -> set[str]:
    """Return each password and each line of a private key."""
    found = set()
    for path in folder.rglob("*"):
        if path.name.endswith(KEEPS_SECRETS):
            text = path.read_text().split("-----BEGIN CERTIFICATE")[0]
            found |= {line for line in text.splitlines() if len(line) >= SHORTEST}
    return {line for line in found if "PRIVATE KEY" not in line}


@dataclass(frozen=True)
class Run:
    """What all roles did with the same samples, as each user may."""

    installation: Installation
    rows: list[str]
    roles: dict[str, Role]
    watch: "Watch"
    secrets: set[str] = field(repr=False)


@pytest.fixture(scope="module")
def run(installation: Installation) -> Iterator[Run]:
    """All roles with the permissions that `broker start` grants; they have ended."""
    secrets = secrets_of(installation.security)
    noted = BrokerFolder.at(installation.data).read_process()
    assert noted
    live = ("--from-beginning", "--csv", "--json")
    commands = {
        "consumer1": ("consumer1",),
        "consumer2": ("consumer2",),
        "monitor": ("monitor", *live),
        "spark-stream": ("spark-stream", *live, "--parquet", "--until-idle", "1s"),
    }
    # Of its own: what others sent before is of another time.
    topics = {f"topics__{key}": f"run-{key}" for key in (*DATA, "windows", "positions")}
    with watching(secrets, psutil.Process(noted.pid)) as watch, ExitStack() as kept:
        kept.callback(installation.broker, "start")
        assert installation.broker("start", **topics).code == 0
        assert installation.run("broker", "topics", "create", **topics).code == 0
        rows = installation.produce(SAMPLES, **topics)
        roles = {
            name: kept.enter_context(
                installation.running(
                    name if name != "spark-stream" else "monitor",
                    *command,
                    window__idle_close_s=2,
                    time__output="iso",
                    **topics,
                )
            )
            for name, command in commands.items()
        }
        roles["spark-stream"].process.wait(SPARK_S)
        for name, file in (("consumer1", "cpu_data.csv"), ("consumer2", "disk_data.csv")):
            taken = (roles[name], file)
            awaited(lambda taken=taken: len(taken[0].rows(taken[1])) >= SAMPLES, name)
        for role in roles.values():
            assert role.stop().code == 0, role.said()
        yield Run(installation, rows, roles, watch, secrets)


def test_each_role_does_its_work_with_the_permissions_of_its_user(run: Run) -> None:
    taken = {"consumer1": {"cpu_data.csv": (0,), "mem_data.csv": (1,)}}
    taken["consumer2"] = {"net_data.csv": (2, 3), "disk_data.csv": (4,)}
    for name, files in taken.items():
        for file, chosen in files.items():
            assert run.roles[name].rows(file)[-SAMPLES:] == columns(run.rows, *chosen)
        assert not any("lag display" in line for line in run.roles[name].said())
    monitor, stream = run.roles["monitor"], run.roles["spark-stream"]
    last = json.loads(stream.said_path.with_suffix(".out").read_text().splitlines()[-1])
    assert last["is_caught_up"]
    for name in ("CPU_MEM.csv", "NET_DISK.csv"):
        rows = [one for one in stream.rows(name) if run.rows[0].split(",")[1] in one]
        assert rows
        # Both clients say the same, one in C and one in Java.
        assert set(rows) <= set(monitor.rows(name))
    assert not monitor.lines("wait for their topic")


def test_no_secret_is_anywhere_but_in_its_file(run: Run) -> None:
    assert any("SparkSubmit" in one for one in run.watch.looked_at)
    assert any("kafka.Kafka" in one for one in run.watch.looked_at)
    assert any("monitor" in one for one in run.watch.looked_at)
    assert len(run.secrets) >= 5 + 6 * 2
    assert run.watch.found == set()
    root = run.installation.root
    keepers = [path for path in root.rglob("*") if path.name.endswith(KEEPS_SECRETS)]
    assert len(keepers) == 5 + 5 + 5 + 1
    others = [path for path in root.rglob("*") if path.is_file() and path not in keepers]
    assert len(others) > 100
    for path in others:
        content = path.read_bytes()
        assert not [one for one in run.secrets if one.encode() in content], path
    # Even hashed: the broker keeps what it lets users in by in its own log, private.
    for path in (root / "broker").rglob("*"):
        assert not stat.S_IMODE(path.stat().st_mode) & FOR_OTHERS, path


def test_no_other_user_reads_what_the_roles_write(run: Run) -> None:
    seen = 0
    for role in run.roles.values():
        for path in (role.output, *role.output.rglob("*")):
            mode = stat.S_IMODE(path.stat().st_mode)
            assert not mode & FOR_OTHERS, f"{mode:o} {path}"
            seen += 1
            if path.name.endswith((".state.db", "ledger.db", ".lock")):
                assert mode == 0o600, path
    assert seen > 50
