"""Grid -> trials and the graph of steps behind them, each step known by a hash of everything that decides its result.

Two grids that ask for the same thing ask for the same key, so nothing that is finished is done again; an
evaluation depends on its training and never the other way round.
"""

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from types import MappingProxyType
from typing import Any, TypeVar

from orchestrator.grid import Grid, Point, budgets_of, points
from orchestrator.keys import canonical, decisive_training, key_of
from orchestrator.labels import identifiers_label, init_label, safe
from orchestrator.origins import in_effect
from orchestrator.tuning_settings import Tuned, TuneJob, is_tuned
from workers import corpus as corpora
from workers.errors import BadInput
from workers.models.ladder import RUNGS, rung_shape
from workers.models.shapes import PRETRAINED, count_parameters
from workers.settings import (
    AnyIdentifiers,
    BaselinesJob,
    Budget,
    EmbeddingSettings,
    EmbeddingsJob,
    IdentifiersJob,
    ModelSettings,
    ScoreJob,
    SearchJob,
    Settings,
    TokenizerJob,
    TrainingSettings,
    TrainJob,
)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One unit of work. `needs` are (role, key); a role is the kind of the step that is needed."""

    kind: str
    key: str
    settings: Settings
    needs: tuple[tuple[str, str], ...] = ()
    workers: int = 1
    """Workers that do it together."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One point of the grid: its labels, and the keys of its three own steps."""

    trial: str
    corpus: str
    identifiers: str
    family: str
    model: str
    init: str
    seed: int
    pairs: int
    budget: Budget
    n_params: int | None
    """Known before training from the model's shape; None for a pretrained model that is not in the table."""
    train: str
    score: str
    search: str

    @property
    def label(self) -> str:
        """The trial's name without its settings' hash."""
        return self.trial.rpartition("-")[0]


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Steps by key, each after those that it needs; trials in the grid's order."""

    steps: dict[str, Step]
    trials: tuple[Trial, ...]
    corpus: str
    baselines: str
    tunes: dict[str, str] = field(default_factory=dict)
    """Training -> the study that its learning rate is from, of trainings whose rate is tuned."""

    @property
    def outcomes(self) -> frozenset[str]:
        """Steps that rows are made of."""
        own = ((trial.train, trial.score, trial.search) for trial in self.trials)
        return frozenset((self.baselines, *itertools.chain.from_iterable(own)))

    def count(self) -> Counter[str]:
        """Steps by kind."""
        return Counter(step.kind for step in self.steps.values())


def recipe_of(graph: "Graph", trial: "Trial") -> str:
    """12 hex digits: trainings with the same ones differ in what a law is about, and in learning rate and seed, only.

    Hashed: tokenizer settings (none for a pretrained model, which brings its own), training settings but the
    learning rate and what no result depends on, and how many workers train together. Where the batch was tuned, its
    choices stand in its place: each model has its own best one, and a law is about models at their best.
    """
    step = graph.steps[trial.train]
    tokens = graph.steps[dict(step.needs)["tokenizer"]].settings
    assert isinstance(step.settings, TrainJob)
    assert isinstance(tokens, TokenizerJob)
    training = decisive_training(step.settings.training)
    for name in ("learning_rate", "log_every", "checkpoint_every"):
        del training[name]
    settings: dict[str, Any] = {
        "tokenizer": tokens.tokenizer.model_dump(mode="json") if tokens.tokenizer else None,
        "training": training,
        "workers_per_training": step.workers,
    }
    study = graph.steps[graph.tunes[trial.train]].settings if trial.train in graph.tunes else None
    if isinstance(study, TuneJob) and study.batch:
        settings["training"]["batch"] = list(study.batch)
    return hashlib.sha256(canonical(settings).encode()).hexdigest()[:12]


def n_params(model: ModelSettings) -> int | None:
    """N from the model's shape; None for a pretrained model that is not in the table."""
    if model.size is not None:
        return count_parameters(rung_shape(model.family, model.size, vocabulary=1)).n_params
    shape = PRETRAINED.get(model.pretrained or "")
    return count_parameters(shape).n_params if shape else None


# ---------------------------------------------------------------- the graph


Made = TypeVar("Made")


