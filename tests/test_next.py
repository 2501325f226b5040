"""What to run next: the design against matrices written out, the choice against all choices, the door end to end."""

import itertools
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import sweep_jobs

import fit_laws
from benchmarks.laws.truths import formula
from benchmarks.planning.next import SHARES, WAYS, race
from laws.fitting import Law, Options, fit
from laws.forms import Additive
from laws.planning.design import FREEDOM, Design, design_of, sensitivities, shared_noise
from laws.planning.next import Field, choose, field_of
from laws.points import Points
from orchestrator.candidates import Candidate, read_candidates
from orchestrator.grid import load
from orchestrator.steps import expand
from orchestrator.sweep import Request, carry_out
from results.local import LocalStore
from results.schema import TRIALS
from results.tables import write_rows

TRUTH = {"E": 1.0, "A": 200.0, "alpha": 0.35, "B": 300.0, "beta": 0.4}


@dataclass(frozen=True, kw_only=True)
class Cell:
    trial: str
    run: str
    steps: dict[str, float] = field(default_factory=dict)


def _points(seed: int = 0, seeds: int = 1, shared: float = 0.0) -> Points:
    """A grid of four N and four D, `seeds` points a run; `shared`: of the noise's variance that they have in common."""
    rng = np.random.default_rng(seed)
    n, d = (column.ravel() for column in np.meshgrid(np.geomspace(1e6, 1e8, 4), np.geomspace(1e5, 1e7, 4)))
    runs = np.arange(len(n)).repeat(seeds)
    own, common = rng.standard_normal(len(runs)), rng.standard_normal(len(n))[runs]
    noise = 0.01 * (math.sqrt(shared) * common + math.sqrt(1 - shared) * own)
    n, d = n.repeat(seeds), d.repeat(seeds)
    y = formula(Additive(), TRUTH, {"n": n, "d": d}) + noise
    return Points(n=n, d=d, y=y, run=tuple(f"r{run}" for run in runs))


def _law(points: Points) -> Law:
    return fit(Additive(), points, Options(bootstraps=0))


# ---------------------------------------------------------------- the design


def _variance(goal: np.ndarray, rows: np.ndarray, runs: Sequence[str], noise: float, shared: float) -> float:
    """Of the value at the target, by generalised least squares written out with the full matrix of the noise."""
    same = np.array([[one == other for other in runs] for one in runs], dtype=float)
    noises = noise**2 * (shared * same + (1 - shared) * np.eye(len(runs)))
    information = rows.T @ np.linalg.solve(noises, rows) + np.eye(rows.shape[1]) / FREEDOM**2
    return float(goal @ np.linalg.solve(information, goal))


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_design_is_generalised_least_squares(seeds: int) -> None:
    points = _points(seeds=seeds, shared=0.6)
    law, target = _law(points), (1e9, 1e7)
    design = design_of(law, points, target)
    assert (design.shared > 0.2) == (seeds > 1)
    rows, (goal,) = sensitivities(law, [points.n, points.d]), sensitivities(law, [np.array([v]) for v in target])
    runs = list(points.run)
    assert design.variance == pytest.approx(_variance(goal, rows, runs, law.noise, design.shared), rel=1e-6)
    new = [("new", 1e9, 1e5), ("new", 1e9, 1e5), ("r0", 1e6, 1e8), ("r5", 1e8, 1e7), ("other", 1e6, 1e8)]
    added = sensitivities(law, [np.array([n for _, n, _ in new]), np.array([d for *_, d in new])])
    for count, (run, *_) in enumerate(new, start=1):
        row = added[count - 1]
        foreseen = design.variance - design.reductions(row[None], [run])[0]
        design = design.after(row, run)
        runs.append(run)
        exact = _variance(goal, np.concatenate([rows, added[:count]]), runs, law.noise, design.shared)
        assert design.variance == pytest.approx(exact, rel=1e-6)
        assert design.variance == pytest.approx(foreseen, rel=1e-6)


