"""A power cut of the model disk does what one of a real disk may do, and no less."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "property"))
sys.path.insert(0, str(Path(__file__).parents[1] / "chaos"))

from injectors import ext4_disk, lack
from model_disk import ModelDisk

CHANCES = range(20)


@dataclass
class Cut:
    """A disk that is worked on and loses its power; then `after` is what it holds."""

    before: Path
    after: Path


@contextmanager
def model_cut(place: Path, chance: int) -> Iterator[Cut]:
    disk = ModelDisk(place / "before", place / "after", Random(chance))  # noqa: S311
    disk.root.mkdir()
    with disk.installed():
        yield Cut(disk.root, disk.after)
        disk.die(is_power_cut=True)


@contextmanager
def real_cut(place: Path, _chance: int) -> Iterator[Cut]:
    if what := lack("mount", "umount", "findmnt", "mkfs.ext4"):
        pytest.skip(f"a real power cut wants {what}")
    with ext4_disk(place) as disk:
        after = place / "after"
        yield Cut(disk.place, after)
        disk.cut_power()
        disk.turn_on()
        shutil.copytree(disk.place, after)


CUTS = [pytest.param(model_cut, chance, id=f"model-{chance}") for chance in CHANCES]
CUTS.append(pytest.param(real_cut, 0, id="ext4"))


def open_new(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o640)


def sync(folder: Path, *descriptors: int) -> None:
    for descriptor in descriptors:
        os.fsync(descriptor)
    entry = os.open(folder, os.O_RDONLY)
    os.fsync(entry)
    os.close(entry)


def found(cut: Cut, name: str) -> bytes | None:
    path = cut.after / name
    return path.read_bytes() if path.exists() else None


Power = Callable[[Path, int], "contextmanager[Cut]"]


@pytest.mark.parametrize(("power", "chance"), CUTS)
def test_what_was_synced_stays_and_what_was_not_is_of_some_moment(
    power: Power, chance: int, tmp_path: Path
) -> None:
    old, new = b"a" * 1500, b"b" * 1500
    with power(tmp_path, chance) as cut:
        kept, grown, shortened = (
            open_new(cut.before / name) for name in ("kept", "grown", "short")
        )
        for descriptor in (kept, grown, shortened):
            os.pwrite(descriptor, old, 0)
        sync(cut.before, kept, grown, shortened)
        os.pwrite(grown, new, len(old))
        os.ftruncate(shortened, 700)
        lost = open_new(cut.before / "lost")
        os.pwrite(lost, new, 0)
        for descriptor in (kept, grown, shortened, lost):
            os.close(descriptor)
    assert found(cut, "kept") == old
    seen = found(cut, "grown")
    assert seen is not None
    assert seen[: len(old)] == old
    assert set(seen[len(old) :]) <= {0, *b"b"}
    assert found(cut, "short") in (
        old,
        old[:700],
        old[:700].ljust(1500, b"\0"),
        *torn(old),
    )
    assert set(found(cut, "lost") or b"") <= {0, *b"b"}


def torn(old: bytes) -> list[bytes]:
    """Return what a truncation leaves whose length or last sector alone reached the disk."""
    return [old[:700] + bytes(324) + old[1024:], old[:1024] + bytes(476)]


def test_a_model_loses_and_keeps_each_of_these_at_times(tmp_path: Path) -> None:
    seen: dict[str, set[bytes | None]] = {"grown": set(), "lost": set()}
    for chance in range(60):
        place = tmp_path / str(chance)
        place.mkdir()
        with model_cut(place, chance) as cut:
            descriptor = open_new(cut.before / "grown")
            os.pwrite(descriptor, b"a", 0)
            sync(cut.before, descriptor)
            os.pwrite(descriptor, b"b", 1)
            os.close(open_new(cut.before / "lost"))
        for name, contents in seen.items():
            contents.add(found(cut, name))
    assert seen == {"grown": {b"a", b"ab", b"a\0"}, "lost": {None, b""}}
