"""What a user may set, as frozen pydantic models: the words of the grid file and of every worker function.

Each model is the one definition of its settings: the grid is parsed into them, keys are hashed from
them, workers receive them. Unknown keys and wrong types are errors that name the key.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(strict=True, ge=1, le=2**53)]
Natural = Annotated[int, Field(strict=True, ge=0, le=2**53)]
Seed = Annotated[int, Field(strict=True, ge=0, le=2**32 - 1)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(strict=True, ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]


class Settings(BaseModel):
    """Frozen; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


# ---------------------------------------------------------------- corpus


class CorpusSettings(Settings):
    """What every corpus has: a seeded subset of its documents, and held-out queries."""

    name: Name | None = None
    """Shown in results; the source's name where it is left out."""
    documents: Count | None = None
    """How many documents to keep, chosen by `seed`; all where it is left out."""
    seed: Seed = 0
    dev: Natural = 100
    """Held-out queries for tuning. At most one query of a document is held out."""
    test: Count = 300
    """Held-out queries that every reported metric is measured on."""
    title_in_text: bool = True
    """Whether the title is put before the text when a document is indexed."""


class PydocsCorpus(CorpusSettings):
    """API documentation of the standard library and of installed packages."""

    source: Literal["pydocs"]
    packages: tuple[str, ...] | None = None
    """Top-level import names, `stdlib` for the whole standard library; all of Gridlaw's dependencies if left out."""
    min_queries: Count = 2
    """Documents with fewer sentences in their docstring's prose are left out."""


class JsonlCorpus(CorpusSettings):
    """One JSON object a line: `text`, `queries` and optionally `id`, `title`. Plain, .gz, .xz or .zst."""

    source: Literal["jsonl"]
    path: str


class BeirCorpus(CorpusSettings):
    """A BEIR folder: `corpus.jsonl`, `queries.jsonl`, `qrels/{train,dev,test}.tsv`."""

    source: Literal["beir"]
    path: str


class HfColumns(Settings):
    """Which column of the dataset holds what. Rows with the same id (or text) become one document."""

    text: str = "text"
    query: str = "query"
    """A string, or a list of strings."""
    title: str | None = None
    id: str | None = None


class HfCorpus(CorpusSettings):
    """Any Hugging Face dataset, by hub name or local folder, through `datasets.load_dataset`."""

    source: Literal["hf"]
    path: str
    subset: str | None = None
    split: str = "train"
    """As `datasets` writes it: `train`, `train+validation`, `train[:10%]`."""
    revision: str | None = None
    columns: HfColumns = HfColumns()


AnyCorpus = Annotated[PydocsCorpus | JsonlCorpus | BeirCorpus | HfCorpus, Field(discriminator="source")]


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


class NgramIdentifiers(Settings):
    """Spans of the document, decoded under a suffix array of the whole corpus (SEAL, MINDER)."""

    kind: Literal["ngram"]
    length: Annotated[int, Field(strict=True, ge=2, le=64)] = 8
    """Tokens in a span."""
    per_query: Count = 8
    """Spans a training query, each one (query, identifier) pair."""
    temperature: Positive = 1.5
    """Of the Gumbel top-k over a span's IDF-weighted overlap with the query."""
    pairs: tuple[Count, ...] | None = None
    """The data scales of this kind; the grid's `data.pairs` where left out."""
    only: Only = Only()


class CodebookIdentifiers(Settings):
    """Residual-quantisation codes of document embeddings, one new token a code, under a prefix constraint (RIPOR)."""

    kind: Literal["codebook"]
    levels: Annotated[int, Field(strict=True, ge=1, le=64)] = 4
    codes: Annotated[int, Field(strict=True, ge=2, le=65_536)] = 32
    """Codes a level."""
    embedding: str = "lsa"
    """`lsa` (TF-IDF + truncated SVD), or a Hugging Face encoder by name or folder."""
    dimensions: Count = 96
    """Of the LSA embedding."""
    spans_per_document: Natural = 28
    """Random spans of each document trained on beside its queries."""
    span_length: Count = 12
    """Words in such a span."""
    pairs: tuple[Count, ...] | None = None
    """The data scales of this kind; the grid's `data.pairs` where left out."""
    only: Only = Only()


AnyIdentifiers = Annotated[NgramIdentifiers | CodebookIdentifiers, Field(discriminator="kind")]


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
    """Pairs a forward pass of one worker; the whole batch's share where left out."""
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
    zero_stage: Annotated[int, Field(strict=True, ge=0, le=3)] = 0


class Budget(Settings):
    """What inference may spend on a query."""

    beams: Count
    max_new_tokens: Count | None = None
    """Longest n-gram written; the identifier's own length where left out."""


class EvaluationSettings(Settings):
    """How metrics are measured."""

    negatives: Count = 256
    """Identifiers of other documents that CGL contrasts the right one with, the same for every model."""
    seed: Seed = 0
    split: Literal["dev", "test"] = "test"
    depth: Annotated[int, Field(strict=True, ge=100)] = 100
    """Documents a query in the run file."""
    batch: Count = 32
    """Queries decoded together."""
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