def _once(make: Callable[..., Made]) -> Callable[..., Made]:
    """A builder's method that is carried out once for each of its arguments: most trials share most of their steps."""

    @wraps(make)
    def remembered(builder: "_Builder", *arguments: Any) -> Made:
        known = (make.__name__, *arguments)
        if known not in builder.made:
            builder.made[known] = make(builder, *arguments)
        found: Made = builder.made[known]
        return found

    return remembered


@dataclass
class _Builder:
    """Adds steps once each, every step after what it needs."""

    grid: Grid
    fingerprint: str
    tuned: Mapping[str, Tuned]
    steps: dict[str, Step] = field(default_factory=dict)
    made: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    tunes: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, settings: Settings, needs: tuple[str, ...] = (), together: int = 1, **more: Any) -> str:
        roles = {self.steps[key].kind: key for key in needs}
        key = key_of(kind, settings, roles, **more)
        if key not in self.steps:
            step = Step(kind=kind, key=key, settings=settings, needs=tuple(roles.items()), workers=together)
            self.steps[key] = step
        return key

    @_once
    def corpus(self) -> str:
        return self.add("corpus", self.grid.corpus, fingerprint=self.fingerprint)

    @_once
    def tokenizer(self, model: ModelSettings) -> str:
        job = TokenizerJob(
            tokenizer=None if model.pretrained else self.grid.tokenizer,
            pretrained=model.pretrained,
        )
        return self.add("tokenizer", job, (self.corpus(),))

    @_once
    def embeddings(self, model: ModelSettings) -> tuple[str, ...]:
        """The key, or nothing where the model does not start from the corpus's embeddings."""
        if model.size is None or model.embeddings.kind == "random":
            return ()
        rank = embedding_rank(model)
        assert rank is not None
        job = EmbeddingsJob(window=model.embeddings.window, rank=rank)
        return (self.add("embeddings", job, (self.tokenizer(model),)),)

    @_once
    def identifiers(self, identifiers: AnyIdentifiers, model: ModelSettings) -> str:
        job = IdentifiersJob(identifiers=in_effect(identifiers), seed=self.grid.data.seed)
        return self.add("identifiers", job, (self.corpus(), self.tokenizer(model)))

    def baselines(self) -> str:
        ladder = [model for model in self.grid.models if model.size is not None]
        ranks = {rank for model in ladder if (rank := embedding_rank(model)) is not None}
        job = BaselinesJob(ranks=tuple(sorted(ranks)), evaluation=self.grid.evaluation)
        return self.add("baselines", job, (self.corpus(), self.tokenizer((ladder or self.grid.models)[0])))

    @_once
    def tune(self, identifiers: AnyIdentifiers, model: ModelSettings) -> str:
        """One study a model and kind: how fast identifiers of a kind can be learnt differs by what they are."""
        tuning = self.grid.tuning
        assert tuning is not None
        training = self.grid.training.model_copy(update={"learning_rate": None})
        if tuning.batch:
            training = training.model_copy(update={"batch": TrainingSettings.model_fields["batch"].default})
        job = TuneJob(
            model=_bare(model),
            training=training.model_copy(update={"epochs": tuning.epochs or training.epochs}),
            first=learning_rate(self.grid, model),
            batch=tuning.batch or (),
            negatives=self.grid.evaluation.negatives if tuning.metric == "dev_cgl" else 1,
            budget=next(budgets_of(self.grid, identifiers))[1] if tuning.metric == "dev_rr" else None,
            **tuning.model_dump(exclude={"models", "batch", "epochs"}),
        )
        needs = (
            self.corpus(),
            self.tokenizer(model),
            self.identifiers(identifiers, model),
            *self.embeddings(model),
        )
        return self.add("tune", job, needs, **self._together())

    @_once
    def train(self, identifiers: AnyIdentifiers, model: ModelSettings, pairs: int, seed: int) -> str:
        needs: tuple[str, ...] = (self.tokenizer(model), self.identifiers(identifiers, model), *self.embeddings(model))
        values: dict[str, Any] = {"learning_rate": learning_rate(self.grid, model)}
        study = self.tune(identifiers, model) if is_tuned(self.grid.tuning, model) else None
        if study is not None and study in self.tuned:
            values = self.tuned[study].model_dump(include={"learning_rate", "batch"}, exclude_none=True)
        elif study is not None:  # of a key that will not be: what the rate is, nobody knows yet
            values, needs = {"learning_rate": None}, (*needs, study)
        job = TrainJob(
            model=_bare(model), training=self.grid.training.model_copy(update=values), pairs=pairs, seed=seed
        )
        key = self.add("train", job, needs, **self._together())
        if study is not None:
            self.tunes[key] = study
        return key

    def _together(self) -> dict[str, int]:
        """Sums over another number of workers round differently, and a checkpoint is split by them."""
        workers = self.grid.resources.together
        return {"together": workers, "workers": workers} if workers > 1 else {}

    @_once
    def score(self, identifiers: AnyIdentifiers, model: ModelSettings, train: str) -> str:
        return self.add(
            "score", ScoreJob(evaluation=self.grid.evaluation), self._for_evaluation(identifiers, model, train)
        )

    def search(self, identifiers: AnyIdentifiers, model: ModelSettings, train: str, budget: Budget) -> str:
        job = SearchJob(evaluation=self.grid.evaluation, budget=budget)
        return self.add("search", job, self._for_evaluation(identifiers, model, train))

    def _for_evaluation(self, identifiers: AnyIdentifiers, model: ModelSettings, train: str) -> tuple[str, ...]:
        return (self.corpus(), self.tokenizer(model), self.identifiers(identifiers, model), train)

    @_once
    def label(self, identifiers: AnyIdentifiers) -> str:
        return identifiers_label(identifiers)


