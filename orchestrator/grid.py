"""The grid file: YAML -> a frozen `Grid`, or one line that says what is wrong with it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from orchestrator import cells, tuning_settings
from orchestrator.cells import Cells, Point
from orchestrator.resources import Machines, Resources
from orchestrator.source import Place, Source, read_source, suggestion
from orchestrator.tuning_settings import TuningSettings, is_tuned
from workers import settings as words
from workers.corpus import settings as corpus_words
from workers.corpus.settings import AnyCorpus, HfCorpus, PydocsCorpus
from workers.errors import BadInput
from workers.models.ladder import RUNGS
from workers.settings import (
    TRAINING_QUERIES,
    AnyIdentifiers,
    Budget,
    Count,
    EvaluationSettings,
    ModelSettings,
    Name,
    PseudoQuerySettings,
    Seed,
    Settings,
    TokenizerSettings,
    TrainingSettings,
    VectorIdentifiers,
    split_model,
)

Value = TypeVar("Value")
Axis = Annotated[tuple[Value, ...], Field(min_length=1)]
RESERVED_NAMES = frozenset({"steps", "leases", "drivers", "report"})
"""Folders of the results folder that are no grid's."""


class DataSettings(Settings):
    """How much is trained on."""

    pairs: Axis[Count]
    """D: training pairs (query, identifier). A smaller D is the first part of a larger one."""
    seed: Seed = 0
    """Of the order of the pairs and of the choice of identifiers."""


class Tracking(Settings):
    """Weights & Biases."""

    wandb: Literal["auto", "offline", "online", "off"] = "auto"
    """`auto`: as WANDB_MODE says; where it is not set, online where WANDB_API_KEY is, else offline."""
    project: Name = "gridlaw"
    entity: str | None = None


class Grid(Settings):
    """One sweep: its axes, and the settings that all its trials share."""

    name: Name
    corpus: AnyCorpus
    tokenizer: TokenizerSettings = TokenizerSettings()
    identifiers: Axis[AnyIdentifiers]
    models: Axis[ModelSettings]
    data: DataSettings
    inference: Axis[Budget]
    seeds: Axis[Seed] = (0,)
    cells: Axis[Cells] | None = None
    """Of what the axes span, only these; all of it where left out."""
    training: TrainingSettings = TrainingSettings()
    tuning: TuningSettings | None = None
    """Of the learning rate, before the grid's trainings; they have the ladder's or the given ones where left out."""
    evaluation: EvaluationSettings = EvaluationSettings()
    resources: Resources = Resources()
    tracking: Tracking = Tracking()

    def pairs_of(self, identifiers: AnyIdentifiers) -> tuple[int, ...]:
        """The data scales of an identifier kind."""
        return identifiers.pairs or self.data.pairs

    def to_yaml(self) -> str:
        """The grid with every default written out; reading it gives the same grid."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def points(grid: Grid) -> Iterator[Point]:
    """identifiers x model x D x seed x budget, in the grid's order, without what `only` and `cells` leave out."""
    yield from _spanned(grid) if grid.cells is None else cells.kept(grid.cells, _spanned(grid))


def _spanned(grid: Grid) -> Iterator[Point]:
    for identifiers in grid.identifiers:
        only = identifiers.only
        for model in grid.models:
            if only.models is not None and model.label not in only.models:
                continue
            for pairs in grid.pairs_of(identifiers):
                for seed in grid.seeds:
                    if all(kept is None or value in kept for kept, value in ((only.pairs, pairs), (only.seeds, seed))):
                        for _, budget in budgets_of(grid, identifiers):
                            yield identifiers, model, pairs, seed, budget


