"""What every identifier kind promises: documents are named, pairs are counted, nothing held out gets in."""

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import Steps
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from workers.corpus.documents import Corpus, Document, Query, load, normalise, summary, write
from workers.corpus.pydocs import readable
from workers.decoding.evidence import gather_rows
from workers.errors import BadInput
from workers.identifiers import KINDS, capacity, hierarchical, prepare, title
from workers.identifiers.pseudo_query import PseudoQueries, pick
from workers.identifiers.sets import IdentifierSet
from workers.ragged import Ragged
from workers.settings import (
    CodebookIdentifiers,
    HierarchicalIdentifiers,
    IdentifiersJob,
    MultiviewIdentifiers,
    NameIdentifiers,
    NgramIdentifiers,
    PseudoQueryIdentifiers,
    TitleIdentifiers,
    TokenizerJob,
    TokenizerSettings,
)
from workers.tokenized import TokenizedCorpus
from workers.tokenizer import encode
from workers.tokenizer import prepare as prepare_tokenizer

SETTINGS = {
    "ngram": NgramIdentifiers(kind="ngram", length=5, per_query=4),
    "codebook": CodebookIdentifiers(kind="codebook", levels=2, codes=4, spans_per_document=6),
    "hierarchical": HierarchicalIdentifiers(kind="hierarchical", branching=3, leaf=4, spans_per_document=6),
    "title": TitleIdentifiers(kind="title", spans_per_document=6),
    "name": NameIdentifiers(kind="name", spans_per_document=6),
    "pseudo_query": PseudoQueryIdentifiers(kind="pseudo_query", per_query=3),
    "multiview": MultiviewIdentifiers(kind="multiview", length=5, per_query=4),
}
TEXT = ("title", "name", "pseudo_query")
SINGLE = ("codebook", "hierarchical", "title", "name")


def build(steps: Steps, out: Path, kind: str, seed: int = 0) -> IdentifierSet:
    """The set of one kind, through its files."""
    out.mkdir(parents=True)
    job = IdentifiersJob(identifiers=SETTINGS[kind], seed=seed)
    prepare(job, corpus=steps.corpus, tokenizer=steps.tokenizer, out=out)
    return IdentifierSet.load(out)


@pytest.fixture(scope="module")
def sets(finished_steps: Steps, tmp_path_factory: pytest.TempPathFactory) -> dict[str, IdentifierSet]:
    root = tmp_path_factory.mktemp("kinds")
    return {kind: build(finished_steps, root / kind, kind) for kind in SETTINGS}


def rows_of(ids: IdentifierSet, view: int = 0) -> list[list[int]]:
    """Rows of a view's index, each in the place that `View.documents` has its document in."""
    numbers = np.arange(len(ids.views[view].documents))
    rows = gather_rows([ids.views[view].index], np.zeros_like(numbers), numbers)
    return [row.tolist() for row in rows]


def same(one: IdentifierSet, other: IdentifierSet) -> bool:
    return all(
        np.array_equal(a.target.values, b.target.values) and np.array_equal(a.source, b.source)
        for a, b in ((one.train, other.train), (one.held_out, other.held_out))
    )


def test_all_kinds_are_tested() -> None:
    assert SETTINGS.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", SETTINGS)
def test_capacity_is_the_number_of_pairs(finished_steps: Steps, sets: dict[str, IdentifierSet], kind: str) -> None:
    pairs = sets[kind].train
    assert len(pairs) == capacity(SETTINGS[kind], summary(load(finished_steps.corpus)))
    assert len(pairs) == len(pairs.target) == len(pairs.view) == len(pairs.document)


@pytest.mark.parametrize("kind", SETTINGS)
def test_every_document_is_named_and_every_target_names_its_own(sets: dict[str, IdentifierSet], kind: str) -> None:
    ids = sets[kind]
    for number, view in enumerate(ids.views):
        rows = rows_of(ids, number)
        assert len(rows) == len(view.documents)
        assert set(view.documents.tolist()) == set(range(48))
        assert max(map(len, rows)) <= view.max_length or view.name == "body"
        of: dict[int, list[list[int]]] = {}
        for row, document in zip(rows, view.documents.tolist(), strict=True):
            of.setdefault(document, []).append(row)
        for pairs in (ids.train, ids.held_out):
            for pair in np.flatnonzero(pairs.view == number):
                target, mine = pairs.target[pair].tolist(), of[int(pairs.document[pair])]
                assert target
                if view.name == "body":
                    assert any(mine[0][at : at + len(target)] == target for at in range(len(mine[0])))
                else:
                    assert target in mine
    assert set(ids.train.view.tolist()) == set(ids.held_out.view.tolist()) == set(range(len(ids.views)))
    assert max(int(ids.train.target.values.max()), *(view.marker or 0 for view in ids.views)) < ids.vocabulary


