"""Anybody's table of points, through the door and as a library."""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fit_laws
from laws.anyones import Columns, asked_of, read_points
from laws.forms import SYMBOLS
from laws.questions import all_names
from laws.study import answer
from laws.tables import BadTable

NAMES = Columns(n="params", d="tokens", y="loss")


def chinchilla(noise=0.002):
    """A 5 x 5 grid of an additive law with seeded noise."""
    n, d = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e6, 1e9, 5), np.geomspace(1e8, 1e10, 5)))
    y = (1.7 + 400 / n**0.34 + 410 / d**0.28) * (1 + noise * np.random.default_rng(0).standard_normal(25))
    return {"params": n, "tokens": d, "loss": y}


def csv(path, columns, separator=","):
    names = list(columns)
    rows = zip(*(columns[name] for name in names), strict=True)
    lines = [separator.join(names), *(separator.join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def refused(capsys, *arguments) -> str:
    assert fit_laws.main([str(argument) for argument in arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "Traceback" not in said
    return said


def test_a_csv_gives_its_law(tmp_path, capsys):
    table = csv(tmp_path / "points.csv", chinchilla())
    assert fit_laws.main([str(table), "--n", "params", "--d", "tokens", "--y", "loss"]) == 0
    shown = capsys.readouterr().out
    assert "25 points" in shown
    assert "loss over N and D" in shown
    numbers = json.loads((tmp_path / "points-laws" / "laws.json").read_text())
    (law,) = [one for one in numbers["laws"] if one["form"] == "additive"]
    assert law["verdict"] == "supported"
    assert law["law"]["parameters"]["alpha"]["value"] == pytest.approx(0.34, abs=0.05)
    assert (tmp_path / "points-laws" / "report.html").is_file()


@pytest.mark.parametrize("kind", ["parquet", "semicolons", "tabs", "gzip", "bom"])
def test_other_files_hold_the_same_points(tmp_path, kind):
    columns = chinchilla()
    whole = read_points(csv(tmp_path / "points.csv", columns), NAMES)[""].points
    if kind == "parquet":
        path = tmp_path / "points.dat"  # known by its first bytes and not by its name
        pq.write_table(pa.table(columns), path)
    elif kind == "gzip":
        import gzip

        path = tmp_path / "points.csv.gz"
        path.write_bytes(gzip.compress((tmp_path / "points.csv").read_bytes()))
    elif kind == "bom":
        path = tmp_path / "bom.csv"
        path.write_bytes(b"\xef\xbb\xbf" + (tmp_path / "points.csv").read_bytes())
    else:
        path = csv(tmp_path / "other.csv", columns, {"semicolons": ";", "tabs": "\t"}[kind])
    found = read_points(path, NAMES)[""].points
    for name in ("n", "d", "y"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))


def test_compute_that_follows_from_n_and_d_is_no_axis(tmp_path):
    columns = chinchilla()
    columns["flops"] = 6 * columns["params"] * columns["tokens"]
    with_flops = Columns(n="params", d="tokens", y="loss", c="flops")
    (asked,) = asked_of(csv(tmp_path / "a.csv", columns), with_flops)
    assert asked.axes == ("n", "d")
    np.testing.assert_array_equal(asked.points.train_flops, columns["flops"])
    doubled = {name: np.tile(values, 3) for name, values in columns.items()}
    doubled["flops"] = np.repeat([1e9, 4e9, 1.6e10], 25)
    (asked,) = asked_of(csv(tmp_path / "b.csv", doubled), with_flops)
    assert asked.axes == ("n", "d", "c")
    assert asked.points.train_flops is None


def test_a_budget_is_fitted_along_with_n_and_d(tmp_path):
    n, d, c = (axis.ravel() for axis in np.meshgrid(*[np.geomspace(1e6, 1e9, 4)] * 2, np.geomspace(1e8, 1e10, 4)))
    y = 1 + 400 / n**0.34 + 300 / d**0.3 + 40 / c**0.2
    y = y * (1 + 0.002 * np.random.default_rng(0).standard_normal(len(y)))
    path = csv(tmp_path / "points.csv", {"N": n, "D": d, "C": c, "loss": y})
    (asked,) = asked_of(path, Columns(n="N", d="D", c="C", y="loss"))
    found = {finding.axes: finding for finding in answer(asked, names=["additive+gain", "power"])}
    assert set(found) == {"N", "D", "C", "N, D and C"}
    whole = found["N, D and C"]
    assert whole.law["gamma"] == pytest.approx(0.2, abs=0.05)
    assert whole.is_best


def test_families_and_metrics(tmp_path):
    n = np.tile(np.geomspace(1e6, 1e9, 8), 2)
    hit = 1 - (0.2 + (1e6 / n) ** 0.3 * 0.6)
    path = csv(tmp_path / "hits.csv", {"N": n, "family": ["t5"] * 8 + ["llama"] * 8, "hit": hit})
    found = asked_of(path, Columns(n="N", y="hit", family="family", is_metric=True))
    assert [asked.group.family for asked in found] == ["t5", "llama"]
    for asked in found:
        findings = list(answer(asked))
        assert {finding.points.quantity for finding in findings} <= {"error", "-log"}
        rivals = findings[0].comparison.rivals
        assert {rival.quantity for rival in rivals} == {"error", "-log"}
        assert {"power", "power, -log", "bounded power", "mean"} <= {rival.name for rival in rivals}


def test_rows_that_cannot_be_fitted_are_left_out_and_counted(tmp_path):
    columns = {name: list(values) for name, values in chinchilla().items()}
    for name, values in (("params", [0, -1e6, 1e6]), ("tokens", [1e8, 1e8, "nan"]), ("loss", [3.0, 3.0, 3.0])):
        columns[name] += values
    columns["params"] += [1e6, 1e6, columns["params"][0]]
    columns["tokens"] += [1e8, 1e8, columns["tokens"][0]]
    columns["loss"] += ["inf", "", columns["loss"][0]]
    selection = read_points(csv(tmp_path / "points.csv", columns), NAMES)[""]
    assert len(selection.points) == 25
    assert selection.notes == (
        "2 rows left out: no finite loss",
        "2 rows left out: N is not a positive number",
        "1 rows left out: D is not a positive number",
        "1 repeated rows left out",
    )


def test_seeds_are_no_repeated_rows(tmp_path):
    columns = chinchilla()
    twice = {name: np.tile(values, 2) for name, values in columns.items()} | {"seed": np.repeat([0, 1], 25)}
    path = csv(tmp_path / "points.csv", twice)
    assert len(read_points(path, NAMES)[""].points) == 25
    assert len(read_points(path, Columns(n="params", d="tokens", y="loss", run="seed"))[""].points) == 50


def test_intervals_of_a_metric_change_places(tmp_path):
    path = csv(tmp_path / "points.csv", {"N": [1, 2], "hit": [0.5, 0.6], "low": [0.4, 0.5], "high": [0.7, 0.8]})
    points = read_points(path, Columns(n="N", y="hit", lo="low", hi="high", is_metric=True))[""].points
    np.testing.assert_allclose(points.lo, [0.3, 0.2])
    np.testing.assert_allclose(points.hi, [0.6, 0.5])


def test_columns_and_files_that_are_wrong_are_named(tmp_path, capsys):
    table = csv(tmp_path / "points.csv", chinchilla())
    assert "did you mean 'loss'?" in refused(capsys, table, "--n", "params", "--d", "tokens", "--y", "los")
    assert "it has params, tokens, loss" in refused(capsys, table, "--n", "params", "--y", "perplexity")
    assert "it has params, tokens, loss" in refused(capsys, table)
    assert "at least one of --n" in refused(capsys, table, "--y", "loss")
    assert "no such file" in refused(capsys, tmp_path / "none.csv", "--n", "params", "--y", "loss")
    assert "a folder" in refused(capsys, tmp_path, "--n", "params", "--y", "loss")
    assert "fitted alone" in refused(capsys, table, tmp_path, "--n", "params", "--y", "loss")
    assert "--metric" in refused(capsys, table, "--n", "params", "--y", "loss", "--metric", "cgl")
    both = ("--n", "params", "--y", "loss", "--form", "joint")
    assert "no form of joint runs along n" in refused(capsys, table, *both)
    assert "outside [0, 1]" in refused(capsys, table, "--n", "params", "--y", "loss", "--higher-is-better")


def damaged_tables():
    whole = "params,tokens,loss\n1,2,3\n"
    return {
        "empty": (b"", "empty"),
        "blank": (b"\n\n", "empty"),
        "header": (b"params,tokens,loss\n", "no rows"),
        "text": (whole.encode() + b"1,2,high\n", "column 'loss', row 2: 'high' is no number"),
        "short": (whole.encode() + b"1,2\n", "not a readable CSV file"),
        "twice": (b"params,tokens,loss,loss\n1,2,3,4\n", "2 columns are called 'loss'"),
        "torn": (b"PAR1\x15\x04\x15\x10", "not a readable Parquet file"),
        "bytes": (b"params,tokens,loss\n\xff\xfe,1,\x00\n", "not a readable CSV file"),
    }


@pytest.mark.parametrize("kind", damaged_tables())
def test_damaged_tables_are_refused(tmp_path, capsys, kind):
    content, said = damaged_tables()[kind]
    path = tmp_path / "points.csv"
    path.write_bytes(content)
    line = refused(capsys, path, "--n", "params", "--d", "tokens", "--y", "loss")
    assert said in line
    assert "points.csv" in line


def test_a_truncated_parquet_is_refused(tmp_path, capsys):
    path = tmp_path / "points.parquet"
    pq.write_table(pa.table(chinchilla()), path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:4] + b"\xff" * 200 + whole[204:]):
        path.write_bytes(content)
        assert "points.parquet" in refused(capsys, path, "--n", "params", "--d", "tokens", "--y", "loss")
    pq.write_table(pa.table({"params": [[1.0], [2.0]], "loss": [1.0, 2.0]}), path)
    assert "holds no numbers" in refused(capsys, path, "--n", "params", "--y", "loss")


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_few_points_give_no_silent_law(tmp_path, capsys, rows):
    columns = {name: values[:rows] for name, values in chinchilla().items()}
    code = fit_laws.main([str(csv(tmp_path / "points.csv", columns)), "--n", "params", "--d", "tokens", "--y", "loss"])
    shown = capsys.readouterr()
    assert "supported" not in shown.out
    assert code == (0 if "interpolation" in shown.out else 1)
    if code:
        assert "no law can be given" in shown.err


def test_points_that_are_all_left_out_give_no_law(tmp_path, capsys):
    columns = chinchilla() | {"loss": ["nan"] * 25}
    path = csv(tmp_path / "points.csv", columns)
    assert fit_laws.main([str(path), "--n", "params", "--d", "tokens", "--y", "loss"]) == 1
    assert "no law can be given" in capsys.readouterr().err


def test_a_rising_loss_is_no_law(tmp_path, capsys):
    columns = {"N": np.geomspace(1, 100, 8), "loss": np.linspace(1, 2, 8)}
    assert fit_laws.main([str(csv(tmp_path / "points.csv", columns)), "--n", "N", "--y", "loss"]) == 1
    assert "does not fall" in " ".join(capsys.readouterr().out.split())


def test_the_library_does_what_its_docstring_says(tmp_path):
    import laws
    from laws import Additive, fit, judge
    from laws import Columns as ColumnsOfTheDoor

    path = csv(tmp_path / "points.csv", chinchilla())
    (selection,) = laws.read_points(path, ColumnsOfTheDoor(n="params", d="tokens", y="loss")).values()
    law = fit(Additive(), selection.points)
    assert law["alpha"] == pytest.approx(0.34, abs=0.05)
    low, high = law.band([[7e9], [2e12]])
    assert low <= law.predict([[7e9], [2e12]]) <= high
    assert judge(law, selection.points).word == "supported"
    assert all(getattr(laws, name) for name in laws.__all__)


def test_an_axis_is_needed(tmp_path):
    with pytest.raises(BadTable, match="no axis"):
        read_points(csv(tmp_path / "points.csv", chinchilla()), Columns(y="loss"))


def test_help_names_every_form_and_column(capsys):
    with pytest.raises(SystemExit) as ended:
        fit_laws.main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*all_names(), "--higher-is-better", "--family", "points.csv"))


def test_symbols_are_defined_on_the_card(tmp_path):
    (asked,) = asked_of(csv(tmp_path / "points.csv", chinchilla()), NAMES)
    finding = next(iter(answer(asked)))
    assert finding.card is not None
    assert finding.card.definitions[SYMBOLS["n"]] == "column 'params' of points.csv"
    assert math.isfinite(finding.card.agree)
