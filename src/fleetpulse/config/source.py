"""YAML text -> plain values that remember where each of them was written.

Stricter than YAML: no aliases (they can grow without bound), no tags, no key twice, text keys only.
"""

from dataclasses import dataclass, field
from typing import Final

import yaml

from fleetpulse.domain.errors import UsageError
from fleetpulse.domain.text import one_line

# The shipped file has 5 KB; a parse of this much stays far below a second.
MAX_BYTES: Final = 64 * 1024
_MAX_DEPTH: Final = 20

Path = tuple[str, ...]


@dataclass(slots=True)
class Tree:
    """Nested values, and for each path of keys its place, such as `config.yaml:12`."""

    values: dict[str, object] = field(default_factory=dict)
    origins: dict[Path, str] = field(default_factory=dict)

    def origin(self, path: Path) -> str | None:
        """Return where a path, the nearest part above it, or something below it is written."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return next((at for key, at in self.origins.items() if key[: len(path)] == path), None)

    def put(self, path: Path, value: object, origin: str) -> None:
        """Set one value, making the sections above it."""
        section = self.values
        for key in path[:-1]:
            below = section.get(key)
            if not isinstance(below, dict):
                below = section[key] = {}
            section = below
        section[path[-1]] = value
        self.origins[path] = origin


class _StrictLoader(yaml.SafeLoader):
    """Refuses aliases, which grow without bound, and depth, which the parser answers in squares."""

    def __init__(self, text: bytes | str, where: str) -> None:
        super().__init__(text)
        self._where = where
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Return the next node; raises UsageError for what is refused."""
        event: yaml.Event | None = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise UsageError(
                f"{self._where}:{line}: aliases (*{event.anchor}) are not taken in settings"
            )
        self._depth += isinstance(event, yaml.CollectionStartEvent)
        if self._depth > _MAX_DEPTH:
            raise UsageError(f"{self._where}: nested too deeply for settings")
        node = super().compose_node(parent, index)
        self._depth -= isinstance(event, yaml.CollectionStartEvent)
        return node


def parse_yaml(text: bytes, where: str) -> Tree:
    """Return the tree of a YAML document; an empty one is an empty tree.

    Raises UsageError naming file and line.
    """
    if len(text) > MAX_BYTES:
        raise UsageError(f"{where}: {len(text)} bytes, wanted settings of at most {MAX_BYTES}")
    tree = Tree()
    try:
        loader = _StrictLoader(text, where)
        node = loader.get_single_node()
        if node is None:
            return tree
        if not isinstance(node, yaml.MappingNode):
            raise UsageError(f"{where}:1: wanted settings such as 'window: {{size_s: 30}}'")
        tree.values = _mapping(loader, node, (), where, tree.origins)
    except yaml.MarkedYAMLError as err:
        line = err.problem_mark.line + 1 if err.problem_mark else 1
        problem = one_line(str(err.problem or err.context))
        raise UsageError(f"{where}:{line}: not YAML: {problem}") from err
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as err:
        raise UsageError(f"{where}: not YAML: {str(err).splitlines()[0]}") from err
    return tree


def parse_scalar(text: str, where: str) -> object:
    """Return the value of one YAML scalar or flow collection, as in `80` or `[1, 2]`."""
    try:
        return _StrictLoader(text, where).get_single_data()
    except (yaml.YAMLError, ValueError, RecursionError) as err:
        raise UsageError(f"{where}: {text[:60]!r} is not a YAML value") from err


def _mapping(
    loader: yaml.SafeLoader,
    node: yaml.MappingNode,
    path: Path,
    where: str,
    origins: dict[Path, str],
) -> dict[str, object]:
    values: dict[str, object] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise UsageError(f"{where}:{line}: key {key!r} is not text; put quotes around it")
        dotted = one_line(".".join((*path, key)))
        if key in values:
            raise UsageError(f"{where}:{line}: {dotted} stands here a second time")
        origins[*path, key] = f"{where}:{line}"
        if isinstance(value_node, yaml.MappingNode):
            values[key] = _mapping(loader, value_node, (*path, key), where, origins)
        else:
            try:
                values[key] = loader.construct_object(value_node, deep=True)
            except ValueError as err:  # a date that the calendar lacks
                raise UsageError(
                    f"{where}:{line}: {dotted}: found {value_node.value!r}: {err}"
                ) from err
            except yaml.constructor.ConstructorError as err:
                tag = one_line(value_node.tag)
                raise UsageError(
                    f"{where}:{line}: {dotted}: tags such as {tag} are not taken"
                ) from err
    return values
