"""Questions, rivals and findings: what is asked of a results folder, and what the published points support."""

import json
import math

import laws_data as data
import numpy as np
import published_points
import pytest

import fit_laws
from laws import Additive, Bounded, Joint, Options, PowerLaw, WithBudget
from laws.newest import newest_law
from laws.questions import all_names, form_name, questions
from laws.study import study
from laws.tables import read_tables
from laws.together import together
from results.schema import TRIALS

QUICK = Options(starts=24, bootstraps=60)


# ---------------------------------------------------------------- the published points


@pytest.fixture(scope="module")
def published():
    found = study(read_tables([published_points.FOLDER]))
    return {(one.group.identifiers, one.group.family, one.axes, one.form.name): one for one in found}


def test_the_joint_law_is_reproduced_and_called_under_determined(published):
    finding = published["ngram", "llama", "N and D", "joint"]
    law = finding.law
    for name, value in {"A": 29235, "alpha": 8.9127, "B": 1.2486e8, "beta": 2.4101, "delta": 3.279796e-3}.items():
        assert law[name] == pytest.approx(value, rel=1e-4), name
    assert law.r2 == pytest.approx(0.9999967, abs=1e-8)
    assert (law.n_points, law.n_distinct, len(law.parameters)) == (8, 7, 5)
    assert finding.verdict.word == "under-determined"
    assert "7 distinct points, 5 parameters" in finding.verdict.reason
    assert "the additive form fits as well or better" in finding.verdict.reason
    assert published["ngram", "llama", "N and D", "additive"].verdict.word == "under-determined"


def test_t5_over_n_is_reproduced(published):
    finding = published["ngram", "t5", "N", "power"]
    assert finding.law["b"] == pytest.approx(0.40215, abs=1e-5)
    assert finding.law["c"] == pytest.approx(3.555573e-3, abs=1e-9)
    assert finding.law.r2 == pytest.approx(0.99913, abs=1e-5)
    assert finding.verdict.word == "weak"


def test_llama_over_n_is_an_interpolation(published):
    finding = published["ngram", "llama", "N", "power"]
    assert finding.verdict.word == "under-determined"
    assert "an interpolation: 3 distinct points, 3 parameters" in finding.verdict.reason
    # a value that is there twice says nothing of noise, so there are no intervals
    assert all(parameter.lo is None for parameter in finding.law.parameters)


def test_codebooks_are_at_chance(published):
    finding = published["codebook", "t5", "N", "power"]
    assert finding.verdict.word == "no law"
    assert "at chance (0.003899)" in finding.verdict.reason


def test_the_source_is_on_every_card(published):
    drawn = [finding for finding in published.values() if finding.law is not None]
    assert drawn
    assert all(finding.card.source == published_points.SOURCE for finding in drawn)


def test_only_what_was_published_is_asked_for(published):
    assert {finding.metric for finding in published.values()} == {"cgl_published"}
    assert not any(finding.verdict.word == "supported" for finding in published.values())


