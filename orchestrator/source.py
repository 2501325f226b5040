"""The grid file as text: YAML in, `--set` applied, axes spread out, and every error told in one line.

YAML is read by the rules of YAML 1.2 where 1.1 surprises: `1e-3` is a number, `off` is a word, a date is
a word, and a key that is written twice is an error.
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from workers.corpus import SOURCES
from workers.errors import BadInput
from workers.identifiers import KINDS

Place = tuple[str | int, ...]

LISTS: tuple[tuple[str, ...], ...] = (
    ("identifiers",),
    ("models",),
    ("inference",),
    ("seeds",),
    ("data", "pairs"),
    ("resources", "cluster"),
    ("corpus", "packages"),
    ("tuning", "batch"),
    ("tuning", "models"),
    ("cells",),
    *(("cells", "*", axis) for axis in ("identifiers", "models", "pairs", "seeds", "budgets")),
    ("identifiers", "*", "pairs"),
    ("identifiers", "*", "only", "models"),
    ("identifiers", "*", "only", "pairs"),
    ("identifiers", "*", "only", "beams"),
    ("identifiers", "*", "only", "seeds"),
)
"""Places that hold a list, where one bare value is read as a list of one."""

SPREAD = {
    "models": ("size", "pretrained"),
    "inference": ("beams", "samples", "temperature", "max_new_tokens", "views", "rerank"),
}
"""Axes whose entries may hold a list in one of these keys: `{family: t5, size: [7k, 29k]}` is two entries."""

_KEY = re.compile(r"^(?:corpus|evaluation|resources)(?:\.[a-z_]+)+$")
"""Keys that errors found outside this floor begin with."""
_TAGS = {"corpus": frozenset(SOURCES), "identifiers": frozenset(KINDS)}
"""What pydantic puts into the place of an error behind the block (or entry) whose `source` or `kind` it is."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the rules above."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {  # noqa: RUF012 - PyYAML's own name
        first: [(tag, pattern) for tag, pattern in entries if tag.endswith((":null", ":merge"))]
        for first, entries in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                    raise yaml.constructor.ConstructorError(None, None, f"key `{key.value}` twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, AttributeError, OverflowError) as error:  # `!!int abc`, or 5,000 digits
            reason = f"cannot be read as {node.tag.rpartition(':')[2]} ({error})"
            raise yaml.constructor.ConstructorError(None, None, reason, node.start_mark) from None


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|nan))$"),
    list("-+.0123456789"),
)


def parse_yaml(text: str, named: str) -> Any:
    """The value that the text holds.

    Raises:
        BadInput: the text is not YAML; names the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise BadInput(f"{named}{line}: not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise BadInput(f"{named}: not valid YAML: {' '.join(str(error).split())}") from None


@dataclass(frozen=True, kw_only=True)
class Source:
    """A grid before it is validated, and what is needed to say where in it an error is."""

    path: Path
    raw: dict[str, Any]
    """The mapping with axes spread out."""
    origins: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Axis -> for each spread entry, its position in the file."""
    overrides: tuple[tuple[str, ...], ...] = ()
    """Places that `--set` gave."""

    def error(self, place: Place, message: str) -> BadInput:
        """One line that names the file (or `--set`) and the key."""
        cleaned = self.clean(place)
        words = tuple(str(part) for part in cleaned)
        from_set = any(words[: len(override)] == override for override in self.overrides)
        named = "--set" if from_set else str(self.path)
        return BadInput(f"{named}: {'.'.join(words)}: {message}" if words else f"{named}: {message}")

    def locate(self, error: BadInput) -> BadInput:
        """The same line; where it begins with a key of the grid, with the file (or `--set`) in front."""
        key, colon, message = str(error).partition(": ")
        if colon and _KEY.match(key):
            return self.error(tuple(key.split(".")), message)
        return error

    def clean(self, place: Place) -> Place:
        """The place as written in the file: without pydantic's union tags, entries counted before spreading."""
        parts: list[str | int] = []
        tagged = False
        for part in place:
            in_union = parts == ["corpus"] or (len(parts) == 2 and parts[0] == "identifiers")
            if in_union and not tagged and part in _TAGS[str(parts[0])]:
                tagged = True
                continue
            if len(parts) == 1 and isinstance(part, int) and parts[0] in self.origins:
                part = self.origins[str(parts[0])][part]
            parts.append(part)
        return tuple(parts)


