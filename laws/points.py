"""From trials to the points that a law is fitted to: grouped, filtered, sliced."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from laws.forms import SYMBOLS, Array, Axis, log_axes
from laws.queries import PerQuery
from laws.tables import Baseline, Measured, Trial
from results.schema import LOSSES, METRICS

Quantity = Literal["loss", "error", "-log"]
"""Of what is fitted: a loss as it is; of a metric m in [0, 1] its error 1 - m, or -log m."""
PLAIN = ("", 0.0)
"""The plain beam search, as (views, documents ranked again): over all views, nothing ranked again."""


@dataclass(frozen=True, kw_only=True, order=True)
class Group:
    """Trials that one law may span: all else but N, D, seed, learning rate and budget is equal."""

    corpus: str
    corpus_hash: str
    identifiers: str
    family: str
    init: str
    recipe: str
    """Of tokenizer and training; empty where an older table does not say."""
    split: str
    """Of the queries that all was measured on; empty where an older table does not say."""

    @property
    def sweep(self) -> tuple[str, str, str]:
        """What the families have in common: they are shown side by side."""
        return (self.corpus, self.corpus_hash, self.identifiers)


@dataclass(frozen=True, kw_only=True)
class Points:
    """Points of one metric, lower is better. Arrays of equal length (points,).

    Seeds are repeated points, not averaged: their scatter is the noise that a law is judged against.
    """

    n: Array
    """Parameters without the input embedding."""
    d: Array
    """Training pairs (query, identifier)."""
    y: Array
    """The loss; of a metric in [0, 1] the error, 1 - metric."""
    beams: Array | None = None
    """None where the metric does not depend on the budget."""
    lo: Array | None = None
    """95% interval over queries; NaN where unknown."""
    hi: Array | None = None
    run: tuple[str, ...] = ()
    """Training run of each point."""
    metric: str = "loss"
    chance: float = math.nan
    """What guessing gives; NaN where unknown."""
    c: Array | None = None
    """Inference compute, FLOPs a query."""
    family: NDArray[np.int64] | None = None
    """Code of each point's family, from 0, where several are fitted together."""
    train_flops: Array | None = None
    infer_flops: Array | None = None
    """FLOPs of all training, of inference a query; for planning and hold-outs, and not an axis."""
    latency_ms: Array | None = None
    """A query; for planning."""
    draws: Array | None = None
    """(points, resamples): y over resampled queries, the same queries for every point."""
    quantity: Quantity = "loss"
    """What y is."""

    def __len__(self) -> int:
        return len(self.y)

    def axis(self, axis: Axis) -> Array:
        """Values along an axis."""
        values = getattr(self, axis)
        if values is None:
            raise ValueError(f"{self.metric} has no axis {axis!r}")
        return np.asarray(values, dtype=float)

    def logs(self, axes: Sequence[Axis]) -> Array:
        """(points, axes): natural logarithms; the codes of families as they are."""
        return log_axes(axes, [self.axis(axis) for axis in axes])

    def distinct(self, axes: Sequence[Axis]) -> int:
        """Number of different points along these axes together."""
        return len(np.unique(self.logs(axes).round(12), axis=0)) if len(self) else 0

    def where(self, mask: NDArray[np.bool_]) -> "Points":
        """The points at which `mask` (points,) is true."""

        names = ("n", "d", "y", "beams", "lo", "hi", "c", "family", "train_flops", "infer_flops", "latency_ms", "draws")
        known = {name: values for name in names if (values := getattr(self, name)) is not None}
        return replace(
            self,
            **{name: values[mask] for name, values in known.items()},
            run=tuple(run for run, stays in zip(self.run, mask, strict=True) if stays) if self.run else (),
        )

    def means(self, axis: Axis) -> tuple[Array, Array]:
        """Distinct values along an axis, ascending, and the mean of y at each."""
        values = self.axis(axis)
        distinct = np.unique(values)
        return distinct, np.array([self.y[values == value].mean() for value in distinct])


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Points of a group and metric, and what was left out, in words."""

    points: Points
    notes: tuple[str, ...]


def groups(trials: Iterable[Trial]) -> dict[Group, tuple[Trial, ...]]:
    """Finished trials by group, in a stable order."""
    found: dict[Group, list[Trial]] = {}
    for trial in trials:
        if trial.status == "done":
            group = Group(**{field.name: getattr(trial, field.name) for field in fields(Group)})
            found.setdefault(group, []).append(trial)
    # by sweep, and T5 before LLaMA as in the literature
    order = sorted(found, key=lambda group: (group.sweep, group.family != "t5", group))
    return {group: tuple(found[group]) for group in order}


def is_loss(metric: str) -> bool:
    """Whether the metric belongs to a training and not to a budget."""
    return metric in LOSSES


def label(metric: str, quantity: Quantity | None = None) -> str:
    """How the fitted quantity is written: `CGL`, `1 - Hit@10`, `-log Hit@10`; of a metric by default its error."""
    names = {"cgl": "CGL", "cgl_published": "CGL as published", "nll": "NLL", "ndcg": "nDCG", "hit": "Hit", "rr": "RR"}
    before = {"loss": "", "error": "1 - ", "-log": "-log "}[quantity or ("error" if metric in METRICS else "loss")]
    if metric in METRICS:
        stem, depth = metric.split("@")
        return f"{before}{names[stem]}@{depth}"
    return before + names.get(metric, metric)


def chance_of_metric(metric: str, group: Group, baselines: Iterable[Baseline]) -> float:
    """The error of random ranking on the group's corpus; NaN where no such baseline was run."""
    for row in baselines:
        if (row.corpus, row.corpus_hash, row.baseline) == (group.corpus, group.corpus_hash, "random"):
            return 1 - row.measured[metric].value
    return math.nan


