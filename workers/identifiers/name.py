"""The document's own id as identifier, as words and dots, and the tokenizer's end: for ids that mean something.

`json.JSONDecoder.raw_decode` is written `json . JSON Decoder . raw decode`: with a space before each word, as in
running text, so that the tokens are those whose meaning the model knows. Ids that read the same share the identifier.
"""

from typing import Any

from workers.corpus.documents import Corpus
from workers.corpus.pydocs import readable
from workers.identifiers import single
from workers.identifiers.sets import IdentifierSet
from workers.identifiers.texts import Encode, text_rows
from workers.settings import NameIdentifiers
from workers.tokenized import TokenizedCorpus


def capacity(settings: NameIdentifiers, summary: dict[str, Any]) -> int:
    """Training queries and random spans of every document."""
    return single.capacity(settings, summary["train_pairs"], summary["documents"])


def build(
    settings: NameIdentifiers, corpus: Corpus, tokenized: TokenizedCorpus, seed: int, encode: Encode
) -> IdentifierSet:
    """A row a document, and (query or span, name) pairs."""
    texts = [readable(document.docid) for document in corpus.documents]
    names = text_rows(encode, texts, settings.max_length, tokenized.end)
    return single.identifier_set(
        settings, corpus, tokenized, seed, names, view="name", vocabulary=tokenized.vocabulary, mean_nll=True
    )
