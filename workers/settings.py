"""What a user may set, as frozen pydantic models: the words of the grid file and of every worker function.

Each model is the one definition of its settings: the grid is parsed into them, keys are hashed from
them, workers receive them. Unknown keys and wrong types are errors that name the key.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, field_serializer, field_validator, model_validator

from workers.identifier_settings import (
    MODEL_PREFIX,
    TRAINING_QUERIES,
    AnyIdentifiers,
    CodebookIdentifiers,
    HierarchicalIdentifiers,
    IdentifierSettings,
    MultiviewIdentifiers,
    NameIdentifiers,
    NgramIdentifiers,
    NgramSettings,
    Only,
    PseudoQueryIdentifiers,
    PseudoQuerySettings,
    SpanIdentifiers,
    TitleIdentifiers,
    VectorIdentifiers,
    split_model,
)
from workers.words import Auto, Count, Fraction, Name, Natural, Offload, Positive, Seed, Settings, auto_or

__all__ = [
    "MODEL_PREFIX",
    "TRAINING_QUERIES",
    "AnyIdentifiers",
    "BaselinesJob",
    "Budget",
    "CodebookIdentifiers",
    "Count",
    "EmbeddingSettings",
    "EmbeddingsJob",
    "EvaluationSettings",
    "Fraction",
    "HierarchicalIdentifiers",
    "IdentifierSettings",
    "IdentifiersJob",
    "ModelSettings",
    "MultiviewIdentifiers",
    "Name",
    "NameIdentifiers",
    "Natural",
    "NgramIdentifiers",
    "NgramSettings",
    "Offload",
    "Only",
    "Positive",
    "ProcessGroup",
    "PseudoQueryIdentifiers",
    "PseudoQuerySettings",
    "ScoreJob",
    "SearchJob",
    "Seed",
    "Settings",
    "SpanIdentifiers",
    "TitleIdentifiers",
    "TokenizerJob",
    "TokenizerSettings",
    "TrainJob",
    "TrainingSettings",
    "VectorIdentifiers",
    "split_model",
]

# ---------------------------------------------------------------- tokenizer and embeddings


class TokenizerSettings(Settings):
    """A byte-level BPE trained on documents and training queries. A pretrained model brings its own instead."""

    vocabulary: Annotated[int, Field(strict=True, ge=300, le=65_000)] = 4096
    lowercase: bool = True


class EmbeddingSettings(Settings):
    """How a ladder model's token embeddings start."""

    kind: Literal["random", "ppmi"] = "ppmi"
    rank: Count | None = None
    """Rank of the PPMI + SVD factorisation; the model's width where it is left out. Hold it fixed across
    sizes in a grid that claims a law in N."""
    window: Count = 10
    """Tokens on each side that count as context."""


# ---------------------------------------------------------------- models and training


class ModelSettings(Settings):
    """One model: a rung of the ladder (`size`) or a pretrained one (`pretrained`)."""

    family: Literal["t5", "llama"]
    size: str | None = None
    """A rung of the family's ladder, such as `29k`; see `workers/models/ladder.py`."""
    pretrained: str | None = None
    """A Hugging Face name or folder."""
    embeddings: EmbeddingSettings = EmbeddingSettings()
    learning_rate: Positive | None = None
    """Overrides the rung's own, and `training.learning_rate`."""

    @model_validator(mode="after")
    def _one_origin(self) -> "ModelSettings":
        if (self.size is None) == (self.pretrained is None):
            raise ValueError("give either `size` or `pretrained`")
        return self

    @property
    def label(self) -> str:
        """`t5-29k`, or the pretrained model's last path part."""
        if self.size is not None:
            return f"{self.family}-{self.size}"
        assert self.pretrained is not None
        return self.pretrained.rstrip("/").split("/")[-1]