def select(
    trials: Sequence[Trial],
    metric: str,
    metric_chance: float = math.nan,
    queries: PerQuery | None = None,
    resamples: int = 0,
    seed: int = 0,
) -> Selection:
    """Points of one metric from the trials of one group.

    Of a loss its value is taken, of a metric the error 1 - metric. See `comparable` for what is left out.

    Args:
        queries: per-query tables, for the draws over shared queries.
        resamples: how many draws; none where the tables do not cover all points.
    """
    rows, found, chance = comparable(trials, metric)
    notes = list(found)
    _mixtures(rows, metric, notes)
    chance = chance if is_loss(metric) else metric_chance
    measured = [_as_error(trial.measured[metric], metric) for trial in rows]
    y = np.array([value.value for value in measured])
    drawn = None
    if queries is not None and rows:
        plain = y if is_loss(metric) else 1 - y
        drawn = queries.draws([trial.trial for trial in rows], metric, plain, resamples, seed)
    flops = np.array([trial.infer_flops for trial in rows])
    points = Points(
        n=np.array([trial.n_params for trial in rows]),
        d=np.array([trial.d_pairs for trial in rows]),
        beams=None if is_loss(metric) else np.array([trial.beams for trial in rows]),
        y=y,
        lo=np.array([value.lo for value in measured]),
        hi=np.array([value.hi for value in measured]),
        run=tuple(trial.run for trial in rows),
        metric=metric,
        chance=chance,
        c=None if is_loss(metric) else flops,
        train_flops=np.array([trial.train_flops for trial in rows]),
        infer_flops=flops,
        draws=drawn if drawn is None or is_loss(metric) else 1 - drawn,
        quantity="loss" if is_loss(metric) else "error",
        latency_ms=None if is_loss(metric) else np.array([trial.latency_ms for trial in rows]),
    )
    return Selection(points=points, notes=tuple(notes))


def comparable(trials: Sequence[Trial], metric: str) -> tuple[list[Trial], tuple[str, ...], float]:
    """Rows of one metric that differ by N, D, beams and seed alone, what was left out in words, a loss's chance.

    One row a training for a loss, one a (training, beams) for a metric, with the most new tokens where there are
    several. Of one model at one D only the learning rate with the most trainings stays: runs at another are no
    further seeds. For a metric only plain beam searches stay; where there are none, one choice of views and of
    reranking, and nothing that was sampled. Rows without a finite metric, N, D or beams are left out too.
    """
    notes: list[str] = []
    rows = [trial for trial in trials if trial.measured[metric].known]
    if unmeasured := len(trials) - len(rows):
        notes.append(f"{unmeasured} of {len(trials)} trials have no finite {metric}")
    if not is_loss(metric):
        rows = _one_kind_of_search(rows, notes)
    rows = _countable(rows, metric, notes)
    rows = one_learning_rate(rows, notes)
    if not is_loss(metric):
        return _longest(rows, notes), tuple(notes), math.nan
    rows, chance = _one_chance(rows, metric, notes)
    return list({trial.run: trial for trial in rows}.values()), tuple(notes), chance


