"""`cells` of a grid file: single cells of what the axes span."""

import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.grid import load, points
from orchestrator.steps import expand
from workers.errors import BadInput

GRID = """
name: tiny
corpus: {source: jsonl, path: corpus.jsonl}
identifiers: [{kind: ngram}, {kind: codebook, only: {models: t5-7k, beams: 4}, pairs: [10]}]
models: [{family: t5, size: [7k, 29k]}, {family: llama, size: 6k}]
data: {pairs: [10, 20]}
inference: [{beams: [1, 4]}, {samples: 8}]
seeds: [0, 1]
"""
AXES = {
    "identifiers": ["ngram", "codebook"],
    "models": ["t5-7k", "t5-29k", "llama-6k"],
    "pairs": [10, 20],
    "seeds": [0, 1],
    "budgets": ["b1", "b4", "s8"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "corpus.jsonl").write_text('{"text": "a b c", "queries": ["x y"]}\n')
    (tmp_path / "grid.yaml").write_text(GRID)
    return tmp_path


def _named(folder: Path, *overrides: str) -> list[tuple[object, ...]]:
    grid = load(folder / "grid.yaml", overrides).grid
    return [(kind.kind, model.label, pairs, seed, budget.label) for kind, model, pairs, seed, budget in points(grid)]


def _block(values: dict[str, list[object]]) -> str:
    return "{" + ", ".join(f"{axis}: [{', '.join(map(str, some))}]" for axis, some in values.items()) + "}"


some = st.fixed_dictionaries(
    {},
    optional={axis: st.lists(st.sampled_from(values), min_size=1, unique=True) for axis, values in AXES.items()},
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(blocks=st.lists(some, min_size=1, max_size=4))
def test_cells_keep_what_some_block_names(folder: Path, blocks: list[dict[str, list[object]]]) -> None:
    everything = _named(folder)
    kept_by = [
        [
            cell
            for cell in everything
            if all(value in block.get(axis, [value]) for axis, value in zip(AXES, cell, strict=True))
        ]
        for block in blocks
    ]
    override = f"cells=[{', '.join(map(_block, blocks))}]"
    if not all(kept_by):
        with pytest.raises(BadInput, match=r"--set: cells\.\d+: keeps no cell"):
            _named(folder, override)
    else:
        wanted = set(itertools.chain.from_iterable(kept_by))
        assert _named(folder, override) == [cell for cell in everything if cell in wanted]


def test_cells_change_no_key_and_survive_being_written_out(folder: Path) -> None:
    everything = expand(load(folder / "grid.yaml").grid)
    loaded = load(folder / "grid.yaml", ["cells={models: t5-29k, seeds: 1, budgets: [b4, s8]}"])
    some = expand(loaded.grid)
    assert [trial.label.rpartition("jsonl-")[2] for trial in some.trials] == [
        trial.label.rpartition("jsonl-")[2]
        for trial in everything.trials
        if (trial.model, trial.seed) == ("t5-29k", 1) and trial.budget.label in ("b4", "s8")
    ]
    assert len(some.trials) == 4
    assert {trial.trial for trial in some.trials} <= {trial.trial for trial in everything.trials}
    assert some.steps.keys() < everything.steps.keys()
    (folder / "again.yaml").write_text(loaded.grid.to_yaml())
    assert load(folder / "again.yaml").grid == loaded.grid


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("cells={models: t5-29}", "cells.0.models.0: 't5-29' is not among the grid's models; did you mean `t5-29k`?"),
        (
            "cells=[{pairs: 10}, {seeds: [0, 7]}]",
            "cells.1.seeds.1: 7 is not among the grid's seeds; there are 0, 1",
        ),
        ("cells={budgets: b64}", "cells.0.budgets.0: 'b64' is not among the grid's budgets; did you mean `b4`?"),
        ("cells={budget: b4}", "cells.0.budget: unknown key; did you mean `budgets`?"),
        ("cells=[]", "cells: holds no value"),
        ("cells={pairs: []}", "cells.0.pairs: holds no value"),
        ("cells=7", "cells.0: must be a mapping of settings, not 7"),
    ],
)
def test_a_wrong_cell_is_one_line(folder: Path, override: str, line: str) -> None:
    with pytest.raises(BadInput) as error:
        load(folder / "grid.yaml", [override])
    assert str(error.value) == f"--set: {line}"