class TrainingSettings(Settings):
    """AdamW with warm-up and linear decay."""

    epochs: Count = 2
    batch: Count = 32
    """Pairs an optimizer step, over all workers and accumulation."""
    micro_batch: Count | None = None
    """Pairs a forward pass of one worker; where left out, the whole batch's share on a CPU, and on a GPU as much of
    it as fits. One that was not asked for is part of no key. However the batch is cut, the loss and its gradient are
    those of the whole, but for rounding (and for dropout, where a pretrained model has some)."""
    learning_rate: Positive | None = None
    """For every model; the ladder's own where left out."""
    warmup: Fraction = 0.05
    """Share of the steps."""
    weight_decay: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] = 0.01
    beta2: Annotated[float, Field(strict=True, gt=0, lt=1)] = 0.98
    clip: Positive = 1.0
    """Largest norm of the gradient."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto`: bf16 on a GPU that has it, fp32 elsewhere."""
    query_length: Count = 64
    """Longest query in tokens; a longer one is cut."""
    checkpoint_every: Count = 500
    """Optimizer steps between checkpoints."""
    log_every: Count = 20
    """Optimizer steps between rows of the curve."""
    keep_weights: bool = True
    """Whether weights stay when the last evaluation that the grid asks of them is done. Without them a new budget
    needs the training once more. Part of no key."""
    zero_stage: Annotated[
        int | Auto, auto_or("a stage from 0 to 3", lambda value: isinstance(value, int) and 0 <= value <= 3)
    ] = "auto"
    """What ZeRO spreads over the workers: 1 the optimizer, 2 gradients too, 3 weights too. `auto`: the cheapest that
    fits, and 0 for keys."""
    offload: Annotated[
        Offload | Auto,
        auto_or("one of none, optimizer, parameters", lambda value: value in ("none", "optimizer", "parameters")),
    ] = "auto"
    """What is kept in RAM in place of the GPU: the optimizer (stage 1 on), and the weights too (stage 3). `auto`: the
    least that fits, and `none` for keys."""

    @model_validator(mode="after")
    def _stage_can_offload(self) -> "TrainingSettings":
        least = {"optimizer": 1, "parameters": 3}.get(self.offload, 0)
        if self.zero_stage != "auto" and self.zero_stage < least:
            raise ValueError(f"`offload: {self.offload}` needs `zero_stage: {least}` or more, or `auto`")
        return self

    @property
    def stage(self) -> int:
        """The ZeRO stage; where none was chosen 0, or the least that the offload needs."""
        if self.zero_stage == "auto":
            return {"optimizer": 1, "parameters": 3}.get(self.offload, 0)
        return self.zero_stage

    @property
    def offloaded(self) -> Offload:
        """What is offloaded; nothing where none was chosen."""
        return "none" if self.offload == "auto" else self.offload


class Budget(Settings):
    """What inference may spend on a query. In the grid file each of these may be a list: an axis of budgets."""

    beams: Count | None = None
    """Of the beam search; left out where identifiers are sampled."""
    samples: Count | None = None
    """Identifiers that are sampled instead of searched for."""
    temperature: Positive = 1.0
    """Of the sampling."""
    max_new_tokens: Count | None = None
    """Longest identifier written; its own length where left out. One that is cut off names all that begin so."""
    views: tuple[str, ...] | None = None
    """Views that are searched, of a kind that has several; all of them where left out. In the grid file names are
    joined by `+` (`views: body+title`), because a list is an axis: `views: [null, body, body+title]` is three
    budgets. A budget with views is no budget of kinds that lack one of them."""
    rerank: Count | None = None
    """Best documents that are ranked again, by the likelihood of their identifiers in full."""

    @field_validator("views", mode="before")
    @classmethod
    def _joined(cls, value: Any) -> Any:
        """Names in one order, so that the same views are the same budget."""
        names = value.split("+") if isinstance(value, str) else value
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            return value
        names = [name.strip() for name in names]
        if not names or not all(names) or len(set(names)) < len(names):
            raise ValueError(f"must be distinct names joined by `+`, such as `body+title`, not {value!r}")
        return tuple(sorted(names))

    @field_serializer("views")
    def _as_written(self, views: tuple[str, ...] | None) -> str | None:
        return "+".join(views) if views else None

    @model_validator(mode="after")
    def _one_way(self) -> "Budget":
        if (self.beams is None) == (self.samples is None):
            raise ValueError("give either `beams` or `samples`")
        if self.samples is None and self.temperature != 1.0:
            raise ValueError("`temperature` is of sampling: give `samples`, not `beams`")
        return self

    @property
    def label(self) -> str:
        """`b16`, `s32t0.7`, `b16-vbody+title-r10-m4`."""
        heat = f"t{self.temperature:g}" if self.temperature != 1.0 else ""
        parts = [f"b{self.beams}" if self.samples is None else f"s{self.samples}{heat}"]
        parts += [f"v{'+'.join(self.views)}"] if self.views else []
        parts += [f"r{self.rerank}"] if self.rerank else []
        parts += [f"m{self.max_new_tokens}"] if self.max_new_tokens else []
        return "-".join(parts)


