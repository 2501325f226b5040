"""Subword tokenizers: a byte-level BPE trained on the corpus, or a pretrained model's own."""

import os
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from workers.corpus.documents import load
from workers.errors import BadInput
from workers.ragged import Ragged
from workers.settings import TokenizerJob, TokenizerSettings
from workers.tokenized import TokenizedCorpus

PAD, END, MARK = "<|pad|>", "<|end|>", "<|id|>"
"""Special tokens of a trained tokenizer. `MARK` stands between query and identifier in a decoder-only prompt."""

BATCH = 1000


def prepare(job: TokenizerJob, *, corpus: Path, out: Path) -> None:
    """Train or load the tokenizer, encode every document and query, write all of it to `out`."""
    texts = load(corpus)
    indexed = texts.indexed_texts()
    if job.pretrained is not None:
        tokenizer = load_pretrained(job.pretrained)
    else:
        assert job.tokenizer is not None
        tokenizer = train(job.tokenizer, chain(indexed, (query.text for query in texts.split("train"))))
    tokenizer.save_pretrained(out / "tokenizer")
    documents, word_starts = _encode(tokenizer, indexed)
    queries, _ = _encode(tokenizer, (query.text for query in texts.queries))
    TokenizedCorpus(
        documents=documents,
        queries=queries,
        word_starts=word_starts,
        vocabulary=len(tokenizer),
        **_special_tokens(tokenizer),
    ).save(out)


def _special_tokens(tokenizer: Any) -> dict[str, int]:
    """A pretrained tokenizer without a padding or a mark token lends its end token to both."""
    end = tokenizer.eos_token_id
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end
    return {"pad": pad, "end": end, "mark": tokenizer.get_vocab().get(MARK, end)}


def train(settings: TokenizerSettings, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE: any script encodes, nothing is ever unknown. The same texts give the same tokenizer."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = Tokenizer(models.BPE())
    normalisers = [normalizers.NFKC()] + ([normalizers.Lowercase()] if settings.lowercase else [])
    tokenizer.normalizer = normalizers.Sequence(normalisers)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary,
        special_tokens=[PAD, END, MARK],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, additional_special_tokens=[MARK]
    )


def load_pretrained(name: str) -> PreTrainedTokenizerFast:
    """A model's own tokenizer, by hub name or folder."""
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BadInput(f"models.pretrained: no tokenizer can be loaded from '{name}': {reason}") from error
    if tokenizer.eos_token_id is None:
        raise BadInput(f"models.pretrained: the tokenizer of '{name}' has no end token")
    if not tokenizer.is_fast:
        raise BadInput(f"models.pretrained: '{name}' has no fast tokenizer, which alone knows a token's characters")
    return tokenizer


def encode(folder: Path, texts: Iterable[str]) -> Ragged:
    """Tokens of texts by the tokenizer of a finished tokenizer step, without special tokens, as the corpus's are."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder / "tokenizer")
    return _encode(tokenizer, texts)[0]


def _encode(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> tuple[Ragged, np.ndarray]:
    """Token ids without special tokens, and where words begin. A special token's name in a text is plain text."""
    backend = tokenizer.backend_tokenizer
    backend.encode_special_tokens = True
    backend.no_padding()
    backend.no_truncation()
    tokens: list[list[int]] = []
    begins = [np.empty(0, dtype=bool)]
    for batch in _batches(texts):
        for text, encoding in zip(batch, backend.encode_batch(batch, add_special_tokens=False), strict=True):
            tokens.append(encoding.ids)
            begins.append(word_starts(text, np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)))
    return Ragged.of(tokens), np.concatenate(begins)


def word_starts(text: str, offsets: np.ndarray) -> np.ndarray:
    """bool (tokens,): whether each token begins a word, from its span of characters, int64 (tokens, 2).

    From the text rather than from the tokenizer, which may know no words (LLaMA-2's has one for a whole text). A word
    begins behind anything that is no letter or digit; in scripts without spaces every character begins one.
    """
    characters = np.frombuffer(f" {text} ".encode("utf-32-le"), dtype=np.uint32)  # padded, so that edges are spaces
    kinds = np.array([_kind(chr(code)) for code in np.unique(characters)])
    kind = kinds[np.searchsorted(np.unique(characters), characters)]
    first = offsets[:, 0] + 1
    first = first + (
        (kind[first] == _SPACE) & (offsets[:, 1] - offsets[:, 0] > 1)
    )  # a token may carry a space before it
    first = np.minimum(first, len(characters) - 1)
    new = np.diff(first, prepend=-1) != 0  # a character of several tokens begins with the first of them
    inside = kind[first] != _SPACE
    return new & inside & ((kind[first - 1] != _LETTER) & (kind[first] != _OTHER) | (kind[first] == _UNSPACED))


_SPACE, _OTHER, _LETTER, _UNSPACED = range(4)


def _kind(character: str) -> int:
    if character.isspace():
        return _SPACE
    if not character.isalnum():
        return _OTHER
    name = unicodedata.name(character, "").partition(" ")[0]
    return _UNSPACED if name in {"CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR"} else _LETTER


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