def one_learning_rate(rows: list[Trial], notes: list[str]) -> list[Trial]:
    """At each (model, D) the learning rate of most trainings; of equals that of most of the model, then the lowest."""
    cells: dict[tuple[str, float, float], dict[float | None, set[str]]] = {}
    of_model: Counter[tuple[str, float | None]] = Counter()
    for model, n, d, rate, run in {(row.model, row.n_params, row.d_pairs, row.learning_rate, row.run) for row in rows}:
        cells.setdefault((model, n, d), {}).setdefault(rate, set()).add(run)
        of_model[model, rate] += 1
    if all(len(rates) == 1 for rates in cells.values()):
        return rows
    best = {
        cell: max(rates, key=lambda rate: (len(rates[rate]), of_model[cell[0], rate], -(rate or math.inf)))
        for cell, rates in cells.items()
    }
    for cell, rates in sorted(cells.items()):
        (model, _, d), kept = cell, best[cell]
        if dropped := sum(len(runs) for rate, runs in rates.items() if rate != kept):
            others = ", ".join(sorted(_rate(rate) for rate in rates if rate != kept))
            notes.append(
                f"{dropped} training{'s' * (dropped > 1)} of {model} at D = {short(d)} left out: mixed learning rates, "
                f"the most common is kept ({_rate(kept)}, not {others})"
            )
    return [row for row in rows if row.learning_rate == best[row.model, row.n_params, row.d_pairs]]


def _rate(rate: float | None) -> str:
    return "unknown" if rate is None else f"{rate:g}"


def _as_error(measured: Measured, metric: str) -> Measured:
    if is_loss(metric):
        return measured
    return Measured(value=1 - measured.value, lo=1 - measured.hi, hi=1 - measured.lo)


def _one_kind_of_search(rows: list[Trial], notes: list[str]) -> list[Trial]:
    """Rows of beam searches that spend their beams alike: over the same views, with the same reranking.

    Kept are the plain ones, over all views with nothing ranked again, however few they are. Where there are none it is
    what most rows have, and the notes say so.
    """
    searched = [trial for trial in rows if math.isnan(trial.samples)]
    if sampled := len(rows) - len(searched):
        notes.append(f"{sampled} trials left out: identifiers were sampled and not searched for with beams")
    kinds = Counter(_search(trial) for trial in searched)
    if not kinds:
        return searched
    kept = PLAIN if PLAIN in kinds else min(kinds, key=lambda kind: (-kinds[kind], kind))
    if kept != PLAIN:
        notes.append(f"no plain beam searches: {_search_words(kept)}")
    for kind in sorted(kinds.keys() - {kept}):
        notes.append(f"{kinds[kind]} trials left out: {_search_words(kind)}; kept is {_search_words(kept)}")
    return [trial for trial in searched if _search(trial) == kept]


def _search(trial: Trial) -> tuple[str, float]:
    """(views, documents ranked again), empty and 0 for the plain search."""
    return trial.views, 0.0 if math.isnan(trial.rerank) else trial.rerank


def budget_words(trial: Trial, *, length: bool = False) -> str:
    """`16 beams`, `32 samples at temperature 0.7`, `16 beams, body and title, 10 reranked`.

    With `length` the number of new tokens follows where it is known: `16 beams, up to 4 new tokens`.
    """
    sampled = not math.isnan(trial.samples)
    parts = [f"{short(trial.samples)} samples" if sampled else f"{short(trial.beams)} beams"]
    if sampled and not math.isnan(trial.temperature):
        parts[0] += f" at temperature {trial.temperature:g}"
    parts += [trial.views.replace("+", " and ")] if trial.views else []
    parts += [] if math.isnan(trial.rerank) else [f"{short(trial.rerank)} reranked"]
    parts += [f"up to {short(trial.max_new_tokens)} new tokens"] if length and trial.max_new_tokens > 0 else []
    return ", ".join(parts)


