"""Studies of learning rates by Ray Tune; with `cluster`, all of the project that imports Ray.

A study is Optuna's, in a journal in its step's folder: every trial that has ended is there, so a study that was
killed goes on with the trials that are left. Tune's own record of an experiment is not kept: restored, it would
begin anew what was running and know nothing of what the journal has.
"""

import functools
import math
import os
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

# Read when Ray and Tune are imported or begin: no files of Tune's loggers, and Ctrl-C is the sweep's to handle.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the other one prints a table whatever `verbose` says

import optuna
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from optuna.storages import JournalStorage
from optuna.trial import TrialState
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator import attempts, failures, tuned
from orchestrator.cluster import environment
from orchestrator.jobs import Jobs, Outcome, function_of
from orchestrator.resources import Resources
from orchestrator.steps import Step
from orchestrator.studies import (
    DIVERGED_NLL,
    ENDED,
    NAME,
    best_of,
    is_trained,
    looks,
    open_journal,
    opening,
    take_up,
    trial_rows,
)
from orchestrator.tuning_settings import TuneJob
from results import files, schema
from results.store import Store
from workers.errors import BadInput, Diverged
from workers.settings import ProcessGroup, TrainJob

METRIC, SHARE = "dev_nll", "share"
TOGETHER = 3
"""A study is done in so many rounds at least, however many workers there are: each learns from the one before."""
_COLUMNS = pa.schema([field for field in schema.TUNING if field.name not in schema.STUDY])

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What a trial is done on."""

    bundle: Mapping[str, float]
    """Ray's resources of each of the workers that train together."""
    workers: int
    """That train one model together."""
    slots: int
    """Trials that there is room for at once."""
    environment: Mapping[str, str]
    """Of every worker, set before torch is imported."""
    max_failures: int
    """How often a trial whose worker dies is begun anew."""
    table: Jobs


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every trial of a study shares."""

    job: TuneJob
    store: Store
    needs: tuple[tuple[str, str], ...]
    """(kind, key) of the finished steps that a training takes."""
    bench: Bench

    def folders(self) -> dict[str, Path]:
        """Kind -> folder of the finished step, on the machine that asks."""
        return {kind: self.store.fetch(kind, key) for kind, key in self.needs}

    def train_job(self, values: Mapping[str, Any]) -> TrainJob:
        """The training of a trial with these values."""
        job = self.job
        # A trial is never resumed, so it saves nothing on its way.
        training = job.training.model_copy(update={**values, "checkpoint_every": 2**53})
        return TrainJob(model=job.model, training=training, pairs=job.pairs, seed=job.seed)


# ---------------------------------------------------------------- the study


def search(work: Work, journal: Path, name: str, say: Say) -> optuna.Study:
    """Go on with the study in `journal` until it has all its trials; a new one where there is none.

    Raises:
        Diverged: no trial was trained to its end, because they diverged.
        RuntimeError: none was, because they broke; with what the last one said.
    """
    job = work.job
    storage = open_journal(journal)
    study = take_up(storage, job)
    left = job.trials - len(study.get_trials(states=ENDED))
    errors: list[str] = []
    if left > 0:
        say(f"{name}: {left} of {job.trials} trials to go" if left < job.trials else f"{name}: {job.trials} trials")
        errors = _fit(work, study, storage, left, functools.partial(_tell, say, name, job))
    if not any(is_trained(trial) for trial in study.get_trials(states=ENDED)):
        if study.get_trials(states=[TrialState.COMPLETE]):
            low, high = job.learning_rate
            raise Diverged(f"every trial diverged with a learning rate between {low:g} and {high:g}")
        raise RuntimeError(errors[-1] if errors else "no trial was trained to its end")
    return study


def _fit(work: Work, study: optuna.Study, storage: JournalStorage, left: int, tell: Callable[[Any], None]) -> list[str]:
    """Run `left` trials; returns what those that broke said."""
    job, bench = work.job, work.bench
    bundles = tune.PlacementGroupFactory([dict(bench.bundle)] * bench.workers)
    with tempfile.TemporaryDirectory(prefix="gridlaw-tune-") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(functools.partial(run_trial, work), bundles),
            tune_config=tune.TuneConfig(
                search_alg=_searcher(job, storage, len(study.get_trials())),
                scheduler=_scheduler(job, study),
                num_samples=left,
                max_concurrent_trials=max(1, min(bench.slots, math.ceil(job.trials / TOGETHER))),
                reuse_actors=bench.workers == 1,  # a process that has joined a group cannot join another
            ),
            run_config=tune.RunConfig(
                name=NAME,
                storage_path=scratch,
                failure_config=tune.FailureConfig(max_failures=bench.max_failures),
                callbacks=[_Watch(tell)],
                verbose=0,
            ),
        )
        return [_one_line(error) for error in tuner.fit().errors]


def _one_line(error: BaseException) -> str:
    """What a failed trial said last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]


