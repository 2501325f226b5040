"""Evidence scoring: milliseconds a query, from a search's candidates to 100 ranked documents.

Timed: weights, both stages, ranking. Not timed: the search. The candidates are those of a search with 64 beams and 10
steps that likes 40 tokens of one document and is otherwise random, over Zipf and over natural text. The baseline is the
same rule with dictionaries (`plain_evidence.py`), in the same run; scores must be equal to 1e-9.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from benchmarks.decoding import plain_evidence
from benchmarks.decoding.data import SEED, corpora
from benchmarks.rows import Options, Row, Skipped, cost, medians
from workers.decoding.beam import Candidates, Search, beam_search
from workers.decoding.evidence import EvidenceScorer
from workers.decoding.index import Index
from workers.decoding.view import View
from workers.models.sessions import Session

BEAMS, STEPS, DEPTH = 64, 10, 100
LIKED, PREFERENCE = 40, 5.0


class LeaningSession:
    """Random log-probabilities, new ones for each row, with a preference for some tokens."""

    def __init__(self, liked: np.ndarray, vocabulary: int, seed: int) -> None:
        self.vocabulary = vocabulary
        self.liked = torch.zeros(vocabulary)
        self.liked[torch.from_numpy(liked.astype(np.int64))] = PREFERENCE
        self.generator = torch.Generator().manual_seed(seed)
        self.first = self._drawn(1)

    def advance(self, parents: torch.Tensor, tokens: torch.Tensor, each: int | None = None) -> torch.Tensor:
        """float32 (rows, vocabulary)."""
        return self._drawn(len(parents))

    def restart(self) -> None:
        """Nothing to do: every step is drawn anew."""

    def _drawn(self, rows: int) -> torch.Tensor:
        noise = torch.randn((rows, self.vocabulary), generator=self.generator)
        return torch.log_softmax(1.5 * noise + self.liked, dim=-1)


def measure(options: Options) -> Iterator[Row | Skipped]:
    """A row for each text."""
    for corpus in corpora(options):
        if isinstance(corpus, Skipped):
            yield Skipped(name=f"evidence over {corpus.name}", why=corpus.why)
        else:
            yield over(*corpus, 2 if options.quick else 10)


def over(name: str, index: Index, queries: int) -> Row:
    """One text whose rows are documents; the median over queries of each query's median."""
    documents = int(index.first_rows[-1])
    view = View(name="body", index=index, documents=np.arange(documents, dtype=np.int32), marker=None, max_length=STEPS)
    scorer = EvidenceScorer([view], documents)
    rng = np.random.default_rng(SEED)
    times = []
    for query in range(queries):
        found = candidates(index, int(rng.integers(documents)), query)
        ours = partial(scorer.rank, [found], 0, DEPTH, rng)
        plain = partial(plain_evidence.rank, view, found, DEPTH)
        assert np.allclose(ours()[1], [score for _, score in plain()], rtol=1e-9), "the scores differ"
        seconds = medians({"ours": ours, "plain": plain}, 3)
        times.append((seconds["ours"], seconds["plain"]))
    value, baseline = 1e3 * np.median(times, axis=0)
    return cost(f"evidence, {name}, {BEAMS} beams, against dictionaries", float(value), "ms a query", float(baseline))


def candidates(index: Index, document: int, seed: int) -> Candidates:
    """What a search looks at whose model leans to one document of a single shard."""
    shard = index.shards[0]
    text = shard.tokens[shard.row_starts[document] : shard.row_starts[document + 1] - 1]
    session: Session = LeaningSession(text[-LIKED:], index.boundary, seed)
    return beam_search(session, index, Search(beams=BEAMS, max_new_tokens=STEPS)).candidates
