"""Settings -> the text of a settings file that another machine reads as the same settings."""

from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from pathlib import Path

import yaml

from fleetpulse.config.settings import Settings


def written(settings: Settings, security: Mapping[str, object], title: str) -> str:
    """Return YAML with what differs from the defaults, and `security` in place of that section.

    `title` is the comment at its top, one line.
    """
    values = settings.model_dump(exclude={"security"})
    differing = _differing(values, Settings().model_dump())
    text = yaml.safe_dump(
        {**differing, "security": dict(security)}, sort_keys=False, allow_unicode=True
    )
    return f"# {title}\n{text}"


def _differing(values: Mapping[str, object], defaults: Mapping[str, object]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in values.items():
        default = defaults.get(key)
        if isinstance(value, dict) and isinstance(default, dict):
            if below := _differing(value, default):
                found[key] = below
        elif value != default:
            found[key] = _plain(value)
    return found


def _plain(value: object) -> object:
    """Return the value as YAML writes it, in the form that settings take back."""
    match value:
        case dict():
            # None is what an exception leaves as it is.
            return {key: _plain(one) for key, one in value.items() if one is not None}
        case Enum():
            return value.value
        case Path():
            return str(value)
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case _:
            return value
