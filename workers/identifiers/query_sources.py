"""Where pseudo-queries come from: the documents' training queries, a file, or a model that writes them.

A pseudo-query that holds a held-out query (case and whitespace aside) is left out: it would be its answer.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workers.corpus.documents import Corpus, normalise, one_line
from workers.corpus.files import existing, read_objects
from workers.corpus.jsonl import identity
from workers.corpus.leaks import matches
from workers.errors import BadInput
from workers.settings import TRAINING_QUERIES, PseudoQuerySettings, split_model

DOCUMENT_TOKENS = 512
QUERY_TOKENS = 64
"""The most that a model reads of a document (fewer where it cannot read as many), and the most that it writes."""
TOP_K = 10
"""Tokens that a model samples from, as docT5query does."""
BATCH = 16
"""Documents that a model reads together."""

Queries = list[list[str]]
"""For each document of the corpus, in its order, its pseudo-queries."""


def pseudo_queries(settings: PseudoQuerySettings, corpus: Corpus, seed: int) -> Queries:
    """The pseudo-queries of every document; documents may have none.

    Raises BadInput, with the file and line, where a file cannot be used, and where a model cannot be loaded.
    """
    if settings.queries == TRAINING_QUERIES:
        return _of_training(corpus)  # of which the corpus step lets none hold a held-out query
    if is_file(settings):
        found = _of_file(existing(settings.queries, "identifiers.queries"), corpus)
    else:
        name = split_model(settings.queries)[1]
        found = written(name, corpus.indexed_texts(), settings.per_document, seed)
    kept = _without_held_out(found, corpus)
    count = sum(map(len, found))
    if leaking := count - sum(map(len, kept)):
        print(f"{leaking} of {count} pseudo-queries hold a held-out query and are left out", flush=True)
    return kept


def is_file(settings: PseudoQuerySettings) -> bool:
    """Whether the pseudo-queries stand in a file."""
    return settings.queries != TRAINING_QUERIES and not split_model(settings.queries)[0]


def pairs_of_file(settings: PseudoQuerySettings, corpus: Corpus) -> int:
    """How many training pairs of a query and a document are of documents that the file has a pseudo-query for.

    Raises BadInput, with the file and line, where the file cannot be used.
    """
    found = _without_held_out(_of_file(existing(settings.queries, "identifiers.queries"), corpus), corpus)
    named = {document.docid for document, texts in zip(corpus.documents, found, strict=True) if texts}
    return sum(docid in named for query in corpus.split("train") for docid in query.docids)


def _of_training(corpus: Corpus) -> Queries:
    found: dict[str, list[str]] = {document.docid: [] for document in corpus.documents}
    for query in corpus.split("train"):
        for docid in query.docids:
            found[docid].append(query.text)
    return list(found.values())


def _without_held_out(found: Queries, corpus: Corpus) -> Queries:
    held_out = [normalise(query.text) for query in corpus.queries if query.split != "train"]
    flat = [(row, text) for row, texts in enumerate(found) for text in texts]
    leaking = {number for _, number in matches(held_out, (normalise(text) for _, text in flat))}
    kept: Queries = [[] for _ in found]
    for number, (row, text) in enumerate(flat):
        if number not in leaking:
            kept[row].append(text)
    return kept


def _of_file(path: Path, corpus: Corpus) -> Queries:
    """One object a line; ids that the corpus does not have are passed over."""
    lines: dict[str, int] = {}
    found: dict[str, list[str]] = {document.docid: [] for document in corpus.documents}
    for number, row in read_objects(path):
        where = f"{path}:{number}"
        missing = [key for key in ("id", "queries") if key not in row]
        if missing:
            raise BadInput(f"{where}: `{missing[0]}` is missing")
        docid = identity(row["id"], where, "id")
        if docid in lines:
            raise BadInput(f"{where}: id {docid!r} was on line {lines[docid]} already")
        lines[docid] = number
        texts = list(_texts(row["queries"], where))
        if docid in found:
            found[docid] = texts
    if not any(found.values()):
        raise BadInput(f"identifiers.queries: {path} has a query for none of {corpus.name}'s documents")
    return list(found.values())


def _texts(value: object, where: str) -> Iterator[str]:
    if not isinstance(value, list):
        raise BadInput(f"{where}: `queries` must be a list of strings, not {type(value).__name__}")
    for position, text in enumerate(value):
        if not isinstance(text, str):
            raise BadInput(f"{where}: query {position + 1} must be a string, not {type(text).__name__}")
        if one_line(text):
            yield one_line(text)


def written(name: str, texts: list[str], per_document: int, seed: int) -> Queries:
    """What a sequence-to-sequence model writes when it reads each text, by seeded top-k sampling.

    Only the sampling named here is done, whatever the model's own generation settings are.
    """
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from workers.device import device

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModelForSeq2SeqLM.from_pretrained(name, use_safetensors=True).eval().to(device())
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        message = f"identifiers.queries: no sequence-to-sequence model can be loaded from '{name}': {reason}"
        raise BadInput(message) from error
    longest = _longest_input(model.config, tokenizer.model_max_length)
    found: Queries = []
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(seed)
        for start in range(0, len(texts), BATCH):
            batch = tokenizer(
                texts[start : start + BATCH],
                padding=True,
                truncation=True,
                max_length=longest,
                return_tensors="pt",
            ).to(device())
            out = model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                do_sample=True,
                num_beams=1,
                temperature=1.0,
                top_p=1.0,
                top_k=TOP_K,
                max_new_tokens=QUERY_TOKENS,
                num_return_sequences=per_document,
            )
            said = [one_line(text) for text in tokenizer.batch_decode(out, skip_special_tokens=True)]
            groups = [said[at : at + per_document] for at in range(0, len(said), per_document)]
            found += [[text for text in group if text] for group in groups]
            print(f"pseudo-queries: {len(found)} of {len(texts)} documents", flush=True)
    return found


def _longest_input(config: Any, of_tokenizer: int) -> int:
    """Tokens that a model may read of a document: it may have fewer positions, or its tokenizer say fewer."""
    positions = (getattr(config, name, None) for name in ("max_encoder_position_embeddings", "max_position_embeddings"))
    return min(DOCUMENT_TOKENS, of_tokenizer, next((count for count in positions if count), DOCUMENT_TOKENS))
