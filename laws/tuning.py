"""Learning rates: the best one of each size, how sure that is, and what becomes of it at another size.

Losses are those by which the rates were chosen: 1 - RR@10, CGL or NLL of the dev queries. Everything is done in the
logarithm of the learning rate, in which losses near their minimum are close to a parabola.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import stats

WINDOW = 10.0
"""Rates so many times smaller or larger than the best are left out of its parabola."""
CONFIDENCE = 0.95
LABELS = ("grid", "corpus", "identifiers", "family", "d_pairs", "epochs", "metric")
METRICS = {"dev_rr": "1 - RR@10", "dev_cgl": "CGL", "dev_nll": "NLL"}


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One trial of a study."""

    learning_rate: float
    batch: int | None
    share: float
    """Of the training that was done when `dev_loss` was measured."""
    dev_loss: float
    """NaN where it was never measured."""
    state: str
    """trained | stopped | diverged | failed"""
    seconds: float
    is_own: bool
    """With the rate that the model has without a tuning."""
    is_chosen: bool


@dataclass(frozen=True, kw_only=True)
class Parabola:
    """Loss = least + curvature (ln rate - ln optimum)^2, fitted to trained attempts."""

    optimum: float
    lo: float
    hi: float
    """Ends of the optimum's interval."""
    least: float
    curvature: float
    points: int
    within: tuple[float, float]
    """Smallest and largest rate that it was fitted to."""

    def at(self, rate: float) -> float:
        """The loss at a learning rate."""
        return self.least + self.curvature * math.log(rate / self.optimum) ** 2


@dataclass(frozen=True, kw_only=True)
class Study:
    """The attempts for one model and kind of identifiers."""

    grid: str
    corpus: str
    corpus_hash: str
    identifiers: str
    family: str
    model: str
    n_params: float
    """NaN where it is not known."""
    d_pairs: int
    epochs: int
    metric: str
    """Name of the loss: a key of METRICS."""
    chance: float
    """CGL of a model that ignores the query; NaN for the others."""
    attempts: tuple[Attempt, ...]

    @property
    def chosen(self) -> Attempt:
        """The one that the grid's trainings follow."""
        return next(one for one in self.attempts if one.is_chosen)

    @property
    def own(self) -> Attempt | None:
        """The one with the model's own rate, where it was trained to its end."""
        return next((one for one in self.attempts if one.is_own and one.state == "trained"), None)

    @property
    def no_better_than_chance(self) -> bool:
        """Whether not even the chosen attempt has learnt what a query asks for, so that its rate says nothing."""
        return self.chosen.dev_loss >= self.chance

    @property
    def trained(self) -> tuple[Attempt, ...]:
        """Those that were trained to their end with the chosen batch, by rising rate."""
        alike = [one for one in self.attempts if one.state == "trained" and one.batch == self.chosen.batch]
        return tuple(sorted(alike, key=lambda one: one.learning_rate))

    @property
    def at_end(self) -> bool:
        """Whether no attempt had a smaller rate than the chosen one, or none a larger one."""
        rates = [one.learning_rate for one in self.attempts]
        return self.chosen.learning_rate in (min(rates), max(rates))

    @cached_property
    def parabola(self) -> Parabola | None:
        """Near the chosen rate; None where five rates or a minimum among them are wanting."""
        best = self.chosen.learning_rate
        near = [one for one in self.trained if 1 / WINDOW <= one.learning_rate / best <= WINDOW]
        return fit_parabola([one.learning_rate for one in near], [one.dev_loss for one in near])

    def loss_at(self, rate: float) -> float:
        """The loss with another learning rate: by the parabola where that was fitted, else between its neighbours.

        NaN outside the trained rates.
        """
        rates = [one.learning_rate for one in self.trained]
        if not rates[0] <= rate <= rates[-1]:
            return math.nan
        if self.parabola is not None and self.parabola.within[0] <= rate <= self.parabola.within[1]:
            return self.parabola.at(rate)
        return float(np.interp(math.log(rate), np.log(rates), [one.dev_loss for one in self.trained]))