class _Search(OptunaSearch):
    """Tells Optuna which trials were stopped early; else the loss that one had half-way would pass for its result."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if result is not None:
            self.on_trial_result(trial_id, result)  # Tune tells of the last one only here
        stopped = result is not None and result.get(SHARE, 0.0) < 1.0
        super().on_trial_complete(trial_id, None if stopped else result, error)


def _searcher(job: TuneJob, storage: JournalStorage, begun: int) -> OptunaSearch:
    """`begun`: trials that the study has. The seed changes with it, or a resumed study would draw the same again."""
    space: dict[str, Any] = {"learning_rate": optuna.distributions.FloatDistribution(*job.learning_rate, log=True)}
    if job.batch:
        space["batch"] = optuna.distributions.CategoricalDistribution(job.batch)
    sampler = optuna.samplers.TPESampler(
        seed=(job.seed + begun) % 2**32, n_startup_trials=len(opening(job)), constant_liar=True
    )
    return _Search(space=space, metric=METRIC, mode="min", sampler=sampler, study_name=NAME, storage=storage)


def _scheduler(job: TuneJob, study: optuna.Study) -> ASHAScheduler:
    """ASHA that knows how the study's earlier trials stood at each rung."""
    rungs: dict[str, Any] = {"max_t": 1.0, "grace_period": job.grace, "reduction_factor": job.reduction}
    scheduler = ASHAScheduler(time_attr=SHARE, metric=METRIC, mode="min", **rungs)
    nobody: Any = None  # of all that a controller and a trial are, ASHA looks at the trial's id
    for trial in study.get_trials(states=ENDED):
        earlier: Any = SimpleNamespace(trial_id=f"earlier-{trial.number}")
        scheduler.on_trial_add(nobody, earlier)
        for share, nll in looks(job, trial):
            scheduler.on_trial_result(nobody, earlier, {SHARE: share, METRIC: nll})
    return scheduler


# ---------------------------------------------------------------- one trial, in a process of its own


def run_trial(work: Work, values: dict[str, Any]) -> None:
    """What Tune calls in a trial's process, with the learning rate (and batch) to try. Rank 0 of those together."""
    os.environ.update(work.bench.environment)
    trial = function_of("tune", work.bench.table)
    group, others = _gather(work, values)
    try:
        with tempfile.TemporaryDirectory(prefix="gridlaw-trial-") as out:
            trial(work.train_job(values), work.job.shares, _report, **work.folders(), out=Path(out), group=group)
    except Diverged as error:
        print(error)
        tune.report({SHARE: 1.0, METRIC: DIVERGED_NLL})
    finally:
        for other in others:
            ray.kill(other)


def _report(share: float, nll: float) -> None:
    tune.report({SHARE: share, METRIC: nll})


def _gather(work: Work, values: dict[str, Any]) -> tuple[ProcessGroup, Sequence[Any]]:
    """The group of this trial's workers, and the others, who have begun."""
    size = work.bench.workers
    if size == 1:
        return ProcessGroup(), ()
    with socket.socket() as probe:
        probe.bind(("", 0))
        address = f"{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"
    resources = {"num_cpus": work.bench.bundle.get("CPU", 0), "num_gpus": work.bench.bundle.get("GPU", 0)}
    placement = ray.util.get_current_placement_group()
    assert placement is not None
    others: list[Any] = [
        ray.remote(_Rank)
        .options(scheduling_strategy=PlacementGroupSchedulingStrategy(placement, rank), **resources)
        .remote(work)
        for rank in range(1, size)
    ]
    for rank, other in enumerate(others, start=1):
        other.run.remote(values, ProcessGroup(rank=rank, size=size, address=address))
    return ProcessGroup(rank=0, size=size, address=address), others


