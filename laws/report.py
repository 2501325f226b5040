"""The report: one self-contained page, its figures as files, and every number as JSON."""

import json
import math
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from laws import figures, tuning, tuning_figures
from laws.fitting import INTERVAL, Options
from laws.forms import SYMBOLS
from laws.points import Group, label, short
from laws.study import Finding, members, unasked
from laws.summaries import Summary, summarise
from laws.tables import Baseline, Measured, Tables, Trial
from results.files import write_atomically

_CAUTIONS = {
    "cgl_published": "The chance line, ln(1 + 1/negatives), is what guessing gives with one relevant identifier. The "
    "published form takes the least loss over all of them, so a model that ignores the query lies below the line: "
    "a value below it is no evidence of learning, and no verdict takes it for one. The chance line of CGL itself holds."
}
_GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ"}


@dataclass(frozen=True, kw_only=True)
class Card:
    """One law on the page."""

    name: str
    """The family, with what else tells its group from others."""
    finding: Finding
    figure: Markup | None


@dataclass(frozen=True, kw_only=True)
class Section:
    """The laws of one metric and form of all families of a sweep, side by side."""

    title: str
    formula: Markup
    caution: str
    """How the metric must not be read; empty where it is plain."""
    cards: tuple[Card, ...]


@dataclass(frozen=True, kw_only=True)
class Rates:
    """The tuned learning rates of a family's sizes."""

    name: str
    metric: str
    transfer: tuning.Transfer
    figures: tuple[Markup, ...]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One corpus and kind of identifiers: its tables and its laws."""

    name: str
    anchor: str
    summaries: tuple[Summary, ...]
    baselines: tuple[Baseline, ...]
    budgets: tuple[Markup, ...]
    sections: tuple[Section, ...]
    unasked: tuple[str, ...]
    """Along which axes no law could be asked for, and why."""


def write(tables: Tables, findings: Sequence[Finding], out: Path) -> Path:
    """Write report.html, laws.json and figures/ into `out`; returns the page's path.

    All is made in a temporary folder first: an error half-way leaves an earlier report as it was. Figures of an
    earlier report that this one has not (*.svg, *.png) are removed, other files stay. Raises OSError.
    """
    figures_folder = out / "figures"
    figures_folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".writing-") as name:
        made = Path(name)
        numbers, page = _render(tables, findings, made)
        names = {path.name for path in made.iterdir()}
        for path in made.iterdir():
            path.replace(figures_folder / path.name)
    _replace(out / "laws.json", numbers + "\n")
    _replace(out / "report.html", page)
    for path in figures_folder.iterdir():
        if path.suffix in (".svg", ".png") and path.name not in names and path.is_file():
            path.unlink()
    return out / "report.html"


def _render(tables: Tables, findings: Sequence[Finding], folder: Path) -> tuple[str, str]:
    """The text of laws.json and of report.html; the figures go as files into the folder."""
    numbers = json.dumps(as_numbers(tables, findings), indent=1, ensure_ascii=False, allow_nan=False)
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            sweeps=_sweeps(tables, findings, folder),
            rates=_rates(tables, folder),
            tables=tables,
            provenance=provenance(tables),
            interval=f"{INTERVAL:.0%}",
            grids=sorted({trial.grid for trial in tables.trials}),
        )
    )
    return numbers, page


def _replace(path: Path, text: str) -> None:
    def fill(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_atomically(path, fill)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("laws", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "short": short,
        "number": number,
        "metric": label,
        "formula": formula,
        "greek": lambda name: _GREEK.get(name, name),
        "family": figures.family_name,
        "value": value,
        "ends": ends,
        "slug": slug,
    }
    return environment


def number(value: float | None, digits: int = 4) -> str:
    """A number for readers: 0.3456, 29,235, 1.249 × 10⁸; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:,.{digits}g}" if abs(value) < 1000 else f"{value:,.0f}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa} × 10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def value(measured: Measured) -> str:
    """A metric in a table: .412, 3.597; a dash where there is none."""
    if not measured.known:
        return "–"
    return f"{measured.value:.3f}".removeprefix("0") if abs(measured.value) < 1 else f"{measured.value:.3f}"


def ends(measured: Measured) -> str:
    """Its interval: .38–.44; empty where there is none."""
    if math.isnan(measured.lo) or math.isnan(measured.hi):
        return ""
    return "–".join(f"{end:.2f}".removeprefix("0") for end in (measured.lo, measured.hi))


def formula(text: str) -> Markup:
    """A formula of `laws.forms` with Greek letters and raised exponents."""
    for name, letter in _GREEK.items():
        text = re.sub(rf"\b{name}\b", letter, text)
    text = re.sub(r"\^\(([^()]*)\)|\^(\w+)", lambda power: f"<sup>{power[1] or power[2]}</sup>", str(escape(text)))
    return Markup(re.sub(r"\b([A-Ea-cND])\b(?![^<]*>)", r"<i>\1</i>", text))


