"""The two Spark jobs as a user starts them: own process, own Java, files on disk."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import pytest

from fleetpulse.codec.table import record_line, table_header
from fleetpulse.codec.windows import format_windows
from fleetpulse.config import Settings
from fleetpulse.domain.aggregate import fold
from fleetpulse.domain.metric import FAMILIES, TOPICS, Topic
from fleetpulse.domain.sample import Record, Sample

FLEETPULSE = (sys.executable, "-m", "fleetpulse")
START_MS = 1_759_697_580_000
SERVERS = 20
STEPS = 1440  # two hours, one sample every five seconds


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*FLEETPULSE, *arguments],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "FLEETPULSE__OUTPUT_DIR": str(folder / "output")}


def values_of(topic: Topic, rng: random.Random) -> tuple[float, ...]:
    highest = {"cpu": 100, "mem": 100, "net": 6500, "disk": 2000}[topic.key]
    return tuple(round(rng.uniform(0.3 * highest, highest), 2) for _ in topic.metrics)


def fleet() -> Iterator[Record]:
    rng = random.Random(20251005)  # noqa: S311  made-up data
    for step in range(STEPS):
        for server in range(SERVERS):
            for topic in TOPICS:
                yield Record(
                    topic,
                    START_MS + step * 5000,
                    f"server_{server + 1}",
                    values_of(topic, rng),
                )


def write_records(folder: Path, settings: Settings, records: Sequence[Record]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for topic in TOPICS:
        lines = [record_line(record) for record in records if record.topic is topic]
        settings.record_path(topic).write_text(table_header(topic.metrics) + "".join(lines))


def reference_texts(settings: Settings, records: Sequence[Record]) -> Mapping[str, str]:
    samples = [
        Sample(
            record.ts_ms,
            record.server_id,
            dict(zip((m.name for m in record.topic.metrics), record.values, strict=True)),
        )
        for record in records
    ]
    texts = {}
    for family in FAMILIES:
        rows = fold(samples, settings.window.spec(), settings.rule_set(family), settings.arithmetic)
        span_ms = max(row.end_ms for row in rows) - min(row.start_ms for row in rows)
        output, zone = settings.time.output, settings.time.tz
        texts[family.name] = "".join(format_windows(family, rows, span_ms, output, zone))
    return texts


def hidden_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_two_hours_of_twenty_servers_equal_the_reference_byte_by_byte(tmp_path: Path) -> None:
    output = tmp_path / "output"
    settings = Settings(output_dir=output)
    records = list(fleet())
    write_records(output, settings, records)

    done = run(tmp_path, "spark-jobs", "--json")

    assert done.returncode == 0, done.stderr
    wanted = reference_texts(settings, records)
    for family in FAMILIES:
        found = settings.windows_path(family).read_text()
        assert len(found.splitlines()) == 1 + 14_400
        assert found == wanted[family.name]
    result = json.loads(done.stdout)
    assert [result[family.name]["rows"] for family in FAMILIES] == [14_400, 14_400]
    assert hidden_files(output) == []
    # Nothing of Spark's or Java's own on the console: each line is an event of ours.
    assert all(" spark-jobs: " in line for line in done.stderr.splitlines()), done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["output"]


# Spaces, and what Spark would take for a pattern.
ODD_NAME = "made [1]/{a,b}* CPU %41?.csv"


def test_one_job_with_options_of_its_own(tmp_path: Path) -> None:
    dataset = tmp_path / "elsewhere.csv"
    dataset.write_text(
        "server_id,mem_pct,cpu_pct,timestamp\n"
        "a,50,70,2025-10-05T20:53:00Z\n"
        "a,50,much,2025-10-05T20:53:01Z\n"
        "not a name,50,70,2025-10-05T20:53:02Z\n"
        "b,50,69.99,2025-10-05T20:53:00Z\n"
    )
    given = ("--cpu", "elsewhere.csv", "--mem", "elsewhere.csv", "--out", ODD_NAME)

    done = run(
        tmp_path,
        "spark-job1",
        *given,
        *("--limit", "cpu_pct=70", "--master", "local[1]"),
        *("--conf", "spark.sql.shuffle.partitions=3", "--conf", "spark.sql.ansi.enabled=false"),
    )

    assert done.returncode == 0, done.stderr
    assert (tmp_path / ODD_NAME).read_text() == (
        "server_id,window_start,window_end,avg_cpu,avg_mem,alert\n"
        "a,20:53:00,20:53:30,70.00,50.00,Performance spike suspected\n"
        "b,20:53:00,20:53:30,69.99,50.00,\n"
    )
    rejects = (tmp_path / "made [1]" / "rejects.spark-job1.jsonl").read_text().splitlines()
    # The bad name is in both inputs, which are the same file here.
    assert [(one["line"], one["class"]) for one in map(json.loads, rejects)] == [
        (3, "wrong_type"),
        (4, "bad_server_id"),
        (4, "bad_server_id"),
    ]
    assert "wrong_type 1, bad_server_id 2" in done.stdout


@pytest.mark.parametrize(
    ("job", "wanted"),
    [
        ("spark-job1", "consumer1 has not written {output}/cpu_data.csv yet: run it first"),
        ("spark-job2", "consumer2 has not written {output}/net_data.csv yet: run it first"),
        ("spark-jobs", "consumer1 has not written {output}/cpu_data.csv yet: run it first"),
    ],
)
def test_missing_input_names_the_consumer_to_run(tmp_path: Path, job: str, wanted: str) -> None:
    done = run(tmp_path, job)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"fleetpulse: {wanted.format(output=tmp_path / 'output')}\n"


def good_file(folder: Path) -> str:
    path = folder / "good.csv"
    path.write_text("ts,server_id,cpu_pct,mem_pct\n2025-10-05T20:53:00Z,a,1,1\n")
    return str(path)


BAD_INPUTS = {
    "no such file": (None, "there is no such file"),
    "empty": (b"", "the file is empty"),
    "other header": (b"when,who,cpu_pct\n", "the header lacks ts, server_id"),
}


@pytest.mark.parametrize("kind", BAD_INPUTS)
def test_bad_input_is_told_before_spark_starts(tmp_path: Path, kind: str) -> None:
    content, wanted = BAD_INPUTS[kind]
    path = tmp_path / "bad.csv"
    if content is not None:
        path.write_bytes(content)

    done = run(tmp_path, "spark-job1", "--cpu", str(path), "--mem", good_file(tmp_path))

    assert done.returncode == 2
    assert done.stderr.startswith(f"fleetpulse: {path}: {wanted}")
    assert not list(tmp_path.rglob("spark.log"))


def test_spark_that_cannot_start_is_one_line_that_names_the_log(tmp_path: Path) -> None:
    good = good_file(tmp_path)

    done = run(
        tmp_path,
        *("spark-job1", "--cpu", good, "--mem", good, "--out", "out.csv"),
        *("--conf", "spark.driver.memory=nonsense"),
    )

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (line,) = [one for one in done.stderr.splitlines() if one.startswith("fleetpulse: ")]
    assert (
        line == "fleetpulse: Spark failed: its Java process did not start; details are in spark.log"
    )
    assert "nonsense" in (tmp_path / "spark.log").read_text()
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("number", "last_line"),
    # PySpark puts a SIGINT handler of its own in place while it starts.
    [(signal.SIGTERM, "samples from"), (signal.SIGINT, "Spark started")],
)
def test_a_stopped_job_leaves_its_output_and_nothing_else(
    tmp_path: Path, number: signal.Signals, last_line: str
) -> None:
    good = good_file(tmp_path)
    (tmp_path / "out.csv").write_text("of an earlier run\n")
    job = subprocess.Popen(
        [*FLEETPULSE, "spark-job1", "--cpu", good, "--mem", good, "--out", "out.csv"],
        cwd=tmp_path,
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert job.stderr is not None
    with job, job.stderr:
        while last_line not in job.stderr.readline():
            assert job.poll() is None
        children = psutil.Process(job.pid).children(recursive=True)
        job.send_signal(number)
        rest = job.stderr.read()
        assert job.wait(60) == 130
    assert "stopped before the end" in rest
    assert "Traceback" not in rest
    assert (tmp_path / "out.csv").read_text() == "of an earlier run\n"
    assert hidden_files(tmp_path) == []
    # An orphan that has ended stays in the table until the system's first process takes notice.
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
