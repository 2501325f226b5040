"""Studies of learning rates by Ray Tune; with `cluster`, all of the project that imports Ray.

A study is Optuna's, in a journal in its step's folder: every trial that has ended is there, so a study that was
killed goes on with the trials that are left. Tune's own record of an experiment is not kept: restored, it would
begin anew what was running and know nothing of what the journal has.
"""

import functools
import logging
import math
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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

from orchestrator.cluster.connection import environment
from orchestrator.nodes import Demand, Node
from orchestrator.running import attempts, failures
from orchestrator.running.attempts import Attempt
from orchestrator.running.driving import Ledger
from orchestrator.running.fitting import fitted
from orchestrator.running.jobs import Desk, Outcome, function_of
from orchestrator.steps import Step
from orchestrator.tuning import tuned
from orchestrator.tuning.studies import (
    DIVERGED_LOSS,
    ENDED,
    NAME,
    best_of,
    is_trained,
    looks,
    open_journal,
    opening,
    remark,
    take_up,
    trial_rows,
)
from orchestrator.tuning_settings import TuneJob
from results import files, schema
from workers.errors import Diverged, Interrupted
from workers.settings import ProcessGroup, TrainJob

METRIC, SHARE = "dev_loss", "share"
METRICS = {"dev_rr": "the dev queries' 1 - RR@10", "dev_cgl": "the dev queries' CGL", "dev_nll": "the dev queries' NLL"}
ROUNDS = 3
"""A study is done in so many rounds at least, however many workers there are: each learns from the one before."""
_COLUMNS = pa.schema([field for field in schema.TUNING if field.name not in schema.STUDY])


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What the trials of a study are done on."""

    desk: Desk
    demand: Demand
    """Of one trial: that of the trainings which the study is for."""
    slots: int
    """Trials that there is room for at once."""
    max_failures: int
    """How often a trial whose worker dies is begun anew."""
    stop: Callable[[], bool]
    """Whether the sweep was asked to stop. For the driver alone."""
    say: Callable[[str], None]
    """Tells a person. For the driver alone."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every trial of a study shares, and is sent to their processes."""

    job: TuneJob
    desk: Desk
    needs: tuple[tuple[str, str], ...]
    """(kind, key) of the finished steps that a training takes."""
    demand: Demand

    def begin(self) -> tuple[Callable[..., None], dict[str, Path]]:
        """What does a trial, and the folders of the steps that it takes, in the process that calls this."""
        os.environ.update(environment(self.demand.cpus, self.demand.gpus))  # before torch is imported
        function = function_of("tune", self.desk.jobs)
        return function, {kind: self.desk.store.fetch(kind, key) for kind, key in self.needs}

    def train_job(self, values: Mapping[str, Any]) -> TrainJob:
        """The training of a trial with these values, cut as its demand says."""
        job, ranks = self.job, self.demand.workers
        # A trial is never resumed, so it saves nothing on its way.
        training = job.training.model_copy(update={**values, "checkpoint_every": 2**53})
        made = fitted(
            TrainJob(model=job.model, training=training, pairs=job.pairs, seed=job.seed), self.demand, ranks, 0
        )
        assert isinstance(made, TrainJob)
        micro, share = made.training.micro_batch, made.training.batch // ranks
        if micro is None or share % micro == 0:
            return made
        # Chosen for the grid's batch, and this is another.
        return made.model_copy(
            update={"training": made.training.model_copy(update={"micro_batch": math.gcd(share, micro)})}
        )


def tune_all(
    studies: Sequence[Step], names: Mapping[str, str], benches: Mapping[str, Bench], ledger: Ledger, pause: float = 2.0
) -> None:
    """Do the studies one after the other, those of other drivers by waiting for them, until all have ended.

    One whose needed steps are not there is left out. What fails is recorded; returns early where asked to stop.

    `names` and `benches` are by the study's key; `pause` is between looks at studies that other drivers do.
    """
    left = list(studies)
    while left:
        for step in list(left):
            bench = benches[step.key]
            if bench.stop():
                return
            if not all(bench.desk.store.is_finished(kind, key) for kind, key in step.needs):
                left.remove(step)
                continue
            admitted = ledger.admit(step)
            if admitted is None:
                continue
            if isinstance(admitted, str):
                outcome = do_study(step, bench, names[step.key], admitted)
                if outcome.status == "failed" and outcome.kind != failures.INTERRUPTED:
                    bench.say(f"{names[step.key]}: failed: {outcome.kind}: {outcome.error}")
                    ledger.gave_up(step, outcome)
                ledger.release(step)
            left.remove(step)
        if left:
            time.sleep(pause)


