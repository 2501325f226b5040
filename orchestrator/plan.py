"""What a sweep would do: is the grid possible on its corpus, which steps are finished, which are new."""

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.table import Table

from orchestrator.grid import Loaded
from orchestrator.keys import RECIPES
from orchestrator.rows import read_json
from orchestrator.running import attempts, failures, jobs
from orchestrator.steps import Graph, Step, Trial
from orchestrator.tuning import tuned
from results.errors import first_line
from results.leases import Leases
from results.store import DROPPED, Store
from workers import corpus as corpora
from workers import identifiers as identifier_kinds
from workers.errors import BadInput


@dataclass(frozen=True)
class Plan:
    """A grid, its graph, and what of it is finished."""

    loaded: Loaded
    graph: Graph
    store: Store
    finished: frozenset[str]
    summary: dict[str, Any] | None
    """Of the corpus; None where it would have to be fetched first."""
    failed: Mapping[str, Mapping[str, Any]]
    """Steps that have failed for good before, with the record of it."""
    read_now: bool = False
    """Whether the corpus was read for this plan: the step is finished, and was not before."""
    dropped: frozenset[str] = frozenset()
    """Finished trainings that new evaluations need, and whose weights are gone (`training.keep_weights: false`)."""
    goals: frozenset[str] | None = None
    """Steps that are wanted; those that rows are made of where left out."""

    @cached_property
    def new(self) -> tuple[Step, ...]:
        """Steps to run, in order: those that are wanted, and what these need, unless they are finished."""
        wanted = set(self.graph.outcomes if self.goals is None else self.goals)
        for key in reversed(self.graph.steps):
            if key in wanted and key not in self.finished:
                wanted.update(needed for _, needed in self.graph.steps[key].needs)
        return tuple(step for key, step in self.graph.steps.items() if key in wanted - self.finished)

    @property
    def foreseen(self) -> tuple[Step, ...]:
        """Steps that were not finished before this plan was made: the new ones, and the corpus if it was read now."""
        return ((self.graph.steps[self.graph.corpus],) if self.read_now else ()) + self.new

    def is_done(self, trial: Trial) -> bool:
        """Whether all of the trial's own steps are finished."""
        return {trial.train, trial.score, trial.search} <= self.finished


def make_plan(
    loaded: Loaded,
    desk: jobs.Desk,
    *,
    fetch: bool,
    say: Callable[[str], None] = lambda line: None,
) -> Plan:
    """Check everything that can be checked before work starts. A local corpus is read (once; it is a step like
    any other); one that may need the network only where `fetch` is set.

    Raises:
        BadInput: the grid cannot be run as it is.
    """
    store = desk.store
    check_writable(loaded, store)
    graph = tuned.expand_tuned(loaded.grid, store)
    corpus = graph.steps[graph.corpus]
    may_read = fetch or corpora.is_local(loaded.grid.corpus)
    reads = may_read and not store.is_finished("corpus", graph.corpus)
    if reads:
        outcome = _read_corpus(loaded, desk, corpus, say)
        if outcome.status == "failed":
            raise BadInput(_corpus_error(loaded, store, corpus, outcome))
    summary = read_summary(store, graph)
    if summary is not None:
        summary["name"] = corpora.name(loaded.grid.corpus)  # the step's own is that of the grid that came first
        check_held_out(loaded, summary)
        check_capacity(loaded, summary, store.fetch("corpus", graph.corpus))
        tuned.check(loaded, summary, store.fetch("corpus", graph.corpus))
    there = finished(store, graph)
    return Plan(
        loaded=loaded,
        graph=graph,
        store=store,
        finished=there,
        dropped=dropped(store, graph, there),
        summary=summary,
        failed=failed(store, graph),
        read_now=reads,
    )


def _read_corpus(loaded: Loaded, desk: jobs.Desk, corpus: Step, say: Callable[[str], None]) -> jobs.Outcome:
    """Do the corpus step in this process, or wait while another driver does it."""
    with Leases(desk.store) as leases:
        waited_for = None
        while not leases.take(corpus.kind, corpus.key):
            holder = leases.holders(corpus.kind).get(corpus.key)
            if holder not in (None, waited_for):
                say(f"waiting for another driver, {holder}, which reads the corpus")
                waited_for = holder
            time.sleep(random.uniform(0.1, 0.5))
        if not desk.store.is_finished(corpus.kind, corpus.key):
            say(f"reading the corpus ({loaded.grid.corpus.source})")
        return jobs.run(desk, corpus, owner=f"{leases.driver.id}-corpus", capture=False)


def _corpus_error(loaded: Loaded, store: Store, corpus: Step, outcome: jobs.Outcome) -> str:
    if outcome.kind == failures.BAD_INPUT:
        return outcome.error
    where = store.shown_step(corpus.kind, corpus.key)
    return f"{loaded.source.path}: corpus: cannot be read: {outcome.error} (see {where}/{attempts.ERROR})"


