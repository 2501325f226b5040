"""The grid file: what is accepted, what is refused, and with which line."""

import re
from pathlib import Path

import pytest
import yaml

from orchestrator import plan
from orchestrator.grid import Loaded, load
from orchestrator.steps import expand
from results.opening import open_store
from workers.errors import BadInput

GRID = """
name: tiny
corpus: {source: jsonl, path: corpus.jsonl}
identifiers: [{kind: ngram}]
models: [{family: t5, size: [7k, 29k]}, {family: llama, size: 6k}]
data: {pairs: [10, 20]}
inference: [{beams: 1}, {beams: 4}]
seeds: [0, 1]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "corpus.jsonl").write_text('{"text": "a b c", "queries": ["x y"]}\n')
    (tmp_path / "grid.yaml").write_text(GRID)
    return tmp_path


def _load(folder: Path, *overrides: str) -> Loaded:
    return load(folder / "grid.yaml", overrides)


def test_axes_take_bare_values_and_spread_lists(folder: Path) -> None:
    grid = _load(
        folder, "seeds=7", "data.pairs=5", "models={family: t5, size: [7k, 29k]}", "inference={beams: [1, 2]}"
    ).grid
    assert grid.seeds == (7,)
    assert grid.data.pairs == (5,)
    assert [model.label for model in grid.models] == ["t5-7k", "t5-29k"]
    assert [budget.beams for budget in grid.inference] == [1, 2]


def test_numbers_and_words_are_read_as_written(folder: Path) -> None:
    grid = _load(folder, "training.learning_rate=1e-3", "tracking.wandb=off", "training.weight_decay=0").grid
    assert grid.training.learning_rate == 1e-3
    assert grid.tracking.wandb == "off"
    assert grid.training.weight_decay == 0


def test_budgets_spread_over_all_that_inference_may_spend(folder: Path) -> None:
    multiview = "identifiers={kind: multiview}"
    searched = "inference={beams: [1, 4], views: [null, title+body, [query]], rerank: [null, 10]}"
    grid = _load(folder, multiview, searched).grid
    assert [budget.label for budget in grid.inference] == [
        f"b{beams}{views}{rerank}"
        for beams in (1, 4)
        for views in ("", "-vbody+title", "-vquery")
        for rerank in ("", "-r10")
    ]
    cut = _load(
        folder, multiview, "inference={beams: 4, max_new_tokens: [2, 4], views: [null, body], rerank: [null, 5]}"
    )
    assert [budget.label for budget in cut.grid.inference] == [
        f"b4{more}-m{length}" for length in (2, 4) for more in ("", "-r5", "-vbody", "-vbody-r5")
    ]
    mixed = _load(folder, multiview, "inference=[{beams: 4, views: title}, {samples: 32, temperature: [0.7, 1]}]")
    assert [budget.label for budget in mixed.grid.inference] == ["b4-vtitle", "s32t0.7", "s32"]
    for resolved in (grid, cut.grid, mixed.grid):
        (folder / "again.yaml").write_text(resolved.to_yaml())
        assert load(folder / "again.yaml").grid == resolved


def test_sources_of_pseudo_queries_are_found(folder: Path) -> None:
    def queries(given: str) -> str:
        return _load(folder, f"identifiers={{kind: pseudo_query, queries: {given}}}").grid.identifiers[0].queries

    (folder / "pseudo.jsonl").write_text("{}\n")
    (folder / "writer").mkdir()
    assert queries("train") == "train"
    assert queries("pseudo.jsonl") == str(folder / "pseudo.jsonl")
    assert queries("'model:writer'") == f"model:{folder / 'writer'}"
    assert queries("'model:some/name'") == "model:some/name"


def test_override_replaces_a_whole_block(folder: Path) -> None:
    (folder / "other.jsonl").write_text("{}\n")
    grid = _load(folder, "corpus={source: jsonl, path: other.jsonl}", "identifiers.0.length=6").grid
    assert grid.corpus.path == str(folder / "other.jsonl")
    assert grid.identifiers[0].length == 6


def test_the_resolved_grid_reads_as_the_same_grid(folder: Path) -> None:
    grid = _load(folder).grid
    (folder / "again.yaml").write_text(grid.to_yaml())
    assert load(folder / "again.yaml").grid == grid


def test_paths_are_found_beside_the_grid_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert _load(folder).grid.corpus.path == str(folder / "corpus.jsonl")
    (folder / "elsewhere" / "corpus.jsonl").write_text("{}\n")
    assert _load(folder).grid.corpus.path == str(folder / "elsewhere" / "corpus.jsonl")


REFUSED = {
    "colour=red": "--set: colour: unknown key",
    "training.epoch=3": r"--set: training.epoch: unknown key; did you mean `epochs`\?",
    "inference.0.beams=many": "--set: inference.0.beams: should be a valid integer.*'many'",
    "inference.1.beams=true": "--set: inference.1.beams: should be a valid integer.*True",
    "inference.1.beams=0": "--set: inference.1.beams: should be greater than or equal to 1, not 0",
    "training.learning_rate=true": "--set: training.learning_rate: should be a valid number, not True",
    "training.learning_rate=.nan": "--set: training.learning_rate: ",
    "seeds=[]": "--set: seeds: holds no value",
    "models=[]": "--set: models: holds no value",
    "models.0.size=[]": "--set: models.0.size: holds no value",
    "data.pairs=[]": "--set: data.pairs: holds no value",
    "identifiers.0.pairs=[]": "--set: identifiers.0.pairs: holds no value",
    "data.pairs=[10, -5]": "--set: data.pairs.1: should be greater than or equal to 1, not -5",
    "data.pairs=[10, 20, 10]": "--set: data.pairs.2: 10 stands there twice",
    "seeds=[3, 3]": "--set: seeds.1: 3 stands there twice",
    "seeds=[-1]": "--set: seeds.0: should be greater than or equal to 0",
    "inference=[{beams: 2}, {beams: 2}]": "--set: inference.1: the budget b2 stands there twice",
    "inference={beams: 2, samples: 3}": "--set: inference.0: give either `beams` or `samples`",
    "inference={max_new_tokens: 3}": "--set: inference.0: give either `beams` or `samples`",
    "inference=[{beams: 2}, {beams: 2, temperature: 0.5}]": "--set: inference.1: `temperature` is of sampling",
    "inference={samples: 2, temperature: 0}": "--set: inference.0.temperature: should be greater than 0, not 0",
    "inference={beams: 2, rerank: 0}": "--set: inference.0.rerank: should be greater than or equal to 1",
    "inference={beams: 2, views: body}": "inference.0.views: 'body' is no view of the grid's .*; none of them has",
    "inference={beams: 2, views: body+body}": "--set: inference.0.views: must be distinct names joined by `\\+`",
    "inference={beams: 2, views: []}": "--set: inference.0.views: holds no value",
    "inference={beams: 2, views: 3}": "--set: inference.0.views: must be a value or a list of values, not 3",
    "identifiers={kind: pseudo_query, queries: no.jsonl}": "--set: identifiers.0.queries: no such file: no.jsonl",
    "identifiers={kind: multiview, queries: 'model:./no'}": "--set: identifiers.0.queries: no such folder: ./no",
    "identifiers={kind: multiview, queries: 'model:'}": "--set: identifiers.0: `queries: model:` must be followed by",
    "identifiers={kind: title, length: 6}": "--set: identifiers.0.length: unknown key",
    "identifiers={kind: hierarchical, embedding: ./no}": "--set: identifiers.0.embedding: no such folder: ./no",
    "corpus.name=a b": "--set: corpus.name: ",
    "models.0.size=[7k, 7k]": "models.0: t5-7k stands there twice",
    "models=[{family: t5, pretrained: t5-x}]": "training.learning_rate: is missing; a pretrained model has none",
    "training.micro_batch=7": "training.batch: 32 pairs cannot be cut into micro-batches of 7 on 1 worker",
    "resources.workers_per_training=3": "training.batch: 32 pairs cannot be cut",
    "models.0.family=bert": "--set: models.0.family: ",
    "models.1.size=30k": "--set: models.1.size: unknown size '30k' of family llama; there are 6k, 24k",
    "models.1.pretrained=x/y": "models.1: give either `size` or `pretrained`",
    "models.1.pretrained=/no/such": "models.1: give either",
    "models.1.embeddings={rank: 17}": "models.1.embeddings.rank: 17 is more than the width of llama-6k, which is 16",
    "identifiers.0.kind=tree": "--set: identifiers.0.kind: unknown kind 'tree'; there are 'ngram', 'codebook'",
    "identifiers.0.only={models: t5-31k}": "--set: identifiers.0.only.models.0: 't5-31k' is not among",
    "identifiers.0.only={pairs: 11}": "--set: identifiers.0.only.pairs.0: 11 is not among the grid's pairs",
    "identifiers.3.length=6": "--set identifiers.3: there is no such entry; the list has 1",
    "name.first=x": "--set name.first: unknown key",
    "name=steps": "--set: name: 'steps' is taken",
    "name=report": "--set: name: 'report' is taken",
    "resources={workers: 2, workers_per_training: 4}": "resources.workers_per_training: 4 is more than resources",
    "seeds=[4294967296]": "--set: seeds.0: should be less than or equal to 4294967295",
    "training.epochs=9007199254740993": "--set: training.epochs: should be less than or equal to",
    "seeds=" + "9" * 5000: "--set seeds:1: not valid YAML: cannot be read as int",
    "tracking=0x" + "f" * 5000: "--set: tracking: must be a mapping of settings, not a number that long",
    "training.epochs=!!int abc": "--set training.epochs:1: not valid YAML: cannot be read as int",
    "name=!!timestamp 2020-99-99": "--set name:1: not valid YAML: cannot be read as timestamp",
    "corpus.path=~nouser/x": "--set: corpus.path: cannot be looked up: ",
    "corpus.path=" + "x" * 300: "--set: corpus.path: cannot be looked up: File name too long",
    "corpus={source: hf, path: " + "x" * 300 + "}": "--set: corpus.path: cannot be looked up: File name too long",
    "name=../x": "--set: name: ",
    "corpus={path: corpus.jsonl}": "--set: corpus.source: is missing",
    "corpus={source: jsonl}": "--set: corpus.path: is missing",
    "corpus.path=missing.jsonl": "--set: corpus.path: no such file: missing.jsonl",
    "corpus={source: jsonl": "--set corpus:1: not valid YAML",
    "tracking=yes": "--set: tracking: must be a mapping of settings, not 'yes'",
    "nothing": "--set nothing: write it as",
}


@pytest.mark.parametrize("override", REFUSED)
def test_refuses_with_one_line(folder: Path, override: str) -> None:
    with pytest.raises(BadInput, match=REFUSED[override]) as caught:
        _load(folder, override)
    assert "\n" not in str(caught.value)


NO_TRIAL = "would have no trial: no budget of `inference` is one of it"
BUDGETS = [
    ("[{kind: ngram}, {kind: multiview}]", "{beams: 4, views: body}", f"identifiers.0: ngram {NO_TRIAL}"),
    (
        "[{kind: multiview}, {kind: title, only: {beams: 4}}]",
        "[{beams: 1}, {beams: 4, views: body}]",
        f"identifiers.1: title {NO_TRIAL}",
    ),
    (
        "{kind: ngram, only: {beams: 4}}",
        "{samples: 8}",
        "identifiers.0.only.beams.0: 4 is not among the grid's beams; there are none",
    ),
    (
        "[{kind: ngram}, {kind: multiview}]",
        "{beams: 4, views: [null, body+title+query]}",
        "inference.0.views: the budget b4-vbody+query+title is the budget b4 for multiview: all of its views",
    ),
]


@pytest.mark.parametrize(("kinds", "budgets", "said"), BUDGETS)
def test_refuses_a_kind_without_budgets_or_with_one_twice(folder: Path, kinds: str, budgets: str, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        _load(folder, f"identifiers={kinds}", f"inference={budgets}")
    assert str(caught.value) == f"--set: {said}"


def test_a_kind_may_have_some_of_the_budgets(folder: Path) -> None:
    kinds = "identifiers=[{kind: ngram}, {kind: multiview, only: {beams: 4}}]"
    _load(folder, kinds, "inference=[{beams: 1}, {beams: 4, views: [body, title]}, {samples: 3}]")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n- b\n", "must hold a mapping of settings, not a list"),
        ("", "must hold a mapping of settings, not nothing"),
        ("name: a\nname: b\n", ":2: not valid YAML: key `name` twice"),
        ("name: [a\n", ":2: not valid YAML"),
        ("name: a\n\tb: c\n", "not valid YAML"),
        ("name: !!python/object/apply:os.getcwd []\n", "not valid YAML: could not determine a constructor"),
        (GRID.replace("size: 6k", "size: 5k"), "models.1.size: unknown size '5k'"),
        (GRID.replace("data:", "dada:"), "data: is missing|dada: unknown key"),
    ],
)
def test_names_the_file(folder: Path, text: str, said: str) -> None:
    (folder / "grid.yaml").write_text(text)
    with pytest.raises(BadInput, match=said) as caught:
        _load(folder)
    assert str(caught.value).startswith(str(folder / "grid.yaml"))
    assert "\n" not in str(caught.value)


def test_refuses_files_that_are_no_text(folder: Path) -> None:
    with pytest.raises(BadInput, match="no such grid file"):
        load(folder / "none.yaml")
    with pytest.raises(BadInput, match="cannot be read"):
        load(folder)
    (folder / "grid.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="cannot be read"):
        _load(folder)


def test_refuses_a_corpus_with_too_few_held_out_queries(folder: Path) -> None:
    def check(dev: int, test: int, *overrides: str) -> None:
        queries = {"train": 3, "dev": dev, "test": test}
        plan.check_held_out(_load(folder, *overrides), {"queries": queries})

    check(0, 2)
    check(1, 1, "evaluation.split=dev")
    with pytest.raises(BadInput, match=r"--set: evaluation\.split: the corpus has no held-out query in 'dev'"):
        check(0, 9, "evaluation.split=dev")
    with pytest.raises(BadInput, match=r"grid\.yaml: corpus\.test: only 1 query can be held out"):
        check(0, 1)


def test_refuses_a_corpus_that_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(settings: object) -> str:
        raise PermissionError(13, "Permission denied", "corpus.jsonl")

    monkeypatch.setattr("workers.corpus.fingerprint", denied)
    with pytest.raises(BadInput, match=r"^corpus\.path: cannot be read: Permission denied: corpus\.jsonl$") as caught:
        expand(_load(folder).grid)
    located = _load(folder).source.locate(caught.value)
    assert str(located).startswith(f"{folder / 'grid.yaml'}: corpus.path: cannot be read")
    assert str(_load(folder).source.locate(BadInput("x.jsonl:2: malformed"))) == "x.jsonl:2: malformed"


def test_refuses_more_pairs_than_the_corpus_has(folder: Path) -> None:
    summary = {"name": "x", "hash": "h", "documents": 9, "queries": {"train": 3}, "train_pairs": 2}
    loaded = _load(folder, "identifiers.0.per_query=8", "data.pairs=[10, 16]")
    plan.check_capacity(loaded, summary)
    loaded = _load(folder, "identifiers.0.per_query=8", "data.pairs=[10, 17]")
    with pytest.raises(BadInput, match=r"data\.pairs\.1: 17 is more than the corpus has.* is 16"):
        plan.check_capacity(loaded, summary)
    loaded = _load(folder, "identifiers.0.per_query=8", "identifiers.0.pairs=[5, 50]")
    with pytest.raises(BadInput, match=r"identifiers\.0\.pairs\.1: 50 is more"):
        plan.check_capacity(loaded, summary)


def test_refuses_kinds_that_the_corpus_has_nothing_for(folder: Path) -> None:
    summary = {"name": "x", "documents": 9, "train_pairs": 2, "titled": {"documents": 0, "train_pairs": 0}}
    for kind in ("title", "multiview"):
        with pytest.raises(BadInput, match=rf"--set: identifiers\.0\.kind: {kind} needs titles, and no document of x"):
            plan.check_capacity(_load(folder, f"identifiers={{kind: {kind}}}"), summary)


def test_refuses_a_results_folder_that_is_a_file(folder: Path) -> None:
    with pytest.raises(BadInput, match=re.escape(f"--results {folder / 'grid.yaml'}: cannot be written to")):
        plan.check_writable(_load(folder), open_store(folder / "grid.yaml"))


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parent.parent / "grids").glob("*.yaml")), ids=lambda path: path.stem
)
def test_the_projects_grids_are_valid(path: Path) -> None:
    grid = load(path).grid
    assert grid.name == path.stem
    assert yaml.safe_load(grid.to_yaml())["name"] == grid.name
    assert len(expand(grid).trials) > 1
