"""A folder of ours is emptied, one of others is left alone."""

from pathlib import Path

import pytest

from fleetpulse.domain.errors import UsageError
from fleetpulse.edges.files import renewed_folder


def test_renewed_folder_removes_what_an_earlier_run_left(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "run"
    renewed_folder(folder)
    (folder / "old.csv").write_text("x")
    renewed_folder(folder)
    assert [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")] == []


def test_folder_with_files_of_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UsageError, match="not ours to remove"):
        renewed_folder(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "x"
