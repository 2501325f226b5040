"""Retrieval with a model: queries a second, one at a time and eight together.

Timed: from the tokens of the queries to the best sequences of codes with their scores. Not timed: loading, building
index and trie, from sequences to documents. Models are the ladder's T5 115k and LLaMA 98k with random weights, over a
vocabulary of 4,096 and codes, queries of 8 to 24 tokens, 20,000 documents of 4 codes of 256. The baseline is
`transformers.generate` with `prefix_allowed_tokens_fn` over a trie of dictionaries (`dict_trie.py`), same model, same
process, one thread; both must give the same ranking.
"""

from collections.abc import Iterator
from functools import partial
from typing import Literal

import numpy as np
from transformers import PreTrainedModel

from benchmarks.decoding import dict_trie
from benchmarks.decoding.data import SEED
from benchmarks.decoding.equal import assert_same_ranking
from benchmarks.rows import Options, Row, medians, rate
from workers.decoding.beam import Candidates, Search, beam_search
from workers.decoding.index import Index, build_index
from workers.models.build import build
from workers.models.prompts import prompts
from workers.models.sessions import open_session
from workers.ragged import Ragged
from workers.settings import ModelSettings

MODELS: dict[Literal["t5", "llama"], str] = {"t5": "115k", "llama": "98k"}
TEXT_TOKENS, LEVELS, CODES = 4_096, 4, 256
END, LONGEST = 1, 64
GOALS = {10: 3.0, 100: 5.0}
"""Times the baseline's queries a second, by beams."""
TOLERANCE = 1e-4


def measure(options: Options) -> Iterator[Row]:
    """A row for each family, number of queries together and of beams."""
    rng = np.random.default_rng(SEED)
    codes = np.unique(rng.integers(CODES, size=(2_000 if options.quick else 20_000, LEVELS)), axis=0)
    rows = Ragged.of(codes + TEXT_TOKENS + np.arange(LEVELS) * CODES)
    vocabulary = TEXT_TOKENS + LEVELS * CODES
    index, trie = build_index(rows, vocabulary, "rows"), dict_trie.build(rows)
    queries = Ragged.of([rng.integers(2, TEXT_TOKENS, size=rng.integers(8, 25)) for _ in range(8)])
    for family, size in MODELS.items():
        model = build(ModelSettings(family=family, size=size), vocabulary, 0, SEED).eval()
        for together in (1, 8):
            for beams, goal in GOALS.items():
                batches = np.array_split(np.arange(len(queries)), len(queries) // together)
                name = f"retrieval, {family} {size}, {beams} beams, {together} at a time, against generate"
                for batch in batches:
                    _compare(model, queries, batch, index, trie, beams)
                ours = partial(_each, [partial(search, model, queries, batch, index, beams) for batch in batches])
                theirs = partial(
                    _each,
                    [
                        partial(dict_trie.generate, model, _prompts(queries, batch), trie, beams, LEVELS)
                        for batch in batches
                    ],
                )
                seconds = medians({"ours": ours, "theirs": theirs}, 1 if options.quick else 5)
                value, baseline = (len(queries) / seconds[each] for each in ("ours", "theirs"))
                yield rate(name, value, "queries/s", baseline, goal)


def _each(calls: list) -> None:
    for call in calls:
        call()


def search(model: PreTrainedModel, queries: Ragged, batch: np.ndarray, index: Index, beams: int) -> Candidates:
    """Gridlaw's, from the queries' tokens to the candidates."""
    session = open_session(model, queries, batch, _ends(batch), LONGEST)
    return beam_search(session, index, Search(beams=beams, max_new_tokens=LEVELS)).candidates


def _ends(batch: np.ndarray) -> np.ndarray:
    return np.full(len(batch), END)


def _prompts(queries: Ragged, batch: np.ndarray) -> Ragged:
    return prompts(queries, batch, _ends(batch), LONGEST)


def _compare(model: PreTrainedModel, queries: Ragged, batch: np.ndarray, index: Index, trie: dict, beams: int) -> None:
    found = search(model, queries, batch, index, beams)
    given = dict_trie.generate(model, _prompts(queries, batch), trie, beams, LEVELS, scores=True)
    sequences = given.sequences[:, -LEVELS:].tolist()
    scores = given.sequences_scores.tolist()
    for place in range(len(batch)):
        mine = np.flatnonzero((found.query == place) & found.complete)
        ours = {
            tuple(index.prefix(found.lo[each], found.hi[each], LEVELS).tolist()): float(found.score[each])
            for each in mine[np.argsort(-found.score[mine], kind="stable")[:beams]]
        }
        here = slice(place * beams, (place + 1) * beams)
        theirs = dict(zip(map(tuple, sequences[here]), scores[here], strict=True))
        assert_same_ranking(ours, theirs, TOLERANCE)
