"""The key of a step: a hash of everything that decides its result, and of nothing else.

Two grids that ask for the same thing have the same key, so nothing that is finished is done again.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.origins import identifiers_values, origin
from orchestrator.tuning_settings import TuneJob
from workers.corpus.settings import CorpusSettings, HfCorpus
from workers.settings import (
    BaselinesJob,
    EvaluationSettings,
    IdentifiersJob,
    ScoreJob,
    SearchJob,
    Settings,
    TokenizerJob,
    TrainingSettings,
    TrainJob,
)

RECIPES = {
    "corpus": 3,
    "tokenizer": 1,
    "embeddings": 1,
    "identifiers": 3,
    "baselines": 1,
    "tune": 1,
    "train": 1,
    "score": 1,
    "search": 1,
}
"""Step kinds in the order in which they are shown. Raise a kind's number when its code starts to give other results."""


def canonical(value: Any) -> str:
    """The one JSON text of a value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def key_of(kind: str, settings: Settings, needs: Mapping[str, str], **more: Any) -> str:
    """SHA-256 over what decides the step's result, as 64 hex digits."""
    content = {"kind": kind, "settings": _decisive(settings), "needs": dict(needs), "recipe": RECIPES[kind], **more}
    return hashlib.sha256(canonical(content).encode()).hexdigest()


def _decisive(settings: Settings) -> dict[str, Any]:
    """Settings as plain values, with those that no result depends on put to their defaults."""
    values = settings.model_dump(mode="json")
    if isinstance(settings, TrainJob | TuneJob):
        values["training"] = decisive_training(settings.training)
        values["model"]["pretrained"] = origin(values["model"]["pretrained"])
    elif isinstance(settings, TokenizerJob):
        values["pretrained"] = origin(values["pretrained"])
    elif isinstance(settings, IdentifiersJob):
        values["identifiers"] = identifiers_values(settings.identifiers)
    elif isinstance(settings, ScoreJob | SearchJob | BaselinesJob):
        for name in _UNUSED[type(settings)]:
            values["evaluation"][name] = EvaluationSettings.model_fields[name].default
    elif isinstance(settings, CorpusSettings):
        values["name"] = None  # a label: rows take it from the grid
        if values["source"] in ("jsonl", "beir") or (isinstance(settings, HfCorpus) and Path(settings.path).is_dir()):
            values["path"] = ""  # known by its fingerprint, wherever it lies
    return values


def decisive_training(training: TrainingSettings) -> dict[str, Any]:
    """What a training's result depends on.

    What `auto` may choose depends on the machine, and a result does not: it counts as what needs no choice.
    """
    values = training.model_dump(mode="json")
    for name in ("log_every", "checkpoint_every"):
        values[name] = TrainingSettings.model_fields[name].default
    del values["keep_weights"]
    values["zero_stage"] = training.stage
    if training.offloaded == "none":
        del values["offload"]  # the key of trainings from before there was a choice
    return values


_UNUSED: dict[type[Settings], tuple[str, ...]] = {
    ScoreJob: ("depth", "batch", "memory_mb"),
    SearchJob: ("negatives", "memory_mb"),
    BaselinesJob: ("negatives", "depth", "batch", "memory_mb"),
}
"""Settings of the evaluation that a step's result does not depend on. A search's does on `batch`: its latency and
memory are those of the batch that was asked for."""