def budgets_of(grid: Grid, identifiers: AnyIdentifiers) -> Iterator[tuple[int, Budget]]:
    """Position and budget of those that are a kind's: its `only` keeps them, and it has their views.

    To name all of a kind's views is to name none.
    """
    views, beams = set(identifiers.VIEWS), identifiers.only.beams
    for position, budget in enumerate(grid.inference):
        if set(budget.views or ()) <= views and (beams is None or budget.beams in beams):
            all_of_them = budget.views is not None and set(budget.views) == views
            yield position, budget.model_copy(update={"views": None}) if all_of_them else budget


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A valid grid, and where it came from (for errors that are found later)."""

    grid: Grid
    source: Source


def load(path: Path, overrides: Sequence[str] = ()) -> Loaded:
    """Read and validate a grid file; paths in it are looked up from the current folder, then from the file's.

    Raises:
        BadInput: one line that names the file and the key.
    """
    source = read_source(path, overrides)
    try:
        grid = Grid.model_validate(source.raw)
    except ValidationError as error:
        first = error.errors()[0]
        raise source.error(_place(first), _message(first)) from None
    if grid.name in RESERVED_NAMES:
        raise source.error(("name",), f"{grid.name!r} is taken by the results folder itself")
    _check_models(grid, source)
    _check_batch(grid, source)
    if grid.tuning is not None:
        together = grid.resources.together
        tuning_settings.check(grid.tuning, grid.models, grid.training, grid.evaluation, together, source)
    _check_together(grid, source)
    _check_distinct(grid, source)
    _check_only(grid, source)
    _check_views(grid, source)
    _check_budgets(grid, source)
    found = _find_paths(grid, source)
    cells.check(found.cells or (), _spanned(found), source)
    return Loaded(grid=found, source=source)


# ---------------------------------------------------------------- pydantic's errors, in the words of the grid


def _place(error: ErrorDetails) -> Place:
    place = error["loc"]
    if error["type"] == "union_tag_not_found":
        return (*place, str(error.get("ctx", {}).get("discriminator", "")).strip("'"))
    if error["type"] == "union_tag_invalid":
        return (*place, str(error["ctx"]["discriminator"]).strip("'"))
    return place


def _message(error: ErrorDetails) -> str:
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    match kind:
        case "extra_forbidden":
            return "unknown key" + suggestion(
                error["loc"][-1], [key for key in _known_keys() if key != error["loc"][-1]]
            )
        case "missing" | "union_tag_not_found":
            return "is missing"
        case "union_tag_invalid":
            return f"unknown {str(context['discriminator']).strip(chr(39))} '{context['tag']}'; " + (
                f"there are {context['expected_tags']}"
            )
        case "too_short":
            return "holds no value"
        case "value_error":
            return str(context["error"])
        case "tuple_type":
            return f"must be a value or a list of values, not {_short(value)}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"must be a mapping of settings, not {_short(value)}"
    said = error["msg"].removeprefix("Input ")
    return f"{said[:1].lower()}{said[1:]}, not {_short(value)}"


def _short(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python does not write out an integer of more than 4,300 digits
        return "a number that long"
    return text if len(text) <= 60 else text[:57] + "..."


def _known_keys() -> list[str]:
    """Every key of every block, for suggestions."""
    blocks: list[type[Settings]] = [Grid, Cells, DataSettings, Resources, Machines, Tracking, TuningSettings]
    known = [*vars(words).values(), *vars(corpus_words).values()]
    blocks += [item for item in known if isinstance(item, type) and issubclass(item, Settings)]
    return sorted({key for block in blocks for key in block.model_fields})


# ---------------------------------------------------------------- what pydantic's types do not say


def _check_models(grid: Grid, source: Source) -> None:
    for position, model in enumerate(grid.models):
        if model.size is None:
            if is_tuned(grid.tuning, model):
                continue
            if model.learning_rate is None and grid.training.learning_rate is None:
                message = f"is missing; a pretrained model has none of its own, and {model.label} is given none"
                raise source.error(("training", "learning_rate"), message)
            continue
        rungs = RUNGS[model.family]
        if model.size not in rungs:
            message = f"unknown size {model.size!r} of family {model.family}; there are {', '.join(rungs)}"
            raise source.error(("models", position, "size"), message)
        rank, width = model.embeddings.rank, rungs[model.size].width
        if rank is not None and rank > width:
            message = f"{rank} is more than the width of {model.label}, which is {width}"
            raise source.error(("models", position, "embeddings", "rank"), message)


def _check_batch(grid: Grid, source: Source) -> None:
    """The global batch must be cut evenly over the workers of a training and their micro-batches."""
    batch, workers = grid.training.batch, grid.resources.together
    micro = grid.training.micro_batch or 1
    if batch % (workers * micro):
        message = f"{batch} pairs cannot be cut into micro-batches of {micro} on {workers} worker(s)"
        raise source.error(("training", "batch"), message)


def _check_together(grid: Grid, source: Source) -> None:
    """Those who train together must be there."""
    together, workers = grid.resources.together, grid.resources.workers
    if workers is not None and together > workers:
        message = f"{together} is more than resources.workers, which is {workers}"
        raise source.error(("resources", "workers_per_training"), message)


def _check_distinct(grid: Grid, source: Source) -> None:
    axes: list[tuple[Place, Sequence[Any] | None]] = [
        (("identifiers",), grid.identifiers),
        (("models",), grid.models),
        (("data", "pairs"), grid.data.pairs),
        (("inference",), grid.inference),
        (("seeds",), grid.seeds),
    ]
    for position, identifiers in enumerate(grid.identifiers):
        axes.append((("identifiers", position, "pairs"), identifiers.pairs))
        axes += [(("identifiers", position, "only", name), value) for name, value in identifiers.only]
    for place, values in axes:
        if values is not None and not values:
            raise source.error(place, "holds no value")
        repeated = _first_repeated(values or ())
        if values and repeated is not None:
            raise source.error((*place, repeated), f"{_name(values[repeated])} stands there twice")


def _first_repeated(values: Sequence[Any]) -> int | None:
    return next((position for position, value in enumerate(values) if value in values[:position]), None)


def _name(value: Any) -> str:
    if isinstance(value, ModelSettings):
        return value.label
    if isinstance(value, Budget):
        return f"the budget {value.label}"
    return str(getattr(value, "kind", value))


def _check_only(grid: Grid, source: Source) -> None:
    """What an `only` names must be in the grid."""
    for position, identifiers in enumerate(grid.identifiers):
        there: dict[str, Iterable[object]] = {
            "models": [model.label for model in grid.models],
            "pairs": grid.pairs_of(identifiers),
            "beams": [budget.beams for budget in grid.inference if budget.beams is not None],
            "seeds": grid.seeds,
        }
        for name, wanted in identifiers.only:
            for entry, value in enumerate(wanted or ()):
                known = list(dict.fromkeys(there[name]))
                if value not in known:
                    there_are = f"there are {', '.join(map(str, known))}" if known else "there are none"
                    message = f"{value!r} is not among the grid's {name}; {there_are}"
                    raise source.error(("identifiers", position, "only", name, entry), message)


def _check_views(grid: Grid, source: Source) -> None:
    """A view that a budget names must be one of some kind's."""
    known = list(dict.fromkeys(view for identifiers in grid.identifiers for view in identifiers.VIEWS))
    for position, budget in enumerate(grid.inference):
        for view in budget.views or ():
            if view not in known:
                there = f"there are {', '.join(known)}" if known else "none of them has several"
                message = f"{view!r} is no view of the grid's identifiers; {there}"
                raise source.error(("inference", position, "views"), message)


