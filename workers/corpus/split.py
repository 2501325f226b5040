"""Which documents are kept, and which queries are held out for tuning (dev) and for the metrics (test).

Held-out queries are never seen: none occurs verbatim (case and whitespace aside) in what is indexed, in what a
document may be named by, or in a training query. Everything is drawn with a seed from rows sorted by id, so every
machine draws the same.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from workers.corpus.documents import Corpus, Query, normalise
from workers.corpus.leaks import contained, contained_in_others, matches
from workers.corpus.pydocs import readable
from workers.corpus.settings import CorpusSettings
from workers.errors import BadInput


def subset(corpus: Corpus, count: int | None, seed: int) -> Corpus:
    """A seeded choice of `count` documents (all of them for None) in the order of their ids, and their queries.

    A query keeps the relevant documents that are kept, and goes where none is. More documents than there are
    is an error.
    """
    documents = sorted(corpus.documents, key=lambda document: document.docid)
    if count is not None:
        if count > len(documents):
            raise BadInput(f"corpus.documents: {count} asked for, but {corpus.name} has {len(documents)}")
        chosen = np.random.default_rng([seed, 1]).choice(len(documents), size=count, replace=False)
        documents = [documents[position] for position in np.sort(chosen)]
    kept = {document.docid for document in documents}
    queries = []
    for query in corpus.queries:
        docids = tuple(docid for docid in query.docids if docid in kept)
        if docids:
            queries.append(query if len(docids) == len(query.docids) else replace(query, docids=docids))
    return replace(corpus, documents=tuple(documents), queries=tuple(queries))


def merge(queries: Iterable[Query]) -> list[Query]:
    """One query for all that read the same within a split, relevant to the documents of all of them.

    The first one's id and spelling stay. Queries without a word are left out.
    """
    merged: dict[tuple[str, str], Query] = {}
    for query in queries:
        text = normalise(query.text)
        if not text:
            continue
        key = (query.split, text)
        if key not in merged:
            merged[key] = query
        elif not set(query.docids) <= set(merged[key].docids):
            docids = dict.fromkeys(merged[key].docids + query.docids)
            merged[key] = replace(merged[key], docids=tuple(docids))
    return list(merged.values())


def hold_out(corpus: Corpus, settings: CorpusSettings) -> Corpus:
    """The corpus with a split on every query: the source's own where it has them, a seeded draw elsewhere."""
    corpus = replace(corpus, queries=tuple(merge(corpus.queries)))
    texts = _known_texts(corpus)
    given = {query.split for query in corpus.queries}
    if "test" in given:
        queries = _own_splits(corpus, settings, texts)
    else:
        queries = _draw(corpus, settings, texts, {"test": settings.test, "dev": settings.dev})
    return replace(corpus, queries=tuple(queries))


def _known_texts(corpus: Corpus) -> list[str]:
    """What a model may be trained to write: indexed texts, titles (indexed or not), and ids in their readable form."""
    titles = [document.title for document in corpus.documents if document.title]
    ids = [readable(document.docid) for document in corpus.documents]
    return [normalise(text) for text in (*corpus.indexed_texts(), *titles, *ids)]


def _too_few(corpus: Corpus, split: str, found: int, wanted: int) -> BadInput:
    beside = " beside the test queries" if split == "dev" else ""
    return BadInput(
        f"corpus.{split}: {wanted} {split} queries asked for, but only {found} of {corpus.name} can be held out{beside}"
        f" ({len(corpus.documents)} documents, {len(corpus.queries)} queries); take more documents or ask for fewer"
    )


def _draw(
    corpus: Corpus, settings: CorpusSettings, texts: list[str], wanted: dict[str, int], held: Iterable[Query] = ()
) -> list[Query]:
    """Hold out at most one query of a document (`held`: those held out before), and only where every document
    of the query keeps another one."""
    queries = list(corpus.queries)
    forms = [normalise(query.text) for query in queries]
    leaking = contained(forms, texts) | contained_in_others(forms)
    of_document: dict[str, list[int]] = {}
    for number, query in enumerate(queries):
        for docid in query.docids:
            of_document.setdefault(docid, []).append(number)
    left = Counter({docid: len(numbers) for docid, numbers in of_document.items()})
    used = {docid for query in held for docid in query.docids}
    chosen: list[int] = []
    generator = np.random.default_rng([settings.seed, 2])
    docids = sorted(of_document)
    for position in generator.permutation(len(docids)):
        if len(chosen) == sum(wanted.values()):
            break
        mine = of_document[docids[position]]
        for candidate in generator.permutation(len(mine)):
            number = mine[candidate]
            relevant = queries[number].docids
            if number not in leaking and all(docid not in used and left[docid] > 1 for docid in relevant):
                chosen.append(number)
                used.update(relevant)
                left.subtract(relevant)
                break
    return _assign(corpus, queries, chosen, wanted)


def _assign(corpus: Corpus, queries: list[Query], chosen: list[int], wanted: dict[str, int]) -> list[Query]:
    """Chosen queries become test and dev in this order, all others training queries."""
    split_of: dict[int, str] = {}
    start = 0
    for split, count in wanted.items():
        part = chosen[start : start + count]
        if len(part) < count:
            raise _too_few(corpus, split, len(part), count)
        split_of.update(dict.fromkeys(part, split))
        start += count
    return [replace(query, split=split_of.get(number, "train")) for number, query in enumerate(queries)]


def _own_splits(corpus: Corpus, settings: CorpusSettings, texts: list[str]) -> list[Query]:
    """The source's test and dev queries, cut to the counts asked for; what of training would give them away goes."""
    held: list[Query] = []
    taken: set[str] = set()
    for stream, (split, count) in enumerate((("test", settings.test), ("dev", settings.dev))):
        mine = sorted((q for q in corpus.queries if q.split == split), key=lambda query: query.qid)
        if not mine:
            continue
        forms = [normalise(query.text) for query in mine]
        leaking = contained(forms, texts)
        usable = [q for n, q in enumerate(mine) if n not in leaking and forms[n] not in taken]
        if len(usable) < count:
            raise _too_few(corpus, split, len(usable), count)
        order = np.random.default_rng([settings.seed, 3, stream]).choice(len(usable), size=count, replace=False)
        held += [usable[position] for position in np.sort(order)]
        taken.update(normalise(query.text) for query in held)
    training = _without_leaks([q for q in corpus.queries if q.split == "train"], held)
    if not any(query.split == "dev" for query in corpus.queries) and settings.dev:
        rest = replace(corpus, queries=tuple(training))
        return held + _draw(rest, settings, texts, {"dev": settings.dev}, held)
    return held + training


def _without_leaks(training: list[Query], held: list[Query]) -> list[Query]:
    """Training queries that no held-out query occurs in."""
    pairs = matches([normalise(query.text) for query in held], (normalise(query.text) for query in training))
    dropped = {text for _, text in pairs}
    return [query for number, query in enumerate(training) if number not in dropped]