def read_source(path: Path, overrides: Sequence[str] = ()) -> Source:
    """Read the file, apply `--set` values, wrap bare values of axes and spread lists out.

    Raises:
        BadInput: the file or an override cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadInput(f"{path}: no such grid file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read: {error}") from None
    raw = parse_yaml(text, str(path))
    if not isinstance(raw, dict):
        raise BadInput(f"{path}: the file must hold a mapping of settings, not {_kind(raw)}")
    _wrap_all(raw)
    places = tuple(_override(raw, override) for override in overrides)
    _wrap_all(raw)
    source = Source(path=path, raw=raw, overrides=places)
    axes = {axis: keys for axis, keys in SPREAD.items() if isinstance(raw.get(axis), list)}
    origins = {axis: _spread(raw, axis, keys, source) for axis, keys in axes.items()}
    return Source(path=path, raw=raw, origins=origins, overrides=places)


def _kind(value: object) -> str:
    return {list: "a list", str: "text", type(None): "nothing"}.get(type(value), f"a {type(value).__name__}")


def _wrap_all(raw: dict[str, Any]) -> None:
    for place in LISTS:
        for holder, key in _holders(raw, place):
            if holder[key] is not None and not isinstance(holder[key], list):
                holder[key] = [holder[key]]


def _holders(value: Any, place: tuple[str, ...]) -> Iterator[tuple[dict[str, Any], str]]:
    """Every mapping that has the last key of the place."""
    first, rest = place[0], place[1:]
    if first == "*":
        for entry in value if isinstance(value, list) else ():
            yield from _holders(entry, rest)
    elif isinstance(value, dict) and first in value:
        if rest:
            yield from _holders(value[first], rest)
        else:
            yield value, first


def _spread(raw: dict[str, Any], axis: str, keys: tuple[str, ...], source: Source) -> tuple[int, ...]:
    """Replace each entry by one entry per value of its lists; returns each new entry's old position."""
    entries: list[Any] = []
    origins: list[int] = []
    for position, entry in enumerate(raw[axis]):
        made = [entry]
        for key in keys:
            if isinstance(entry, dict) and isinstance(entry.get(key), list):
                if not entry[key]:
                    raise source.error((axis, position, key), "holds no value")
                made = [{**one, key: value} for one in made for value in entry[key]]
        entries += made
        origins += [position] * len(made)
    raw[axis] = entries
    return tuple(origins)


def _override(raw: dict[str, Any], override: str) -> tuple[str, ...]:
    """Apply one `a.b=c`; returns the place."""
    name, equals, text = override.partition("=")
    place = tuple(name.strip().split("."))
    if not equals or not all(place):
        raise BadInput(f"--set {override}: write it as key.key=value")
    holder: Any = raw
    for depth, part in enumerate(place):
        last = depth == len(place) - 1
        key = _index(holder, part, ".".join(place[: depth + 1]))
        if last:
            holder[key] = parse_yaml(text, f"--set {name}")
        elif isinstance(holder, dict) and holder.get(key) is None:
            holder[key] = {}
        holder = holder[key]
    return place


def _index(holder: Any, part: str, named: str) -> str | int:
    """The key or list position that a part of an override names."""
    if isinstance(holder, dict):
        return part
    if isinstance(holder, list):
        if part.isdecimal() and int(part) < len(holder):
            return int(part)
        raise BadInput(f"--set {named}: there is no such entry; the list has {len(holder)}, counted from 0")
    raise BadInput(f"--set {named}: unknown key; there is a plain value above it")


def suggestion(name: object, known: Sequence[str]) -> str:
    """`; did you mean ...?`, or nothing."""
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean `{close[0]}`?" if close else ""