def read_summary(store: Store, graph: Graph) -> dict[str, Any] | None:
    """The corpus's summary where the corpus has been read."""
    if not store.is_finished("corpus", graph.corpus):
        return None
    summary: dict[str, Any] = read_json(store, "corpus", graph.corpus, "summary.json")
    return summary


def finished(store: Store, graph: Graph) -> frozenset[str]:
    """Keys of the graph's finished steps, by one scan a kind."""
    there = frozenset[str]().union(*(store.finished(kind) for kind in RECIPES))
    return there & graph.steps.keys()


def dropped(store: Store, graph: Graph, there: frozenset[str]) -> frozenset[str]:
    """Of the trainings that are there, those without weights that an evaluation which is not there would need."""
    own = ((trial.train, key) for trial in graph.trials for key in (trial.score, trial.search))
    needed = {train for train, key in own if key not in there} & there
    return frozenset(train for train in needed if "weights" in _dropped(store, train))


def _dropped(store: Store, train: str) -> list[str]:
    names: list[str] = json.loads(store.peek("train", train, DROPPED) or b"[]")
    return names


def check_weights(plan: Plan) -> None:
    """Raises BadInput where evaluations need weights that were dropped."""
    if plan.dropped:
        count = len(plan.dropped)
        what = (
            f"the weights of {count} finished trainings are" if count > 1 else "the weights of a finished training are"
        )
        raise plan.loaded.source.error(
            ("training", "keep_weights"),
            f"{what} gone, and new evaluations need them; --retrain-dropped trains again for them",
        )


def reopen(plan: Plan) -> Plan:
    """The plan in which trainings whose weights are missing are done again, by whichever driver is first."""
    with Leases(plan.store) as leases:
        for key in plan.dropped:
            if leases.take("train", key):
                if "weights" in _dropped(plan.store, key):
                    plan.store.reopen("train", key)
                leases.release("train", key)
    return replace(plan, finished=plan.finished - plan.dropped, dropped=frozenset())


def failed(store: Store, graph: Graph) -> dict[str, dict[str, Any]]:
    """The graph's steps that have failed for good, with the record of it."""
    return {key: record for kind in RECIPES for key, record in store.failed(kind).items() if key in graph.steps}


def forgive(plan: Plan, *, restart: bool) -> Plan:
    """The plan in which all that has failed is tried again, from where it was or from nothing."""
    for key in plan.failed:
        plan.store.forgive(plan.graph.steps[key].kind, key, restart=restart)
    return replace(plan, failed={})


def check_writable(loaded: Loaded, store: Store) -> None:
    """Raises BadInput where the results folder cannot be made or written to."""
    try:
        store.check_writable(loaded.grid.name)
    except OSError as error:
        why = ": ".join(str(part) for part in (error.strerror, error.filename) if part) or first_line(error)
        raise BadInput(
            f"--results {store.address}: cannot be written to: {why.removeprefix(f'{store.address}: ')}"
        ) from None


def check_held_out(loaded: Loaded, summary: dict[str, Any]) -> None:
    """Raises BadInput where no query is held out in the split that is asked for, or fewer than two in all."""
    queries, split = summary["queries"], loaded.grid.evaluation.split
    if not queries[split]:
        raise loaded.source.error(("evaluation", "split"), f"the corpus has no held-out query in {split!r}")
    held = queries["dev"] + queries["test"]
    if held < 2:
        raise loaded.source.error(("corpus", split), f"only {held} query can be held out, and at least 2 are needed")


def check_capacity(loaded: Loaded, summary: dict[str, Any], corpus: Path | None = None) -> None:
    """Raises BadInput where a kind's identifiers cannot be made, or a D is larger than there are pairs.

    `corpus`: the folder of the corpus step, for kinds that are made of more than the corpus; not checked without it.
    """
    grid = loaded.grid
    for position, identifiers in enumerate(grid.identifiers):
        try:
            largest = identifier_kinds.capacity(identifiers, summary, corpus)
        except BadInput as error:
            raise _of_kind(loaded, position, error) from None
        place = ("identifiers", position, "pairs") if identifiers.pairs else ("data", "pairs")
        for entry, pairs in enumerate(grid.pairs_of(identifiers)):
            allowed = identifiers.only.pairs is None or pairs in identifiers.only.pairs
            if allowed and pairs > largest:
                message = f"{pairs} is more than the corpus has; the largest D with {identifiers.kind} is {largest}"
                raise loaded.source.error((*place, entry), message)


def _of_kind(loaded: Loaded, position: int, error: BadInput) -> BadInput:
    """The error with its place in the grid; one that names a file and line is of the kind's pseudo-queries."""
    key, _, message = str(error).partition(": ")
    if key.startswith("identifiers."):
        return loaded.source.error(("identifiers", position, key.rpartition(".")[2]), message)
    return loaded.source.error(("identifiers", position, "queries"), str(error))


def plain_table(*columns: str, left: Sequence[str] = ()) -> Table:
    """A table without lines; columns are right-aligned but for the first and those in `left`."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for position, column in enumerate(columns):
        table.add_column(column, justify="left" if position == 0 or column in left else "right", no_wrap=True)
    return table
