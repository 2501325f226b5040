"""Settings of every kind of identifier. `workers.settings` hands them on: import them from there."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from workers.words import Count, Natural, Positive, Seed, Settings


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
