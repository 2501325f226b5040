"""Every kind of identifiers under every kind of budget, through the command and a real Ray, on the smoke corpus."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_identifier_kinds import SETTINGS

from results import schema
from results.local import LocalStore
from results.tables import read_rows

HERE = Path(__file__).resolve().parent.parent
IDENTIFIERS = ", ".join(f"{{kind: {kind}}}" for kind in SETTINGS)
BUDGETS = {
    "b2": "{beams: 2}",
    "b2-m1": "{beams: 2, max_new_tokens: 1}",
    "s4t0.7": "{samples: 4, temperature: 0.7}",
    "b2-r3": "{beams: 2, rerank: 3}",
    "b2-vbody+title": "{beams: 2, views: body+title}",
}
ADDED = {"b3": "{beams: 3}"}
SMALL = (
    "corpus.documents=60",
    "corpus.dev=2",
    "corpus.test=8",
    f"identifiers=[{IDENTIFIERS}]",
    "models=[{family: t5, size: 7k}]",
    "data.pairs=64",
    "evaluation.batch=4",
    "evaluation.negatives=8",
    "resources.workers=1",  # two would spend more on starting than they save
)
COLUMNS = ("beams", "samples", "temperature", "views", "rerank")
EXPECTED = {
    "b2": (2, None, None, None, None),
    "b2-m1": (2, None, None, None, None),
    "s4t0.7": (None, 4, 0.7, None, None),
    "b2-r3": (2, None, None, None, 3),
    "b2-vbody+title": (2, None, None, "body+title", None),
    "b3": (3, None, None, None, None),
}
"""What a row says in these columns, by its budget's label."""


def run(folder: Path, budgets: dict[str, str]) -> str:
    """The smoke grid with these budgets; what was printed."""
    overrides = [*SMALL, f"inference=[{', '.join(budgets.values())}]", "tracking.wandb=off"]
    command = [sys.executable, str(HERE / "run_grid.py"), str(HERE / "grids" / "smoke.yaml"), "--results", "results"]
    for override in overrides:
        command += ["--set", override]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def trials(folder: Path) -> dict[tuple[str, str], dict]:
    """Rows by identifiers and budget, as the trial's name says it."""
    rows = read_rows(LocalStore(root=folder / "results"), "smoke/trials", schema.TRIALS).to_pylist()
    found = {(row["identifiers"], row["trial"].partition("-s0-")[2].rpartition("-")[0]): row for row in rows}
    assert len(found) == len(rows)
    return found


def steps(folder: Path) -> dict[tuple[str, str], int]:
    """Finished steps, and when they were."""
    folders = (path for path in (folder / "results" / "steps").glob("*/*") if path.is_dir() and "." not in path.name)
    return {(path.parent.name, path.name): path.stat().st_mtime_ns for path in folders}


def points(*budgets: str) -> set[tuple[str, str]]:
    """(identifiers, budget) of a grid with these budgets: views are of multiview alone."""
    return {(kind, one) for kind in SETTINGS for one in budgets if "-v" not in one or kind == "multiview"}


def check(row: dict, budget: str) -> None:
    """A row is done, and says what was spent and found."""
    assert row["status"] == "done", row["error"]
    assert tuple(row[name] for name in COLUMNS) == EXPECTED[budget]
    assert (row["max_new_tokens"] == 1) == (budget == "b2-m1")
    assert row["batch"] == 4
    assert row["split"] == "test"
    assert 0 <= row["hit@1"] <= row["hit@10"] <= 1
    assert row["infer_flops_per_query"] > 0
    assert row["cgl"] > 0


@pytest.mark.slow
def test_every_kind_under_every_budget(tmp_path: Path) -> None:
    """Run once, run again, extended by one budget: of which only the searches are run."""
    run(tmp_path, BUDGETS)
    made, first = trials(tmp_path), steps(tmp_path)
    assert made.keys() == points(*BUDGETS)
    for (_, budget), row in made.items():
        check(row, budget)
    assert "0 of them new" in run(tmp_path, BUDGETS)
    assert (trials(tmp_path), steps(tmp_path)) == (made, first)
    run(tmp_path, BUDGETS | ADDED)
    extended, second = trials(tmp_path), steps(tmp_path)
    assert extended.keys() == points(*BUDGETS, *ADDED)
    check_added(extended, made)
    assert {step: second[step] for step in first} == first, "a finished step ran again"
    assert [kind for kind, _ in second.keys() - first.keys()] == ["search"] * len(SETTINGS)


def check_added(extended: dict[tuple[str, str], dict], made: dict[tuple[str, str], dict]) -> None:
    """What there was stays as it was; the added rows are of the same trainings."""
    assert {point: extended[point] for point in made} == made
    for kind in SETTINGS:
        check(extended[kind, "b3"], "b3")
        assert extended[kind, "b3"]["train_key"] == made[kind, "b2"]["train_key"]
        assert extended[kind, "b3"]["cgl"] == pytest.approx(made[kind, "b2"]["cgl"], rel=0)
