"""One value of a settings file replaced where it stands; every other byte stays.

ruamel.yaml, the library for this, writes the whole document anew: columns of comments and flow
mappings move. The parser's own marks say where a value stands.
"""

from pathlib import Path
from typing import Final

import yaml

from fleetpulse.config.load import load, read_settings_file
from fleetpulse.config.source import parse_yaml

_INDENT: Final = "  "


def with_value(text: str, section: str, key: str, value: str, where: str) -> str:
    """Return the settings `text` with `section.key` set to a plain scalar.

    Raises UsageError, naming file and line, where the text is no settings file.

    >>> print(with_value("hosts: {broker: a}  # ours", "hosts", "broker", "10.1.2.3", "x"), end="")
    hosts: {broker: 10.1.2.3}  # ours
    """
    parse_yaml(text.encode(), where)
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    found = _value_of(root, section)
    if not isinstance(found, yaml.MappingNode):
        if found is None:
            separator = "" if not text or text.endswith("\n") else "\n"
            return f"{text}{separator}{section}:\n{_INDENT}{key}: {value}\n"
        # The section is written, with nothing under it.
        return _spliced(text, found, f"{{{key}: {value}}}")
    if (old := _value_of(found, key)) is not None:
        return _spliced(text, old, value)
    if not found.value:
        return _spliced(text, found, f"{{{key}: {value}}}")
    first = found.value[0][0].start_mark
    behind = ", " if found.flow_style else "\n" + " " * first.column
    return f"{text[: first.index]}{key}: {value}{behind}{text[first.index :]}"


def set_value(file: Path, section: str, key: str, value: str) -> str:
    """Return the text of a settings file with one value replaced, checked as a whole.

    A file that is not there counts as empty. Raises UsageError for a file that cannot be read or
    holds a mistake.
    """
    text = ""
    if file.exists():
        load(file, {})
        text = read_settings_file(file).decode()
    return with_value(text, section, key, value, str(file))


def _value_of(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)


def _spliced(text: str, node: yaml.Node, value: str) -> str:
    start, end = node.start_mark.index, node.end_mark.index
    # An empty value stands right behind the colon.
    space = " " if start == end else ""
    return text[:start] + space + value + text[end:]