# ---------------------------------------------------------------- the study


def search(work: Work, bench: Bench, journal: Path, name: str) -> optuna.Study:
    """Go on with the study in `journal` until it has all its trials; a new one where there is none.

    Raises:
        Interrupted: asked to stop; trials that had ended are kept.
        Diverged: no trial was trained to its end, because they diverged.
        RuntimeError: none was, because they broke; with what the last one said.
    """
    job = work.job
    storage = open_journal(journal)
    study = take_up(storage, job)
    left = job.trials - len(study.get_trials(states=ENDED))
    errors: list[str] = []
    if left > 0:
        bench.say(f"{name}: {left} of {job.trials} trials to go, by {METRICS[job.metric]}")
        errors = _fit(work, bench, study, storage, left, name)
    if not any(is_trained(trial) for trial in study.get_trials(states=ENDED)):
        if study.get_trials(states=[TrialState.COMPLETE]):
            low, high = job.learning_rate
            raise Diverged(f"every trial diverged with a learning rate between {low:g} and {high:g}")
        raise RuntimeError(f"no trial was trained to its end; the last: {errors[-1] if errors else 'nothing is known'}")
    return study


def _fit(work: Work, bench: Bench, study: optuna.Study, storage: JournalStorage, left: int, name: str) -> list[str]:
    """Run `left` trials; returns what those that broke said."""
    job, demand = work.job, work.demand
    bundle = {"CPU": demand.cpus, **({"GPU": demand.gpus} if demand.gpus else {})}
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what fails is told in one line
    bundles = tune.PlacementGroupFactory([bundle] * demand.workers)
    with tempfile.TemporaryDirectory(prefix="gridlaw-tune-") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(functools.partial(run_trial, work), bundles),
            tune_config=tune.TuneConfig(
                search_alg=_searcher(job, storage, len(study.get_trials())),
                scheduler=_scheduler(job, study),
                num_samples=left,
                max_concurrent_trials=max(1, min(bench.slots, math.ceil(job.trials / ROUNDS))),
                reuse_actors=demand.workers == 1,  # a process that has joined a group cannot join another
            ),
            run_config=tune.RunConfig(
                name=NAME,
                storage_path=scratch,
                failure_config=tune.FailureConfig(max_failures=bench.max_failures),
                callbacks=[_Watch(functools.partial(_tell, bench.say, name), bench.stop)],
                verbose=0,
            ),
        )
        try:
            return [_last_line(str(error)) for error in tuner.fit().errors]
        except Exception:
            if bench.stop():  # Tune has its own words for what a callback raises
                raise Interrupted("stopped, as asked; trials that had ended are kept") from None
            raise


def _last_line(text: str) -> str:
    """What a failed trial said last, from the text that Tune made of its error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no reason is known"]
    return lines[-1].rpartition(f"{TrialFailed.__name__}: ")[2][:300]


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
        for share, loss in looks(job, trial):
            scheduler.on_trial_result(nobody, earlier, {SHARE: share, METRIC: loss})
    return scheduler


# ---------------------------------------------------------------- one trial, in a process of its own


class TrialFailed(RuntimeError):
    """What went wrong, in one line: the last of what Tune tells."""


def run_trial(work: Work, values: dict[str, Any]) -> None:
    """What Tune calls in a trial's process, with the learning rate (and batch) to try. Rank 0 of those together."""
    trial, folders = work.begin()
    group, others = _gather(work, values)
    try:
        with tempfile.TemporaryDirectory(prefix="gridlaw-trial-") as out:
            trial(work.train_job(values), work.job.looks, _report, **folders, out=Path(out), group=group)
    except Diverged as error:
        print(error)
        tune.report({SHARE: 1.0, METRIC: DIVERGED_LOSS})
    except Exception as error:
        raise TrialFailed(failures.one_line(error)) from error
    finally:
        for other in others:
            ray.kill(other)


def _report(share: float, loss: float) -> None:
    tune.report({SHARE: share, METRIC: loss})