def test_the_linearised_band_is_about_that_of_the_bootstraps() -> None:
    points = _points()
    law = fit(Additive(), points, Options(bootstraps=1000))
    target = (3e8, 1e7)
    band = law.band([np.array([value]) for value in target])
    assert band is not None
    width = 2 * 1.645 * math.sqrt(design_of(law, points, target).variance)
    assert width == pytest.approx(float(band[1][0] - band[0][0]), rel=0.4)


def test_the_noise_of_runs_is_found() -> None:
    for shared in (0.0, 0.8):
        found = [shared_noise(_law(points), points, points.run) for points in (_points(s, 6, shared) for s in range(8))]
        assert np.mean(found) == pytest.approx(shared, abs=0.2)
    alone = _points()
    assert shared_noise(_law(alone), alone, alone.run) == 0.0


# ---------------------------------------------------------------- the choice


def _field(rng: np.random.Generator, count: int) -> tuple[Field, dict[str, float]]:
    """Random candidates, some of which share a training; and the FLOPs of each step."""
    points = _points(int(rng.integers(99)))
    law = _law(points)
    n, d = 10 ** rng.uniform(6, 9.5, count), 10 ** rng.uniform(5, 8, count)
    flops, cells = {}, []
    for number in range(count):
        run = f"run{number // 2}" if number < 4 else f"run{number}"
        flops[run] = 6 * n[number] * d[number]
        flops[f"search{number}"] = 10 ** rng.uniform(11, 14)
        cells.append((run, f"search{number}"))
    made = [Cell(trial=str(k), run=run, steps={run: flops[run], own: flops[own]}) for k, (run, own) in enumerate(cells)]
    return field_of(law, design_of(law, points, (1e10, 1e7)), made, [n, d]), flops


def _worth(one: Field, chosen: Sequence[int]) -> float:
    design: Design = one.design
    for number in chosen:
        design = design.after(one.rows[number], one.cells[number].run)
    return math.log(one.design.variance / design.variance)


def test_the_choice_is_close_to_the_best_of_all() -> None:
    rng, shares = np.random.default_rng(2), []
    for _ in range(12):
        one, flops = _field(rng, 8)
        budget = float(10 ** rng.uniform(-1.5, 0)) * sum(flops.values())
        chosen = choose([one], flops=budget)
        paid = {key for part in chosen for key in part.cell.steps}
        assert sum(flops[key] for key in paid) == pytest.approx(sum(part.flops for part in chosen))
        assert sum(part.flops for part in chosen) <= budget * (1 + 1e-9)
        best = 0.0
        for some in itertools.chain.from_iterable(itertools.combinations(range(8), size) for size in range(9)):
            keys = {key for number in some for key in one.cells[number].steps}
            if sum(flops[key] for key in keys) <= budget:
                best = max(best, _worth(one, some))
        numbers = [int(part.cell.trial) for part in chosen]
        worth = _worth(one, numbers)
        if chosen:
            assert chosen[-1].narrowing == pytest.approx(math.exp(-worth / 2), rel=1e-6)
        shares.append(worth / best if best else 1.0)
    assert min(shares) > 0.6
    assert np.mean(shares) > 0.95


def test_a_training_is_paid_for_once() -> None:
    points = _points()
    law = _law(points)
    cells = [Cell(trial=f"t{beams}", run="big", steps={"big": 1e18, f"s{beams}": 1e10}) for beams in range(3)]
    one = field_of(law, design_of(law, points, (1e9, 1e7)), cells, [np.full(3, 1e9), np.full(3, 1e6)])
    assert [part.flops for part in choose([one])] == [1e18 + 1e10, 1e10, 1e10]
    assert choose([one], flops=1e17) == ()
    assert len(choose([one], cells=2)) == 2
    assert len(choose([one], cells=2, flops=1.5e18)) == 2


def test_a_place_is_not_given_to_what_is_cheap_and_says_nothing() -> None:
    points = _points()
    law = _law(points)
    n, d = np.array([1e6, 1e9, 1e9]), np.array([1e5, 1e5, 1e7])  # a repetition of the smallest, and two far ones
    cells = [Cell(trial=str(k), run=f"x{k}", steps={f"x{k}": 6 * n[k] * d[k]}) for k in range(3)]
    one = field_of(law, design_of(law, points, (1e10, 1e7)), cells, [n, d])
    assert choose([one], cells=1)[0].cell.trial != "0"