def _search_words(kind: tuple[str, float]) -> str:
    views, rerank = kind
    return f"{views.replace('+', ' and ') or 'all views'} searched, {short(rerank) if rerank else 'nothing'} reranked"


def _countable(rows: list[Trial], metric: str, notes: list[str]) -> list[Trial]:
    """Rows whose N, D (and beams) are positive numbers; the others are counted in the notes."""

    def usable(trial: Trial) -> bool:
        axes = [trial.n_params, trial.d_pairs] + ([] if is_loss(metric) else [trial.beams])
        return all(math.isfinite(value) and value > 0 for value in axes)

    kept = [trial for trial in rows if usable(trial)]
    if dropped := len(rows) - len(kept):
        notes.append(f"{dropped} trials left out: N, D or beams is not a positive number")
    return kept


def _one_chance(rows: list[Trial], metric: str, notes: list[str]) -> tuple[list[Trial], float]:
    """CGL with another number of negatives is another quantity: keep the most common chance."""
    if metric == "nll":
        return rows, math.nan
    chances = Counter(round(value, 9) for trial in rows if math.isfinite(value := getattr(trial, metric + "_chance")))
    if not chances:
        return rows, math.nan
    chance = chances.most_common(1)[0][0]
    # round(nan) is nan, which differs from every chance: rows without a chance stay
    kept = [trial for trial in rows if not abs(getattr(trial, metric + "_chance") - chance) > 1e-8]
    if dropped := len(rows) - len(kept):
        notes.append(f"{dropped} trials left out: {metric} was measured with another number of negatives")
    return kept, chance


def _longest(rows: list[Trial], notes: list[str]) -> list[Trial]:
    """Where a (training, beams) was decoded with several lengths, the longest."""

    def length(trial: Trial) -> float:
        return -1 if math.isnan(trial.max_new_tokens) else trial.max_new_tokens

    # the same search beside another number of negatives is the same value again
    searches = {(trial.run, trial.beams, length(trial)): trial for trial in rows}
    longest = {(trial.run, trial.beams): trial for trial in sorted(searches.values(), key=length)}
    if len(longest) < len(searches):
        notes.append(f"{len(searches) - len(longest)} trials left out: fewer new tokens than another with equal beams")
    return list(longest.values())


def _mixtures(rows: Sequence[Trial], metric: str, notes: list[str]) -> None:
    names = {"epochs": "epochs", "n_queries": "numbers of test queries"}
    if not is_loss(metric):
        names["max_new_tokens"] = "numbers of new tokens"
    for name, words in names.items():
        values = {value for trial in rows if (value := getattr(trial, name)) is not None and not math.isnan(value)}
        if len(values) > 1:
            notes.append(f"mixed {words}: {', '.join(f'{value:g}' for value in sorted(values))}")


def fix(points: Points, free: Sequence[Axis], axes: Sequence[Axis] | None = None) -> tuple[Points, dict[Axis, float]]:
    """Hold the other axes at the combination with the most distinct points along `free`; the largest of equals.

    In a full grid that is the largest value of each; where only one model was trained on every D, it is that model.

    Args:
        axes: all that there are; by default N, D, and beams where the points have them.
    """
    own: Sequence[Axis] = ("n", "d") if points.beams is None else ("n", "d", "beams")
    held = [axis for axis in axes or own if axis not in free]
    if not held or not len(points):
        return points, {}
    columns = np.stack([points.axis(axis) for axis in held], axis=1)
    candidates = [tuple(row) for row in np.unique(columns, axis=0)]
    masks = {row: (columns == np.array(row)).all(axis=1) for row in candidates}
    best = max(candidates, key=lambda row: (points.where(masks[row]).distinct(free), row))
    return points.where(masks[best]), dict(zip(held, map(float, best), strict=True))


def short(number: float) -> str:
    """A count as people say it: 960, 7.2k, 115k, 6.6B."""
    for limit, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= 0.9995 * limit:
            return f"{number / limit:.3g}{suffix}"
    return f"{number:.4g}"


def describe(held: dict[Axis, float]) -> str:
    """`at D = 36k, beams = 64`; empty where nothing is held."""
    return "at " + ", ".join(f"{SYMBOLS[axis]} = {short(value)}" for axis, value in held.items()) if held else ""