def _gather(work: Work, values: dict[str, Any]) -> tuple[ProcessGroup, Sequence[Any]]:
    """The group of this trial's workers, and the others, who have begun."""
    size = work.demand.workers
    if size == 1:
        return ProcessGroup(), ()
    with socket.socket() as probe:
        probe.bind(("", 0))
        address = f"{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"
    resources = {"num_cpus": work.demand.cpus, "num_gpus": work.demand.gpus}
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
        self._work = work

    def run(self, values: dict[str, Any], group: ProcessGroup) -> None:
        """Until the end of the training, or of this process."""
        trial, folders = self._work.begin()
        with tempfile.TemporaryDirectory(prefix="gridlaw-trial-") as out:
            job = self._work.train_job(values)
            trial(job, self._work.job.looks, _report, **folders, out=Path(out), group=group)


# ---------------------------------------------------------------- telling


class _Watch(tune.Callback):
    """Tells of every trial that ends, in place of Tune's tables, and ends the study where that is asked for."""

    def __init__(self, tell: Callable[[Any], None], stop: Callable[[], bool]) -> None:
        self._tell, self._stop = tell, stop

    def __getstate__(self) -> dict[str, Any]:
        """Tune keeps a copy of all that it was given, but asks only this object; a console cannot be copied."""
        return {}

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune's name for a trial that ended well or was stopped."""
        self._tell(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune's name for a trial that failed for good."""
        self._tell(trial)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Tune's name for a moment between two things that happen."""
        if self._stop():
            raise Interrupted


def _error_of(trial: Any) -> str:
    """From Tune's own file of it here: the copy in Tune's storage may come later."""
    try:
        return Path(trial.error_file).read_text(encoding="utf-8")
    except (OSError, TypeError):
        return ""


def _tell(say: Callable[[str], None], name: str, trial: Any) -> None:
    """One line a trial that has ended. `trial` is Tune's."""
    values = ", ".join(f"{key.replace('_', ' ')} {value:.3g}" for key, value in sorted(trial.config.items()))
    last = trial.last_result or {}
    loss, share = last.get(METRIC), last.get(SHARE, 0.0)
    if trial.status == "ERROR" or loss is None:
        said = f"failed: {_last_line(_error_of(trial))}"
    elif loss >= DIVERGED_LOSS:
        said = "diverged"
    else:
        said = f"{loss:.3f}" + ("" if share >= 1 else f", stopped at {share:.0%}")
    say(f"{name}: {values}: {said}")


def do_study(step: Step, bench: Bench, name: str, owner: str) -> Outcome:
    """Do the step of a study unless it is finished; what goes wrong becomes a failed outcome."""
    began, desk, job = time.monotonic(), bench.desk, step.settings
    assert isinstance(job, TuneJob)
    work = Work(job=job, desk=desk, needs=step.needs, demand=bench.demand)
    try:
        with desk.store.work(step.kind, step.key, owner) as out:
            if out is None:
                return Outcome(key=step.key, status="cached")
            attempts.begin(out, Attempt(started=attempts.now(), node=socket.gethostname(), pid=os.getpid()))
            try:
                study = search(work, bench, out / tuned.JOURNAL, name)
            except Exception as error:
                attempts.fail(out, error)
                raise
            found = best_of(job, study)
            bench.say(f"{name}: {remark(job, found)}")
            files.write_json(out / tuned.BEST, found.model_dump(mode="json"))
            pq.write_table(pa.Table.from_pylist(trial_rows(job, study), _COLUMNS), out / tuned.TRIALS)
            attempts.end(out)
            attempts.write_provenance(out, desk.git_commit)
    except Exception as error:
        kind, line = failures.classify(error), failures.one_line(error)
        return Outcome(key=step.key, status="failed", kind=kind, error=line, seconds=time.monotonic() - began)
    return Outcome(key=step.key, status="done", seconds=time.monotonic() - began)


def slots(demand: Demand, nodes: Iterable[Node], limit: int | None) -> int:
    """How many such trials the machines have room for at once; `limit`: on the workers of them all together."""
    workers = 0
    for node in nodes:
        rooms = [node.cpus / demand.cpus, *([node.gpus / demand.gpus] if demand.gpus else [])]
        workers += min(int(min(rooms) + 1e-9), node.memory // demand.memory if demand.memory else 2**31)
    return max(1, min(workers, limit or workers) // demand.workers)
