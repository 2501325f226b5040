"""Every corpus: held-out queries are never seen, equal settings give equal corpora, bad input is one clear line."""

import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import zstandard

from workers import corpus
from workers.corpus.documents import Corpus, Document, Query, load, one_line, write
from workers.corpus.jsonl import read as read_jsonl
from workers.corpus.pydocs import readable
from workers.corpus.settings import BeirCorpus, HfColumns, HfCorpus, JsonlCorpus, PydocsCorpus
from workers.errors import BadInput

Rows = list[dict[str, Any]]


def comparable(text: str) -> str:
    return " ".join(text.casefold().split())


def prove_unseen(held: Corpus) -> None:
    """No held-out query occurs, case and whitespace aside, in an indexed text, a title, an id or a training query."""
    seen = [comparable(text) for text in held.indexed_texts()]
    seen += [comparable(text) for document in held.documents for text in (document.title, readable(document.docid))]
    seen += [comparable(query.text) for query in held.split("train")]
    everything = "\n".join(seen)
    queries = [*held.split("dev"), *held.split("test")]
    assert queries
    assert not [query.text for query in queries if comparable(query.text) in everything]
    assert len({comparable(query.text) for query in queries}) == len(queries)


def prove_one_a_document(held: Corpus) -> None:
    """At most one query of a document is held out, and the document keeps a training query."""
    out = [docid for query in (*held.split("dev"), *held.split("test")) for docid in query.docids]
    assert len(out) == len(set(out))
    assert set(out) <= {docid for query in held.split("train") for docid in query.docids}


def passages(count: int = 60) -> Rows:
    """Small documents, some of whose queries occur in their text, repeat each other or differ by case only."""
    rows: Rows = []
    for number in range(count):
        leak = f"record {number} is about subject {number % 7}"
        queries = [f"Which record has the mark m{number}x?", f"What is  filed under f{number}y", leak, leak.upper()]
        queries += ["what is this", f"WHICH record has the mark m{number}x?"] + ([f"m{number}x"] if number % 2 else [])
        rows.append(
            {"id": f"d{number}", "title": f"Title_{number}", "text": f"Here {leak}. 漢字 {number}", "queries": queries}
        )
    return rows


def write_lines(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def jsonl(path: Path, **changes: Any) -> JsonlCorpus:
    return JsonlCorpus(source="jsonl", path=str(path), **{"dev": 5, "test": 20, **changes})


def beir_folder(folder: Path, splits: tuple[str, ...] = ("train", "dev", "test")) -> Path:
    """BEIR's three kinds of files; the test query of document 0 stands in its text, that of 1 in training."""
    rows = passages()
    (folder / "qrels").mkdir(parents=True)
    write_lines(folder / "corpus.jsonl", [{"_id": r["id"], "title": r["title"], "text": r["text"]} for r in rows])
    queries: Rows = [{"_id": "unused", "text": "nobody judged this"}]
    qrels: dict[str, list[str]] = {split: [] for split in splits}
    for number, row in enumerate(rows):
        for split in splits:
            text = f"{split} question on k{number}z"
            if number == 0 and split == "test":
                text = "Record 0 is  about subject 0"
            if number == 1 and split != "dev":
                text = "the very same question of test and training"
            queries.append({"_id": f"{split}{number}", "text": text})
            qrels[split] += [f"{split}{number}\t{row['id']}\t1", f"{split}{number}\td{(number + 1) % 60}\t0"]
    write_lines(folder / "queries.jsonl", queries)
    for split, lines in qrels.items():
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(lines) + "\n")
    return folder


def hf_rows() -> datasets.Dataset:
    rows = [
        {"key": row["id"], "heading": row["title"], "passage": row["text"], "question": query}
        for row in passages()
        for query in row["queries"]
    ]
    return datasets.Dataset.from_list(rows)


COLUMNS = HfColumns(text="passage", query="question", title="heading", id="key")


def hf(path: Path, **changes: Any) -> HfCorpus:
    return HfCorpus(source="hf", path=str(path), **{"dev": 5, "test": 20, "columns": COLUMNS, **changes})


# ---------------------------------------------------------------- what holds for every corpus


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def make_jsonl(folder: Path) -> JsonlCorpus:
    return jsonl(write_lines(folder / "notes.jsonl", passages()))


def make_beir(folder: Path) -> BeirCorpus:
    return BeirCorpus(source="beir", path=str(beir_folder(folder / "bench")), dev=5, test=59)


def make_beir_pooled(folder: Path) -> BeirCorpus:
    splits = ("dev", "test")
    return BeirCorpus(source="beir", path=str(beir_folder(folder / "bench", splits)), dev=5, test=20)


