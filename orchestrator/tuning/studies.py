"""A study of learning rates in Optuna's journal: how it begins, is taken up again, and what has come of it.

Nothing here knows Ray. Whoever holds the step of a study is the only one to write to its journal.
"""

import itertools
import math
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from orchestrator.tuning_settings import Tuned, TuneJob

NAME = "study"
DIVERGED_LOSS = 1000.0
"""Nats: what a trial that diverged is told to have come to, so that the search keeps away from its rate."""
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


def open_journal(path: Path) -> JournalStorage:
    """Optuna's journal, mended.

    A process that was killed may have left its lock, which others would wait half a minute for, or half a line,
    behind which nothing could be read.
    """
    path.with_name(path.name + ".lock").unlink(missing_ok=True)
    if path.exists():
        whole = path.read_bytes().rpartition(b"\n")
        if whole[2]:
            path.write_bytes(whole[0] + whole[1])
    return JournalStorage(JournalFileBackend(str(path)))


def take_up(storage: JournalStorage, job: TuneJob) -> optuna.Study:
    """The study as it was left, or a new one: trials that were interrupted have failed, and are to be done anew."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(storage=storage, study_name=NAME, direction="minimize", load_if_exists=True)
    if not study.get_trials():
        for values in opening(job):
            study.enqueue_trial(values)
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            study.enqueue_trial(trial.params)
    return study


def opening(job: TuneJob) -> list[dict[str, Any]]:
    """Values of the first trials: the model's own rate, then a third of the trials spread evenly over the range.

    TPE knows nothing before it has seen some trials, and would begin with rates drawn at random.
    """
    low, high = (math.log(end) for end in job.learning_rate)
    count = max(2, job.trials // 3)
    gap = (high - low) / count
    spread = [math.exp(low + gap * (place + 0.5)) for place in range(count)]
    own = [job.first] if job.first is not None and job.learning_rate[0] <= job.first <= job.learning_rate[1] else []
    apart = [rate for rate in spread if all(abs(math.log(rate / one)) > gap / 4 for one in own)]
    rates = [*own, *apart][: job.trials]
    if not job.batch:
        return [{"learning_rate": rate} for rate in rates]
    return [
        {"learning_rate": rate, "batch": batch} for rate, batch in zip(rates, itertools.cycle(job.batch), strict=False)
    ]


def looks(job: TuneJob, trial: FrozenTrial) -> list[tuple[float, float]]:
    """(share of the training, loss) where the trial was looked at; without the end of one that diverged."""
    values = [value for _, value in sorted(trial.intermediate_values.items()) if value < DIVERGED_LOSS]
    return list(zip(job.looks.shares, values, strict=False))


def is_trained(trial: FrozenTrial) -> bool:
    """Whether the trial was trained to its end."""
    return trial.state == TrialState.COMPLETE and trial.value is not None and trial.value < DIVERGED_LOSS


def best_of(job: TuneJob, study: optuna.Study) -> Tuned:
    """What the study comes to; there must be a trial that was trained to its end."""
    ended, chosen = study.get_trials(states=ENDED), chosen_of(job, study)
    rates = [trial.params["learning_rate"] for trial in ended]
    rate = chosen.params["learning_rate"]
    return Tuned(
        learning_rate=rate,
        batch=chosen.params.get("batch"),
        dev_loss=_best(study).value or 0.0,
        chance=_chance(job),
        trials=len(ended),
        at_end="low" if rate == min(rates) else "high" if rate == max(rates) else None,
    )


def chosen_of(job: TuneJob, study: optuna.Study) -> FrozenTrial:
    """The best of the trials that were trained to their end; the one with the model's own rate where none has learnt.

    No better than chance, the rate with which least is learnt would look best.
    """
    best, chance = _best(study), _chance(job)
    if chance is not None and best.value is not None and best.value >= chance:
        own = (one for one in study.get_trials(states=ENDED) if one.params["learning_rate"] == job.first)
        return next((one for one in own if one.intermediate_values), best)
    return best


def _chance(job: TuneJob) -> float | None:
    return math.log1p(job.negatives) if job.metric == "dev_cgl" else None


def _best(study: optuna.Study) -> FrozenTrial:
    trained = (trial for trial in study.get_trials(states=ENDED) if is_trained(trial))
    return min(trained, key=lambda trial: (trial.value, trial.number))


def remark(job: TuneJob, found: Tuned) -> str:
    """What a person should know of what a study has found."""
    line = f"learning rate {found.learning_rate:.3g}" + (f", batch {found.batch}" if found.batch else "")
    if not found.has_learnt:
        why = f"no rate does better than chance, {found.chance:.3f}, with {job.pairs:,} pairs"
        line += " stays the model's own: " + why if found.learning_rate == job.first else f", though {why}"
    elif found.at_end:
        line += f" is the {'smallest' if found.at_end == 'low' else 'largest'} that was tried: widen the range"
    return line


def trial_rows(job: TuneJob, study: optuna.Study) -> list[dict[str, Any]]:
    """A row a trial, as in `results.schema.TUNING`, without the columns that name the study (`STUDY`)."""
    chosen = chosen_of(job, study)
    rows = []
    for trial in study.get_trials(states=[*ENDED, TrialState.FAIL]):
        if not trial.params:
            continue  # begun a moment before the process was killed
        seen = looks(job, trial)
        rate, batch = trial.params["learning_rate"], trial.params.get("batch", job.training.batch)
        rows.append(
            {
                "number": trial.number,
                "learning_rate": rate,
                "batch": batch,
                "share": seen[-1][0] if seen else 0.0,
                "dev_loss": seen[-1][1] if seen else None,
                "shares": [share for share, _ in seen],
                "dev_losses": [loss for _, loss in seen],
                "state": _state(trial),
                "seconds": trial.duration.total_seconds() if trial.duration else None,
                "is_own": rate == job.first,
                "is_chosen": trial.number == chosen.number,
            }
        )
    return rows


def _state(trial: FrozenTrial) -> str:
    if trial.state == TrialState.FAIL:
        return "failed"
    if trial.state == TrialState.PRUNED:
        return "stopped"
    return "trained" if is_trained(trial) else "diverged"
