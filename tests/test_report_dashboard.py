"""A report in W&B: tables of laws and parameters, figures, laws.json; one run a grid, whoever fits it."""

import json
from pathlib import Path

import laws_data
import pytest
import wandb_files
from wandb_server import KEY, serving

import fit_laws
from results import dashboard


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = laws_data.rows(families=("t5",), widths=(4, 16))
    return laws_data.write(tmp_path, rows) / "synthetic"


def _fit(folder: Path, *more: str) -> int:
    return fit_laws.main([str(folder), "--metric", "cgl", "--wandb", *more])


def test_an_offline_report_holds_laws_figures_and_numbers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _fit(folder) == 0
    (made,) = (folder / "report" / "wandb").glob("offline-run-*")
    assert f"wandb sync {made}" in capsys.readouterr().out.replace("\n", "")
    run = wandb_files.read(made)
    assert (run.id, run.group, run.job_type) == ("laws-synthetic", "synthetic", "laws")
    numbers = json.loads((folder / "report" / "laws.json").read_text())["laws"]
    drawn = [law for law in numbers if law["law"] is not None]
    laws = wandb_files.table(made, run.summary["laws"])
    assert [(law["verdict"], law["reason"]) for law in laws] == [(law["verdict"], law["reason"]) for law in drawn]
    parameters = wandb_files.table(made, run.summary["parameters"])
    expected = [(name, end["value"], end["lo"]) for law in drawn for name, end in law["law"]["parameters"].items()]
    assert [(row["parameter"], row["value"], row["lo"]) for row in parameters] == expected
    images = {path.stem for path in (folder / "report" / "figures").glob("*.png")}
    drawings = [(name, value) for name, value in run.summary.items() if name.startswith("figures/")]
    logged = {name.removeprefix("figures/"): value for name, value in drawings}
    assert set(logged) == images
    assert all((made / "files" / value["path"]).read_bytes().startswith(b"\x89PNG") for value in logged.values())
    assert (made / "files" / "laws.json").read_text() == (folder / "report" / "laws.json").read_text()
    assert not (made / "files" / "laws.json").is_symlink()
    assert "laws.json" in run.files
    assert sum(count for name, count in run.summary.items() if name.startswith("verdicts/")) == len(drawn)
    assert str(folder).encode() not in next(made.glob("*.wandb")).read_bytes()


def test_a_later_report_is_the_next_step_of_the_same_run(folder: Path) -> None:
    _fit(folder)
    (first,) = (folder / "report" / "wandb").glob("offline-run-*")
    first.rename(first.with_name(first.name.replace("offline-run-2", "offline-run-1")))
    _fit(folder)
    runs = [wandb_files.read(made) for made in sorted((folder / "report" / "wandb").glob("offline-run-*"))]
    assert [run.id for run in runs] == ["laws-synthetic"] * 2
    assert [run.history[-1]["_step"] for run in runs] == [0, 1]


def test_online_it_goes_to_the_service_and_a_refusal_changes_no_exit_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dashboard.stop()
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with serving() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        assert _fit(folder, "--wandb-project", "mine") == 0
        assert _fit(folder, "--wandb-project", "mine") == 0
        run = server.runs["laws-synthetic"]
        assert run.latest("project") == "mine"
        assert [entry["_step"] for entry in run.history] == [0, 1]
        assert "laws-synthetic/laws.json" in server.uploads
        assert f"laws-synthetic/{run.summary['laws']['path']}" in server.uploads
        monkeypatch.setattr(dashboard, "START_SECONDS", 1.0)
        server.status = 500
        capsys.readouterr()
        assert _fit(folder) == 0
        said = capsys.readouterr()
        assert "wandb    not written: CommError" in said.out
        assert KEY not in said.out + said.err


def test_disabled_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert _fit(folder) == 0
    assert "wandb    not written" in capsys.readouterr().out
    assert not (folder / "report" / "wandb").exists()
