"""The cases of cases/*.yaml, as docs/reference/conformance.md describes them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pyspark.sql import SparkSession

from fleetpulse.config import Settings, load
from fleetpulse.domain.metric import FAMILIES

CASES = Path(__file__).parent / "cases"
NO_JAVA_CODE = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
}


@dataclass(frozen=True)
class Case:
    settings: dict[str, Any]
    samples: str
    wanted: dict[str, str]
    servers: int = 1


def read_cases() -> Iterator[tuple[str, Case]]:
    for path in sorted(CASES.glob("*.yaml")):
        for found in yaml.safe_load(path.read_text())["cases"]:
            name, samples = found.pop("name"), found.pop("samples")
            settings, servers = found.pop("settings", {}), found.pop("servers", 1)
            # What is left must be families, so that a misspelt key cannot go unseen.
            assert found, f"{path.name}, {name}: no family has an expected output"
            assert set(found) <= {family.name for family in FAMILIES}, (
                f"{path.name}, {name}: {found}"
            )
            yield name, Case(settings, samples, found, servers)


ALL_CASES = dict(read_cases())


def settings_in(folder: Path, parts: dict[str, Any]) -> Settings:
    """Settings from a file in a folder, as a user writes them."""
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(parts, sort_keys=False))
    return load(config, {}).settings


def for_each_server(text: str, servers: int) -> str:
    """The lines below the header, once for each {n} from 1, in the byte order of the numbers."""
    header, *lines = text.splitlines(keepends=True)
    numbers = sorted(str(number + 1) for number in range(servers))
    return header + "".join(line.replace("{n}", n) for n in numbers for line in lines)


@contextmanager
def without_java_code(spark: SparkSession) -> Iterator[None]:
    """Let Spark interpret: for few messages Java code costs more to make than it saves."""
    before = {key: spark.conf.get(key) for key in NO_JAVA_CODE}
    try:
        for key, value in NO_JAVA_CODE.items():
            spark.conf.set(key, value)
        yield
    finally:
        for key, value in before.items():
            spark.conf.set(key, value)
