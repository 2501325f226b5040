"""Building a model from the ladder or from pretrained weights, and loading one that was trained."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.utils import logging as transformers_logging

from workers.device import device, on_gpu
from workers.errors import BadInput
from workers.models.ladder import rung_shape
from workers.models.shapes import Shape
from workers.settings import ModelSettings

transformers_logging.disable_progress_bar()

EMBEDDING_SCALE = {"t5": 1.0, "llama": 0.2}
"""Root mean square of a token's starting embedding, by family; measured to learn best."""

CONTEXT = 1024
"""Positions of a ladder LLaMA: the query's longest length and the identifier's fit with room to spare."""

ROPE_BASE = 1e5
"""Of a ladder LLaMA's rotary positions; a little better than the usual 1e4 with such small heads."""


SPREAD_FROM = 0.2
"""Of a GPU's memory: weights that take more of it go on all the GPUs that the worker has."""


def build(model: ModelSettings, vocabulary: int, pad: int, seed: int) -> PreTrainedModel:
    """A model in float32 whose vocabulary has room for the identifiers' own tokens. The seed decides every weight."""
    torch.manual_seed(seed)
    if model.pretrained is not None:
        return _pretrained(model.family, model.pretrained, vocabulary)
    assert model.size is not None
    shape = rung_shape(model.family, model.size, vocabulary)
    return _t5(shape, pad) if model.family == "t5" else _llama(shape, pad)


def load(folder: Path) -> PreTrainedModel:
    """The weights of a finished training, on the best device, ready for inference.

    On a worker of several GPUs a large model is spread over them, layer after layer.
    """
    kind = AutoConfig.from_pretrained(folder).is_encoder_decoder
    loader: Any = T5ForConditionalGeneration if kind else AutoModelForCausalLM
    if _is_large(folder):
        return loader.from_pretrained(folder, use_safetensors=True, device_map="balanced").eval()
    model: Any = loader.from_pretrained(folder, use_safetensors=True)
    return model.to(device()).eval()


def _is_large(folder: Path) -> bool:
    """Whether there are several GPUs, and the weights would take more than `SPREAD_FROM` of one."""
    if not on_gpu() or torch.cuda.device_count() < 2:
        return False
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return size > SPREAD_FROM * torch.cuda.get_device_properties(0).total_memory


def is_spread(model: PreTrainedModel) -> bool:
    """Whether the model's layers are on several devices."""
    return len({parameter.device for parameter in model.parameters()}) > 1


def start_embeddings(model: PreTrainedModel, family: str, tokens: np.ndarray, seed: int) -> None:
    """Put corpus embeddings, float32 (tokens, rank), into the first rows of the input embedding.

    A rank below the model's width is spread over it by a random rotation, so the table keeps that rank;
    a larger one is cut. Every row then has the family's root mean square. Tokens that the corpus says nothing
    of (special ones above all) get a random row: from zero, a norm layer's gradient would dwarf all others.
    """
    table = rotate_into(tokens, _input_table(model).shape[1], seed)
    silent = ~table.any(axis=1)
    table[silent] = np.random.default_rng([seed, 1]).standard_normal((silent.sum(), table.shape[1]))
    _write_rows(_input_table(model), 0, table * EMBEDDING_SCALE[family])


def start_new_tokens(model: PreTrainedModel, vectors: np.ndarray, first: int) -> None:
    """Start the identifiers' own tokens, from `first` on, from their meaning: float32 (new tokens, dimensions).

    Their principal directions become the model's, at the scale of its other rows, in the output layer too where that
    is its own. A zero vector (a token without meaning) keeps its random row.
    """
    known = np.flatnonzero(np.abs(vectors).sum(axis=1) > 0)
    centred = vectors[known] - vectors[known].mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    width = _input_table(model).shape[1]
    rows = rotate_into((left * singular)[:, :width], width, seed=0)
    tables = [_input_table(model)]
    output = model.get_output_embeddings().weight
    if isinstance(output, torch.Tensor) and output.data_ptr() != tables[0].data_ptr():
        tables.append(output)
    for table in tables:
        scale = float(table[:first].detach().pow(2).mean().sqrt())
        for token, row in zip(known, rows, strict=True):
            _write_rows(table, first + int(token), row[None] * scale)


def rotate_into(table: np.ndarray, width: int, seed: int) -> np.ndarray:
    """(rows, rank) -> (rows, width), rows of root mean square 1 (zero rows stay zero)."""
    table = table[:, :width]
    rank = table.shape[1]
    if rank < width:
        directions = np.random.default_rng(seed).standard_normal((width, rank))
        table = table @ np.linalg.qr(directions)[0].T
    size = np.sqrt((table**2).mean(axis=1, keepdims=True))
    return np.divide(table, size, out=np.zeros_like(table), where=size > 0)


def _input_table(model: PreTrainedModel) -> torch.Tensor:
    """The weight of the input embedding, (vocabulary, width)."""
    table = model.get_input_embeddings().weight
    assert isinstance(table, torch.Tensor)
    return table


def _write_rows(table: torch.Tensor, first: int, rows: np.ndarray) -> None:
    with torch.no_grad():
        table[first : first + len(rows)] = torch.from_numpy(np.asarray(rows, dtype=np.float32))


def _t5(shape: Shape, pad: int) -> PreTrainedModel:
    config: Any = T5Config(
        vocab_size=shape.vocabulary,
        d_model=shape.width,
        d_kv=shape.head_width,
        d_ff=shape.feed_forward,
        num_layers=shape.layers,
        num_decoder_layers=shape.layers,
        num_heads=shape.heads,
        dropout_rate=0.0,
        pad_token_id=pad,
        eos_token_id=None,
    )
    config.decoder_start_token_id = pad
    return T5ForConditionalGeneration(config)


def _llama(shape: Shape, pad: int) -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_BASE},
        initializer_range=shape.width**-0.5 / 2,
        pad_token_id=pad,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config)


def _pretrained(family: str, name: str, vocabulary: int) -> PreTrainedModel:
    loader: Any = T5ForConditionalGeneration if family == "t5" else AutoModelForCausalLM
    try:
        model = loader.from_pretrained(name, use_safetensors=True, dtype=torch.float32)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BadInput(f"models.pretrained: '{name}' cannot be loaded as {family}: {reason}") from error
    if vocabulary > _input_table(model).shape[0]:
        model.resize_token_embeddings(vocabulary)
    return model


def count_built(model: PreTrainedModel) -> tuple[int, int]:
    """(all parameters, those of the input embedding), counted on the model itself, wherever ZeRO keeps its parts."""
    return sum(_values(parameter) for parameter in model.parameters()), _values(_input_table(model))


def _values(parameter: torch.Tensor) -> int:
    """ZeRO stage 3 leaves a parameter empty and keeps its size beside it."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def shape_of(model: PreTrainedModel) -> Shape:
    """The shape of a model that was built or loaded, for the FLOPs formulas."""
    config = model.config
    if config.is_encoder_decoder:
        return Shape(
            family="t5",
            width=config.d_model,
            layers=config.num_layers,
            heads=config.num_heads,
            head_width=config.d_kv,
            feed_forward=config.d_ff,
            vocabulary=config.vocab_size,
            gated=config.is_gated_act,
            tied=config.tie_word_embeddings,
            buckets=config.relative_attention_num_buckets,
        )
    return Shape(
        family="llama",
        width=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        head_width=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        feed_forward=config.intermediate_size,
        vocabulary=config.vocab_size,
        tied=config.tie_word_embeddings,
    )