def make_beir_without_dev(folder: Path) -> BeirCorpus:
    path = beir_folder(folder / "bench", ("train", "test"))
    lines = [f"train{n}\td{n + 1}\t1\n" for n in range(40, 59)]  # so that these documents have two training queries
    with (path / "qrels" / "train.tsv").open("a") as file:
        file.writelines(lines)
    return BeirCorpus(source="beir", path=str(path), dev=5, test=20)


def make_hf(folder: Path) -> HfCorpus:
    (folder / "set").mkdir()
    hf_rows().to_parquet(folder / "set" / "train.parquet")
    return hf(folder / "set")


def make_pydocs(folder: Path) -> PydocsCorpus:
    return PydocsCorpus(source="pydocs", packages=("json", "email", "logging"), dev=3, test=12)


MAKERS = [make_jsonl, make_beir, make_beir_pooled, make_beir_without_dev, make_hf, make_pydocs]


@pytest.mark.parametrize("make", MAKERS)
def test_no_held_out_query_is_seen(make: Callable[[Path], Any], tmp_path: Path) -> None:
    settings = make(tmp_path)
    corpus.prepare(settings, out=tmp_path)
    held = load(tmp_path)
    prove_unseen(held)
    if make not in (make_beir, make_beir_without_dev):
        prove_one_a_document(held)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["queries"]["test"] == settings.test
    assert summary["queries"]["dev"] == settings.dev
    assert summary["documents"] == len(held.documents)
    assert summary["train_pairs"] == sum(len(query.docids) for query in held.split("train")) > 0
    known = {document.docid for document in held.documents}
    assert all(set(query.docids) <= known and query.docids for query in held.queries)
    assert corpus.is_local(settings)
    assert corpus.fingerprint(settings) == corpus.fingerprint(settings)
    assert corpus.read(settings) == held


def test_subset_and_split_follow_the_seed_and_not_the_order_of_the_file(tmp_path: Path) -> None:
    rows = passages()
    first = corpus.read(jsonl(write_lines(tmp_path / "a.jsonl", rows), documents=40, seed=3))
    turned = corpus.read(jsonl(write_lines(tmp_path / "b.jsonl", rows[::-1]), documents=40, seed=3))
    other = corpus.read(jsonl(tmp_path / "a.jsonl", documents=40, seed=4))
    assert first.documents == turned.documents
    assert len(first.documents) == 40
    assert {q.text for q in first.split("test")} == {q.text for q in turned.split("test")}
    assert other.documents != first.documents
    assert corpus.fingerprint(jsonl(tmp_path / "a.jsonl")) != corpus.fingerprint(jsonl(tmp_path / "b.jsonl"))


def test_queries_that_read_the_same_are_one_with_all_their_documents(tmp_path: Path) -> None:
    held = corpus.read(make_jsonl(tmp_path))
    shared = [query for query in held.queries if query.text == "what is this"]
    assert len(shared) == 1
    assert len(shared[0].docids) == 60
    assert shared[0].split == "train"


def test_too_few_queries_to_hold_out(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"text": f"t {i}", "queries": [f"only one {i}"]} for i in range(50)])
    with pytest.raises(BadInput, match=r"corpus\.test: 20 test queries asked for, but only 0"):
        corpus.read(jsonl(path))
    with pytest.raises(BadInput, match=r"corpus\.documents: 51 asked for, but a has 50"):
        corpus.read(jsonl(path, documents=51))


# ---------------------------------------------------------------- files


def test_any_text_is_kept_or_mended(tmp_path: Path) -> None:
    odd = "नमस्ते \x00 \x07 \u2028 \ud83d\ude00 \ud800 end"
    line = '{"id": "\\ud800", "text": "\\ud83d\\ude00 \\ud800 x", "title": "", "queries": ["\\udc00 q\\u0000"]}'
    (tmp_path / "a.jsonl").write_text(line + "\n" + json.dumps({"text": odd, "queries": ["q" + odd]}) + "\n")
    read = read_jsonl(jsonl(tmp_path / "a.jsonl"))
    assert read.documents[0].text == "😀 \ufffd x"
    write(read, tmp_path)
    assert load(tmp_path) == read


