"""Bad files as a user meets them: one clear message, the right exit code, never a traceback."""

import contextlib
import os
import pty
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

HEADER = "ts,server_id,cpu_pct,mem_pct,net_in,net_out,disk_io\n"
WANTED = "wanted the columns ts, server_id, cpu_pct"


def fleetpulse(*arguments: str, output: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as somebody whom file modes bind, which root is not."""
    command = [sys.executable, "-m", "fleetpulse", *arguments]
    if os.geteuid() == 0 and (setpriv := shutil.which("setpriv")):
        command = [setpriv, "--bounding-set", "-dac_override,-dac_read_search", *command]
    environment = {**os.environ, "FLEETPULSE__OUTPUT_DIR": str(output)}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    """Return a folder with one file for each kind of mistake."""
    (tmp_path / "header.csv").write_text("time,server,cpu\n1,a,2\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "closed.csv").write_text(HEADER)
    (tmp_path / "closed.csv").chmod(0)
    (tmp_path / "binary.csv").write_bytes(bytes(range(128, 256)))
    (tmp_path / "one_line.csv").write_bytes(b"x" * 1_000_000)
    return tmp_path


CASES = [
    (
        "header.csv",
        f"the header lacks ts, server_id, cpu_pct@; found 'time, server, cpu'; {WANTED}",
    ),
    ("empty.csv", f"the file is empty; {WANTED}"),
    ("folder.csv", "this is a folder, wanted a file"),
    ("closed.csv", "no permission to read it; check its owner and mode"),
    ("missing.csv", "there is no such file; check the path"),
    ("binary.csv", f"the header is malformed (not UTF-8 at byte 0 of the line); {WANTED}"),
    ("one_line.csv", f"the header is oversized (line of more than 65536 bytes); {WANTED}"),
]


@pytest.mark.parametrize(("name", "message"), CASES)
def test_producer_explains_a_dataset_that_is_none(bad: Path, name: str, message: str) -> None:
    done = fleetpulse("producer", "--dataset", str(bad / name), output=bad / "out")
    assert done.returncode == 2
    assert done.stderr.startswith(f"fleetpulse: {bad / name}: ")
    assert message.replace("@", ", mem_pct, net_in, net_out, disk_io") in done.stderr


@pytest.mark.parametrize(("name", "message"), CASES)
def test_spark_job_explains_an_input_that_is_none(bad: Path, name: str, message: str) -> None:
    arguments = ["--cpu", str(bad / name), "--mem", str(bad / name), "--out", str(bad / "o.csv")]
    done = fleetpulse("spark-job1", *arguments, output=bad / "out")
    assert done.returncode == 2
    assert done.stderr.startswith(f"fleetpulse: {bad / name}: ")
    assert message.replace("@", "") in done.stderr
    assert not (bad / "o.csv").exists()


@pytest.mark.parametrize(
    ("job", "consumer", "name"),
    [("spark-job1", "consumer1", "cpu_data.csv"), ("spark-job2", "consumer2", "net_data.csv")],
)
def test_spark_job_without_input_names_the_consumer_to_run(
    tmp_path: Path, job: str, consumer: str, name: str
) -> None:
    done = fleetpulse(job, output=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        f"fleetpulse: {consumer} has not written {tmp_path / name} yet: run it first\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["producer"], "wanted one source: --dataset FILE, --live or --simulate"),
        (["producer", "--live", "--simulate"], "wanted one source"),
        (["producer", "--live", "--speed", "fast"], "--speed fast: wanted a speed such as 1x"),
        (["spark-job1", "--limit", "ram=5"], "--limit ram=5: wanted one of cpu_pct, mem_pct"),
        (["spark-job1", "--limit", "cpu_pct=101"], "limit >=101 cannot be met"),
        (["spark-job1", "--limit", "cpu_pct"], "--limit cpu_pct: wanted KEY=VALUE"),
        (["demo", "--dataset", "absent.csv"], "absent.csv: there is no such file"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = fleetpulse(*arguments, output=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["consumer1"], ["producer", "--live"], ["topics", "list"], ["topics", "create"]]
)
def test_unreachable_broker_is_69_and_says_what_to_check(
    tmp_path: Path, arguments: list[str]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "c.yaml").write_text(f"broker: {{port: {port}}}\n")
    options = ["--config", str(tmp_path / "c.yaml"), "--connect-timeout", "1s"]
    done = fleetpulse(*arguments, *options, output=tmp_path)
    assert done.returncode == 69
    for hint in (f"127.0.0.1:{port}", "fleetpulse broker status", "broker.port", "doctor"):
        assert hint in done.stderr


def test_broker_that_is_not_set_is_asked_for_at_a_terminal(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "c.yaml").write_text(f"hosts: {{broker: null}}\nbroker: {{port: {port}}}\n")
    ours, theirs = pty.openpty()
    options = ["--config", str(tmp_path / "c.yaml"), "--connect-timeout", "1s"]
    command = [sys.executable, "-m", "fleetpulse", "producer", "--live", *options]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as producer:
        os.close(theirs)
        os.write(ours, b"localhost\n")
        shown = b""
        # A terminal whose other side has closed answers with an error instead of an end.
        with contextlib.suppress(OSError):
            while part := os.read(ours, 4096):
                shown += part
    os.close(ours)
    assert producer.returncode == 69
    assert b"Broker address (its ZeroTier or LAN address)" in shown
    assert f"broker localhost:{port}: no answer".encode() in shown


def test_broker_that_is_not_set_is_a_mistake_without_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("hosts: {broker: null}\n")
    options = ["--config", str(tmp_path / "c.yaml")]
    done = fleetpulse("producer", "--live", *options, output=tmp_path)
    assert done.returncode == 2
    assert "set hosts.broker" in done.stderr
