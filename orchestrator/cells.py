"""Single cells of what a grid's axes span: `cells` keeps them and leaves all others out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, TypeVar

from pydantic import Field

from orchestrator.labels import identifiers_label
from orchestrator.source import Source, suggestion
from workers.settings import AnyIdentifiers, Budget, Count, ModelSettings, Seed, Settings

Point = tuple[AnyIdentifiers, ModelSettings, int, int, Budget]
"""One of a grid: its identifiers, model, D, seed and budget."""
Value = TypeVar("Value")
Some = Annotated[tuple[Value, ...], Field(min_length=1)] | None
"""Values of an axis; all where left out."""


class Cells(Settings):
    """A block of cells: every combination of what it names, and of all there is where it names nothing."""

    identifiers: Some[str] = None
    """By their labels, such as `ngram` or `codebook-32x256`: those of the tables and of the trials' names."""
    models: Some[str] = None
    """By their labels, such as `t5-29k`."""
    pairs: Some[Count] = None
    seeds: Some[Seed] = None
    budgets: Some[str] = None
    """By their labels, such as `b16` or `b16-r10`."""

    def keeps(self, named: Mapping[str, object]) -> bool:
        """Whether a point, axis -> what a block calls its value, is one of the block."""
        return all(wanted is None or named[axis] in wanted for axis, wanted in self)


def kept(blocks: Sequence[Cells], points: Iterable[Point]) -> Iterator[Point]:
    """Those of the points that are in some block."""
    return (point for point, named in _named(points) if any(block.keeps(named) for block in blocks))


def check(blocks: Sequence[Cells], points: Iterable[Point], source: Source) -> None:
    """Raises BadInput where a block names what is not among the points that the grid's axes span, or keeps none."""
    spanned = [named for _, named in _named(points)] if blocks else []
    for position, block in enumerate(blocks):
        for axis, wanted in block:
            known = list(dict.fromkeys(named[axis] for named in spanned)) if wanted else []
            for entry, value in enumerate(wanted or ()):
                if value not in known:
                    there_are = suggestion(value, list(map(str, known))) or f"; there are {', '.join(map(str, known))}"
                    message = f"{value!r} is not among the grid's {axis}{there_are}"
                    raise source.error(("cells", position, axis, entry), message)
        if not any(block.keeps(named) for named in spanned):
            message = "keeps no cell: an `only`, or a kind's `pairs`, leaves out all of it"
            raise source.error(("cells", position), message)


def _named(points: Iterable[Point]) -> Iterator[tuple[Point, dict[str, object]]]:
    """Each point and what blocks call its values; a kind's label is made once, for it may read files."""
    labels: dict[int, str] = {}
    for point in points:
        identifiers, model, pairs, seed, budget = point
        if id(identifiers) not in labels:
            labels[id(identifiers)] = identifiers_label(identifiers)
        named = {"models": model.label, "pairs": pairs, "seeds": seed, "budgets": budget.label}
        yield point, {"identifiers": labels[id(identifiers)], **named}