def _check_budgets(grid: Grid, source: Source) -> None:
    """Every kind has a budget, and no two budgets that are the same for it."""
    for position, identifiers in enumerate(grid.identifiers):
        seen: dict[Budget, int] = {}
        for place, budget in budgets_of(grid, identifiers):
            if budget in seen:
                same = f"{_name(grid.inference[place])} is {_name(grid.inference[seen[budget]])}"
                raise source.error(("inference", place, "views"), f"{same} for {identifiers.kind}: all of its views")
            seen[budget] = place
        if not seen:
            message = f"{identifiers.kind} would have no trial: no budget of `inference` is one of it"
            raise source.error(("identifiers", position), message)


# ---------------------------------------------------------------- paths


def _find_paths(grid: Grid, source: Source) -> Grid:
    """The grid with local paths made absolute, so that they mean the same to every worker."""
    corpus: AnyCorpus = grid.corpus
    if isinstance(corpus, HfCorpus):
        corpus = corpus.model_copy(update={"path": _local_or_name(corpus.path, source, ("corpus", "path"))})
    elif not isinstance(corpus, PydocsCorpus):
        found = _find(corpus.path, source, ("corpus", "path"))
        if found is None:
            raise source.error(("corpus", "path"), f"no such file: {corpus.path}")
        if found.is_dir() != (corpus.source == "beir"):
            wanted = "a folder" if corpus.source == "beir" else "a file"
            raise source.error(("corpus", "path"), f"must be {wanted}: {corpus.path}")
        corpus = corpus.model_copy(update={"path": str(found)})
    models = tuple(_with_local(model, "pretrained", source, ("models", n)) for n, model in enumerate(grid.models))
    identifiers = tuple(_with_found(one, source, ("identifiers", n)) for n, one in enumerate(grid.identifiers))
    return grid.model_copy(update={"corpus": corpus, "models": models, "identifiers": identifiers})


def _with_found(identifiers: AnyIdentifiers, source: Source, place: Place) -> AnyIdentifiers:
    """The kind with the paths of its encoder, or of its pseudo-queries, made absolute."""
    if isinstance(identifiers, VectorIdentifiers):
        return _with_local(identifiers, "embedding", source, place)
    if isinstance(identifiers, PseudoQuerySettings) and identifiers.queries != TRAINING_QUERIES:
        prefix, value = split_model(identifiers.queries)
        if prefix:
            found = _local_or_name(value, source, (*place, "queries"))
        else:
            path = _find(value, source, (*place, "queries"))
            if path is None or not path.is_file():
                raise source.error((*place, "queries"), f"no such file: {value}")
            found = str(path)
        return identifiers.model_copy(update={"queries": prefix + found})
    return identifiers


Block = TypeVar("Block", bound=Settings)


def _with_local(block: Block, key: str, source: Source, place: Place) -> Block:
    value = getattr(block, key)
    if value is None:
        return block
    return block.model_copy(update={key: _local_or_name(value, source, (*place, key))})


def _local_or_name(value: str, source: Source, place: Place) -> str:
    """An absolute folder where there is one; else the value is a hub name, unless it looks like a path."""
    found = _find(value, source, place)
    if found is not None and found.is_dir():
        return str(found)
    if value.startswith((".", "/", "~")):
        raise source.error(place, f"no such folder: {value}")
    return value


def _find(value: str, source: Source, place: Place) -> Path | None:
    try:
        path = Path(value).expanduser()
        return next((one.resolve() for one in (path, source.path.parent / path) if one.exists()), None)
    except (OSError, RuntimeError, ValueError) as error:  # too long, not allowed, no such user
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise source.error(place, f"cannot be looked up: {reason}: {_short(value)}") from None


__all__ = ["BadInput", "DataSettings", "Grid", "Loaded", "Machines", "Resources", "Tracking", "load"]
