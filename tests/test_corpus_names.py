"""What a document may be named by, its title or its id, gives no held-out query away."""

from pathlib import Path

import pytest
from test_corpus import beir_folder, jsonl, prove_unseen, write_lines

from workers import corpus
from workers.corpus.settings import BeirCorpus


@pytest.mark.parametrize("title_in_text", [True, False])
def test_what_a_document_may_be_named_by_takes_part_in_the_proof(title_in_text: bool, tmp_path: Path) -> None:
    """A title is a target even where it is not indexed, and so is an id in its readable form."""
    rows = [
        {
            "id": f"pack.readIt{i}q",
            "title": f"the name n{i}q",
            "text": f"text {i}",
            "queries": [f"The  Name n{i}q", f"PACK . read it{i}q", f"other p{i}w", f"more {i}"],
        }
        for i in range(30)
    ]
    path = write_lines(tmp_path / "a.jsonl", rows)
    held = corpus.read(jsonl(path, test=25, title_in_text=title_in_text))
    prove_unseen(held)
    assert all(query.text.startswith(("other", "more")) for query in held.queries if query.split != "train")


@pytest.mark.parametrize("title_in_text", [True, False])
def test_own_test_queries_that_name_a_document_are_dropped(title_in_text: bool, tmp_path: Path) -> None:
    folder = beir_folder(tmp_path / "bench", ("train", "test"))
    queries = folder / "queries.jsonl"
    queries.write_text(
        queries.read_text().replace("test question on k2z", "title 2").replace("test question on k3z", "d3")
    )
    held = corpus.read(BeirCorpus(source="beir", path=str(folder), dev=0, test=57, title_in_text=title_in_text))
    prove_unseen(held)
    assert {query.qid for query in held.split("test")} == {f"test{number}" for number in range(60)} - {
        "test0",
        "test2",
        "test3",
    }