class _Rank:
    """A worker that trains beside rank 0."""

    def __init__(self, work: Work) -> None:
        os.environ.update(work.bench.environment)
        self._work = work

    def run(self, values: dict[str, Any], group: ProcessGroup) -> None:
        """Until the end of the training, or of this process."""
        trial = function_of("tune", self._work.bench.table)
        with tempfile.TemporaryDirectory(prefix="gridlaw-trial-") as out:
            job = self._work.train_job(values)
            trial(job, self._work.job.shares, _report, **self._work.folders(), out=Path(out), group=group)


# ---------------------------------------------------------------- telling


class _Watch(tune.Callback):
    """Tells of every trial that ends, in place of Tune's tables."""

    def __init__(self, tell: Callable[[Any], None]) -> None:
        self._tell = tell

    def __getstate__(self) -> dict[str, Any]:
        """Tune keeps a copy of all that it was given, but asks only this object; a console cannot be copied."""
        return {}

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune's name for a trial that ended well or was stopped."""
        self._tell(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune's name for a trial that failed for good."""
        self._tell(trial)


def _tell(say: Say, name: str, job: TuneJob, trial: Any) -> None:
    """One line a trial that has ended. `trial` is Tune's."""
    values = ", ".join(f"{key.replace('_', ' ')} {value:.3g}" for key, value in sorted(trial.config.items()))
    last = trial.last_result or {}
    nll, share = last.get(METRIC), last.get(SHARE, 0.0)
    if trial.status == "ERROR" or nll is None:
        said = f"failed: {_one_line(trial.get_error() or RuntimeError('no reason is known'))}"
    elif nll >= DIVERGED_NLL:
        said = "diverged"
    else:
        said = f"dev NLL {nll:.3f}" + ("" if share >= 1 else f", stopped at {share:.0%}")
    say(f"{name}: {values}: {said}")


def do_study(store: Store, step: Step, bench: Bench, name: str, say: Say, git_commit: str | None) -> Outcome:
    """Do the step of a study unless it is finished; what goes wrong becomes a failed outcome."""
    began = time.monotonic()
    job = step.settings
    assert isinstance(job, TuneJob)
    work = Work(job=job, store=store, needs=step.needs, bench=bench)
    try:
        with store.work(step.kind, step.key, uuid4().hex) as out:
            if out is None:
                return Outcome(key=step.key, status="cached")
            attempts.begin(out)
            try:
                study = search(work, out / tuned.JOURNAL, name, say)
            except Exception as error:
                attempts.fail(out, error)
                raise
            files.write_json(out / tuned.BEST, best_of(study).model_dump(mode="json"))
            pq.write_table(pa.Table.from_pylist(trial_rows(job, study), _COLUMNS), out / tuned.TRIALS)
            attempts.end(out)
            attempts.write_provenance(out, git_commit)
    except Exception as error:
        kind, line = failures.classify(error), failures.one_line(error)
        return Outcome(key=step.key, status="failed", kind=kind, error=line, seconds=time.monotonic() - began)
    return Outcome(key=step.key, status="done", seconds=time.monotonic() - began)


def bench_of(resources: Resources, table: Jobs) -> Bench:
    """What the connected Ray gives the trials of one study."""
    there, together = ray.cluster_resources(), resources.together
    gpus = resources.gpus_per_worker
    if gpus == "auto":
        gpus = 1.0 if there.get("GPU") else 0.0
    cpus = resources.cpus_per_worker
    rooms = [there.get("CPU", 1) / cpus, *([there.get("GPU", 0) / gpus] if gpus else [])]
    workers = min(int(min(rooms) + 1e-9), resources.workers or 2**31)
    if workers < together:
        message = f"{together} is more than the {workers} workers there can be"
        raise BadInput(f"resources.workers_per_training: {message}")
    return Bench(
        bundle={"CPU": cpus, **({"GPU": gpus} if gpus else {})},
        workers=together,
        slots=workers // together,
        environment=environment(cpus, gpus),
        max_failures=resources.max_attempts - 1,
        table=table,
    )
