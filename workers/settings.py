"""What a user may set, as frozen pydantic models: the words of the grid file and of every worker function.

Each model is the one definition of its settings: the grid is parsed into them, keys are hashed from
them, workers receive them. Unknown keys and wrong types are errors that name the key.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_serializer, field_validator, model_validator

Count = Annotated[int, Field(strict=True, ge=1, le=2**53)]
Natural = Annotated[int, Field(strict=True, ge=0, le=2**53)]
Seed = Annotated[int, Field(strict=True, ge=0, le=2**32 - 1)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(strict=True, ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]


class Settings(BaseModel):
    """Frozen; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


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


# ---------------------------------------------------------------- identifiers


class Only(Settings):
    """Restricts an identifier kind to part of the grid's other axes."""

    models: tuple[str, ...] | None = None
    """Model labels, such as `t5-29k`."""
    pairs: tuple[Count, ...] | None = None
    beams: tuple[Count, ...] | None = None
    seeds: tuple[Seed, ...] | None = None


class IdentifierSettings(Settings):
    """What every kind has."""

    VIEWS: ClassVar[tuple[str, ...]] = ()
    """Names that a budget's `views` may choose from; none where a document is named in one way only."""

    kind: str
    pairs: tuple[Count, ...] | None = None
    """The data scales of this kind; the grid's `data.pairs` where left out."""
    only: Only = Only()


class SpanIdentifiers(IdentifierSettings):
    """Kinds that give a document one identifier: trained on its queries and on random spans of its text."""

    spans_per_document: Natural = 28
    """Random spans of each document trained on beside its queries."""
    span_length: Count = 12
    """Words in such a span."""


class VectorIdentifiers(SpanIdentifiers):
    """Kinds whose identifiers come from document embeddings."""

    embedding: str = "lsa"
    """`lsa` (TF-IDF + truncated SVD), or a Hugging Face encoder by name or folder."""
    dimensions: Count = 96
    """Of the LSA embedding."""


class NgramSettings(IdentifierSettings):
    """How spans of a document are picked for a query."""

    length: Annotated[int, Field(strict=True, ge=2, le=64)] = 8
    """Tokens in a span."""
    per_query: Count = 8
    """Spans a training query, each one (query, identifier) pair."""
    temperature: Positive = 1.5
    """Of the Gumbel top-k over the IDF of what a span (or a pseudo-query) shares with the query."""


TRAINING_QUERIES = "train"
"""What `queries` is where the training queries of a document are its pseudo-queries."""
MODEL_PREFIX = "model:"
"""What `queries` begins with where it names a model."""


def split_model(value: str) -> tuple[str, str]:
    """(`model:`, name or folder), or ("", value) where the value names no model."""
    prefix = MODEL_PREFIX if value.startswith(MODEL_PREFIX) else ""
    return prefix, value[len(prefix) :]


class PseudoQuerySettings(IdentifierSettings):
    """Where a document's pseudo-queries come from."""

    queries: Annotated[str, Field(min_length=1)] = TRAINING_QUERIES
    """`train`: the training queries of the document. A path: a file with a JSON object `{"id": ..., "queries":
    [...]}` a line. `model:` and a Hugging Face sequence-to-sequence model by name or folder: what it writes
    (docT5query, Nogueira and Lin 2019). Those that hold a held-out query are left out, wherever they come from."""
    per_document: Count = 8
    """Queries that a model writes for a document."""

    @model_validator(mode="after")
    def _model_is_named(self) -> "PseudoQuerySettings":
        if self.queries == MODEL_PREFIX:
            raise ValueError("`queries: model:` must be followed by a model's name or folder")
        return self


class NgramIdentifiers(NgramSettings):
    """Spans of the document, decoded under a suffix array of the whole corpus (SEAL, MINDER)."""

    kind: Literal["ngram"]


class CodebookIdentifiers(VectorIdentifiers):
    """Residual-quantisation codes of document embeddings, one new token a code, under a prefix constraint (RIPOR)."""

    kind: Literal["codebook"]
    levels: Annotated[int, Field(strict=True, ge=1, le=64)] = 4
    codes: Annotated[int, Field(strict=True, ge=2, le=65_536)] = 32
    """Codes a level."""


class HierarchicalIdentifiers(VectorIdentifiers):
    """Paths through hierarchical k-means of document embeddings, one new token a (level, digit) (DSI)."""

    kind: Literal["hierarchical"]
    branching: Annotated[int, Field(strict=True, ge=2, le=1024)] = 10
    """Clusters that a cluster is split into."""
    leaf: Annotated[int, Field(strict=True, ge=1, le=1024)] = 10
    """Documents up to which a cluster is not split: a last digit numbers them."""


class TitleIdentifiers(SpanIdentifiers):
    """The document's title (GENRE). Documents with the same title share it; those without one are never found."""

    kind: Literal["title"]
    max_length: Count = 32
    """Tokens after which a title is cut; titles that are equal up to there are one identifier."""


class NameIdentifiers(SpanIdentifiers):
    """The document's own id, as words: for ids that mean something, such as qualified names or paths."""

    kind: Literal["name"]
    max_length: Count = 32
    """Tokens after which a name is cut; names that are equal up to there are one identifier."""


class PseudoQueryIdentifiers(PseudoQuerySettings):
    """Queries that the document answers, each one an identifier of it."""

    kind: Literal["pseudo_query"]
    per_query: Count = 4
    """Pseudo-queries of the document that a training query is paired with, each one (query, identifier) pair."""
    temperature: Positive = 1.5
    """Of the Gumbel top-k over the IDF of what a pseudo-query shares with the query."""
    max_length: Count = 32
    """Tokens after which a pseudo-query is cut."""


class MultiviewIdentifiers(NgramSettings, PseudoQuerySettings):
    """Spans of the text, titles and pseudo-queries side by side, a search in each and one ranking (MINDER)."""

    VIEWS: ClassVar[tuple[str, ...]] = ("body", "title", "query")

    kind: Literal["multiview"]
    titles_per_query: Count = 2
    """How often a training query is paired with the title of its document."""
    pseudo_per_query: Count = 4
    """Pseudo-queries of the document that a training query is paired with."""
    max_length: Count = 32
    """Tokens after which a title or a pseudo-query is cut."""


AnyIdentifiers = Annotated[
    NgramIdentifiers
    | CodebookIdentifiers
    | HierarchicalIdentifiers
    | TitleIdentifiers
    | NameIdentifiers
    | PseudoQueryIdentifiers
    | MultiviewIdentifiers,
    Field(discriminator="kind"),
]


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
    """Pairs a forward pass of one worker; the whole batch's share where left out. However the batch is cut, the loss
    and its gradient are those of the whole, but for rounding (and for dropout, where a pretrained model has some)."""
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
    zero_stage: Annotated[int, Field(strict=True, ge=0, le=3)] = 0


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
    """What a batch may take, by the formula of `workers/memory.py`; its own limit where left out. Rankings and CGL do
    not depend on it beyond rounding; latency and memory do. Part of no key: it says what the machine has."""
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
