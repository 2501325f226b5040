"""What a step is in numbers, as far as settings tell: the shape of its model, and the lengths of what goes through it.

Lengths are the longest that there may be: those of a corpus are known only when it has been read and tokenized.
"""

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from orchestrator.steps import Graph, Step
from orchestrator.tuning_settings import TuneJob
from workers.models.ladder import rung_shape
from workers.models.shapes import PRETRAINED, Shape
from workers.settings import (
    AnyIdentifiers,
    CodebookIdentifiers,
    HierarchicalIdentifiers,
    IdentifiersJob,
    MultiviewIdentifiers,
    NgramIdentifiers,
    TokenizerJob,
    TrainJob,
)

DEPTH = 16
"""Tokens of a hierarchical identifier at most: ten to the sixteenth documents."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of one training, and of what is evaluated with it."""

    shape: Shape
    query: int
    """Tokens of the longest query with its end."""
    target: int
    """Tokens of the longest identifier."""
    dropout: bool


def sizes_of(graph: Graph, train: Step) -> Sizes | None:
    """Of a training, or of those of a study; None where the model's shape is known only to the hub."""
    job, needs = train.settings, dict(train.needs)
    assert isinstance(job, TrainJob | TuneJob)
    tokenizer, made = graph.steps[needs["tokenizer"]].settings, graph.steps[needs["identifiers"]].settings
    assert isinstance(tokenizer, TokenizerJob)
    assert isinstance(made, IdentifiersJob)
    own = own_tokens(made.identifiers)
    if job.model.size is not None:
        assert tokenizer.tokenizer is not None
        shape: Shape | None = rung_shape(job.model.family, job.model.size, tokenizer.tokenizer.vocabulary + own)
    else:
        shape = pretrained_shape(job.model.pretrained or "")
        shape = shape and replace(shape, vocabulary=shape.vocabulary + own)
    if shape is None:
        return None
    dropout = job.model.pretrained is not None and shape.family == "t5"
    return Sizes(
        shape=shape, query=job.training.query_length + 1, target=longest_identifier(made.identifiers), dropout=dropout
    )


def longest_identifier(identifiers: AnyIdentifiers) -> int:
    """In tokens."""
    match identifiers:
        case MultiviewIdentifiers():
            return max(identifiers.length, identifiers.max_length)
        case NgramIdentifiers():
            return identifiers.length
        case CodebookIdentifiers():
            return identifiers.levels + 1  # and what tells apart documents of the same codes
        case HierarchicalIdentifiers():
            return DEPTH
    return identifiers.max_length


def own_tokens(identifiers: AnyIdentifiers) -> int:
    """New tokens that a kind brings, at most."""
    match identifiers:
        case CodebookIdentifiers():
            return (identifiers.levels + 1) * identifiers.codes
        case HierarchicalIdentifiers():
            return DEPTH * max(identifiers.branching, identifiers.leaf)
    return len(identifiers.VIEWS)


@lru_cache(maxsize=64)
def pretrained_shape(name: str) -> Shape | None:
    """From the table, or from the `config.json` of a local folder."""
    config = Path(name) / "config.json"
    if name in PRETRAINED:
        return PRETRAINED[name]
    try:
        return _shape(json.loads(config.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _shape(config: dict[str, Any]) -> Shape:
    """Of a Hugging Face configuration; KeyError where it is of another kind of model."""
    if config.get("is_encoder_decoder") or config["model_type"] == "t5":
        return Shape(
            family="t5",
            width=config["d_model"],
            layers=config["num_layers"],
            heads=config["num_heads"],
            head_width=config["d_kv"],
            feed_forward=config["d_ff"],
            vocabulary=config["vocab_size"],
            gated=str(config.get("feed_forward_proj", "relu")).startswith("gated"),
            tied=config.get("tie_word_embeddings", True),
        )
    return Shape(
        family="llama",
        width=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        head_width=config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"],
        kv_heads=config.get("num_key_value_heads"),
        feed_forward=config["intermediate_size"],
        vocabulary=config["vocab_size"],
        tied=config.get("tie_word_embeddings", False),
    )