def test_the_published_points_go_through_the_door(tmp_path, capsys):
    assert fit_laws.main([str(published_points.FOLDER), "--out", str(tmp_path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for words in ("18 finished trials", "an interpolation", "every value is at chance", "under-determined"):
        assert words in shown
    assert json.loads((tmp_path / "laws.json").read_text())["laws"]


# ---------------------------------------------------------------- questions and rivals


def findings_of(tmp_path, trials, metrics=("cgl",), options=QUICK):
    return study(read_tables([data.write(tmp_path, trials)]), metrics, options)


def test_each_question_has_one_best_and_its_rivals(tmp_path):
    found = findings_of(tmp_path, data.rows(["t5"]), ("cgl", "hit@10"))
    by_question = {}
    for finding in found:
        by_question.setdefault((finding.metric, finding.axes), []).append(finding)
    assert set(by_question) == {
        *(("cgl", axes) for axes in ("N", "D", "N and D")),
        *(("hit@10", axes) for axes in ("N", "D", "beams", "N and D", "N, D and beams")),
    }
    for (metric, _), findings in by_question.items():
        assert sum(finding.is_best for finding in findings) == 1
        (comparison,) = {id(finding.comparison): finding.comparison for finding in findings}.values()
        (best,) = [finding for finding in findings if finding.is_best]
        assert (best.form, best.points.quantity) == (comparison.best.form, comparison.best.quantity)
        names = [rival.name for rival in comparison.rivals]
        assert "mean" in names
        assert len(names) == len(set(zip(names, [rival.form for rival in comparison.rivals], strict=True)))
        if metric == "hit@10":
            assert any(isinstance(rival.form, Bounded) for rival in comparison.rivals)
        if best.verdict.word in ("supported", "weak"):
            assert {one.name for one in best.profiles} == set(best.form.parameters)
            assert best.card.form == best.form.text
        for one in best.holdouts:
            assert one.n_train + one.n_held == len(best.points)
    budgets = by_question["hit@10", "N, D and beams"][0].comparison.rivals
    extended = {rival.form for rival in budgets if isinstance(rival.form, WithBudget)}
    assert len(extended) == 6
    assert {form.base for form in extended} == {Joint(), Additive()}


def test_rivals_of_other_quantities_are_compared_in_the_metrics_own_units(tmp_path):
    """A metric that is exactly a power of N: on -log the form has nothing to leave, on the error it has."""
    trials = data.rows(["t5"], sizes=[10_000 * 2**i for i in range(9)], scales=[36_000], widths=[4], noise=0)
    for row in trials:
        row |= {"hit@10": math.exp(-((1e4 / row["n_params"]) ** 0.6) - 0.1), "hit@10_lo": None, "hit@10_hi": None}
    (best,) = [one for one in findings_of(tmp_path, trials, ("hit@10",)) if one.is_best]
    assert best.points.quantity == "-log"
    assert best.law["b"] == pytest.approx(0.6, rel=1e-3)
    rows = {rival.name: rival for rival in best.comparison.rivals}
    assert rows["power, -log"].leave_out_rmse < 1e-4 * rows["power"].leave_out_rmse
    measured = np.exp(-best.points.y)
    others = (measured.sum() - measured) / (len(measured) - 1)
    # the null model's error: of the mean of the errors, which is that of the metric
    assert rows["mean"].leave_out_rmse == pytest.approx(np.sqrt(np.mean((measured - others) ** 2)), rel=0.05)
    assert best.title.startswith("-log Hit@10 over N")


def test_a_metric_that_is_zero_somewhere_has_no_minus_log(tmp_path):
    trials = data.rows(["t5"])
    trials[0] |= {"hit@10": 0.0}
    found = findings_of(tmp_path, trials, ("hit@10",))
    whole = next(one for one in found if one.axes == "N and D")
    assert "-log" not in {rival.quantity for rival in whole.comparison.rivals}


def test_forms_can_be_named():
    assert form_name(WithBudget(base=Joint())) == "joint+gain"
    assert len(set(all_names())) == len(all_names()) == 9
    assert {"power", "joint", "additive", "additive+saturating-gain"} <= set(all_names())


def test_an_unmeasured_metric_is_not_asked_for_beside_measured_ones(tmp_path):
    trials = [row | {"nll": None} for row in data.rows(["t5"], widths=[4])]
    assert {one.metric for one in findings_of(tmp_path, trials, ("cgl", "nll"))} == {"cgl"}
    assert {one.verdict.reason for one in findings_of(tmp_path, trials, ("nll",))} == {"no usable point"}


def test_confounded_axes_are_never_supported(tmp_path):
    trials = [row | {"init": "ppmi"} for row in data.rows(["t5"])]
    found = findings_of(tmp_path, trials)
    for finding in found:
        if "N" in finding.axes:
            assert finding.verdict.word != "supported"
    (whole,) = [one for one in found if one.form == Additive()]
    assert "rank of the initial embeddings" in whole.verdict.reason


# ---------------------------------------------------------------- families together


@pytest.mark.parametrize("word", ["shared", "separate"])
def test_families_share_their_exponents_or_do_not(tmp_path, word):
    sizes = [7_000 * 2**i for i in range(8)]
    trials = data.rows(["t5"], 0.002, sizes, [36_000], [4], truth=lambda n, d: 1 + (5e3 / n) ** 0.5)
    steep = 0.5 if word == "shared" else 1.0
    trials += data.rows(["llama"], 0.002, sizes, [36_000], [4], truth=lambda n, d: 1.5 + (9e3 / n) ** steep)
    found = findings_of(tmp_path, trials)
    (answer,) = together(found, QUICK)
    assert answer.word == word
    assert answer.base == PowerLaw(axis="n")
    assert [group.family for group in answer.groups] == ["t5", "llama"]
    codes = answer.points.family
    np.testing.assert_array_equal(np.bincount(codes), [8, 8])
    assert len(answer.shared.parameters) < len(answer.separate.parameters)


def test_one_family_is_compared_with_nobody(tmp_path):
    assert together(findings_of(tmp_path, data.rows(["t5"])), QUICK) == []


# ---------------------------------------------------------------- bad input


def test_mixed_corpora_are_not_fitted_together(tmp_path):
    mine = data.rows(["t5"], widths=[4])
    other = [row | {"corpus": "other", "corpus_hash": "ffff", "train_key": f"o{row['train_key']}"} for row in mine]
    found = findings_of(tmp_path, mine[:8] + other[8:])
    assert {len(one.points) for one in found if one.law is not None} <= {2, 4, 8}
    assert {one.group.corpus for one in found} == {"toy", "other"}


def test_repeated_trials_count_once(tmp_path, capsys):
    trials = data.rows(["t5"], widths=[4])
    data.write(tmp_path, trials + [row | {"trial": f"{row['trial']}-again"} for row in trials])
    assert fit_laws.main([str(tmp_path), "--metric", "cgl"]) == 0
    assert "16 repeated rows left out" in capsys.readouterr().out


@pytest.mark.parametrize("changed", [{"cgl": math.inf}, {"cgl": -math.inf}, {"d_pairs": 0}, {"n_params": -7}])
def test_values_that_cannot_be_fitted_are_left_out_and_told(tmp_path, capsys, changed):
    trials = data.rows(["t5"], widths=[4])
    trials[5] = trials[5] | changed
    data.write(tmp_path, trials)
    assert fit_laws.main([str(tmp_path), "--metric", "cgl"]) == 0
    assert json.loads((tmp_path / "report" / "laws.json").read_text())["laws"][-1]["n_points"] == 15
    said = " ".join(capsys.readouterr().out.split())
    assert "1 of 16 trials have no finite cgl" in said or "1 trials left out" in said


@pytest.mark.parametrize("rows", range(1, 7))
def test_fewer_points_than_parameters_are_no_silent_law(tmp_path, rows):
    trials = data.rows(["t5"], widths=[4])
    rng = np.random.default_rng(rows)
    for finding in findings_of(tmp_path, [trials[index] for index in rng.permutation(16)[:rows]]):
        assert finding.verdict.word in ("under-determined", "no law")


def test_a_truncated_part_among_whole_ones_is_named(tmp_path, capsys):
    data.write(tmp_path, data.rows(["t5"], widths=[4]))
    whole = (tmp_path / "synthetic" / "trials" / "part.parquet").read_bytes()
    (tmp_path / "synthetic" / "trials" / "torn.parquet").write_bytes(whole[:-100])
    assert fit_laws.main([str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "torn.parquet" in said
    assert said.count("\n") == 1


def test_older_tables_without_a_source_are_read(tmp_path):
    assert TRIALS.field("source").nullable
    trials = [row | {"source": None} for row in data.rows(["t5"], widths=[4])]
    tables = read_tables([data.write(tmp_path, trials)])
    assert {trial.source for trial in tables.trials} == {""}


def test_questions_of_a_loss_and_of_a_metric(tmp_path):
    tables = read_tables([data.write(tmp_path, data.rows(["t5"]))])
    from laws.points import groups, select
    from laws.questions import Asked

    ((group, trials),) = groups(tables.trials).items()
    asked = Asked(group=group, points=select(trials, "hit@10").points, axes=("n", "d", "beams"))
    found = questions(asked)
    assert [question.axes for question in found] == [("n",), ("d",), ("beams",), ("n", "d"), ("n", "d", "beams")]
    assert found[3].held == {"beams": 64}
    assert found[4].held == {}
    assert [one.form.name for one in questions(asked, ["joint"])[0].candidates if one.is_told] == ["joint"]


def test_the_newest_law_is_the_best_of_its_rivals(tmp_path):
    data.write(tmp_path, data.rows(["t5"], widths=[4]))
    (best,) = [one for one in study(read_tables([tmp_path]), ["cgl"], QUICK) if one.axes == "N and D" and one.is_best]
    assert best.form.text in newest_law(str(tmp_path))
