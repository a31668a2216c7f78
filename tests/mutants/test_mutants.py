"""The runner tells what is caught from what survives; `make mutants` runs the whole list."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from catalogue import DISK, MUTANTS, Mutant
from runner import ROOT, WrongCatalogue, mutated_text, run_mutants, table

CHEAP = {
    "next = offset instead of +1": "test_the_next_offset_is_the_one_after_the_last_taken",
    "true is the number 1": "test_a_bad_number_has_its_class",
    "a gap is one offset short": "test_retention_that_passed_counts_the_offsets_between",
}
TESTS = ("tests/unit/test_position.py",)
HARMLESS = Mutant("harmless", DISK, "A lock on a file that is held", "A lock that is held", TESTS)


def test_mutants_are_caught_by_name_and_a_change_of_nothing_survives() -> None:
    cheap = [one for one in MUTANTS if one.name in CHEAP]
    *caught, survivor = run_mutants([*cheap, HARMLESS])
    assert len(caught) == len(CHEAP)
    for outcome in caught:
        assert outcome.caught_by
        assert CHEAP[outcome.mutant.name] in outcome.caught_by
    assert survivor.has_survived
    lines = table([*caught, survivor]).splitlines()
    assert lines[-1].startswith("| harmless | `edges/sink/disk.py` | **survived** |")


@pytest.mark.parametrize("text", ["this text is nowhere", "def "])
def test_a_text_that_does_not_stand_there_exactly_once_is_told(text: str) -> None:
    with pytest.raises(WrongCatalogue, match=r"harmless: wanted this text once in .*disk\.py"):
        list(run_mutants([replace(HARMLESS, text=text)]))


def test_tests_that_fail_without_a_mutant_are_told(tmp_path: Path) -> None:
    missing = replace(HARMLESS, tests=(f"{tmp_path}/test_nowhere.py",))
    with pytest.raises(WrongCatalogue, match="test_nowhere"):
        list(run_mutants([missing]))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_mutant_can_be_made_and_its_tests_are_there(mutant: Mutant) -> None:
    assert mutated_text(mutant)
    for test in mutant.tests:
        file, _, function = test.partition("::")
        assert f"def {function}(" in (ROOT / file).read_text(encoding="utf-8") or not function


def test_each_mutant_is_on_the_page() -> None:
    page = (ROOT / "docs/mutants.md").read_text(encoding="utf-8")
    assert [one.name for one in MUTANTS if f"| {one.name} |" not in page] == []