@pytest.mark.parametrize("kind", SETTINGS)
def test_nothing_held_out_is_trained_on(finished_steps: Steps, sets: dict[str, IdentifierSet], kind: str) -> None:
    corpus, tokenized = load(finished_steps.corpus), TokenizedCorpus.load(finished_steps.tokenizer)
    held = {row for row, query in enumerate(corpus.queries) if query.split != "train"}
    ids = sets[kind]
    assert set(ids.held_out.source.tolist()) == held
    sources = {tuple(ids.train.sources[row].tolist()) for row in ids.train.source}
    targets = {tuple(ids.train.target[row].tolist()) for row in range(len(ids.train))}
    for row in held:
        query = tuple(tokenized.queries[row].tolist())
        assert query not in sources
        assert query not in targets
        assert (*query, tokenized.end) not in targets


@pytest.mark.parametrize("kind", SETTINGS)
def test_the_same_seed_gives_the_same_set(
    finished_steps: Steps, sets: dict[str, IdentifierSet], kind: str, tmp_path: Path
) -> None:
    assert same(sets[kind], build(finished_steps, tmp_path / "again", kind))
    assert not same(sets[kind], build(finished_steps, tmp_path / "other", kind, seed=1))


@pytest.mark.parametrize("kind", TEXT)
def test_texts_are_ended_and_read_back(finished_steps: Steps, sets: dict[str, IdentifierSet], kind: str) -> None:
    corpus, tokenized = load(finished_steps.corpus), TokenizedCorpus.load(finished_steps.tokenizer)
    tokenizer = AutoTokenizer.from_pretrained(finished_steps.tokenizer / "tokenizer")
    train = {(query.docids[0], normalise(query.text)) for query in corpus.split("train")}
    ids = sets[kind]
    for row, owner in zip(rows_of(ids), ids.views[0].documents.tolist(), strict=True):
        assert row[-1] == tokenized.end
        assert tokenized.end not in row[:-1]
        text, document = tokenizer.decode(row[:-1]).strip(), corpus.documents[owner]
        if kind == "pseudo_query":
            assert (document.docid, text) in train
        else:
            assert text == (document.title if kind == "title" else readable(document.docid)).lower()


@pytest.mark.parametrize("kind", ["codebook", "hierarchical"])
def test_codes_are_unique_and_none_begins_another(sets: dict[str, IdentifierSet], kind: str) -> None:
    rows = [tuple(row) for row in rows_of(sets[kind])]
    assert len(set(rows)) == len(rows)
    assert not any(a != b and b[: len(a)] == a for a in rows for b in rows)
    assert sets[kind].token_vectors.shape[0] == sets[kind].vocabulary - 400


def test_multiview_asks_for_each_view_with_a_marker(finished_steps: Steps, sets: dict[str, IdentifierSet]) -> None:
    ids, given = sets["multiview"], SETTINGS["multiview"]
    vocabulary = TokenizedCorpus.load(finished_steps.tokenizer).vocabulary
    assert [view.name for view in ids.views] == list(given.VIEWS)
    assert [view.marker for view in ids.views] == [vocabulary, vocabulary + 1, vocabulary + 2]
    assert ids.vocabulary == vocabulary + 3
    assert {view.index.boundary for view in ids.views} == {ids.vocabulary}
    each = np.array([given.per_query, given.titles_per_query, given.pseudo_per_query])
    for pairs in (ids.train, ids.held_out):
        queries = len(set(pairs.source.tolist()))
        assert np.bincount(pairs.view).tolist() == (queries * each).tolist()
    assert all(row[-1] != TokenizedCorpus.load(finished_steps.tokenizer).end for row in rows_of(ids, 1) if row)


# ---------------------------------------------------------------- odd texts


ODD = (
    ("汶川.大地震", "汶川大地震"),
    ("pkg.HTTPServer.serve_forever", "Shared"),
    ("...", ""),
    ("a/b\\c", "🌍 \u202e"),
    ("x" * 400, "long " * 80),
    ("y.__", "shared"),
)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, TokenizedCorpus, partial]:
    documents = tuple(Document(docid=docid, title=name, text=f"text of {docid}") for docid, name in ODD)
    queries = tuple(
        Query(qid=f"{docid}#{n}", text=f"query {n} {docid}", split="test" if n == 2 else "train", docids=(docid,))
        for docid, _ in ODD
        for n in range(3)
    )
    corpus = Corpus(name="odd", documents=documents, queries=queries, title_in_text=False)
    root = tmp_path_factory.mktemp("odd")
    (root / "corpus").mkdir()
    (root / "tokenizer").mkdir()
    write(corpus, root / "corpus")
    job = TokenizerJob(tokenizer=TokenizerSettings(vocabulary=300), pretrained=None)
    prepare_tokenizer(job, corpus=root / "corpus", out=root / "tokenizer")
    return corpus, TokenizedCorpus.load(root / "tokenizer"), partial(encode, root / "tokenizer")