def test_two_laws_share_what_there_is() -> None:
    rng = np.random.default_rng(7)
    (one, _), (other, _) = _field(rng, 6), _field(rng, 6)
    renamed = [
        Cell(trial=f"b{c.trial}", run=c.run, steps={f"b{k}": v for k, v in c.steps.items()}) for c in other.cells
    ]
    other = Field(law=other.law, design=other.design, cells=tuple(renamed), rows=other.rows)
    chosen = choose([one, other])
    assert {part.field for part in chosen} == {0, 1}
    assert len({part.cell.trial for part in chosen}) == len(chosen)


# ---------------------------------------------------------------- against cheapest first and random order


def test_bands_narrow_faster_than_cheapest_first_and_at_random() -> None:
    found = race("joint", noises=3, budgets=6, bootstraps=100)
    assert all(found.needed("chosen", SHARES[0]) < found.needed(other, SHARES[0]) for other in WAYS[1:])
    assert found.needed("cheapest first", SHARES[0]) / found.needed("chosen", SHARES[0]) > 1.5


# ---------------------------------------------------------------- the door

GRID = """
name: tiny
corpus: {source: jsonl, path: corpus.jsonl}
identifiers: [{kind: ngram}]
models: [{family: t5, size: [7k, 29k, 115k, 460k]}]
data: {pairs: [50, 100, 200, 400, 800]}
inference: [{beams: [1, 4, 16]}, {beams: 4, rerank: 10}]
tracking: {wandb: "off"}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a grid, of which the trials of the three smaller models on up to 400 pairs are done."""
    folder = tmp_path_factory.mktemp("swept")
    (folder / "corpus.jsonl").write_text('{"text": "a b c", "queries": ["x y"]}\n')
    (folder / "grid.yaml").write_text(GRID)
    store, rng = LocalStore(root=folder / "results"), np.random.default_rng(4)
    graph = expand(load(folder / "grid.yaml").grid)
    everything = read_candidates(folder / "grid.yaml", store).trials
    trials = [one for one in everything if one.d <= 400 and one.model != "t5-460k"]
    for key in {key for one in trials for key in one.steps}:
        step = graph.steps[key]
        with store.work(step.kind, key, "me") as out:
            assert out is not None
            if step.kind == "corpus":
                sweep_jobs.corpus(step.settings, out=out)
            else:
                (out / "weights").mkdir()
                (out / "weights" / "made").touch()
    write_rows(store, "tiny/trials/part.parquet", [_row(one, rng) for one in trials], TRIALS)
    return folder


