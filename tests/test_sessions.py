"""Sessions against plain forward passes: rows that branch, die out and start again share one encoding."""

import numpy as np
import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from workers.errors import BadInput
from workers.models import attention, layers
from workers.models.build import build
from workers.models.prompts import prompts
from workers.models.sessions import Session, open_session
from workers.ragged import Ragged
from workers.settings import ModelSettings

VOCABULARY = 97
QUERIES = Ragged.of([[5, 6, 7], [8], [], [9, 10, 11, 12, 13, 14]])
ENDS = np.array([1, 1, 2, 1])
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
LONG_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
DYNAMIC_ROPE = {"rope_type": "dynamic", "rope_theta": 10.0, "factor": 2.0}


def gated_t5() -> PreTrainedModel:
    """T5 v1.1: gated feed-forward and an output layer of its own."""
    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
    )
    return T5ForConditionalGeneration(config)


def ladder(family: str, size: str) -> PreTrainedModel:
    return build(ModelSettings(family=family, size=size), VOCABULARY, pad=0, seed=3)


MODELS = {
    "t5": lambda: ladder("t5", "230k"),
    "llama": lambda: ladder("llama", "6k"),
    "t5-gated": gated_t5,
    "llama-gqa": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE)),
    "mistral-window": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=4)),
    "llama-biases": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, attention_bias=True, mlp_bias=True)),
    "llama-long": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, rope_parameters=LONG_ROPE)),
    "llama-dynamic": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, rope_parameters=DYNAMIC_ROPE)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=8)),
    "granite": lambda: GraniteForCausalLM(GraniteConfig(**SHAPE, residual_multiplier=0.5, embedding_multiplier=2.0)),
    "mistral-window-1": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=1)),
}