def test_a_document_without_a_title_is_in_no_pair(odd) -> None:
    corpus, tokenized, encoder = odd
    given = TitleIdentifiers(kind="title", spans_per_document=2)
    ids = title.build(given, corpus, tokenized, 0, encoder)
    rows = rows_of(ids)
    assert rows[2] == []
    assert rows[1] == rows[5] != []
    assert len(rows[4]) == given.max_length + 1
    assert set(ids.train.document.tolist()) == set(ids.held_out.document.tolist()) == {0, 1, 3, 4, 5}
    assert len(ids.train) == capacity(given, summary(corpus)) == 5 * 2 + 5 * 2


def test_titles_are_needed(odd) -> None:
    corpus, tokenized, encoder = odd
    bare = replace(corpus, documents=tuple(replace(document, title="") for document in corpus.documents))
    for kind in ("title", "multiview"):
        said = rf"^identifiers\.kind: {kind} needs titles, and no document of odd has one$"
        with pytest.raises(BadInput, match=said):
            capacity(SETTINGS[kind], summary(bare))
    with pytest.raises(BadInput, match="needs titles"):
        title.build(SETTINGS["title"], bare, tokenized, 0, encoder)


def test_names_are_words_and_dots() -> None:
    assert readable("json.JSONDecoder.raw_decode") == "json . JSON Decoder . raw decode"
    assert readable("d12") == "d12"
    assert readable("汶川.大地震") == "汶川 . 大地震"
    assert readable("...") == ". . ."
    assert readable("y.__") == "y . __"


def test_names_of_any_script_name_their_document(odd) -> None:
    from workers.identifiers import name

    corpus, tokenized, encoder = odd
    ids = name.build(NameIdentifiers(kind="name", max_length=12), corpus, tokenized, 0, encoder)
    rows = rows_of(ids)
    assert all(len(row) > 1 and row[-1] == tokenized.end for row in rows)
    assert len({tuple(row) for row in rows}) == len(ODD)
    assert max(map(len, rows)) == 13


# ---------------------------------------------------------------- pseudo-queries


def from_file(odd, tmp_path: Path, text: str) -> IdentifierSet:
    from workers.identifiers import pseudo_query

    corpus, tokenized, encoder = odd
    (tmp_path / "pseudo.jsonl").write_text(text, encoding="utf-8")
    given = PseudoQueryIdentifiers(kind="pseudo_query", queries=str(tmp_path / "pseudo.jsonl"), per_query=2)
    return pseudo_query.build(given, corpus, tokenized, 0, encoder)


def test_pseudo_queries_of_a_file_without_held_out_ones(odd, tmp_path: Path, capsys) -> None:
    lines = [
        '{"id": "...", "queries": ["what  are\\tdots", "What are dots", "tell me: QUERY 2  ... now"]}',
        '{"id": "a/b\\\\c", "queries": ["what are dots"]}',
        '{"id": "unknown", "queries": ["?"]}',
        '{"id": "y.__", "queries": []}',
    ]
    ids = from_file(odd, tmp_path, "\n".join(lines))
    assert ids.views[0].documents.tolist() == [2, 3]
    assert rows_of(ids)[0] == rows_of(ids)[1], "documents may share a pseudo-query; a document has each once"
    assert set(ids.train.document.tolist()) == {2, 3}
    assert len(ids.train) == 2 * 2 * 2
    assert "1 of 4 pseudo-queries hold a held-out query" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"id": "..."}', r"pseudo\.jsonl:1: `queries` is missing"),
        ('\n{"queries": []}', r"pseudo\.jsonl:2: `id` is missing"),
        ('{"id": "...", "queries": "x"}', r":1: `queries` must be a list of strings, not str"),
        ('{"id": "...", "queries": [3]}', r":1: query 1 must be a string, not int"),
        ('{"id": "...", "queries": []}\n{"id": "...", "queries": []}', r":2: id '...' was on line 1 already"),
        ('{"id": "...", "queries": ["a"]', r":1: malformed JSON"),
        ('{"id": "else", "queries": ["a"]}', r"identifiers\.queries: .* has a query for none of odd's documents"),
    ],
)
def test_a_faulty_file_is_one_line(odd, tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        from_file(odd, tmp_path, text)
    assert "\n" not in str(caught.value)


def test_pseudo_queries_that_a_model_writes(tmp_path: Path, capsys) -> None:
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    from workers.identifiers.query_sources import written
    from workers.tokenizer import train

    texts = [f"the river number {number} of many" for number in range(20)]
    tokenizer = train(TokenizerSettings(vocabulary=300), texts)
    tokenizer.save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=300, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, pad_token_id=0, decoder_start_token_id=0
    )
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    found = written(str(tmp_path), texts, per_document=3, seed=5)
    assert len(found) == 20
    assert all(len(queries) <= 3 for queries in found)
    assert sum(map(len, found)) > 40
    assert found == written(str(tmp_path), texts, per_document=3, seed=5)
    assert found != written(str(tmp_path), texts, per_document=3, seed=6)
    assert "pseudo-queries: 20 of 20 documents" in capsys.readouterr().out
    with pytest.raises(BadInput, match=r"^identifiers\.queries: no sequence-to-sequence model can be loaded from"):
        written(str(tmp_path / "none"), texts, per_document=3, seed=5)


