"""Pseudo-queries of a file are checked before anything starts; those of a model are sampled whatever its settings."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import Steps
from transformers import T5Config, T5ForConditionalGeneration

import run_grid
from workers.corpus.documents import load, summary, write
from workers.errors import BadInput
from workers.identifiers import capacity, prepare
from workers.identifiers.query_sources import written
from workers.identifiers.sets import IdentifierSet
from workers.settings import (
    CodebookIdentifiers,
    IdentifiersJob,
    MultiviewIdentifiers,
    NgramIdentifiers,
    PseudoQueryIdentifiers,
    TokenizerJob,
    TokenizerSettings,
)
from workers.tokenizer import prepare as prepare_tokenizer
from workers.tokenizer import train

GRID = """
name: asked
corpus: {source: jsonl, path: corpus.jsonl, dev: 1, test: 4}
identifiers: [{kind: ngram}, {kind: pseudo_query, queries: pseudo.jsonl, per_query: 2}]
models: [{family: t5, size: 7k}]
data: {pairs: [10]}
inference: {beams: 1}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        {"id": f"d{n}", "text": f"text number {n}", "queries": [f"which one is k{n}z{part}" for part in range(3)]}
        for n in range(20)
    ]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "grid.yaml").write_text(GRID)
    return tmp_path


def _plan(folder: Path, text: str, *overrides: str) -> int:
    (folder / "pseudo.jsonl").write_text(text)
    settings = [word for override in overrides for word in ("--set", override)]
    return run_grid.main([str(folder / "grid.yaml"), "--results", str(folder / "results"), "--dry-run", *settings])


ONE = json.dumps({"id": "d3", "queries": ["what is the third"]}) + "\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ONE + "{oops\n", "pseudo.jsonl:2: malformed JSON"),
        (ONE + ONE, "pseudo.jsonl:2: id 'd3' was on line 1 already"),
        ('\n{"id": "d3"}\n', "pseudo.jsonl:2: `queries` is missing"),
        ('{"id": "x", "queries": ["a"]}', "pseudo.jsonl has a query for none of corpus's documents"),
    ],
)
def test_a_useless_file_is_found_before_anything_starts(
    folder: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _plan(folder, text) == 2
    error = capsys.readouterr().err
    assert f"{folder / 'grid.yaml'}: identifiers.1.queries: " in error
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert [path.name for path in (folder / "results" / "steps").iterdir()] == ["corpus"]


def test_a_file_that_holds_only_held_out_queries_is_useless(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _plan(folder, ONE, "data.pairs=4") == 0
    read = load(next((folder / "results" / "steps" / "corpus").iterdir()))
    held = next(query for query in read.split("test"))
    capsys.readouterr()
    line = json.dumps({"id": held.docids[0], "queries": [f"well, {held.text}?"]})
    assert _plan(folder, line, "data.pairs=4") == 2
    said = capsys.readouterr()
    assert "identifiers.1.queries: no document with a training query has a pseudo-query" in said.err
    assert "left out" not in said.out


def test_d_is_checked_against_what_the_file_gives(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _plan(folder, ONE) == 2
    assert "grid.yaml: data.pairs.0: 10 is more than the corpus has; the largest D with pseudo_query is" in (
        capsys.readouterr().err
    )
    assert _plan(folder, ONE, "identifiers.1.pairs=[3, 90]") == 2
    assert "--set: identifiers.1.pairs.1: 90 is more" in capsys.readouterr().err


def test_the_capacity_of_a_file_is_exact(finished_steps: Steps, tmp_path: Path) -> None:
    lines = [json.dumps({"id": f"d{n}", "queries": [f"what is {n}", f"who is {n}"]}) for n in range(0, 40, 3)]
    (tmp_path / "pseudo.jsonl").write_text("\n".join(lines))
    known = summary(load(finished_steps.corpus))
    for kind, settings in (("pseudo_query", PseudoQueryIdentifiers), ("multiview", MultiviewIdentifiers)):
        given = settings(kind=kind, queries=str(tmp_path / "pseudo.jsonl"))
        out = tmp_path / kind
        out.mkdir()
        folders = {"corpus": finished_steps.corpus, "tokenizer": finished_steps.tokenizer}
        prepare(IdentifiersJob(identifiers=given, seed=0), **folders, out=out)
        assert len(IdentifierSet.load(out).train) == capacity(given, known, finished_steps.corpus)
        assert capacity(given, known, finished_steps.corpus) < capacity(given, known)


def test_codes_that_the_documents_cannot_tell_apart(finished_steps: Steps) -> None:
    known = summary(load(finished_steps.corpus))
    assert capacity(CodebookIdentifiers(kind="codebook", codes=48), known)
    with pytest.raises(
        BadInput, match=r"^identifiers\.codes: 49 is more than the corpus's 48 documents can tell apart$"
    ):
        capacity(CodebookIdentifiers(kind="codebook", codes=49), known)


# ---------------------------------------------------------------- models


def _writer(folder: Path, positions: int | None = None) -> str:
    """A tiny T5 whose own generation settings are of beam search."""
    texts = [f"the river number {number} of many" for number in range(20)]
    train(TokenizerSettings(vocabulary=300), texts).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    limit = {"max_position_embeddings": positions} if positions else {}
    model = T5ForConditionalGeneration(
        T5Config(vocab_size=300, pad_token_id=0, decoder_start_token_id=0, **shape, **limit)
    )
    model.generation_config.num_beams = 4
    model.generation_config.early_stopping = True
    model.save_pretrained(folder)
    return str(folder)


def test_a_model_made_for_beam_search_is_sampled_from(tmp_path: Path) -> None:
    found = written(_writer(tmp_path), ["a river", "two rivers"], per_document=6, seed=0)
    assert len(found) == 2
    assert max(map(len, found)) > 4
    assert len(set(found[0])) > 1


@pytest.mark.parametrize(("positions", "read"), [(None, 512), (7, 7)])
def test_documents_are_cut_to_what_the_model_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, positions: int | None, read: int
) -> None:
    lengths = []
    generate = T5ForConditionalGeneration.generate

    def noted(self: T5ForConditionalGeneration, **given: torch.Tensor) -> torch.Tensor:
        lengths.append(given["input_ids"].shape[1])
        return generate(self, **given)

    monkeypatch.setattr(T5ForConditionalGeneration, "generate", noted)
    written(_writer(tmp_path, positions), ["river " * 2000], per_document=1, seed=0)
    assert lengths == [read]


def test_what_gives_no_pair_names_its_corpus(finished_steps: Steps, tmp_path: Path) -> None:
    """And not the folder of the corpus step, whose name is a hash."""
    job = IdentifiersJob(identifiers=NgramIdentifiers(kind="ngram", length=64), seed=0)
    bare = replace(load(finished_steps.corpus), queries=())
    for name in ("corpus", "tokenizer", "out"):
        (tmp_path / name).mkdir()
    write(bare, tmp_path / "corpus")
    tokens = TokenizerJob(tokenizer=TokenizerSettings(vocabulary=400), pretrained=None)
    prepare_tokenizer(tokens, corpus=tmp_path / "corpus", out=tmp_path / "tokenizer")
    with pytest.raises(BadInput, match=r"^identifiers: ngram finds no training pair in toy$"):
        prepare(job, corpus=tmp_path / "corpus", tokenizer=tmp_path / "tokenizer", out=tmp_path / "out")
