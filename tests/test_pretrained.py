"""Pretrained models and encoders, as Hugging Face folders: tiny random ones stand in for real weights."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Steps
from safetensors.torch import load_file
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from workers import evaluation, identifiers, tokenizer, training
from workers.errors import BadInput
from workers.identifiers.document_vectors import encode
from workers.settings import (
    Budget,
    CodebookIdentifiers,
    EvaluationSettings,
    IdentifiersJob,
    ModelSettings,
    NgramIdentifiers,
    SearchJob,
    TokenizerJob,
    TokenizerSettings,
    TrainingSettings,
    TrainJob,
)

WORDS = ["a river stands by the bridge", "an engine and a violin", "what follows the orchid"]


def save_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """A tokenizer with an end token and, as LLaMA's has, none for padding or marks."""
    trained = tokenizer.train(TokenizerSettings(vocabulary=400), WORDS)
    plain = PreTrainedTokenizerFast(tokenizer_object=trained.backend_tokenizer, eos_token="</s>")
    plain.save_pretrained(folder)
    return plain


@pytest.fixture(params=["t5", "llama"])
def pretrained(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    folder = tmp_path / "model"
    vocabulary = len(save_tokenizer(folder))
    if request.param == "t5":
        shape = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
        T5ForConditionalGeneration(T5Config(vocab_size=vocabulary, **shape)).save_pretrained(folder)
    else:
        shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = LlamaConfig(vocab_size=vocabulary, tie_word_embeddings=False, **shape)
        LlamaForCausalLM(config).save_pretrained(folder)
    return request.param, folder


@pytest.mark.parametrize("kind", ["ngram", "codebook"])
def test_a_pretrained_folder_goes_through_every_step(pretrained, finished_steps: Steps, tmp_path: Path, kind) -> None:
    family, folder = pretrained
    out = {name: tmp_path / name for name in ("tokenizer", "identifiers", "train", "search")}
    for path in out.values():
        path.mkdir()
    corpus = finished_steps.corpus
    tokenizer.prepare(TokenizerJob(tokenizer=None, pretrained=str(folder)), corpus=corpus, out=out["tokenizer"])
    chosen = (
        NgramIdentifiers(kind="ngram", length=4)
        if kind == "ngram"
        else CodebookIdentifiers(kind="codebook", levels=2, codes=4)
    )
    job = IdentifiersJob(identifiers=chosen, seed=0)
    identifiers.prepare(job, corpus=corpus, tokenizer=out["tokenizer"], out=out["identifiers"])
    settings = TrainingSettings(learning_rate=1e-3, epochs=1, batch=16)
    train_job = TrainJob(
        model=ModelSettings(family=family, pretrained=str(folder)), training=settings, pairs=64, seed=0
    )
    training.train(train_job, tokenizer=out["tokenizer"], identifiers=out["identifiers"], out=out["train"])
    metrics = json.loads((out["train"] / "metrics.json").read_text())
    trained = load_file(out["train"] / "weights" / "model.safetensors")
    assert metrics["n_total"] == sum(tensor.numel() for tensor in trained.values())
    search = SearchJob(evaluation=EvaluationSettings(bootstrap=100), budget=Budget(beams=3))
    folders = {"tokenizer": out["tokenizer"], "identifiers": out["identifiers"], "train": out["train"]}
    evaluation.search(search, corpus=corpus, **folders, out=out["search"])
    found = (out["search"] / "run.trec").read_text()
    assert found or kind == "ngram", "a random model may find no n-gram likelier than the corpus does"


def test_what_cannot_be_loaded_is_one_line(finished_steps: Steps, tmp_path: Path) -> None:
    job = TokenizerJob(tokenizer=None, pretrained=str(tmp_path))
    with pytest.raises(BadInput, match=r"models\.pretrained: no tokenizer can be loaded") as raised:
        tokenizer.prepare(job, corpus=finished_steps.corpus, out=tmp_path)
    assert "\n" not in str(raised.value)
    train_job = TrainJob(
        model=ModelSettings(family="t5", pretrained=str(tmp_path)),
        training=TrainingSettings(learning_rate=1e-3),
        pairs=16,
        seed=0,
    )
    with pytest.raises(BadInput, match=r"models\.pretrained: .* cannot be loaded as t5") as raised:
        training.train(train_job, tokenizer=finished_steps.tokenizer, identifiers=finished_steps.ngram, out=tmp_path)
    assert "\n" not in str(raised.value)


def test_codes_from_any_encoder(finished_steps: Steps, tmp_path: Path) -> None:
    vocabulary = len(save_tokenizer(tmp_path))
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    loaded.pad_token = "</s>"
    loaded.save_pretrained(tmp_path)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=vocabulary, **shape)).save_pretrained(tmp_path)
    vectors = encode(["a river", "冰川 and castles", "", "a river"], str(tmp_path))
    assert vectors.shape == (4, 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 0, 1], rtol=1e-5)
    np.testing.assert_allclose(vectors[0], vectors[3], atol=1e-5)
    with pytest.raises(BadInput, match=r"identifiers\.embedding: no encoder can be loaded"):
        encode(["x"], str(tmp_path / "nowhere"))