def embedding_rank(model: ModelSettings) -> int | None:
    """Rank of the corpus embeddings that a ladder model starts from; its width where the grid gives none."""
    if model.size is None:
        return None
    return model.embeddings.rank or RUNGS[model.family][model.size].width


def learning_rate(grid: Grid, model: ModelSettings) -> float | None:
    """The model's own, else the grid's, else the ladder's; None for a pretrained model where nothing is given."""
    given = model.learning_rate or grid.training.learning_rate
    if given is None and model.size is not None:
        return RUNGS[model.family][model.size].learning_rate
    return given


def _bare(model: ModelSettings) -> ModelSettings:
    """The model without what is told elsewhere (its learning rate) or does not apply to it."""
    embeddings = model.embeddings
    if model.pretrained is not None:
        embeddings = EmbeddingSettings()
    elif embeddings.kind == "random":
        embeddings = EmbeddingSettings(kind="random")
    return model.model_copy(update={"learning_rate": None, "embeddings": embeddings})


def expand(grid: Grid, tuned: Mapping[str, Tuned] = MappingProxyType({})) -> Graph:
    """All trials and steps of a grid; reads the corpus's fingerprint, not the corpus.

    Args:
        tuned: key of a finished study -> what it found. A training whose study is not there depends on the study,
            and has a key that it will not have once the study has ended.

    Raises:
        BadInput: the corpus, or a model's folder, is not there or cannot be read.
    """
    try:
        fingerprint = corpora.fingerprint(grid.corpus)
    except OSError as error:
        raise BadInput(f"corpus.path: cannot be read: {error.strerror}: {error.filename}") from None
    builder = _Builder(grid=grid, fingerprint=fingerprint, tuned=tuned)
    corpus, baselines = builder.corpus(), builder.baselines()
    name = safe(corpora.name(grid.corpus))
    trials: dict[str, Trial] = {}
    for point in points(grid):
        trial = _trial(builder, name, point)
        trials.setdefault(trial.trial, trial)
    return Graph(
        steps=builder.steps, trials=tuple(trials.values()), corpus=corpus, baselines=baselines, tunes=builder.tunes
    )


def _trial(builder: _Builder, corpus: str, point: Point) -> Trial:
    identifiers, model, pairs, seed, budget = point
    train = builder.train(identifiers, model, pairs, seed)
    score = builder.score(identifiers, model, train)
    search = builder.search(identifiers, model, train, budget)
    label = builder.label(identifiers)
    digest = hashlib.sha256(canonical([train, score, search]).encode()).hexdigest()[:8]
    return Trial(
        trial=f"{corpus}-{label}-{safe(model.label)}-d{pairs}-s{seed}-{budget.label}-{digest}",
        corpus=corpus,
        identifiers=label,
        family=model.family,
        model=model.label,
        init=init_label(model),
        seed=seed,
        pairs=pairs,
        budget=budget,
        n_params=n_params(model),
        train=train,
        score=score,
        search=search,
    )
