import doctest
import importlib
import pkgutil

import pytest

import fleetpulse.codec
import fleetpulse.domain

MODULES = [
    f"{package.__name__}.{module.name}"
    for package in (fleetpulse.domain, fleetpulse.codec)
    for module in pkgutil.iter_modules(package.__path__)
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold(name: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


def test_there_are_examples_to_hold() -> None:
    tried = [doctest.testmod(importlib.import_module(name)).attempted for name in MODULES]
    assert sum(tried) >= 10
