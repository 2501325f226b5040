"""A whole search of 12 steps for one query, without the model.

Timed: `beam_search` with a session whose log-probabilities were computed beforehand, to the candidates of all steps.
The full mask (`full_mask.py`) takes the place of the step in the same search, in turn with Gridlaw's.

SEAL does not run here. Its figures are the constants below, recorded elsewhere over 10 M Zipf tokens on two CPU cores,
model left out. The design's goal of 20x is against them, so baseline, ratio and goal of such a row compare Gridlaw on
this machine with SEAL on that one; its name and unit say so.
"""

from collections.abc import Iterator

from benchmarks.decoding import full_mask
from benchmarks.decoding.data import RECORDED, PrecomputedSession, corpora
from benchmarks.decoding.equal import assert_equal
from benchmarks.rows import Options, Row, Skipped, cost, cost_against_recorded, medians
from workers.decoding import numba_step
from workers.decoding.beam import Candidates, Search, Step, beam_search
from workers.decoding.index import Index

STEPS = 12
SEAL = {15: 81.7, 100: 636.0}
"""Milliseconds a search, by beams: recorded, not measured here."""
GOAL = 20.0


def measure(options: Options) -> Iterator[Row | Skipped]:
    """Rows for each text and number of beams."""
    for corpus in corpora(options):
        if isinstance(corpus, Skipped):
            yield Skipped(name=f"searches over {corpus.name}", why=corpus.why)
        else:
            for beams in SEAL:
                yield from over(*corpus, beams, 3 if options.quick else 9)


def over(
    name: str, index: Index, beams: int, repeats: int, best: Step = numba_step.best_continuations
) -> Iterator[Row]:
    """One text and number of beams, with any backend."""
    session = PrecomputedSession(beams, STEPS, index.boundary)

    def search(step: Step) -> Candidates:
        session.restart()
        return beam_search(session, index, Search(beams=beams, max_new_tokens=STEPS), step).candidates

    assert_equal(search(best), search(full_mask.best_continuations))
    seconds = medians({"ours": lambda: search(best), "masked": lambda: search(full_mask.best_continuations)}, repeats)
    ours, masked = 1e3 * seconds["ours"], 1e3 * seconds["masked"]
    label = f"{STEPS}-step search, {name}, {beams} beams"
    if name == "Zipf 10 M":
        goal = GOAL if beams == max(SEAL) else None
        yield cost_against_recorded(label, ours, "ms", "SEAL", RECORDED, SEAL[beams], goal)
    yield cost(f"{label}, against a full mask", ours, "ms", masked)