@pytest.mark.parametrize("ending", ["", ".gz", ".xz", ".zst"])
def test_compressed_files_are_read(ending: str, tmp_path: Path) -> None:
    plain = ("\ufeff" + "".join(json.dumps(row) + "\n\n" for row in passages())).encode()
    pack: dict[str, Callable[[bytes], bytes]]
    pack = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.compress}
    packed = pack[ending](plain)
    path = tmp_path / f"notes.jsonl{ending}"
    path.write_bytes(packed)
    held = corpus.read(jsonl(path))
    assert (held.name, len(held.documents)) == ("notes", 60)
    assert held.documents[0].title == "Title 0"
    if ending:
        path.write_bytes(packed[: len(packed) // 2])
        with pytest.raises(BadInput, match=f"notes.jsonl{ending}"):
            corpus.read(jsonl(path))


GOOD = '{"id": "a", "text": "t", "queries": []}\n'


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (GOOD + "{oops\n", r"bad\.jsonl:2: malformed JSON"),
        (GOOD + "\n[1]\n", r"bad\.jsonl:3: a JSON object is expected, not list"),
        ('{"queries": []}', r"bad\.jsonl:1: a document with no text"),
        ('{"text": " \\t", "queries": []}', r"bad\.jsonl:1: a document with no text"),
        ('{"text": 3, "queries": []}', r"bad\.jsonl:1: `text` must be a string, not int"),
        ('{"text": "t", "title": [], "queries": []}', r"bad\.jsonl:1: `title` must be a string, not list"),
        ('{"text": "t"}', r"bad\.jsonl:1: `queries` is missing; there are text"),
        ('{"text": "t", "queries": "q"}', r"bad\.jsonl:1: `queries` must be a list"),
        ('{"text": "t", "queries": ["q", 1]}', r"bad\.jsonl:1: query 2 must be a string, not int"),
        ('{"text": "t", "queries": ["  "]}', r"bad\.jsonl:1: query 1 is blank"),
        ('{"id": 1.5, "text": "t", "queries": []}', r"bad\.jsonl:1: `id` must be a string or an integer"),
        (GOOD + GOOD, r"bad\.jsonl:2: id 'a' was on line 1 already"),
        ("", r"bad\.jsonl: no document in it"),
        (GOOD + "[" * 100_000, r"bad\.jsonl:2: malformed JSON"),
    ],
)
def test_faults_in_a_jsonl_file(lines: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text(lines)
    with pytest.raises(BadInput, match=message) as caught:
        corpus.read(jsonl(tmp_path / "bad.jsonl"))
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_bytes(GOOD.encode() + b'{"text": "\xff"}')
    with pytest.raises(BadInput, match=r"bad\.jsonl:2: not UTF-8"):
        corpus.read(jsonl(tmp_path / "bad.jsonl"))


@pytest.mark.parametrize("source", [JsonlCorpus, BeirCorpus, HfCorpus])
def test_a_missing_path_is_named_with_its_key(source: Any, tmp_path: Path) -> None:
    kind = source.model_fields["source"].annotation.__args__[0]
    settings = source(source=kind, path=str(tmp_path / "absent"))
    for act in (corpus.fingerprint, corpus.read):
        with pytest.raises(BadInput, match=r"corpus\.path: .*absent does not exist"):
            act(settings)
    with pytest.raises(BadInput, match=r"corpus\.path"):
        corpus.read(JsonlCorpus(source="jsonl", path=str(tmp_path)))


# ---------------------------------------------------------------- BEIR


def test_own_splits_are_kept_and_leaks_dropped(tmp_path: Path) -> None:
    held = corpus.read(make_beir(tmp_path).model_copy(update={"test": 59}))
    ids = {query.qid for query in held.split("test")}
    assert ids == {f"test{number}" for number in range(60)} - {"test0"}
    assert {query.qid for query in held.split("train")} == {f"train{number}" for number in range(60)} - {"train1"}
    assert {query.qid[:3] for query in held.split("dev")} == {"dev"}
    with pytest.raises(BadInput, match=r"corpus\.test: 60 test queries asked for, but only 59"):
        corpus.read(make_beir(tmp_path / "again").model_copy(update={"test": 60}))


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("qrels/test.tsv", "a\tb\tscore\ntest3\td3\t0\n", r"test\.tsv: query 'test3' has no relevant document"),
        ("qrels/test.tsv", "a\tb\tscore\ntest3\tgone\t1\n", r"query 'test3' has no relevant document in .*corpus"),
        ("qrels/test.tsv", "a\tb\tscore\nnone\td3\t1\n", r"query 'none' is not in .*queries\.jsonl"),
        ("qrels/test.tsv", "a\tb\tscore\ntest3 d3 1\n", r"test\.tsv:2: .*tabs"),
        ("qrels/test.tsv", "a\tb\tscore\n", r"test\.tsv: no judgement"),
        ("queries.jsonl", '{"_id": "test0", "text": ""}\n', r"queries\.jsonl:1: query 'test0' is blank"),
        ("queries.jsonl", '{"text": "x"}\n', r"queries\.jsonl:1: `_id` must be"),
        ("corpus.jsonl", '{"_id": "d0", "text": "", "title": " "}\n', r"corpus\.jsonl:1: a document with no text"),
        ("corpus.jsonl", '{"_id": "d0", "text": "a"}\n' * 2, r"corpus\.jsonl:2: _id 'd0' occurs twice"),
        ("corpus.jsonl", "", r"corpus\.jsonl: no document"),
    ],
)
def test_faults_in_a_beir_folder(file: str, text: str, message: str, tmp_path: Path) -> None:
    settings = make_beir(tmp_path)
    (Path(settings.path) / file).write_text(text)
    with pytest.raises(BadInput, match=message):
        corpus.read(settings)