def fit_parabola(rates: Sequence[float], losses: Sequence[float]) -> Parabola | None:
    """Least squares; None with fewer than five rates, or where the losses have no minimum within them.

    The interval of the optimum is by the delta method from the residuals.
    """
    x, y = np.log(np.asarray(rates, dtype=float)), np.asarray(losses, dtype=float)
    if len(np.unique(x)) < 5:
        return None
    middle = x.mean()
    design = np.vander(x - middle, 3)  # square, linear, constant
    (square, linear, constant), *_ = np.linalg.lstsq(design, y, rcond=None)
    if square <= 0:
        return None
    offset = -linear / (2 * square)
    if not x.min() <= offset + middle <= x.max():
        return None
    residual = y - design @ (square, linear, constant)
    freedom = len(x) - 3
    covariance = np.linalg.inv(design.T @ design) * float(residual @ residual) / freedom
    slope = np.array([linear / (2 * square**2), -1 / (2 * square), 0.0])
    arm = stats.t.ppf(0.5 + CONFIDENCE / 2, freedom) * math.sqrt(float(slope @ covariance @ slope))
    return Parabola(
        optimum=math.exp(offset + middle),
        lo=math.exp(offset + middle - arm),
        hi=math.exp(offset + middle + arm),
        least=float(constant - linear**2 / (4 * square)),
        curvature=float(square),
        points=len(x),
        within=(math.exp(x.min()), math.exp(x.max())),
    )


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """The best rates of a family's sizes against N, by rising N: ln rate = intercept + slope ln N."""

    studies: tuple[Study, ...]
    slope: float
    """NaN with fewer than two sizes."""
    error: float
    """Standard error of the slope; NaN with fewer than three sizes."""
    regrets: tuple[float, ...]
    """How much more each size loses with the rate of the smallest; 0 for the smallest, NaN where not known."""

    @property
    def is_flat(self) -> bool | None:
        """Whether no trend is seen: zero lies within two standard errors. None where there is no error."""
        return None if math.isnan(self.error) else abs(self.slope) <= 2 * self.error


def transfers(studies: Iterable[Study]) -> tuple[Transfer, ...]:
    """One a (corpus, identifiers, family): studies of one D side by side."""
    families: dict[tuple[Any, ...], list[Study]] = {}
    for study in studies:
        place = (*(getattr(study, name) for name in LABELS), study.corpus_hash)
        families.setdefault(place, []).append(study)
    return tuple(_transfer(sorted(members, key=lambda one: one.n_params)) for members in families.values())


def _transfer(studies: Sequence[Study]) -> Transfer:
    known = [study for study in studies if math.isfinite(study.n_params)]
    slope, error = math.nan, math.nan
    if len({study.n_params for study in known}) >= 2:
        x = np.log([study.n_params for study in known])
        fitted = stats.linregress(x, np.log([best_rate(study) for study in known]))
        slope = float(fitted.slope)
        error = float(fitted.stderr) if len(known) >= 3 else math.nan
    rate = best_rate(studies[0])
    regrets = (0.0, *(study.loss_at(rate) - study.loss_at(best_rate(study)) for study in studies[1:]))
    return Transfer(studies=tuple(studies), slope=slope, error=error, regrets=regrets)


def best_rate(study: Study) -> float:
    """The parabola's optimum, which many attempts decide; else that of the best attempt."""
    return study.parabola.optimum if study.parabola is not None else study.chosen.learning_rate


def studies_of(rows: Iterable[dict[str, Any]]) -> tuple[Study, ...]:
    """From rows of `results.schema.TUNING`; a study without a chosen trial is left out."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["study"] or "", []).append(row)
    return tuple(_study(members) for members in found.values() if any(row["is_chosen"] for row in members))


def _study(rows: Sequence[dict[str, Any]]) -> Study:
    first = rows[0]
    return Study(
        grid=first["grid"] or "",
        corpus=first["corpus"] or "",
        corpus_hash=first["corpus_hash"] or "",
        identifiers=first["identifiers"] or "",
        family=first["family"] or "",
        model=first["model"] or "",
        n_params=_number(first["n_params"]),
        d_pairs=first["d_pairs"] or 0,
        epochs=first["epochs"] or 0,
        metric=first["metric"] or "",
        chance=_number(first["chance"]),
        attempts=tuple(
            Attempt(
                learning_rate=row["learning_rate"],
                batch=row["batch"],
                share=_number(row["share"]),
                dev_loss=_number(row["dev_loss"]),
                state=row["state"],
                seconds=_number(row["seconds"]),
                is_own=bool(row["is_own"]),
                is_chosen=bool(row["is_chosen"]),
            )
            for row in rows
        ),
    )


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def numbers(transfer: Transfer) -> dict[str, Any]:
    """For laws.json."""
    first = transfer.studies[0]
    labels = {name: getattr(first, name) for name in LABELS}
    return {
        **labels,
        "slope": transfer.slope,
        "slope_error": transfer.error,
        "sizes": [
            {
                "model": study.model,
                "n": study.n_params,
                "learning_rate": study.chosen.learning_rate,
                "batch": study.chosen.batch,
                "dev_loss": study.chosen.dev_loss,
                "own_learning_rate": study.own.learning_rate if study.own else None,
                "own_dev_loss": study.own.dev_loss if study.own else None,
                "optimum": vars(study.parabola) if study.parabola else None,
                "at_end": study.at_end,
                "chance": study.chance,
                "regret": regret,
                "trials": [vars(one) for one in sorted(study.attempts, key=lambda one: one.learning_rate)],
            }
            for study, regret in zip(transfer.studies, transfer.regrets, strict=True)
        ],
    }
