"""Defaults, settings file, environment variables -> Settings, each value with its origin."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from fleetpulse.config.settings import Settings
from fleetpulse.config.source import MAX_BYTES, Tree, parse_scalar, parse_yaml
from fleetpulse.domain.errors import UsageError
from fleetpulse.domain.text import one_line

DEFAULT_FILE: Final = Path("config/config.yaml")
ENVIRONMENT_PREFIX: Final = "FLEETPULSE__"

_WANTED: Final = {
    "int_type": "wanted a whole number",
    "float_type": "wanted a number",
    "string_type": "wanted text",
    "model_type": "wanted a section of keys",
    "model_attributes_type": "wanted a section of keys",
    "dict_type": "wanted a section of keys",
    "decimal_max_places": "wanted a number with at most six decimals",
    "missing": "is missing",
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and for each of their keys its value and where it came from."""

    settings: Settings
    file: Path | None
    origins: Mapping[tuple[str, ...], str]

    def leaves(self) -> Iterator[tuple[str, object, str]]:
        """Yield each key as a dotted path, its effective value, and where that came from."""
        for path, value in _leaves(self.settings.model_dump(mode="json"), ()):
            yield ".".join(path), value, self.origins.get(path, "default")


def load(
    file: Path | None, environment: Mapping[str, str], overrides: Mapping[str, str] | None = None
) -> Loaded:
    """Return the effective settings.

    Without `file`, config/config.yaml is read where it exists. Later ones win: defaults, file,
    environment variables `FLEETPULSE__SECTION__KEY`, `overrides` (dotted path -> YAML text, from
    the command line).

    Raises UsageError naming file and line (or variable), path, what was found and what was wanted,
    for each mistake one line.
    """
    if file is None and DEFAULT_FILE.is_file():
        file = DEFAULT_FILE
    tree = parse_yaml(read_settings_file(file), str(file)) if file else Tree()
    for name, text in sorted(environment.items()):
        if name.startswith(ENVIRONMENT_PREFIX):
            path = tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
            origin = f"environment {name}"
            tree.put(path, parse_scalar(text, origin), origin)
    for dotted, text in (overrides or {}).items():
        origin = f"command line {dotted}"
        tree.put(tuple(dotted.split(".")), parse_scalar(text, origin), origin)
    values = _over_defaults(Settings().model_dump(), tree.values)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as err:
        lines = sorted({one_line(_explain(details, tree)) for details in err.errors()})
        raise UsageError("\n".join(lines)) from err
    return Loaded(_anchored(settings, file, tree), file, tree.origins)


def _anchored(settings: Settings, file: Path | None, tree: Tree) -> Settings:
    """Return the settings with the paths that `file` names under security relative to its folder.

    So the folder of a machine can be copied anywhere as a whole.
    """
    if file is None:
        return settings
    part = settings.security
    paths = {
        key: file.parent / value
        for key, value in part
        if isinstance(value, Path)
        and tree.origins.get(("security", key), "").startswith(f"{file}:")
    }
    return settings.model_copy(update={"security": part.model_copy(update=paths)})


def read_settings_file(file: Path) -> bytes:
    """Return the bytes of a settings file, MAX_BYTES + 1 at most; UsageError where it cannot."""
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_BYTES + 1)
    except OSError as err:
        raise UsageError(
            f"{file}: cannot read the settings ({err.strerror}); check the path given to --config"
        ) from err


def _over_defaults(below: dict[str, object], above: object) -> object:
    """Return `above` with what it leaves out taken from `below`, section by section."""
    if not isinstance(above, dict):
        return above
    merged = dict(below)
    for key, value in above.items():
        old = below.get(key)
        # A section that is written without any key under it means: all defaults.
        if isinstance(old, dict) and value is None:
            continue
        merged[key] = _over_defaults(old, value) if isinstance(old, dict) else value
    return merged


def _explain(details: ErrorDetails, tree: Tree) -> str:
    # Names of union members, such as "date", follow the path of keys in a location: leave them out.
    path = _known_part(details["loc"], tree)
    where = tree.origin(path) or "settings"
    dotted = ".".join(path)
    found = repr(details["input"])[:60]
    if details["type"] == "extra_forbidden":
        known = _keys_beside(path)
        close = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        hint += f" Known here: {', '.join(known)}" if known else ""
        return f"{where}: unknown key {dotted}{hint}"
    if details["type"] == "value_error":
        message = str(details.get("ctx", {}).get("error", details["msg"]))
        if isinstance(details["input"], dict):
            return f"{where}: {dotted}: {message}"
    else:
        message = _WANTED.get(details["type"]) or details["msg"].replace(
            "Input should be", "wanted"
        )
    return f"{where}: {dotted}: found {found}, {message}"


def _known_part(loc: tuple[int | str, ...], tree: Tree) -> tuple[str, ...]:
    path: list[str] = []
    values: object = tree.values
    for part in loc:
        if not isinstance(values, dict) or part not in values:
            break
        path.append(str(part))
        values = values[part]
    return tuple(path)


def _keys_beside(path: tuple[str, ...]) -> list[str]:
    section: object = Settings().model_dump()
    for key in path[:-1]:
        section = section.get(key, {}) if isinstance(section, dict) else {}
    return list(section) if isinstance(section, dict) else []


def _leaves(value: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], object]]:
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from _leaves(below, (*path, str(key)))
    else:
        yield path, value