class EvaluationSettings(Settings):
    """How metrics are measured."""

    negatives: Count = 256
    """Identifiers of other documents that CGL contrasts the right one with, the same for every model."""
    seed: Seed = 0
    split: Literal["dev", "test"] = "test"
    depth: Annotated[int, Field(strict=True, ge=100)] = 100
    """Documents a query in the run file."""
    batch: Count | None = None
    """Queries decoded together; as many as memory allows where left out, and fewer where `memory_mb` is given and
    allows fewer. Rankings do not depend on it beyond rounding; latency and memory do."""
    memory_mb: Count | None = None
    """What a batch may take, by `workers/search_memory.py`'s formula; its own limit where left out. Rankings and CGL
    do not depend on it beyond rounding; latency and memory do. Part of no key: it says what the machine has."""
    bootstrap: Annotated[int, Field(strict=True, ge=100)] = 1000
    """Resamples of the queries behind each interval."""


# ---------------------------------------------------------------- jobs: the settings of one step each


class TokenizerJob(Settings):
    """Train a tokenizer on the corpus (`tokenizer`), or take a pretrained model's (`pretrained`)."""

    tokenizer: TokenizerSettings | None
    pretrained: str | None


class EmbeddingsJob(Settings):
    """PPMI + SVD token embeddings."""

    window: Count
    rank: Count


class IdentifiersJob(Settings):
    """Identifiers, their index, and the training pairs in one seeded order."""

    identifiers: AnyIdentifiers
    seed: Seed


class BaselinesJob(Settings):
    """What every table is printed beside. `ranks`: of the untrained embeddings."""

    ranks: tuple[Count, ...]
    evaluation: EvaluationSettings


class TrainJob(Settings):
    """One training; `training.learning_rate` is resolved."""

    model: ModelSettings
    training: TrainingSettings
    pairs: Count
    seed: Seed


Metric = Literal["dev_rr", "dev_cgl", "dev_nll"]
"""1 - RR@10 of a search, CGL, or NLL of the dev queries: less is better."""


class LookSettings(Settings):
    """How a trial of a tuning is measured on its way, on the dev queries."""

    shares: tuple[float, ...]
    """Of the training, rising, in (0, 1]: when."""
    metric: Metric
    negatives: Count
    """Of CGL."""
    budget: Budget | None
    """Of the search."""


class ScoreJob(Settings):
    """CGL and NLL of one training's checkpoint."""

    evaluation: EvaluationSettings


class SearchJob(Settings):
    """Retrieval with one training's checkpoint under one budget."""

    evaluation: EvaluationSettings
    budget: Budget


class ProcessGroup(Settings):
    """This worker's place among those that train one model together."""

    rank: Natural = 0
    size: Count = 1
    address: str | None = None
    """`host:port` of rank 0; not needed where `size` is 1."""