def test_the_query_itself_is_a_last_resort_and_overlap_is_preferred() -> None:
    named = PseudoQueries(
        rows=Ragged.of([[5, 6, 7], [5, 6], [8, 9, 1], [5, 6, 7, 1]]),
        documents=np.zeros(4, dtype=np.int32),
        ended=False,
        max_length=3,
    )
    rng, idf, query = np.random.default_rng(0), np.full(10, 2.0), np.array([5, 6, 7, 4])
    picked = [pick(named, np.arange(3), query, idf, 2, 0.1, rng).tolist() for _ in range(50)]
    assert all(sorted(each) == [1, 2] for each in picked), "row 0 is the query, cut as a pseudo-query is"
    assert np.mean([each[0] == 1 for each in picked]) > 0.9
    assert pick(named, np.array([0]), query, idf, 3, 1.0, rng).tolist() == [0, 0, 0]


# ---------------------------------------------------------------- hierarchical k-means


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(2, 5), st.integers(1, 6), st.integers(1, 4), st.integers(0, 3))
def test_paths_are_unique_and_prefix_free(count, branching, leaf, distinct, seed) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((distinct, 4)).astype(np.float32)[rng.integers(0, distinct, count)]
    digits = hierarchical.paths(vectors, branching, leaf, seed)
    found = [tuple(digits[row].tolist()) for row in range(count)]
    assert len(set(found)) == count
    assert not any(a != b and b[: len(a)] == a for a in found for b in found)
    assert max(digits.values) < max(branching, leaf)


def test_like_documents_share_the_beginning_of_their_paths() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(4, dtype=np.float32)[np.arange(80) % 4]
    vectors = centres + 0.05 * rng.standard_normal((80, 4)).astype(np.float32)
    digits = hierarchical.paths(vectors, 4, 30, seed=0)
    first = np.array([digits[row][0] for row in range(80)])
    assert [len(set(first[np.arange(80) % 4 == group])) for group in range(4)] == [1, 1, 1, 1]
    assert len(set(first)) == 4


def test_a_token_starts_at_the_mean_of_its_documents() -> None:
    vectors = np.array([[1, 0], [0, 1], [4, 4]], dtype=np.float32)
    means = hierarchical.mean_vectors(Ragged.of([[0, 2], [0, 3], [1]]), vectors, 5)
    np.testing.assert_allclose(means, [[0.5, 0.5], [4, 4], [1, 0], [0, 1], [0, 0]])


# ---------------------------------------------------------------- the driver


def test_the_driver_asks_for_capacity_without_loading_what_is_slow() -> None:
    program = """
import sys
from workers import settings
from workers.identifiers import KINDS, capacity
summary = {"name": "x", "documents": 32, "train_pairs": 5, "titled": {"documents": 2, "train_pairs": 4}}
kinds = {kind.model_fields["kind"].annotation.__args__[0]: kind for kind in vars(settings).values()
         if isinstance(kind, type) and kind.__name__.endswith("Identifiers")
         and hasattr(kind.model_fields["kind"].annotation, "__args__")}
assert kinds.keys() == KINDS.keys(), kinds
assert all(capacity(kind(kind=name), summary) > 0 for name, kind in kinds.items())
print(*({"torch", "sklearn", "faiss", "transformers"} & sys.modules.keys()))
"""
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
