"""Training one model on the first D pairs. Interrupted and run again, it ends with the same weights."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from results.files import write_json
from workers import checkpoints
from workers import engine as ds
from workers.checkpoints import Progress
from workers.errors import BadInput, Diverged, Interrupted
from workers.flops import training_flops
from workers.identifiers.sets import IdentifierSet
from workers.memory import peak_bytes, reuse_freed_memory, start_peak
from workers.models.build import build, count_built, shape_of, start_embeddings, start_new_tokens
from workers.models.loss import PairLoss, pair_tensors
from workers.settings import ProcessGroup, TrainingSettings, TrainJob
from workers.stopping import stop_requested
from workers.tokenized import TokenizedCorpus
from workers.warm import clear_up_after, forget

ALONE = ProcessGroup()

AfterStep = Callable[[int, Any], None]
"""Called on every rank with the optimizer steps done and the engine; what it raises ends the training."""

BUCKET = 50
"""Batches that are sorted by length together: no padding to speak of, and still a random order."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a training's batches are cut."""

    steps: int
    micro_batch: int
    """Pairs a forward pass of one rank."""
    accumulation: int
    """Forward passes of one rank an optimizer step."""


def train(
    job: TrainJob,
    *,
    tokenizer: Path,
    identifiers: Path,
    embeddings: Path | None = None,
    out: Path,
    group: ProcessGroup = ALONE,
    after_step: AfterStep | None = None,
) -> None:
    """Train, logging to `curve.jsonl`; then write `weights/` and `metrics.json` and drop the optimizer's state.

    Every rank of `group` calls this with the same arguments. Run again in the same `out`, it goes on from the newest
    whole checkpoint. Raises BadInput where D is more than there is or the batch cannot be cut, Diverged at the first
    loss, gradient or weight that is not finite, and Interrupted, its checkpoint saved, where a rank was asked to stop.
    """
    forget()
    reuse_freed_memory()
    with clear_up_after():
        ds.join(group)
        start_peak()
        tokenized, ids = TokenizedCorpus.load(tokenizer), IdentifierSet.load(identifiers)
        if job.pairs > len(ids.train):
            raise BadInput(f"data.pairs: {job.pairs} training pairs were asked for, there are {len(ids.train)}")
        plan = plan_batches(job.pairs, job.training, group.size)
        make = partial(_make_engine, job, plan, tokenized, ids, embeddings, group)
        engine, start = checkpoints.restore(make, out, group, ds.layout(job.training, group))
        try:
            model = engine.module.model
            end = _run(engine, job, plan, start, tokenized, ids, out, group, after_step)
            ds.save_weights(engine, model, out / "weights", group)
        finally:
            engine.destroy()
    if group.rank == 0:
        write_json(out / "metrics.json", _metrics(job, plan, ids, model, end, group))
        checkpoints.remove(out)
    ds.wait_for_all()


def _metrics(
    job: TrainJob, plan: Plan, ids: IdentifierSet, model: PreTrainedModel, end: Progress, group: ProcessGroup
) -> dict[str, Any]:
    lengths = _lengths(job, ids)
    total, embedding = count_built(model)
    # A little more than the epochs asked for, because the last batch of each is filled up.
    passes = plan.steps * job.training.batch / job.pairs
    return {
        "n_params": total - embedding,
        "n_total": total,
        "n_embedding": embedding,
        "d_pairs": job.pairs,
        "d_tokens": int(lengths[1].sum()),
        "epochs": job.training.epochs,
        "learning_rate": job.training.learning_rate,
        "zero_stage": job.training.stage,
        "offload": job.training.offloaded,
        "workers": group.size,
        "micro_batch": plan.micro_batch,
        "accumulation": plan.accumulation,
        "query_length": job.training.query_length,
        "train_flops": passes * training_flops(shape_of(model), *lengths),
        "train_seconds": end.seconds,
        "peak_memory_bytes": peak_bytes(),
        "steps": plan.steps,
        "loss": end.loss,
    }