def make(name: str, seed: int = 3) -> PreTrainedModel:
    """Norms and biases are not the ones and zeros they begin as."""
    torch.manual_seed(seed)
    model = MODELS[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.2 * torch.randn_like(parameter)
    return model


def path_log_probs(model: PreTrainedModel, query: int, written: tuple[int, ...]) -> np.ndarray:
    """Log-probabilities of the next token by one plain forward pass of one path: the oracle."""
    prompt = [*QUERIES[query], ENDS[query]]
    with torch.inference_mode():
        if model.config.is_encoder_decoder:
            outputs = model(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([[0, *written]]))
        else:
            outputs = model(input_ids=torch.tensor([[*prompt, *written]]))
    return torch.log_softmax(outputs.logits[0, -1].float(), -1).numpy()


def open_all(model: PreTrainedModel) -> Session:
    return open_session(model, QUERIES, np.arange(len(QUERIES)), ENDS, longest=64)


def advance(session: Session, paths: list, parents: list[int], seed: int) -> tuple[list, np.ndarray]:
    tokens = np.random.default_rng(seed).integers(2, VOCABULARY, size=len(parents))
    log_probs = session.advance(torch.tensor(parents, dtype=torch.long), torch.from_numpy(tokens)).numpy().copy()
    moved = [(paths[p][0], (*paths[p][1], int(t))) for p, t in zip(parents, tokens, strict=True)]
    return moved, log_probs


def check(model: PreTrainedModel, paths: list, log_probs: np.ndarray) -> None:
    assert log_probs.dtype == np.float32
    assert log_probs.shape == (len(paths), VOCABULARY)
    for (query, written), row in zip(paths, log_probs, strict=True):
        np.testing.assert_allclose(row, path_log_probs(model, query, written), rtol=1e-6, atol=1e-5)


WALKS = {
    "branching": [[0, 0, 1, 2, 3, 3], [0, 1, 1, 2, 3, 4, 5, 5, 5], [0, 0, 3, 4, 8]],
    "even groups": [[0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 2, 3, 4, 5, 6, 7], [1, 0, 2, 2, 5, 4, 7, 6]],
    "dying queries": [[0, 0, 3], [2, 2, 2], [1], [0, 0]],
    "all die": [[1, 1], []],
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("walk", WALKS)
def test_advances_equal_plain_forward(name: str, walk: str) -> None:
    model = make(name)
    session = open_all(model)
    start = [(query, ()) for query in range(len(QUERIES))]
    check(model, start, session.first.numpy())
    for again in range(2):
        paths = start
        for depth, parents in enumerate(WALKS[walk]):
            paths, log_probs = advance(session, paths, parents, seed=depth + 10 * again)
            check(model, paths, log_probs)
        session.restart()


@pytest.mark.parametrize("name", ["t5", "llama", "t5-gated", "llama-gqa"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_near_to_the_truth_as_a_plain_forward(name: str, dtype: torch.dtype) -> None:
    ours, plain = [], []
    for seed in range(4):  # rounding errors of one model are alike in all its rows
        model, exact = make(name, seed).to(dtype), make(name, seed).to(dtype).float()
        session = open_all(model)
        paths = [(query, ()) for query in range(len(QUERIES))]
        for depth, parents in enumerate(WALKS["branching"]):
            paths, log_probs = advance(session, paths, parents, seed=depth)
            truth = np.stack([path_log_probs(exact, *path) for path in paths])
            ours.append(((log_probs - truth) ** 2).mean())
            plain.append(((np.stack([path_log_probs(model, *path) for path in paths]) - truth) ** 2).mean())
    assert np.sqrt(np.mean(ours)) < 1.2 * np.sqrt(np.mean(plain)) < 0.3


@pytest.mark.parametrize("name", MODELS)
def test_a_padded_batch_equals_one_query_at_a_time(name: str) -> None:
    model = make(name)
    together = open_all(model)
    tokens = torch.tensor([20, 21, 22, 23])
    log_probs = together.advance(torch.arange(4), tokens).clone()
    for query in range(len(QUERIES)):
        alone = open_session(model, QUERIES, np.array([query]), ENDS[[query]], longest=64)
        torch.testing.assert_close(together.first[query], alone.first[0], atol=1e-5, rtol=1e-6)
        row = alone.advance(torch.zeros(1, dtype=torch.long), tokens[[query]])[0]
        torch.testing.assert_close(log_probs[query], row, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("name", ["t5", "llama"])
@pytest.mark.parametrize("together", [1, 2 * VOCABULARY, 2**19])
def test_scores_are_entries_of_the_table(name: str, together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes through the head at once, in any order, a row several times or never."""
    model = make(name)
    parents, tokens = torch.tensor([0, 0, 1, 3, 3]), torch.tensor([5, 6, 7, 8, 9])
    table = open_all(model).advance(parents, tokens)
    rows, wanted = np.array([4, 0, 2, 0, 0, 3]), np.array([3, 2, 96, 2, 0, 50])
    monkeypatch.setitem(attention.VALUES_TOGETHER, "cpu", together)
    found = open_all(model).score(parents, tokens, rows, wanted)
    torch.testing.assert_close(found, table[rows, wanted], atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("name", ["t5", "llama"])
def test_prompts_are_never_copied_to_rows(name: str) -> None:
    model = make(name)
    session = open_all(model)
    prompts = session.decoder.prompts
    before = [(prompt.keys.data_ptr(), prompt.keys.shape) for prompt in prompts]
    session.advance(torch.tensor([0] * 50 + [3] * 7), torch.full((57,), 9))
    assert [(prompt.keys.data_ptr(), prompt.keys.shape) for prompt in prompts] == before
    assert all(len(prompt.keys) == len(QUERIES) for prompt in prompts)


def test_the_models_own_attention_is_left_as_it_was() -> None:
    for name in MODELS:
        model = make(name)
        before = (model.config._attn_implementation, model.get_decoder().config._attn_implementation)
        open_all(model).advance(torch.arange(4), torch.arange(4) + 2)
        assert (model.config._attn_implementation, model.get_decoder().config._attn_implementation) == before
        with pytest.raises(IndexError):
            open_all(model).advance(torch.arange(4), torch.full((4,), VOCABULARY))
        assert (model.config._attn_implementation, model.get_decoder().config._attn_implementation) == before


def test_only_known_architectures_have_a_loop_of_their_own() -> None:
    loops = {name: type(open_all(make(name)).decoder).__name__ for name in MODELS}
    assert {name for name, loop in loops.items() if loop == "AnyDecoder"} == {"qwen3", "granite", "llama-dynamic"}


def test_capped_attention_is_refused_in_one_line() -> None:
    config = Gemma2Config(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        pad_token_id=0,
    )
    session = open_all(Gemma2ForCausalLM(config).eval())
    with pytest.raises(BadInput, match=r"^models\.pretrained: Gemma2Attention caps attention scores"):
        session.advance(torch.arange(4), torch.arange(4) + 2)


def test_large_projections_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "JOINED_VALUES", 0)
    for name in ("t5", "llama-gqa", "qwen2"):
        test_advances_equal_plain_forward(name, "branching")


def test_prompts_attend_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(attention.VALUES_TOGETHER, "cpu", 300)  # scores of one or two queries
    for name in ("t5", "llama-gqa", "mistral-window"):
        test_advances_equal_plain_forward(name, "branching")


def test_rows_keep_the_order_of_their_queries() -> None:
    with pytest.raises(ValueError, match="order of their queries"):
        open_all(make("t5")).advance(torch.tensor([1, 0]), torch.tensor([5, 5]))


def test_prompts_are_cut_and_end_as_asked() -> None:
    ended = prompts(QUERIES, np.array([3, 2, 0, 3]), np.array([90, 91, 92, 93]), longest=2)
    assert [row.tolist() for row in (ended[i] for i in range(4))] == [[9, 10, 90], [91], [5, 6, 92], [9, 10, 93]]
    assert ended.padded(np.array([1, 0]), fill=7).tolist() == [[91, 7, 7], [9, 10, 90]]
    assert ended.padded(np.array([1, 0]), fill=7, left=True).tolist() == [[7, 7, 91], [9, 10, 90]]
    assert ended.padded(np.array([], dtype=np.int64), fill=7).shape == (0, 0)
