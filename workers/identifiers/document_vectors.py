"""Document embeddings that codes and paths are made from: LSA by default, or any Hugging Face encoder."""

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.preprocessing import normalize

from workers.corpus.documents import Corpus
from workers.errors import BadInput
from workers.ragged import Ragged
from workers.settings import VectorIdentifiers
from workers.term_counts import term_counts
from workers.tokenized import TokenizedCorpus

ENCODER_BATCH = 32
ENCODER_TOKENS = 512


def document_vectors(settings: VectorIdentifiers, corpus: Corpus, tokenized: TokenizedCorpus) -> np.ndarray:
    """float32 (documents, dimensions), as the settings ask for them."""
    if settings.embedding == "lsa":
        return lsa(tokenized.documents, tokenized.vocabulary, settings.dimensions)
    return encode(corpus.indexed_texts(), settings.embedding)


def lsa(documents: Ragged, vocabulary: int, dimensions: int) -> np.ndarray:
    """TF-IDF over subword tokens, truncated SVD, rows of length 1: float32 (documents, at most `dimensions`).

    Over tokens rather than words, so that any script works. An empty document is the zero vector.
    """
    weighted = TfidfTransformer(sublinear_tf=True).fit_transform(term_counts(documents, vocabulary))
    kept = max(1, min(dimensions, min(weighted.shape) - 1))
    return normalize(TruncatedSVD(kept, random_state=0).fit_transform(weighted)).astype(np.float32)


def encode(texts: list[str], encoder: str) -> np.ndarray:
    """Mean-pooled last hidden states of a Hugging Face encoder, rows of length 1: float32 (texts, its width)."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    from workers.device import device

    try:
        tokenizer = AutoTokenizer.from_pretrained(encoder)
        model = AutoModel.from_pretrained(encoder, use_safetensors=True).eval()
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BadInput(f"identifiers.embedding: no encoder can be loaded from '{encoder}': {reason}") from error
    where = device()
    model.to(where)
    longest = min(ENCODER_TOKENS, getattr(model.config, "max_position_embeddings", ENCODER_TOKENS))
    rows: list[np.ndarray] = []
    for start in range(0, len(texts), ENCODER_BATCH):
        batch = tokenizer(
            texts[start : start + ENCODER_BATCH],
            padding=True,
            truncation=True,
            max_length=longest,
            return_tensors="pt",
        ).to(where)
        with torch.inference_mode():
            states = model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1)
        rows.append(((states * mask).sum(1) / mask.sum(1).clamp(min=1)).float().cpu().numpy())
    return normalize(np.concatenate(rows)).astype(np.float32)