@pytest.mark.parametrize("file", ["corpus.jsonl", "queries.jsonl", "qrels/train.tsv"])
def test_a_beir_folder_with_a_file_missing(file: str, tmp_path: Path) -> None:
    settings = BeirCorpus(source="beir", path=str(beir_folder(tmp_path / "b", ("train",))))
    (Path(settings.path) / file).unlink()
    with pytest.raises(BadInput, match=r"corpus\.path"):
        corpus.read(settings)


def test_a_beir_document_without_text_is_its_title(tmp_path: Path) -> None:
    settings = make_beir(tmp_path)
    path = Path(settings.path) / "corpus.jsonl"
    path.write_text(path.read_text() + '{"_id": "t", "title": "Only_a title", "text": ""}\n')
    held = corpus.read(settings)
    assert next(d for d in held.documents if d.docid == "t") == Document(docid="t", title="", text="Only a title")


# ---------------------------------------------------------------- Hugging Face datasets


def test_all_local_forms_of_a_dataset_give_the_same_corpus(tmp_path: Path) -> None:
    expected = corpus.read(make_hf(tmp_path))
    assert len(expected.documents) == 60
    rows = hf_rows()
    for form in ("jsonl", "csv", "disk", "dict"):
        folder = tmp_path / form
        folder.mkdir()
        if form == "jsonl":
            rows.to_json(folder / "train.jsonl")
        elif form == "csv":
            rows.to_csv(folder / "train.csv")
        elif form == "disk":
            rows.save_to_disk(folder)
        else:
            datasets.DatasetDict({"train": rows}).save_to_disk(folder)
        held = corpus.read(hf(folder))
        assert (held.documents, held.queries) == (expected.documents, expected.queries), form


def test_rows_with_the_same_text_are_one_document_where_no_id_is_named(tmp_path: Path) -> None:
    rows = [{"text": f"text {i // 3}", "query": [f"first {i}v", f"second {i}w"]} for i in range(90)]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "set")
    held = corpus.read(hf(tmp_path / "set", columns=HfColumns()))
    assert len(held.documents) == 30
    assert len(held.queries) == 180
    prove_unseen(held)


def test_faults_in_a_dataset(tmp_path: Path) -> None:
    make_hf(tmp_path)
    with pytest.raises(BadInput, match=r"no column 'body'; there are: heading, key, passage, question"):
        corpus.read(hf(tmp_path / "set", columns=HfColumns(text="body", query="question")))
    with pytest.raises(BadInput, match=r"split 'nowhere', cannot be loaded"):
        corpus.read(hf(tmp_path / "set", split="nowhere"))
    for name, rows, message in [
        ("blank", [{"text": " ", "query": "q"}], "row 0: a document with no text"),
        ("type", [{"text": "t", "query": 3}], "column 'query' must hold a string"),
        ("empty", [{"text": "t", "query": ["q", ""]}], "row 0: a blank query"),
    ]:
        datasets.Dataset.from_list(rows).save_to_disk(tmp_path / name)
        with pytest.raises(BadInput, match=message):
            corpus.read(hf(tmp_path / name, columns=HfColumns()))
    two = [{"text": "t", "query": "q", "key": "k"}, {"text": "u", "query": "r", "key": "k"}]
    datasets.Dataset.from_list(two).save_to_disk(tmp_path / "two")
    with pytest.raises(BadInput, match="row 1: id 'k' stood in an earlier row with another text"):
        corpus.read(hf(tmp_path / "two", columns=HfColumns(id="key")))


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach\nthe hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    settings = HfCorpus(source="hf", path="squad", subset="plain_text", revision="v1")
    assert not corpus.is_local(settings)
    assert corpus.fingerprint(settings) == "hub:squad@v1"
    assert corpus.name(settings) == "squad-plain_text"
    with pytest.raises(BadInput, match=r"corpus\.path: hub dataset 'squad', .* Couldn't reach the hub"):
        corpus.read(settings)


def test_the_hash_knows_content_and_splits_but_no_order() -> None:
    from workers.corpus.documents import content_hash

    a, b = Document(docid="a", title="", text="x"), Document(docid="b", title="", text="y")
    query = Query(qid="q", text="z", split="train", docids=("a", "b"))
    first = content_hash(Corpus(name="one", documents=(a, b), queries=(query,)))
    assert first == content_hash(Corpus(name="two", documents=(b, a), queries=(query,)))
    moved = Query(qid="q", text="z", split="test", docids=("a", "b"))
    assert first != content_hash(Corpus(name="one", documents=(a, b), queries=(moved,)))
    assert one_line(" a\n b\t") == "a b"