@pytest.fixture
def swept(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, to be written to."""
    folder = tmp_path / "swept"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    return folder


def _row(one: Candidate, rng: np.random.Generator) -> dict[str, object]:
    assert one.n is not None
    loss = 1.0 + 60 / one.n**0.4 + 8 / one.d**0.5 + 0.003 * rng.standard_normal()
    hit = 0.9 - 12 / one.n**0.4 - 1.2 / one.d**0.5 - 0.15 / (one.beams or 1) ** 0.7 + 0.002 * rng.standard_normal()
    names = ("trial", "corpus", "identifiers", "family", "init", "recipe", "split", "model", "seed", "beams")
    row: dict[str, object] = {name: getattr(one, name) for name in names}
    row |= {
        "train_key": one.run,
        "n_params": one.n,
        "d_pairs": one.d,
        "status": "done",
        "corpus_hash": "h",
        "grid": "tiny",
    }
    row |= {"cgl": loss, "hit@10": hit, "rerank": None if one.is_plain else 10, "learning_rate": 0.01, "epochs": 2}
    flops = {"train_flops": 6.0 * one.n * one.d, "infer_flops_per_query": 2.0 * one.n * (20 + 8 * (one.beams or 1))}
    return row | flops | {"latency_ms": 1 + 0.1 * (one.beams or 1)}


def _plan(folder: Path, grid: str, capsys: pytest.CaptureFixture[str]) -> dict[str, bool]:
    """What a dry run says: trial -> whether it is done."""
    capsys.readouterr()
    request = Request(grid=folder / grid, results=folder / "results", mode="plan", json=True)
    assert carry_out(request, table=sweep_jobs.JOBS) == 0
    return {trial["trial"]: trial["done"] for trial in json.loads(capsys.readouterr().out)["trials"]}


@pytest.mark.parametrize(
    ("metric", "point"), [("cgl", "N=5e6,D=800"), ("hit@10", "N=5e6,D=800,beams=16")], ids=["loss", "metric"]
)
def test_the_chosen_trials_are_a_grid_that_runs_just_them(
    swept: Path, capsys: pytest.CaptureFixture[str], metric: str, point: str
) -> None:
    before = _plan(swept, "grid.yaml", capsys)
    command = ["results", "--metric", metric, "--next", "grid.yaml", "--at", point]
    assert fit_laws.main([*command, "--cells", "3", "--out", "next.yaml", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    chosen = [trial["trial"] for trial in said["trials"]]
    assert 1 <= len(chosen) <= 3
    assert not any(before[trial] for trial in chosen)
    after = _plan(swept, "next.yaml", capsys)
    assert [trial for trial, done in after.items() if not done] == sorted(chosen, key=list(before).index)
    assert {trial for trial, done in after.items() if done} == {trial for trial, done in before.items() if done}
    assert said["flops"] == pytest.approx(sum(trial["flops"] for trial in said["trials"]))
    assert 0 < said["laws"][0]["narrowing_by_refits"] < 1
    if metric == "cgl":  # a budget more of a training that is chosen tells nothing of its loss
        assert len({trial.rpartition("-s0-")[0] for trial in chosen}) == len(chosen)
    # the folder of the grid itself stands for the results folder that it lies in
    assert fit_laws.main(["results/tiny", *command[1:], "--cells", "3", "--json"]) == 0
    assert [trial["trial"] for trial in json.loads(capsys.readouterr().out)["trials"]] == chosen


def test_a_training_whose_weights_are_gone_is_paid_for_again(swept: Path) -> None:
    (swept / "wider.yaml").write_text(GRID.replace("[1, 4, 16]", "[1, 4, 16, 64]"))
    store = LocalStore(root=swept / "results")

    def wider() -> dict[str, Candidate]:
        trials = read_candidates(swept / "wider.yaml", store).trials
        return {one.trial: one for one in trials if one.d <= 400 and one.model != "t5-460k" and one.beams == 64}

    kept = wider()
    assert len(kept) == 12
    assert all(len(one.steps) == 1 and not one.trains_again for one in kept.values())
    gone = next(iter(kept.values())).run
    store.drop("train", gone, ["weights"])
    for name, one in wider().items():
        assert one.trains_again == (one.run == gone)
        assert one.steps.keys() - kept[name].steps.keys() == ({gone} if one.run == gone else set())
    assert not any(one.steps for one in read_candidates(swept / "grid.yaml", store).trials if one.is_done)


def test_what_is_said_of_the_next_trials(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["results", "--metric", "cgl", "--next", "grid.yaml", "--at", "N=5e6,D=800"]
    assert fit_laws.main([*command, "--flops", "1e12", "--out", "next.yaml"]) == 0
    said = capsys.readouterr().out
    assert "To run next, to know more at N = 5M, D = 800" in said
    assert "trials left out: laws are about plain beam searches" in said
    assert "python run_grid.py next.yaml --dry-run" in said
    assert fit_laws.main([*command, "--flops", "10"]) == 1
    assert "no trial is affordable" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--next", "grid.yaml"], "--next needs --at"),
        (["--next", "grid.yaml", "--at", "beams=3"], "--at: no law speaks of beams = 3"),
        (["--next", "other.yaml", "--at", "N=5e6,D=800"], "other.yaml: no such grid file"),
        (["--next", "grid.yaml", "--at", "N=5e6,D=800", "--out", "grid.yaml"], "grid.yaml: is the grid that was read"),
        (["--at", "N=5e6,D=800"], "--at goes with --next"),
    ],
)
def test_what_cannot_be_chosen_is_one_line(
    swept: Path, capsys: pytest.CaptureFixture[str], more: list[str], line: str
) -> None:
    assert fit_laws.main(["results", "--metric", "cgl", *more]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1
