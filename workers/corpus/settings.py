"""What a user may set of a corpus; see `workers.settings` for everything else."""

from typing import Annotated, Literal

from pydantic import Field

from workers.settings import Count, Name, Natural, Seed, Settings


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
