"""Retrieval with a model: queries a second, one at a time, eight and 32 together.

Timed, of both: from the tokens of the queries to the best sequences of codes; Gridlaw's come with their scores, which
the baseline is not asked for, as they would cost it more. Not timed: loading, building index and trie, from sequences
to documents. Models are the ladder's T5 115k and LLaMA 98k with random weights, over a vocabulary of 4,096 and codes,
queries of 8 to 24 tokens, 20,000 documents of 4 codes of 256, indexed as an identifiers step does. The baseline is
`transformers.generate` with `prefix_allowed_tokens_fn` over a trie of dictionaries (`dict_trie.py`), same model, same
process, one thread; both must give the same ranking.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from transformers import PreTrainedModel

from benchmarks.decoding import dict_trie
from benchmarks.decoding.data import SEED
from benchmarks.decoding.equal import assert_same_ranking
from benchmarks.rows import Options, Row, medians, rate
from workers.decoding.beam import Candidates, Search, beam_search
from workers.decoding.index import Index
from workers.decoding.view import View
from workers.identifiers.sets import naming_view
from workers.models.build import build
from workers.models.prompts import prompts
from workers.models.sessions import open_session
from workers.ragged import Ragged
from workers.settings import ModelSettings

MODELS: dict[Literal["t5", "llama"], str] = {"t5": "115k", "llama": "98k"}
TEXT_TOKENS, LEVELS, CODES = 4_096, 4, 256
VOCABULARY = TEXT_TOKENS + LEVELS * CODES
END, LONGEST = 1, 64
GOALS = {10: 3.0, 100: 5.0}
"""Times the baseline's queries a second, by beams."""
ROUNDS = {10: 15, 100: 5}
"""By beams: what is short varies more from round to round."""
TOGETHER, FEW = {1: 8, 8: 8, 32: 32}, {1: 1, 4: 4}
"""Queries of a measurement, by how many are searched together; and where figures mean nothing."""
TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The best sequences of a batch's queries, best first within a query."""

    query: np.ndarray
    """int64 (found,): row of the batch."""
    tokens: np.ndarray
    """int64 (found, LEVELS)."""
    score: np.ndarray
    """float64 (found,): sum of log-probabilities."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is retrieved, and by what."""

    model: PreTrainedModel
    queries: Ragged
    index: Index
    trie: dict[int, Any]


def measure(options: Options) -> Iterator[Row]:
    """A row for each family, number of queries together and of beams."""
    rng = np.random.default_rng(SEED)
    rows = random_codes(rng, 2_000 if options.quick else 20_000)
    view, trie = naming_view("codes", rows, VOCABULARY), dict_trie.build(rows)
    assert_named(view, rows)
    queries = Ragged.of([rng.integers(2, TEXT_TOKENS, size=rng.integers(8, 25)) for _ in range(max(TOGETHER.values()))])
    for family, size in MODELS.items():
        model = build(ModelSettings(family=family, size=size), VOCABULARY, 0, SEED).eval()
        task = Task(model=model, queries=queries, index=view.index, trie=trie)
        for together, count in (FEW if options.quick else TOGETHER).items():
            batches = np.array_split(np.arange(count), count // together)
            for beams, goal in GOALS.items():
                name = f"retrieval, {family} {size}, {beams} beams, {together} at a time, against generate"
                ours, theirs = _queries_a_second(task, batches, beams, 1 if options.quick else ROUNDS[beams])
                yield rate(name, ours, "queries/s", theirs, goal)


def random_codes(rng: np.random.Generator, count: int) -> Ragged:
    """About `count` distinct rows of a code a level, in no order; each level has tokens of its own."""
    codes = rng.permutation(np.unique(rng.integers(CODES, size=(count, LEVELS)), axis=0))
    return Ragged.of(codes + TEXT_TOKENS + np.arange(LEVELS) * CODES)


def assert_named(view: View, rows: Ragged) -> None:
    """Entry for entry, the index has the row of the document that the view says it names."""
    (shard,) = view.index.shards
    ours = shard.row_tokens(np.arange(shard.entries))
    assert np.array_equal(ours, rows.padded(view.documents, fill=0)), "the index's rows are other documents'"


def _queries_a_second(task: Task, batches: list[np.ndarray], beams: int, repeats: int) -> tuple[float, float]:
    """Gridlaw's and the baseline's, once both have given the same rankings."""
    for batch in batches:
        _compare(task, batch, beams)
    ours = partial(_each, [partial(search, task, batch, beams) for batch in batches])
    theirs = partial(_each, [partial(generate, task, batch, beams) for batch in batches])
    seconds = medians({"ours": ours, "theirs": theirs}, repeats)
    queries = sum(map(len, batches))
    return queries / seconds["ours"], queries / seconds["theirs"]


def _each(calls: list) -> None:
    for call in calls:
        call()


def search(task: Task, batch: np.ndarray, beams: int) -> Ranking:
    """Gridlaw's, from the queries' tokens to the best sequences with their scores."""
    session = open_session(task.model, task.queries, batch, _ends(batch), LONGEST)
    found = beam_search(session, task.index, Search(beams=beams, max_new_tokens=LEVELS)).candidates
    return best_sequences(found, task.index, beams)


def best_sequences(found: Candidates, index: Index, beams: int) -> Ranking:
    """The best `beams` finished sequences of each query. All have `LEVELS` tokens, in an index of one shard."""
    finished = np.flatnonzero(found.complete)
    ranked = finished[np.lexsort((-found.score[finished], found.query[finished]))]
    query = found.query[ranked]
    place = np.arange(len(ranked)) - np.searchsorted(query, query)
    best = ranked[place < beams]
    (shard,) = index.shards
    entry = found.lo[best, 0]
    tokens = np.stack([shard.tokens_behind(entry, depth) for depth in range(LEVELS)], axis=1)
    return Ranking(query=found.query[best], tokens=tokens, score=found.score[best])


def generate(task: Task, batch: np.ndarray, beams: int, scores: bool = False) -> Any:
    """The baseline's, from the queries' tokens to the best sequences."""
    given = prompts(task.queries, batch, _ends(batch), LONGEST)
    return dict_trie.generate(task.model, given, task.trie, beams, LEVELS, scores=scores)


def _ends(batch: np.ndarray) -> np.ndarray:
    return np.full(len(batch), END)


def _compare(task: Task, batch: np.ndarray, beams: int) -> None:
    found, given = search(task, batch, beams), generate(task, batch, beams, scores=True)
    sequences = given.sequences[:, -LEVELS:].tolist()
    scores = given.sequences_scores.tolist()
    for place in range(len(batch)):
        mine = found.query == place
        ours = dict(zip(map(tuple, found.tokens[mine].tolist()), found.score[mine].tolist(), strict=True))
        here = slice(place * beams, (place + 1) * beams)
        theirs = dict(zip(map(tuple, sequences[here]), scores[here], strict=True))
        assert_same_ranking(ours, theirs, TOLERANCE)
