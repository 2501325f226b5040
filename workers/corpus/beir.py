"""A BEIR folder: `corpus.jsonl`, `queries.jsonl` and `qrels/{train,dev,test}.tsv`, each plain or compressed.

Thakur et al., "BEIR: A heterogeneous benchmark for zero-shot evaluation of information retrieval models"
(NeurIPS 2021). The folder's own splits are honoured where it has both training and test judgements; the queries
of all its judgements are split anew where it has not.
"""

from pathlib import Path

from workers.corpus.documents import SPLITS, Corpus, Document, Query, label, one_line
from workers.corpus.files import COMPRESSED, content, existing, read_lines, read_objects
from workers.corpus.jsonl import identity, shown_title, string
from workers.corpus.settings import BeirCorpus
from workers.errors import BadInput


def name(settings: BeirCorpus) -> str:
    """The folder's name."""
    return label(Path(settings.path).resolve().name)


def fingerprint(settings: BeirCorpus) -> str:
    """SHA-256 of the files that are read."""
    folder = existing(settings.path)
    return content([_file(folder, "corpus.jsonl"), _file(folder, "queries.jsonl"), *_judgements(folder).values()])


def is_local(settings: BeirCorpus) -> bool:
    """Always: nothing is downloaded."""
    return True


def read(settings: BeirCorpus) -> Corpus:
    """All documents, and the queries that have judgements. Scores above 0 count as relevant.

    A document without text is its title. A judged query without a relevant document in the corpus, or without
    a text, is an error that names the file and the query.
    """
    folder = existing(settings.path)
    documents = _documents(_file(folder, "corpus.jsonl"))
    texts = _texts(_file(folder, "queries.jsonl"))
    files = _judgements(folder)
    own_splits = {"train", "test"} <= files.keys()
    queries: dict[tuple[str, str], Query] = {}
    for split, file in files.items():
        for qid, docids in _relevant(file).items():
            if qid not in texts:
                raise BadInput(f"{file}: query {qid!r} is not in {folder / 'queries.jsonl'}")
            known = tuple(docid for docid in docids if docid in documents)
            if not known:
                raise BadInput(f"{file}: query {qid!r} has no relevant document in {folder / 'corpus.jsonl'}")
            shown = split if own_splits else ""
            queries[shown, qid] = Query(qid=qid, text=texts[qid], split=shown, docids=known)
    return Corpus(name=name(settings), documents=tuple(documents.values()), queries=tuple(queries.values()))


def _file(folder: Path, wanted: str) -> Path:
    for ending in ("", *COMPRESSED):
        if (path := folder / (wanted + ending)).is_file():
            return path
    raise BadInput(f"corpus.path: {folder / wanted} does not exist (`source: beir` wants a BEIR folder)")


def _judgements(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for split in SPLITS:
        for ending in ("", *COMPRESSED):
            if (path := folder / "qrels" / f"{split}.tsv{ending}").is_file():
                found.setdefault(split, path)
    if not found:
        raise BadInput(f"corpus.path: {folder / 'qrels'} has none of train.tsv, dev.tsv, test.tsv")
    return found


def _documents(file: Path) -> dict[str, Document]:
    documents: dict[str, Document] = {}
    for number, row in read_objects(file):
        where = f"{file}:{number}"
        docid = identity(row.get("_id"), where, "_id")
        title, text = shown_title(string(row, "title", where)), string(row, "text", where)
        if not text and not title:
            raise BadInput(f"{where}: a document with no text (`text` and `title` are missing or blank)")
        if docid in documents:
            raise BadInput(f"{where}: _id {docid!r} occurs twice")
        documents[docid] = Document(docid=docid, title=title if text else "", text=text or title)
    if not documents:
        raise BadInput(f"{file}: no document in it")
    return documents


def _texts(file: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    for number, row in read_objects(file):
        where = f"{file}:{number}"
        qid = identity(row.get("_id"), where, "_id")
        if qid in texts:
            raise BadInput(f"{where}: _id {qid!r} occurs twice")
        texts[qid] = one_line(string(row, "text", where))
        if not texts[qid]:
            raise BadInput(f"{where}: query {qid!r} is blank")
    return texts


def _relevant(file: Path) -> dict[str, list[str]]:
    """Query -> its relevant documents in file order. A query judged, but without a score above 0, is an error."""
    relevant: dict[str, list[str]] = {}
    for number, line in read_lines(file):
        fields = line.split("\t")
        if not line.strip() or (number == 1 and not _is_score(fields[-1])):
            continue
        if len(fields) != 3 or not _is_score(fields[2]):
            raise BadInput(f"{file}:{number}: query id, document id and a whole number are expected, with tabs between")
        mine = relevant.setdefault(fields[0], [])
        if int(fields[2]) > 0 and fields[1] not in mine:
            mine.append(fields[1])
    for qid, docids in relevant.items():
        if not docids:
            raise BadInput(f"{file}: query {qid!r} has no relevant document (no score above 0)")
    if not relevant:
        raise BadInput(f"{file}: no judgement in it")
    return relevant


def _is_score(field: str) -> bool:
    return field.strip().removeprefix("-").isdecimal()