def slug(text: str) -> str:
    """For file names and anchors."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def group_name(group: Group, among: Iterable[Group]) -> str:
    """The family, and what else tells it from the other groups of its sweep: init, recipe, split, as far as needed."""
    alike = [other for other in among if other.sweep == group.sweep and other.family == group.family]
    told = []
    for field, words in (
        ("init", group.init or "init unknown"),
        ("recipe", f"recipe {group.recipe[:8] or 'unknown'}"),
        ("split", f"{group.split or 'unknown'} queries"),
    ):
        same = [other for other in alike if getattr(other, field) == getattr(group, field)]
        told += [words] if len(same) < len(alike) else []
        alike = same
    name = figures.family_name(group.family)
    return f"{name} ({', '.join(told)})" if told else name


def sweep_name(sweep: tuple[str, str, str], among: Iterable[tuple[str, str, str]]) -> str:
    """Corpus and identifiers; with the corpus's hash where two corpora share a name."""
    corpus, corpus_hash, identifiers = sweep
    twins = {other[1] for other in among if other[0] == corpus}
    name = f"{corpus} [{corpus_hash[:8]}]" if len(twins) > 1 else corpus
    return f"{name}, {identifiers}" if identifiers else name


def _sweeps(tables: Tables, findings: Sequence[Finding], folder: Path) -> list[Sweep]:
    by_group = members(tables, findings)
    names = list(dict.fromkeys(group.sweep for group in by_group))
    return [_sweep(tables, name, names, by_group, findings, folder) for name in names]


def _sweep(
    tables: Tables,
    sweep: tuple[str, str, str],
    sweeps: Sequence[tuple[str, str, str]],
    by_group: dict[Group, tuple[Trial, ...]],
    findings: Sequence[Finding],
    folder: Path,
) -> Sweep:
    name = sweep_name(sweep, sweeps)
    mine_by_group = {group: trials for group, trials in by_group.items() if group.sweep == sweep}
    mine = tuple(finding for finding in findings if finding.group.sweep == sweep)
    baselines = tuple(
        sorted((row for row in tables.baselines if (row.corpus, row.corpus_hash) == sweep[:2]), key=_by_strength)
    )
    budgets = []
    for group, trials in mine_by_group.items():
        figure = figures.budgets(trials, "hit@10", baselines)
        if figure is not None:
            stem = slug(f"{name} {group_name(group, mine_by_group)} hit@10 by beams")
            budgets.append(Markup(figures.save(figure, folder, stem)))
    return Sweep(
        name=name,
        anchor=slug(name),
        summaries=tuple(summarise(group_name(group, mine_by_group), trials) for group, trials in mine_by_group.items()),
        baselines=baselines,
        budgets=tuple(budgets),
        sections=tuple(_sections([one for one in mine if one.could_be_asked], name, list(mine_by_group), folder)),
        unasked=unasked(mine, lambda group: group_name(group, mine_by_group)),
    )


def _rates(tables: Tables, folder: Path) -> list[Rates]:
    found = []
    for transfer in tuning.transfers(tables.studies):
        first = transfer.studies[0]
        name = f"{first.corpus}, {first.identifiers}, {figures.family_name(first.family)}, D = {short(first.d_pairs)}"
        drawn = {"losses": tuning_figures.losses(transfer), "by N": tuning_figures.rates(transfer)}
        saved = [
            Markup(figures.save(figure, folder, slug(f"{first.grid} {name} learning rates {what}")))
            for what, figure in drawn.items()
            if figure is not None
        ]
        metric = tuning.METRICS.get(first.metric, "loss")
        found.append(Rates(name=name, metric=metric, transfer=transfer, figures=tuple(saved)))
    return found


def _by_strength(row: Baseline) -> tuple[float, str]:
    value = row.measured["hit@10"].value
    return (-1.0 if math.isnan(value) else value, row.baseline)


def _sections(findings: Sequence[Finding], sweep: str, members: Sequence[Group], folder: Path) -> Iterable[Section]:
    kinds = dict.fromkeys((finding.metric, finding.form) for finding in findings)
    for metric, form in kinds:
        alike = [finding for finding in findings if (finding.metric, finding.form) == (metric, form)]
        drawn = [finding for finding in alike if finding.law is not None]
        single = len(form.axes) == 1
        draw, span = (figures.curve, figures.common_range) if single else (figures.surface, figures.value_range)
        limits = span(drawn) if drawn else (0.0, 1.0)
        cards = []
        for finding in alike:
            svg, name = None, group_name(finding.group, members)
            if finding.law is not None and len(form.axes) <= 2:
                over = "-".join(SYMBOLS[axis] for axis in form.axes)
                stem = slug(f"{sweep} {name} {metric} {form.name} {over}")
                svg = Markup(figures.save(draw(finding, limits), folder, stem))
            cards.append(Card(name=name, finding=finding, figure=svg))
        yield Section(
            title=f"{label(metric)} over {alike[0].axes}" + (f", {form.name} form" if len(form.axes) > 1 else ""),
            formula=formula(form.text),
            caution=_CAUTIONS.get(metric, ""),
            cards=tuple(cards),
        )


