"""Shared by all tests: no network, one thread, and a small corpus taken through the prepare steps once."""

import os

os.environ.update(
    OMP_NUM_THREADS="1",
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    WANDB_MODE="offline",
    RAY_USAGE_STATS_ENABLED="0",
)

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import s3_server

SUBJECTS = ("river", "engine", "violin", "harbour", "planet", "orchid", "glacier", "bridge", "falcon", "castle")
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
VERBS = ("carries", "guards", "crosses", "paints", "follows", "measures", "mirrors", "feeds")


@pytest.fixture(scope="module")
def server() -> Iterator[s3_server.Server]:
    """An S3-compatible server, with the credentials for it in the environment."""
    with pytest.MonkeyPatch.context() as patch, s3_server.serve() as found:
        for name, value in s3_server.ENVIRONMENT.items():
            patch.setenv(name, value)
        yield found


@dataclass(frozen=True)
class Steps:
    """Folders of finished prepare steps."""

    corpus: Path
    tokenizer: Path
    embeddings: Path
    ngram: Path
    codebook: Path


@pytest.fixture(scope="session")
def finished_steps(tmp_path_factory: pytest.TempPathFactory) -> Steps:
    """48 documents with four queries each, one in four held out; among them odd scripts, twins and one-word texts."""
    from workers.corpus.documents import Corpus, Document, Query, write
    from workers.embeddings import prepare as prepare_embeddings
    from workers.identifiers import prepare as prepare_identifiers
    from workers.settings import (
        CodebookIdentifiers,
        EmbeddingsJob,
        IdentifiersJob,
        NgramIdentifiers,
        TokenizerJob,
        TokenizerSettings,
    )
    from workers.tokenizer import prepare as prepare_tokenizer

    rng = np.random.default_rng(0)
    names = [
        "".join(rng.choice(list("bdfgklmnprstvz")) + rng.choice(list("aeiou")) for _ in range(3)) for _ in range(48)
    ]
    bodies = [
        " ".join(f"{name} {rng.choice(VERBS)} the {rng.choice(SUBJECTS)} of {name}." for _ in range(5))
        for name in names[:44]
    ]
    bodies += ["汶川大地震 Wènchuān 🌍 \x00\x07 \u202e abc", "word", bodies[0], "<|pad|> <|id|> </s>"]
    documents = [Document(docid=f"d{i}", title=f"T{i}", text=text) for i, text in enumerate(bodies)]
    queries = [
        Query(
            qid=f"d{i}-q{j}",
            text=f"{('what', 'who', 'where', 'how')[j]} {rng.choice(VERBS)} {names[i]} {rng.choice(SUBJECTS)}",
            split=("train", "train", "train", "test" if i % 4 else "dev")[j],
            docids=(f"d{i}",),
        )
        for i in range(len(bodies))
        for j in range(4)
    ]
    root = tmp_path_factory.mktemp("steps")

    def step(name: str, prepare: Callable[[Path], None]) -> Path:
        (root / name).mkdir()
        prepare(root / name)
        return root / name

    toy = Corpus(name="toy", documents=tuple(documents), queries=tuple(queries))
    corpus = step("corpus", lambda out: write(toy, out))
    token_job = TokenizerJob(tokenizer=TokenizerSettings(vocabulary=400), pretrained=None)
    tokenizer = step("tokenizer", lambda out: prepare_tokenizer(token_job, corpus=corpus, out=out))
    ngram = IdentifiersJob(identifiers=NgramIdentifiers(kind="ngram", length=5, per_query=4), seed=0)
    codebook = IdentifiersJob(
        identifiers=CodebookIdentifiers(kind="codebook", levels=2, codes=4, spans_per_document=6), seed=0
    )
    embeddings = EmbeddingsJob(window=5, rank=32)
    texts = {"corpus": corpus, "tokenizer": tokenizer}
    return Steps(
        corpus=corpus,
        tokenizer=tokenizer,
        embeddings=step("embeddings", lambda out: prepare_embeddings(embeddings, tokenizer=tokenizer, out=out)),
        ngram=step("ngram", lambda out: prepare_identifiers(ngram, **texts, out=out)),
        codebook=step("codebook", lambda out: prepare_identifiers(codebook, **texts, out=out)),
    )


Trainer = Callable[[str, str], dict[str, Path]]
"""From a family and a kind of identifiers to the folders that evaluation takes."""


@pytest.fixture(scope="session")
def trained(finished_steps: Steps, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """Trains a tiny model on some kind of identifiers of the small corpus, once for all tests that ask for it."""
    from test_identifier_kinds import SETTINGS

    from workers import training
    from workers.identifiers import prepare
    from workers.settings import IdentifiersJob, ModelSettings, TrainingSettings, TrainJob

    done: dict[tuple[str, str], dict[str, Path]] = {}
    sets = {"ngram": finished_steps.ngram, "codebook": finished_steps.codebook}
    texts = {"corpus": finished_steps.corpus, "tokenizer": finished_steps.tokenizer}

    def folders(family: str, kind: str) -> dict[str, Path]:
        if kind not in sets:
            sets[kind] = tmp_path_factory.mktemp(kind)
            prepare(IdentifiersJob(identifiers=SETTINGS[kind], seed=0), **texts, out=sets[kind])
        if (family, kind) not in done:
            out = tmp_path_factory.mktemp("train")
            job = TrainJob(
                model=ModelSettings(family=family, size={"t5": "29k", "llama": "24k"}[family]),
                training=TrainingSettings(learning_rate=1e-2, epochs=20, batch=16),
                pairs=370,
                seed=0,
            )
            given = {"tokenizer": texts["tokenizer"], "identifiers": sets[kind]}
            training.train(job, **given, embeddings=finished_steps.embeddings, out=out)
            done[family, kind] = {**texts, "identifiers": sets[kind], "train": out}
        return done[family, kind]

    return folders
