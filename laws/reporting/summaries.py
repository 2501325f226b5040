"""Tables of trials for readers: N by D at the largest budget, budgets at the largest cell, CGL against chance."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from laws.points import budget_words, comparable, label, one_learning_rate, short
from laws.tables import Measured, Trial
from results.schema import METRICS


@dataclass(frozen=True, kw_only=True)
class Table:
    """A small table of measured values; a cell is None where nothing was measured."""

    caption: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Measured | None, ...]], ...]
    chance: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The tables of one group."""

    name: str
    tables: tuple[Table, ...]


def summarise(name: str, trials: Sequence[Trial]) -> Summary:
    """Hit@10 by N and D, the metrics by beams and by other budgets at the largest cell, CGL by N and D."""
    tables = [table for make in (_hits, _beams, _budgets, _losses) if (table := make(trials)) is not None]
    return Summary(name=name, tables=tuple(tables))


def _hits(trials: Sequence[Trial]) -> Table | None:
    found, _, _ = comparable(trials, "hit@10")
    if not found:
        return None
    beams = max(trial.beams for trial in found)
    rows = [trial for trial in found if trial.beams == beams]
    return _by_n_and_d(rows, "hit@10", f"Hit@10 by N and D, {short(beams)} beams")


def _losses(trials: Sequence[Trial]) -> Table | None:
    rows, _, chance = comparable(trials, "cgl")
    if not rows:
        return None
    return _by_n_and_d(rows, "cgl", "CGL by N and D (lower is better)", chance)


def _by_n_and_d(rows: Sequence[Trial], metric: str, caption: str, chance: float = math.nan) -> Table:
    scales = sorted({trial.d_pairs for trial in rows})
    sizes = sorted({(trial.n_params, trial.model) for trial in rows})

    def cell(size: tuple[float, str], scale: float) -> Measured | None:
        return mean(
            trial.measured[metric] for trial in rows if (trial.n_params, trial.model) == size and trial.d_pairs == scale
        )

    return Table(
        caption=caption,
        corner="N \\ D",
        columns=tuple(short(scale) for scale in scales),
        rows=tuple((size[1], tuple(cell(size, scale) for scale in scales)) for size in sizes),
        chance=chance,
    )


def _beams(trials: Sequence[Trial]) -> Table | None:
    rows, _, _ = comparable(trials, "hit@10")
    if not rows:
        return None
    n, d = max((trial.n_params, trial.d_pairs) for trial in rows)
    rows = [trial for trial in rows if (trial.n_params, trial.d_pairs) == (n, d)]
    widths = sorted({trial.beams for trial in rows})

    def cell(metric: str, width: float) -> Measured | None:
        return mean(trial.measured[metric] for trial in rows if trial.beams == width)

    return Table(
        caption=f"Metrics by beams at the largest cell (N = {short(n)}, D = {short(d)})",
        corner="beams",
        columns=tuple(short(width) for width in widths),
        rows=tuple(
            (label(metric).removeprefix("1 - "), tuple(cell(metric, width) for width in widths)) for metric in METRICS
        ),
    )


def _budgets(trials: Sequence[Trial]) -> Table | None:
    """What laws leave out: sampling, fewer views, reranking; None where all trials are plain searches.

    Only seeds are averaged: another number of new tokens is another budget, and of learning rates one is kept.
    """
    rows = [trial for trial in trials if trial.measured["hit@10"].known]
    rows = [trial for trial in rows if math.isfinite(trial.n_params) and math.isfinite(trial.d_pairs)]
    rows = one_learning_rate(rows, [])
    others = [trial for trial in rows if trial.views or not math.isnan(trial.samples) or not math.isnan(trial.rerank)]
    if not others:
        return None
    n, d = max((trial.n_params, trial.d_pairs) for trial in others)
    rows = [trial for trial in rows if (trial.n_params, trial.d_pairs) == (n, d)]
    rows.sort(key=_budget_order)
    by_budget = _by_budget(rows)

    return Table(
        caption=f"Metrics by budget at N = {short(n)}, D = {short(d)}",
        corner="budget",
        columns=tuple(label(metric).removeprefix("1 - ") for metric in METRICS),
        rows=tuple(
            (budget, tuple(mean(trial.measured[metric] for trial in mine) for metric in METRICS))
            for budget, mine in by_budget.items()
        ),
    )


def _budget_order(trial: Trial) -> tuple[str, *tuple[float, ...]]:
    numbers = (trial.samples, trial.rerank, trial.beams, trial.temperature, trial.max_new_tokens)
    return (trial.views, *map(_or_zero, numbers))


def _by_budget(rows: Sequence[Trial]) -> dict[str, list[Trial]]:
    """Rows by their budget in words, one a training: its search beside other negatives is the same value again.

    The words say the number of new tokens only where the same budget was spent with several.
    """
    lengths: dict[str, set[float]] = {}
    for trial in rows:
        lengths.setdefault(budget_words(trial), set()).add(_or_zero(trial.max_new_tokens))
    found: dict[str, dict[str, Trial]] = {}
    for trial in rows:
        words = budget_words(trial, length=len(lengths[budget_words(trial)]) > 1)
        found.setdefault(words, {})[trial.run] = trial
    return {words: list(runs.values()) for words, runs in found.items()}


def _or_zero(number: float) -> float:
    return 0.0 if math.isnan(number) else number


def mean(cells: Iterable[Measured]) -> Measured | None:
    """The mean over seeds, of the values and of their intervals' ends; None where no value is known."""
    known = [cell for cell in cells if cell.known]
    if not known:
        return None
    count = len(known)
    return Measured(
        value=sum(cell.value for cell in known) / count,
        lo=sum(cell.lo for cell in known) / count,
        hi=sum(cell.hi for cell in known) / count,
    )
