"""`analyze` as a user starts it: the same files, rejects and messages on both engines."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleetpulse.edges.sink import FileSpec, open_sink

FLEETPULSE = (sys.executable, "-m", "fleetpulse")
SAMPLE = Path(__file__).parents[2] / "data" / "sample_data.csv"
ENGINES = ("embedded", "spark")
FAMILIES = {"cpu-mem": ("cpu", "mem"), "net-disk": ("net", "disk")}
COLUMNS = "ts,server_id,cpu_pct,mem_pct,net_in,net_out,disk_io\n"


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*FLEETPULSE, *arguments],
        cwd=folder,
        env={**os.environ, "FLEETPULSE__OUTPUT_DIR": str(folder / "output"), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done


def analyze(
    folder: Path, family: str, engine: str, path: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Make `ENGINE/windows.csv` of a file that holds all columns."""
    first, second = FAMILIES[family]
    inputs = (f"--{first}", str(path), f"--{second}", str(path))
    out = ("--out", str(folder / engine / "windows.csv"))
    return run(folder, "analyze", family, "--engine", engine, *inputs, *out, "--json", **variables)


def results(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What a run printed, without what may differ: where it wrote and how long it took."""
    assert done.returncode == 0, done.stderr
    fields: dict[str, Any]
    (fields,) = json.loads(done.stdout).values()
    assert fields.pop("seconds") > 0
    del fields["out"]
    return fields


def untidy(lines: int) -> Iterator[str]:
    """Rows in no order, some of them no samples, over midnight and a change of the clock."""
    chance = random.Random(20251026)  # noqa: S311  made-up data
    yield COLUMNS
    for _ in range(lines):
        hour, minute, second = chance.randrange(20, 26), chance.randrange(60), chance.randrange(60)
        ts = f"2025-10-{25 + hour // 24}T{hour % 24:02}:{minute:02}:{second:02}Z"
        server = chance.choice(["a", "B", "server_1", "server_10", "server_2", "not an id"])
        cpu = chance.choice(["79.995", "80", "much", "", "12.5", "100", "101", "1e1", "0.1234565"])
        rate = chance.choice(["6100", "6099.995", "1800", "-1", "9.9", "nan"])
        yield f"{ts},{server},{cpu},{chance.uniform(80, 100):.3f},{rate},1,{rate}\n"
    yield "25:00:00,a,1,1,1,1,1\n"
    yield "2025-10-26T01:00:00Z,a,1\n"


def test_both_engines_give_the_same_bytes_and_summary_for_the_sample_data(tmp_path: Path) -> None:
    found = [results(analyze(tmp_path, "cpu-mem", engine, SAMPLE)) for engine in ENGINES]

    assert found[0] == found[1]
    assert found[0]["rows"] == 3600
    texts = [(tmp_path / engine / "windows.csv").read_bytes() for engine in ENGINES]
    assert texts[0] == texts[1]
    assert texts[0].count(b"\n") == 3601


SETTINGS = {
    "all but the defaults": {
        "FLEETPULSE__TIME__ZONE": "Europe/Berlin",
        "FLEETPULSE__TIME__OUTPUT": "iso",
        "FLEETPULSE__WINDOW__ORIGIN": "first_event",
        "FLEETPULSE__WINDOW__SLIDE_S": "15",
        "FLEETPULSE__WINDOW__LEADING": "keep",
        "FLEETPULSE__ARITHMETIC": "float32",
    },
    "defaults": {},
}


@pytest.mark.parametrize(("family", "name"), list(zip(FAMILIES, SETTINGS, strict=True)))
def test_both_engines_agree_on_unsorted_lines_and_refuse_the_same(
    tmp_path: Path, family: str, name: str
) -> None:
    path = tmp_path / "untidy.csv"
    path.write_text("".join(untidy(3000)))

    found = [results(analyze(tmp_path, family, one, path, **SETTINGS[name])) for one in ENGINES]

    assert found[0] == found[1]
    assert found[0]["rows"] > 1000
    assert found[0]["rejects"]["bad_server_id"] > 100
    kept = [
        [one.read_bytes() for one in sorted((tmp_path / engine).glob("*[lv]"))]
        for engine in ENGINES
    ]
    assert len(kept[0]) == 2
    assert kept[0] == kept[1]
    assert not [one for engine in ENGINES for one in (tmp_path / engine).glob(".*")]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_table_without_a_row_makes_a_header(tmp_path: Path, engine: str) -> None:
    path = tmp_path / "header.csv"
    path.write_text(COLUMNS)

    assert results(analyze(tmp_path, "cpu-mem", engine, path))["rows"] == 0

    assert (tmp_path / engine / "windows.csv").read_text() == (
        "server_id,window_start,window_end,avg_cpu,avg_mem,alert\n"
    )
    assert not list((tmp_path / engine).glob("rejects*"))


def test_the_summary_for_people_names_the_rejects(tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.mkdir()
    rows = "ts,server_id,{}\n2025-10-05T20:53:00Z,a,90\n2025-10-05T20:53:00Z,a,much\n"
    for key, metric in (("cpu", "cpu_pct"), ("mem", "mem_pct")):
        (output / f"{key}_data.csv").write_text(rows.format(metric))

    done = run(tmp_path, "analyze", "cpu-mem", "--limit", "mem_pct=95")

    assert done.returncode == 0
    rejects = output / "rejects.analyze-cpu-mem.jsonl"
    first, second, third = done.stdout.splitlines()
    assert first.startswith(f"{output / 'CPU_MEM.csv'}: 1 windows in ")
    assert second == (
        "  alerts: Performance spike suspected 1, Memory saturation suspected 0, "
        "Intense resource spike 0"
    )
    assert third == f"  rejected: wrong_type 2; see {rejects}"
    assert [json.loads(line)["line"] for line in rejects.read_text().splitlines()] == [3, 3]
    assert f"2 rejects in {rejects}" in done.stderr


def test_the_embedded_engine_needs_no_spark(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['pyspark'] = None; from fleetpulse.cli import main; "
        f"sys.exit(main(['analyze', 'cpu-mem', '--cpu', {str(SAMPLE)!r}, '--mem', {str(SAMPLE)!r},"
        " '--out', 'out.csv']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--master", "local[1]"], "--master is for Spark; add --engine spark or leave it out"),
        (["--conf", "a=b"], "--conf is for Spark; add --engine spark or leave it out"),
        (["--limit", "cpu=5"], "--limit cpu=5: wanted one of cpu_pct, mem_pct, net_in, disk_io"),
        (["--out", "."], "this is a folder, wanted a file to write"),
        (["--cpu", "absent.csv"], "absent.csv: there is no such file; check the path"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "good.csv").write_text(COLUMNS)
    done = run(tmp_path, "analyze", "cpu-mem", "--cpu", "good.csv", "--mem", "good.csv", *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert message in done.stderr


def test_without_input_it_names_the_consumer_to_run(tmp_path: Path) -> None:
    done = run(tmp_path, "analyze", "net-disk")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"fleetpulse: consumer2 has not written {tmp_path / 'output' / 'net_data.csv'} yet: "
        "run it first\n"
    )


def test_a_file_that_a_running_role_keeps_is_not_replaced(tmp_path: Path) -> None:
    source, kept = tmp_path / "good.csv", tmp_path / "output" / "CPU_MEM.csv"
    source.write_text(COLUMNS)
    with open_sink(kept.parent, "monitor", [FileSpec(kept.name, "header\n")]):
        pass
    batch = ("analyze", "cpu-mem", "--cpu", str(source), "--mem", str(source))
    for command in (batch, ("spark-stream", "--csv")):
        done = run(tmp_path, *command)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"fleetpulse: {kept}: a role that runs on")
    assert kept.read_text() == "header\n"


def test_a_stopped_run_leaves_its_output_and_nothing_else(tmp_path: Path) -> None:
    """Its input is a pipe that is filled up only after the signal, so it is in the middle."""
    pipe, good, out = (tmp_path / name for name in ("pipe.csv", "good.csv", "out.csv"))
    os.mkfifo(pipe)
    good.write_text(COLUMNS)
    out.write_text("of an earlier run\n")
    arguments = ("analyze", "cpu-mem", "--cpu", str(pipe), "--mem", str(good), "--out", str(out))
    with subprocess.Popen(
        [*FLEETPULSE, *arguments], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as job:
        with pipe.open("wb", buffering=0) as feeding:
            feeding.write(COLUMNS.encode())
            job.send_signal(signal.SIGTERM)
            # It does not read on to the end, which lies some chunks ahead.
            with pytest.raises(BrokenPipeError):
                feeding.writelines([b"2025-10-05T20:53:00Z,a,1,1,1,1,1\n" * 1000] * 200)
        assert job.stderr is not None
        assert "stopped before the end" in job.stderr.read()
        assert job.wait(30) == 130
    assert out.read_text() == "of an earlier run\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.csv", "out.csv", "pipe.csv"]
