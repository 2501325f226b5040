"""The `tuning:` block of a grid: how the learning rate of each model is found before the grid trains it."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, field_validator

from orchestrator.source import Place, Source
from workers.settings import (
    Budget,
    Count,
    EvaluationSettings,
    LookSettings,
    Metric,
    ModelSettings,
    Positive,
    Seed,
    Settings,
    TrainingSettings,
)

Trials = Annotated[int, Field(strict=True, ge=3, le=10_000)]
Grace = Annotated[float, Field(strict=True, gt=0, le=1)]
Reduction = Annotated[int, Field(strict=True, ge=2, le=100)]


class TuningSettings(Settings):
    """One study a model and identifier kind: TPE proposes, ASHA stops what falls behind, dev queries decide."""

    pairs: Count
    """D of every trial: a small one, because the best rate is found again and again on it."""
    trials: Trials = 12
    """Of each study, stopped ones included."""
    learning_rate: tuple[Positive, Positive] = (1e-4, 1e-1)
    """The range that is searched, evenly in the logarithm."""
    batch: tuple[Count, ...] | None = None
    """Batches to choose from; the grid's `training.batch` where left out."""
    models: tuple[str, ...] | None = None
    """Labels of the models that are tuned, such as `t5-29k`; all where left out."""
    epochs: Count | None = None
    """Passes over the pairs; the grid's `training.epochs` where left out."""
    metric: Metric = "dev_rr"
    """What is least at the best rate, over the dev queries: 1 - RR@10 of a search under the grid's first budget; CGL;
    or the mean NLL of their identifiers' tokens. Likelihoods mislead: CGL is best with rates at which little is learnt
    and nothing is sure, NLL with rates at which it is learnt which tokens are common."""
    grace: Grace = 0.5
    """Share of a training before which none is stopped; 1 stops none. Early on, while the rate has hardly fallen,
    smaller rates look better than they will be, so a small share stops the wrong ones."""
    reduction: Reduction = 2
    """One in so many goes on where trials are compared: at `grace`, `grace * reduction` and so on."""
    seed: Seed = 0
    """Of the trainings and of the search."""

    @field_validator("learning_rate")
    @classmethod
    def _rises(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not value[0] < value[1]:
            raise ValueError(f"must rise, such as [1e-4, 3e-2], not [{value[0]:g}, {value[1]:g}]")
        return value


class TuneJob(Settings):
    """One study: everything that decides what it finds, but the order in which its trials happen to end.

    `training.learning_rate` is empty, and `training.batch` is what the trials have unless `batch` has choices.
    """

    model: ModelSettings
    training: TrainingSettings
    pairs: Count
    seed: Seed
    first: Positive | None
    """The rate that the model would have without a tuning: the first trial, where it is within the range."""
    trials: Trials
    learning_rate: tuple[Positive, Positive]
    batch: tuple[Count, ...]
    """Choices; empty where the batch is not tuned."""
    metric: Metric
    negatives: Count
    """Of CGL, as in the grid's evaluation; 1 where it is not what is measured."""
    budget: Budget | None
    """Of the search; None where that is not what is measured."""
    grace: Grace
    reduction: Reduction

    @property
    def looks(self) -> LookSettings:
        """How a trial is measured: at ASHA's rungs, and at the end."""
        rungs = int(math.log(1 / self.grace) / math.log(self.reduction) + 1)
        shares = (*(share for rung in range(rungs) if (share := self.grace * self.reduction**rung) < 1), 1.0)
        return LookSettings(shares=shares, metric=self.metric, negatives=self.negatives, budget=self.budget)

    @property
    def trainings(self) -> float:
        """How many whole trainings its trials come to, should ASHA stop as many as it means to."""
        kept, before, total = 1.0, 0.0, 0.0
        for share in self.looks.shares:
            total += kept * (share - before)
            kept, before = kept / self.reduction, share
        return self.trials * total


class Tuned(Settings):
    """What a study has found: `best.json` of its step."""

    learning_rate: Positive
    batch: Count | None = None
    """None where the batch was not tuned."""
    dev_loss: float
    """Of the best: 1 - RR@10, or CGL or NLL in nats."""
    chance: float | None = None
    """CGL of a model that ignores the query; None for the others."""
    trials: Count
    """All that ended: trained, stopped early, or diverged."""
    at_end: Literal["low", "high"] | None = None
    """The end of the range that the best rate is the outermost trained one towards: a wider range may have better."""

    @property
    def has_learnt(self) -> bool:
        """Whether the best is better than chance."""
        return self.chance is None or self.dev_loss < self.chance


def is_tuned(tuning: TuningSettings | None, model: ModelSettings) -> bool:
    """Whether the grid tunes the model."""
    return tuning is not None and (tuning.models is None or model.label in tuning.models)


def check(
    tuning: TuningSettings,
    models: Sequence[ModelSettings],
    training: TrainingSettings,
    evaluation: EvaluationSettings,
    together: int,
    source: Source,
) -> None:
    """Raises BadInput where the block and the rest of the grid do not go together. `together`: workers a training."""
    labels = [model.label for model in models]
    for position, label in enumerate(tuning.models or ()):
        if label not in labels:
            raise source.error(("tuning", "models", position), f"{label!r} is no model; there are {', '.join(labels)}")
    for name, values in (("models", tuning.models), ("batch", tuning.batch)):
        if values is not None and not values:
            raise source.error(("tuning", name), "holds no value")
    for position, model in enumerate(models):
        if model.learning_rate is not None and is_tuned(tuning, model):
            message = "is given to a model that is tuned; leave it out, or name the models to tune in tuning.models"
            raise source.error(("models", position, "learning_rate"), message)
    if training.learning_rate is not None and all(is_tuned(tuning, model) for model in models):
        raise source.error(("training", "learning_rate"), "would have no effect: every model's is tuned")
    if evaluation.split == "dev":
        message = "must be `test`: the dev queries choose the learning rates, so they can measure nothing"
        raise source.error(("evaluation", "split"), message)
    for position, batch in enumerate(tuning.batch or ()):
        _check_batch(batch, training.micro_batch or 1, together, source, ("tuning", "batch", position))


def _check_batch(batch: int, micro: int, workers: int, source: Source, place: Place) -> None:
    if batch % (workers * micro):
        raise source.error(place, f"{batch} pairs cannot be cut into micro-batches of {micro} on {workers} worker(s)")
