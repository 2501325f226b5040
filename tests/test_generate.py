"""Retrieval with trained models against what anyone would write first: `generate` over a trie, and plain loops."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import Trainer
from test_evidence import Ngram, Texts, reference

from benchmarks.decoding import dict_trie
from workers import retrieval
from workers.decoding.evidence import gather_rows
from workers.identifiers.sets import row_view
from workers.models.prompts import prompts
from workers.ragged import Ragged
from workers.retrieval import Loaded, retrieve
from workers.settings import Budget, EvaluationSettings

EVALUATION = EvaluationSettings(bootstrap=100)
IMPOSSIBLE = -1e6
"""`generate` fills up with continuations of beams at -1e9 where there are fewer real ones than beams."""


def load(trained: Trainer, family: str, kind: str) -> Loaded:
    folders = trained(family, kind)
    return retrieval.load_trained(*(folders[name] for name in ("corpus", "tokenizer", "identifiers", "train")))


def rows_of(loaded: Loaded) -> list[list[int]]:
    """Rows of the only view."""
    (view,) = loaded.ids.views
    rows = np.arange(len(view.documents))
    texts = gather_rows([view.index], np.zeros_like(rows), rows)
    return [texts[row].tolist() for row in range(len(texts))]


def held_out(loaded: Loaded) -> Iterator[tuple[str, np.ndarray]]:
    """Id and tokens of each test query."""
    for row, query in enumerate(loaded.corpus.queries):
        if query.split == "test":
            yield query.qid, loaded.tokenized.queries[row]


def by_score(found: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(found.items(), key=lambda each: -each[1])


def assert_same(ours: list[tuple[str, float]], expected: list[tuple[str, float]], tolerance: float) -> None:
    """The same scores rank by rank, and the same of each document: so documents change places only where they tie."""
    assert [score for _, score in ours] == pytest.approx([score for _, score in expected], abs=tolerance)
    assert dict(ours) == pytest.approx(dict(expected), abs=tolerance)


@pytest.mark.parametrize("beams", [1, 4, 10])
@pytest.mark.parametrize("family", ["t5", "llama"])
def test_codes_equal_generate_over_a_trie(trained: Trainer, family: str, beams: int) -> None:
    """Where fewer than `beams` real sequences are left, `generate` returns impossible ones too: those do not count."""
    loaded = of_one_length(load(trained, family, "codebook"))
    (view,) = loaded.ids.views
    rows = rows_of(loaded)
    named = zip(map(tuple, rows), (loaded.corpus.documents[each].docid for each in view.documents), strict=True)
    document, trie = dict(named), dict_trie.build(Ragged.of(rows))
    run = retrieve(loaded, EVALUATION, Budget(beams=beams)).run
    for qid, tokens in held_out(loaded):
        given = {document[codes]: score for codes, score in generated(loaded, tokens, trie, beams).items()}
        assert_same(run[qid], by_score(given), 1e-4)
        assert len(given) == beams or beams == 10


def generated(loaded: Loaded, tokens: np.ndarray, trie: dict, beams: int) -> dict[Ngram, float]:
    """Sequences and their scores by `generate`, which gives no score with one beam: then by forward passes."""
    length = loaded.ids.views[0].max_length
    prompt = prompts(Ragged.of([tokens]), np.array([0]), np.array([loaded.end]), loaded.query_length)
    found = dict_trie.generate(loaded.model, prompt, trie, beams, length, scores=True)
    codes = [tuple(sequence[-length:]) for sequence in found.sequences.tolist()]
    if beams == 1:
        (written,) = codes
        steps = [next_log_probs(loaded, tokens, written[:at])[written[at]] for at in range(length)]
        return {written: float(np.sum(steps))}
    scores = found.sequences_scores.tolist()
    return {each: score for each, score in zip(codes, scores, strict=True) if score > IMPOSSIBLE}


def of_one_length(loaded: Loaded) -> Loaded:
    """Documents whose codes no other shares get the further token that others are told apart by: `generate` has no end
    here, and so cannot write identifiers of different lengths."""
    rows = rows_of(loaded)
    longest = max(map(len, rows))
    further = min(row[-1] for row in rows if len(row) == longest)
    rows = [row + [further] * (longest - len(row)) for row in rows]
    (view,) = loaded.ids.views
    same = row_view(view.name, Ragged.of(rows), view.documents, loaded.ids.vocabulary)
    assert {len(row) for row in rows} == {longest, same.max_length}
    return replace(loaded, ids=replace(loaded.ids, views=(same,)))


def next_log_probs(loaded: Loaded, tokens: np.ndarray, written: Ngram) -> np.ndarray:
    """One full forward pass."""
    prompt = [*tokens[: loaded.query_length].tolist(), loaded.end]
    model = loaded.model
    with torch.inference_mode():
        if model.config.is_encoder_decoder:
            start = [model.config.decoder_start_token_id, *written]
            logits = model(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([start])).logits
        else:
            logits = model(input_ids=torch.tensor([[*prompt, *written]])).logits
    return torch.log_softmax(logits[0, -1].float(), -1).numpy()


def looked_at(loaded: Loaded, followers: dict[Ngram, set[int]], tokens: np.ndarray, beams: int) -> dict[Ngram, float]:
    """The best 2 x beams spans of each length, of which the best `beams` that can be continued are."""
    (view,) = loaded.ids.views
    live: dict[Ngram, float] = {(): 0.0}
    seen: dict[Ngram, float] = {}
    for _ in range(view.max_length):
        found: dict[Ngram, float] = {}
        for span, score in live.items():
            log_probs = next_log_probs(loaded, tokens, span)
            found |= {(*span, token): score + float(log_probs[token]) for token in followers[span]}
        best = sorted(found, key=lambda span: -found[span])[: 2 * beams]
        seen |= {span: found[span] for span in best}
        live = {span: found[span] for span in [span for span in best if span in followers][:beams]}
    return seen


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("family", ["t5", "llama"])
def test_ngrams_equal_plain_loops(trained: Trainer, family: str, beams: int) -> None:
    """A dictionary of all spans, a full forward pass a step, and the rule of evidence as it is published."""
    loaded = load(trained, family, "ngram")
    (view,) = loaded.ids.views
    rows = rows_of(loaded)
    followers: dict[Ngram, set[int]] = {}
    for row in rows:
        for at in range(len(row)):
            for length in range(min(view.max_length, len(row) - at)):
                followers.setdefault(tuple(row[at : at + length]), set()).add(row[at + length])
    texts = Texts(rows, view.documents.tolist(), 1 << 20, loaded.ids.vocabulary)
    run = retrieve(loaded, EVALUATION, Budget(beams=beams)).run
    compared = 0
    for qid, tokens in list(held_out(loaded))[:8]:
        expected = reference([texts], [looked_at(loaded, followers, tokens, beams)], 1500, 1500)
        named = {loaded.corpus.documents[document].docid: score for document, score in expected.items()}
        assert_same(run[qid], by_score(named), 1e-2)
        compared += len(named)
    assert compared > 20