def plan_batches(pairs: int, settings: TrainingSettings, ranks: int) -> Plan:
    """Cut the global batch over ranks and accumulation."""
    share, left = divmod(settings.batch, ranks)
    micro = settings.micro_batch or share
    if left or share % micro:
        raise BadInput(
            f"training.batch: {settings.batch} pairs cannot be cut into micro-batches of {micro} on {ranks} worker(s)"
        )
    steps = settings.epochs * math.ceil(pairs / settings.batch)
    return Plan(steps=steps, micro_batch=micro, accumulation=share // micro)


def epoch_batches(lengths: np.ndarray, batch: int, seed: int, epoch: int) -> np.ndarray:
    """(batches, batch) pair numbers: every pair once, pairs of like length together, batches in random order.

    The last batch is filled up from the epoch's beginning, so that all are of one size on every rank.
    """
    rng = np.random.default_rng([seed, epoch])
    pairs = rng.permutation(len(lengths))
    for start in range(0, len(pairs), batch * BUCKET):
        bucket = pairs[start : start + batch * BUCKET]
        pairs[start : start + batch * BUCKET] = bucket[np.argsort(lengths[bucket], kind="stable")]
    batches = math.ceil(len(pairs) / batch)
    return rng.permutation(np.resize(pairs, (batches, batch)))


def _start(job: TrainJob, tokenized: TokenizedCorpus, ids: IdentifierSet, embeddings: Path | None) -> Any:
    model = build(job.model, ids.vocabulary, tokenized.pad, job.seed)
    if embeddings is not None:
        start_embeddings(model, job.model.family, np.load(embeddings / "embeddings.npy"), job.seed)
    if ids.token_vectors is not None:
        start_new_tokens(model, ids.token_vectors, tokenized.vocabulary)
    model.train()
    return model


def _make_engine(
    job: TrainJob,
    plan: Plan,
    tokenized: TokenizedCorpus,
    ids: IdentifierSet,
    embeddings: Path | None,
    group: ProcessGroup,
) -> Any:
    """The engine as it is before the first step."""
    module = PairLoss(_start(job, tokenized, ids, embeddings))
    return ds.make_engine(module, job.training, group, plan.micro_batch, plan.steps)


def _run(
    engine: Any,
    job: TrainJob,
    plan: Plan,
    start: Progress,
    tokenized: TokenizedCorpus,
    ids: IdentifierSet,
    out: Path,
    group: ProcessGroup,
    after_step: AfterStep | None,
) -> Progress:
    """All optimizer steps that are left."""
    settings, progress = job.training, start
    curve = Curve(out / "curve.jsonl", start.step) if group.rank == 0 else None
    began = time.perf_counter()
    per_epoch = plan.steps // settings.epochs
    lengths = _lengths(job, ids)[0]
    batches = np.empty((0, 0), dtype=np.int64)
    for step in range(start.step, plan.steps):
        epoch, within = divmod(step, per_epoch)
        if not len(batches) or within == 0:
            batches = epoch_batches(lengths, settings.batch, job.seed, epoch)
        torch.manual_seed(hash((job.seed, step, group.rank)) % 2**63)  # the same noise however often it was resumed
        loss, norm, stop = _optimizer_step(engine, batches[within], plan, job, tokenized, ids, group)
        for name, value in (("loss", loss), ("gradient's norm", norm)):
            if not math.isfinite(value):
                raise Diverged(f"the {name} is {value} at step {step + 1} of {plan.steps}")
        done, last = step + 1, step + 1 == plan.steps
        progress = Progress(step=done, seconds=start.seconds + time.perf_counter() - began, loss=loss)
        if curve is not None and (done % settings.log_every == 0 or last):
            curve.write(_curve_row(engine, progress, plan, job, norm))
        if after_step is not None:
            after_step(done, engine)
        if done % settings.checkpoint_every == 0 or stop or last:
            if not ds.weights_are_finite(engine):
                raise Diverged(f"a weight is not finite after step {done} of {plan.steps}")
            checkpoints.save(engine, out, group, ds.layout(settings, group), progress)
        if stop and not last:
            raise Interrupted(f"stopped, as asked, after step {done} of {plan.steps}")
    return replace(progress, seconds=start.seconds + time.perf_counter() - began)


def _optimizer_step(
    engine: Any,
    batch: np.ndarray,
    plan: Plan,
    job: TrainJob,
    tokenized: TokenizedCorpus,
    ids: IdentifierSet,
    group: ProcessGroup,
) -> tuple[float, float, bool]:
    """Forward and backward over this rank's share of the batch, then the update.

    Returns the batch's mean loss, the gradient's norm before clipping, and whether a rank was asked to stop. Most
    engines clip in their step and know the norm after it (and pass over an update whose gradient is not finite); the
    others' gradient is clipped here.
    """
    end = tokenized.mark if job.model.family == "llama" else tokenized.end
    share = batch[group.rank :: group.size].reshape(plan.accumulation, plan.micro_batch)
    offsets = ids.train.target.offsets
    tokens = int((offsets[batch + 1] - offsets[batch]).sum()) / (plan.accumulation * group.size)  # of the mean pass
    total, norm = torch.zeros((), device=engine.device), math.nan
    for number, micro in enumerate(share, start=1):
        ends = ids.ends(ids.train.view[micro], end)
        inputs = pair_tensors(
            ids.train.sources, ids.train.source[micro], ids.train.target, micro, ends, job.training.query_length
        )
        loss = engine(*(tensor.to(engine.device) for tensor in inputs), tokens)
        engine.backward(loss)
        total += loss.detach() / plan.accumulation
        if number == len(share) and not ds.knows_norm(job.training):
            norm = ds.clip_gradient(engine, job.training.clip)
        engine.step()
    if ds.knows_norm(job.training):
        norm = float(engine.get_global_grad_norm())
    mine = torch.stack([total, torch.full_like(total, float(stop_requested()))])
    loss, asked = ds.sum_over_group(mine).tolist()
    return loss / group.size, norm, asked > 0


def _lengths(job: TrainJob, ids: IdentifierSet) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of the first D pairs' queries (cut, with the end) and identifiers."""
    queries = np.minimum(ids.train.sources.lengths[ids.train.source[: job.pairs]], job.training.query_length) + 1
    return queries, ids.train.target.lengths[: job.pairs]


def _curve_row(engine: Any, progress: Progress, plan: Plan, job: TrainJob, norm: float) -> dict[str, Any]:
    return {
        "step": progress.step,
        "steps": plan.steps,
        "pairs": progress.step * job.training.batch,
        "loss": progress.loss,
        "learning_rate": engine.get_lr()[0],
        "gradient_norm": norm,
        "seconds": progress.seconds,
    }


class Curve:
    """A JSON line a logged step. On resume, what was logged after the checkpoint is cut off."""

    def __init__(self, path: Path, resumed_at: int) -> None:
        kept: list[str] = []
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:  # torn by a kill; it is logged again
                    break
                if row["step"] <= resumed_at:
                    kept.append(line)
        path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        self.path = path

    def write(self, row: dict[str, Any]) -> None:
        """Append one line; the live view reads it at once."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
