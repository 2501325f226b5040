"""The door, the tables it reads and the report it writes."""

import json
import math
import re

import laws_data as data
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fit_laws
from laws.reporting import drawn, gallery
from laws.reporting.words import formula, number
from laws.study import study
from laws.tables import read_tables
from results.schema import TRIALS

VERDICTS = {"supported", "weak", "under-determined", "no law"}


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A results folder after fit_laws.py: both families, a failed trial, baselines."""
    root = tmp_path_factory.mktemp("results")
    trials = [*data.rows(), data.failed("t5-lost", "Diverged: <the> loss is not finite")]
    spent = [row | {"train_flops": 6.0 * row["n_params"] * row["d_pairs"], **queried(row)} for row in trials]
    data.write(root, spent)
    assert fit_laws.main([str(root), "--metric", "cgl", "--metric", "hit@10"]) == 0
    return root


def queried(row) -> dict:
    """What a query costs."""
    return {"infer_flops_per_query": row["n_params"] * (20.0 + 4 * row["beams"])}


def plates(reported) -> list[str]:
    """Names of the figures on the page."""
    return re.findall(r'class="plate" id="fig-([^"]+)"', (reported / "report" / "report.html").read_text())


def test_report_is_whole_and_self_contained(reported):
    page = (reported / "report" / "report.html").read_text()
    assert not re.search(r"(src|href)\s*=\s*[\"']?\s*(https?:)?//", page)
    assert "@import" not in page
    assert "url(http" not in page
    assert page.count('class="plate"') == page.count("<svg") == len(plates(reported))
    assert "bm25" in page
    assert "embeddings-r16" in page
    assert "Diverged: &lt;the&gt; loss is not finite" in page
    assert "0123456789abcdef" in page
    order = [page.index(title) for title in ("Verdicts</h2>", "<h2>Laws: toy", "Trials</h2>", "Failed trials</h2>")]
    assert order == sorted(order)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)


def test_every_figure_says_what_it_shows(reported):
    page = (reported / "report" / "report.html").read_text()
    told = re.findall(r'class="plate" id="[^"]+" role="img" aria-label="([^"]+)"', page)
    assert len(told) == len(plates(reported))
    assert all(len(each) > 30 for each in told)


def test_specifications_of_figures_are_whole(reported):
    page = (reported / "report" / "report.html").read_text()
    found = [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', page, re.S)]
    assert len(found) == len(plates(reported))
    for each in found:
        assert each["data"]
        assert {"title", "xaxis", "yaxis"} <= set(each["layout"])


def test_figures_are_files_too(reported):
    names = {path.suffix: set() for path in (reported / "report" / "figures").iterdir()}
    for path in (reported / "report" / "figures").iterdir():
        assert path.stat().st_size > 1000
        names[path.suffix].add(path.stem)
    assert names[".svg"] == names[".png"] == set(plates(reported))
    for family in ("t5", "llama"):
        for law in ("cgl-n", "cgl-d", "cgl-n-d", "hit-10-n", "hit-10-d", "hit-10-beams", "hit-10-n-d"):
            kinds = ("-slices", "-contours") if law.endswith("n-d") else ("",)
            checks = ("-residuals", "-profiles", "-held-out")
            assert {f"toy-ngram-{law}-{family}{kind}" for kind in (*kinds, *checks)} <= names[".svg"]
        plans = ("cgl-n-d", "hit-10-n-d", "hit-10-n-d-beams")
        kinds = ("allocation", "equal-flops", "frontier")
        drawn = {f"toy-ngram-{law}-{family}-plan-{kind}" for law in plans for kind in kinds}
        assert drawn <= names[".svg"]
        assert f"toy-ngram-hit-10-n-d-beams-{family}-plan-trade-off" in names[".svg"]
    assert {f"toy-ngram-{law}-families" for law in ("cgl-n", "cgl-d", "hit-10-beams")} <= names[".svg"]


def test_numbers(reported):
    text = (reported / "report" / "laws.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    numbers = json.loads(text)
    assert numbers["trials"] == {"done": 128, "failed": 1, "duplicates": 0}
    assert {finding["verdict"] for finding in numbers["laws"]} <= VERDICTS
    found = {(f["family"], f["metric"], f["form"], tuple(f["axes"])): f for f in numbers["laws"]}
    law = found["t5", "cgl", "additive", ("n", "d")]
    assert law["verdict"] == "supported"
    assert law["n_distinct"] == law["n_points"] == 16  # one point a training, not one a budget
    assert law["law"]["parameters"]["beta"]["value"] == pytest.approx(0.5, rel=0.1)
    assert found["t5", "cgl", "power", ("n",)]["held"] == {"d": 108_000}
    assert found["t5", "hit@10", "power", ("n",)]["held"] == {"d": 108_000, "beams": 64}
    assert found["t5", "hit@10", "power", ("beams",)]["held"] == {"n": 460_000, "d": 108_000}
    assert found["t5", "hit@10", "joint", ("n", "d")]["chance"] == pytest.approx(0.995)
    assert numbers["provenance"]["git_commits"] == ["abc1234"]


def test_parquet_holds_what_json_holds(reported):
    laws = json.loads((reported / "report" / "laws.json").read_text())["laws"]
    table = pq.read_table(reported / "report" / "laws.parquet")
    rows = table.to_pylist()
    assert len(rows) == len(laws)
    for row, law in zip(rows, laws, strict=True):
        for name in ("family", "metric", "form", "axes", "verdict", "reason", "n_points", "chance"):
            assert row[name] == law[name]
        fit = law["law"] or {"parameters": {}, "r2": None}
        assert row["r2"] == fit["r2"]
        assert {each["name"]: each["value"] for each in row["parameters"]} == {
            name: each["value"] for name, each in fit["parameters"].items()
        }
        assert [point["y"] for point in row["points"]] == law["points"]["y"]
        assert len(row["comparison"]) == len(law["comparison"])
        assert [held["error"] for held in row["holdouts"]] == [held["error"] for held in law["holdouts"]]
        assert [each["objective"] for each in row["profiles"]] == [each["objective"] for each in law["profiles"]]
        assert json.loads(row["card"] or "null") == law["card"]
    others = json.loads(table.schema.metadata[b"gridlaw"])
    assert others["trials"] == {"done": 128, "failed": 1, "duplicates": 0}


def test_same_tables_same_bytes(reported, tmp_path):
    options = ["--metric", "cgl", "--metric", "hit@10"]
    assert fit_laws.main([str(reported / "synthetic"), "--out", str(tmp_path / "again"), *options]) == 0
    first, second = reported / "report" / "laws.json", tmp_path / "again" / "laws.json"
    assert json.loads(first.read_text())["laws"] == json.loads(second.read_text())["laws"]


def test_standard_output(reported, tmp_path, capsys):
    assert fit_laws.main([str(reported), "--out", str(tmp_path / "out"), "--metric", "cgl"]) == 0
    shown = capsys.readouterr().out
    assert "128 finished trials, 1 failed and left out" in shown
    assert "CGL over N and D, joint" in shown
    assert str(tmp_path / "out" / "report.html") in shown


def test_tables_fit_the_terminal(tmp_path, capsys, monkeypatch):
    data.write(tmp_path, data.rows(["t5"], widths=[1]))
    shown = {}
    for width in (70, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        assert fit_laws.main([str(tmp_path), "--metric", "cgl"]) == 0
        lines = capsys.readouterr().out.splitlines()
        shown[width] = [line for line in lines if not line.startswith(("report ", "laws ", "table ", "figures "))]
        assert max(map(len, shown[width])) <= width
    assert not any("distinct points for" in line for line in shown[70])
    assert any("distinct points for" in line for line in shown[200])


def test_figures_of_earlier_reports_go(tmp_path):
    data.write(tmp_path, data.rows(["t5"]))
    folder = tmp_path / "report" / "figures"
    assert fit_laws.main([str(tmp_path), "--metric", "cgl", "--metric", "nll"]) == 0
    before = {path.name for path in folder.iterdir()}
    (folder / "notes.txt").write_text("mine")
    assert fit_laws.main([str(tmp_path), "--metric", "cgl"]) == 0
    after = {path.name for path in folder.iterdir()}
    assert after < before | {"notes.txt"}
    assert "notes.txt" in after
    page = (tmp_path / "report" / "report.html").read_text()
    assert len(after) - 1 == 2 * page.count("<svg")
    assert {path.name for path in folder.parent.iterdir()} == {"report.html", "laws.json", "laws.parquet", "figures"}


def test_a_report_that_fails_leaves_the_old_one(tmp_path, capsys, monkeypatch):
    def contents():
        return {path: path.read_bytes() for path in (tmp_path / "report").rglob("*") if path.is_file()}

    data.write(tmp_path, data.rows(["t5"]))
    assert fit_laws.main([str(tmp_path), "--metric", "nll"]) == 0
    before, save, count = contents(), drawn.save, []

    def failing(*arguments):
        count.append(arguments)
        if len(count) > 2:
            raise OSError(28, "No space left on device", "figure.svg")
        return save(*arguments)

    monkeypatch.setattr(gallery.drawn, "save", failing)
    capsys.readouterr()
    assert "No space left" in refused(capsys, str(tmp_path), "--metric", "cgl")
    assert len(count) == 3
    assert contents() == before


def test_published_form_is_shown_with_its_caution(reported, tmp_path):
    assert fit_laws.main([str(reported), "--out", str(tmp_path), "--metric", "cgl_published"]) == 0
    page = (tmp_path / "report.html").read_text()
    section = page[page.index("<h2>Laws: toy") : page.index('id="provenance"')]
    assert "no evidence of learning" in section
    assert "chance of one identifier" in section
    own = (reported / "report" / "report.html").read_text()  # of cgl and hit@10
    assert "no evidence of learning" not in own[: own.index('id="provenance"')]


def test_published_points_through_the_door(tmp_path):
    base = data.failed("x", "") | {"status": "done", "error": None, "cgl_published_chance": data.PUBLISHED_CHANCE}
    base |= {"family": "llama", "beams": None, "model": "llama"}
    cells = [(data.LLAMA_N[0], d, y) for d, y in zip(data.FRACTIONS, data.LLAMA_BY_D, strict=True)]
    cells += [(n, 588_800, y) for n, y in zip(data.LLAMA_N[1:], data.LLAMA_BY_N[1:], strict=True)]
    trials = [
        base | {"trial": f"{n}-{d}", "train_key": f"{n}-{d}", "n_params": n, "d_pairs": d, "cgl_published": y}
        for n, d, y in cells
    ]
    data.write(tmp_path, trials, baselines=False)
    findings = study(read_tables([tmp_path]), ["cgl_published"])
    by_form = {(finding.form.name, finding.axes): finding for finding in findings}
    joint = by_form["joint", "N and D"]
    assert joint.verdict.word == "under-determined"
    assert "additive form fits as well" in joint.verdict.reason
    assert by_form["power", "N"].held == {"d": 588_800}
    assert by_form["power", "D"].held == {"n": data.LLAMA_N[0]}  # the model that saw every D
    assert by_form["power", "N"].verdict.word == "under-determined"  # three points
    assert not any(finding.verdict.word == "supported" for finding in findings)


def test_confounded_rank_is_never_supported(tmp_path):
    trials = [row | {"init": "ppmi"} for row in data.rows(["t5"])]
    findings = study(read_tables([data.write(tmp_path, trials)]), ["cgl"])
    additive = next(finding for finding in findings if finding.form.name == "additive")
    assert additive.verdict.word == "weak"
    assert "rank of the initial embeddings" in additive.verdict.reason


def test_three_sizes_and_scales_are_not_supported(tmp_path):
    trials = data.rows(["t5"], sizes=data.N[:3], scales=data.D[:3])
    for finding in study(read_tables([data.write(tmp_path, trials)]), ["cgl", "hit@10"]):
        assert finding.verdict.word != "supported"


def test_several_folders_and_grids_are_pooled_and_repeats_dropped(tmp_path):
    rows = data.rows(["t5"])
    half = [row for row in rows if row["d_pairs"] <= data.D[1]]
    data.write(tmp_path / "a", half, "one")
    data.write(tmp_path / "b", rows, "two")
    tables = read_tables([tmp_path / "a", tmp_path / "b"])
    assert len(tables.trials) == len(rows)
    assert tables.duplicates == len(half)
    assert len(tables.baselines) == 3
    assert fit_laws.main([str(tmp_path / "a"), str(tmp_path / "b"), "--metric", "cgl"]) == 0
    assert (tmp_path / "a" / "report" / "report.html").is_file()


# ---------------------------------------------------------------- bad input


def refused(capsys, *arguments: str) -> str:
    assert fit_laws.main(list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err
    return captured.err


def test_missing_folder(tmp_path, capsys):
    assert "no such folder" in refused(capsys, str(tmp_path / "nowhere"))


def test_bad_addresses(tmp_path, capsys):
    said = refused(capsys, "s3://ID:hunter2@bucket/x")
    assert "must not hold credentials" in said
    assert "hunter2" not in said
    nobody = "s3://bucket/x?endpoint_override=http://127.0.0.1:9&region=us-east-1"
    assert f"{nobody}: " in refused(capsys, nobody)


def test_empty_folders(tmp_path, capsys):
    assert "no trials here" in refused(capsys, str(tmp_path))
    (tmp_path / "grid" / "trials").mkdir(parents=True)
    assert "no trials yet" in refused(capsys, str(tmp_path))


def test_truncated_parquet(tmp_path, capsys):
    data.write(tmp_path, data.rows(["t5"], widths=[1]))
    part = tmp_path / "synthetic" / "trials" / "part.parquet"
    whole = part.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"PAR1" + b"\0" * 40 + b"PAR1", whole[:-8] + b"\0" * 4 + whole[-4:]):
        part.write_bytes(content)
        assert "part.parquet: not a readable Parquet file" in refused(capsys, str(tmp_path))


def test_damaged_pages(tmp_path, capsys):
    data.write(tmp_path, data.rows(["t5"], widths=[1]))
    part = tmp_path / "synthetic" / "trials" / "part.parquet"
    whole = bytearray(part.read_bytes())
    whole[40:2000] = b"\xff" * 1960
    part.write_bytes(whole)
    assert "part.parquet" in refused(capsys, str(tmp_path))


def test_missing_column_and_wrong_type(tmp_path, capsys):
    table = pa.Table.from_pylist(data.rows(["t5"], widths=[1]), schema=TRIALS)
    part = tmp_path / "synthetic" / "trials" / "part.parquet"
    part.parent.mkdir(parents=True)
    pq.write_table(table.drop_columns(["n_params"]), part)
    assert "column 'n_params' is missing" in refused(capsys, str(tmp_path))
    index = table.schema.get_field_index("cgl")
    pq.write_table(table.set_column(index, "cgl", pa.array(["high"] * table.num_rows)), part)
    assert "column 'cgl' is no double" in refused(capsys, str(tmp_path))


def test_columns_of_an_older_table_may_be_missing(tmp_path):
    table = pa.Table.from_pylist(data.rows(["t5"]), schema=TRIALS)
    part = tmp_path / "synthetic" / "trials" / "part.parquet"
    part.parent.mkdir(parents=True)
    newer = ["recipe", "split", "negatives", "batch"]
    pq.write_table(table.drop_columns(["nll", "init", "cgl_chance", "versions", *newer]), part)
    assert fit_laws.main([str(tmp_path), "--metric", "cgl"]) == 0


def test_all_failed(tmp_path, capsys):
    data.write(tmp_path, [data.failed("a", "out of memory"), data.failed("b", "out of memory")])
    assert fit_laws.main([str(tmp_path)]) == 1
    assert "all 2 trials failed" in capsys.readouterr().err
    assert "out of memory" in (tmp_path / "report" / "report.html").read_text()


@pytest.mark.parametrize("changed", [{"cgl": math.nan}, {"cgl": None}, {"n_params": None}, {"d_pairs": -1}])
def test_nothing_to_fit_is_a_verdict(tmp_path, capsys, changed):
    data.write(tmp_path, [row | changed for row in data.rows(["t5"])])
    assert fit_laws.main([str(tmp_path), "--metric", "cgl"]) == 1
    assert "no law can be given" in capsys.readouterr().err
    laws = json.loads((tmp_path / "report" / "laws.json").read_text())["laws"]
    assert {law["verdict"] for law in laws} == {"no law"}


def test_one_value_on_each_axis(tmp_path, capsys):
    data.write(tmp_path, data.rows(["t5"], sizes=data.N[:1], scales=data.D[:1], widths=[16]))
    assert fit_laws.main([str(tmp_path), "--metric", "cgl", "--metric", "hit@10"]) == 1
    assert "only one value of N (7k)" in " ".join(capsys.readouterr().out.split())


def test_constant_metric_is_no_law(tmp_path, capsys):
    data.write(tmp_path, [row | {"hit@10": 0.0, "hit@10_lo": 0.0, "hit@10_hi": 0.0} for row in data.rows(["t5"])])
    assert fit_laws.main([str(tmp_path), "--metric", "hit@10"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(r"no law can be given: the verdict is `no law` on each of the \d+ curves", error)
    laws = json.loads((tmp_path / "report" / "laws.json").read_text())["laws"]
    assert {law["verdict"] for law in laws} == {"no law"}


def test_perfect_metric_is_no_law(tmp_path):
    data.write(tmp_path, [row | {"hit@10": 1.0, "hit@10_lo": 1.0, "hit@10_hi": 1.0} for row in data.rows(["t5"])])
    assert fit_laws.main([str(tmp_path), "--metric", "hit@10"]) == 1
    # one verdict that is better is enough
    assert fit_laws.main([str(tmp_path), "--metric", "hit@10", "--metric", "cgl"]) == 0


def test_unwritable_output(tmp_path, capsys):
    data.write(tmp_path, data.rows(["t5"], widths=[1]))
    (tmp_path / "file").write_text("")
    assert "file" in refused(capsys, str(tmp_path), "--out", str(tmp_path / "file"), "--metric", "cgl")


@pytest.mark.parametrize("arguments", [[], ["results", "--metric", "accuracy"], ["results", "--nonsense"]])
def test_wrong_command_line(arguments):
    with pytest.raises(SystemExit) as stopped:
        fit_laws.main(arguments)
    assert stopped.value.code == 2


def test_numbers_for_readers():
    assert number(29235.0) == "29,235"
    assert number(1.2486e8) == "1.249 × 10⁸"
    assert number(3.279796e-3, 5) == "0.0032798"
    assert number(None) == number(math.nan) == "–"
    assert number(math.inf) == "∞"
    assert str(formula("[(A/D)^(alpha/beta) + B/N]^beta + delta")).count("<sup>") == 2