def provenance(tables: Tables) -> dict[str, Any]:
    """Where the numbers come from."""
    done = [trial for trial in tables.trials if trial.status == "done"]
    newest = max(done, key=lambda trial: trial.finished, default=None)
    corpora = {(trial.corpus, trial.corpus_hash, trial.n_documents) for trial in tables.trials}
    return {
        "folders": list(tables.folders),
        "grids": sorted({trial.grid for trial in tables.trials}),
        "corpora": [
            {"corpus": corpus, "hash": corpus_hash, "documents": documents}
            for corpus, corpus_hash, documents in sorted(corpora, key=str)
        ],
        "git_commits": sorted({trial.git_commit for trial in tables.trials if trial.git_commit}),
        "versions": json.loads(newest.versions) if newest else {},
        "fitted_with": {name: version(name) for name in ("numpy", "scipy", "matplotlib", "pyarrow")},
        "fit": {
            "loss": "unweighted least squares on the values; seeds are repeated points",
            "optimiser": "batched Levenberg-Marquardt from seeded starts, polished by scipy.optimize.least_squares",
            "starts": Options().starts,
            "bootstraps": Options().bootstraps,
            "seed": Options().seed,
            "interval": INTERVAL,
        },
        "definitions": {
            "N": "parameters of the model without the input embedding (n_params)",
            "D": "training pairs (query, identifier), each counted once whatever the epochs (d_pairs)",
            "beams": "beams of the constrained search",
            "CGL as published": _CAUTIONS["cgl_published"],
            "1 - metric": "the error that is fitted in place of a metric in [0, 1]",
        },
    }


def as_numbers(tables: Tables, findings: Sequence[Finding]) -> dict[str, Any]:
    """Everything in the report as plain values; what is unknown or infinite is None."""
    reasons = [{"trial": row.trial, "grid": row.grid, "error": row.error} for row in tables.failed]
    counts = {"done": len(tables.trials) - len(reasons), "failed": len(reasons), "duplicates": tables.duplicates}
    baselines = [
        {"corpus": row.corpus, "corpus_hash": row.corpus_hash, "baseline": row.baseline}
        | {name: vars(measured) for name, measured in row.measured.items()}
        for row in tables.baselines
    ]
    plain: dict[str, Any] = _finite(
        {
            "trials": counts,
            "failed": reasons,
            "baselines": baselines,
            "laws": [_finding_numbers(finding) for finding in findings],
            "learning_rates": [tuning.numbers(transfer) for transfer in tuning.transfers(tables.studies)],
            "provenance": provenance(tables),
        }
    )
    return plain


def _finding_numbers(finding: Finding) -> dict[str, Any]:
    law, points = finding.law, finding.points
    columns = {"n": points.n, "d": points.d, "beams": points.beams, "y": points.y, "lo": points.lo, "hi": points.hi}
    fitted: dict[str, Any] | None = None
    if law is not None:
        fitted = {
            "parameters": {item.name: {"value": item.value, "lo": item.lo, "hi": item.hi} for item in law.parameters},
            "r2": law.r2,
            "rmse": law.rmse,
            "leave_out_rmse": law.leave_out.rmse if law.leave_out else None,
            "leave_out_null_rmse": law.leave_out.null_rmse if law.leave_out else None,
            "leave_out_skill": law.leave_out.skill if law.leave_out else None,
            "starts_agree": law.agree,
            "limits": list(law.limits),
        }
    return {
        **vars(finding.group),
        "metric": finding.metric,
        "fitted_quantity": label(finding.metric),
        "form": finding.form.name,
        "axes": list(finding.form.axes),
        "formula": finding.form.text,
        "latex": finding.form.latex,
        "held": dict(finding.held),
        "n_points": len(points),
        "n_distinct": points.distinct(finding.form.axes),
        "n_parameters": len(finding.form.parameters),
        "verdict": finding.verdict.word,
        "reason": finding.verdict.reason,
        "notes": list(finding.notes),
        "law": fitted,
        "chance": points.chance,
        "points": {name: values.tolist() for name, values in columns.items() if values is not None},
    }


def _finite(value: Any) -> Any:
    """The same with None for NaN and infinities: JSON has neither."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
