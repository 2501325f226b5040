"""Door: from a results folder, or anybody's table of points, to its scaling laws. See `python fit_laws.py -h`."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from laws.anyones import Columns, header
from laws.command import fit_folders, fit_table, run, run_table
from laws.fitting import DELTA, Options
from laws.planning import options as planning
from laws.planning.command import answer
from laws.planning.next_command import answer_next
from laws.planning.space import BadQuestion
from laws.questions import all_names
from laws.study import DEFAULT_METRICS, Finding
from laws.tables import BadTable, Tables
from results.dashboard import Place, mode_of
from results.errors import BadAddress
from results.schema import LOSSES, METRICS

_EPILOG = f"""\
reads     <folder>/<grid>/trials/*.parquet, baselines/ and queries/, or those of one grid's own folder;
          or a CSV or Parquet file, with the columns that --n, --d, --y ... name
writes    <folder>/report/report.html, laws.json, figures/*.svg and *.png; of points.csv into points-laws/
laws      (a/x)^b + c along N, D and the budget; [(A/D)^(alpha/beta) + B/N]^beta + delta and E + A/N^alpha + B/D^beta
          over N and D, and with a gain from the budget over all three; for a metric in [0, 1] on its error, on
          -log and between floor and ceiling; each with a verdict: supported, weak, under-determined or no law
forms     {", ".join(all_names())}
questions --predict, --budget, --target and --next are answered in place of the report, with the law's verdict beside
          each answer; a law whose verdict is `no law` answers nothing
exit code 0 all well; 1 no law can be given: all verdicts are `no law`, or no axis has three values;
          2 the command line or the tables are wrong

examples  python fit_laws.py results/
          python fit_laws.py results/quickstart --metric cgl --metric rr@10
          python fit_laws.py results/a results/b --out results/both
          python fit_laws.py results/squad --wandb
          python fit_laws.py results/slgr2025                       # the published points, and what they support
          python fit_laws.py points.csv --n params --d tokens --y loss
          python fit_laws.py runs.parquet --n N --d D --y acc --higher-is-better --run seed --form additive
          python fit_laws.py results/ --predict "N=7e9,D=588800,beams=100"
          python fit_laws.py results/ --budget 1e21 --queries 1e9       # the best N, D and beams
          python fit_laws.py results/ --target "hit@10=0.8" --where "N<=7e9, latency_ms<=50"
          python fit_laws.py results/ --next grids/full.yaml --at "N=7e10,D=588800,beams=100" --out next.yaml
"""
_TABLE = {
    "y": "what is fitted: a loss, lower being better (but see --higher-is-better)",
    "n": "model size",
    "d": "data",
    "beams": "inference budget, as a count",
    "c": "FLOPs: the inference budget where they vary at equal N and D, else those of the training",
    "run": "training run: rows that share one share its luck",
    "family": "family of models: each has its laws",
    "lo": "lower end of y's interval",
    "hi": "upper end",
}


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and fit; returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        return _asked(options) if planning.is_asked(options) else _fit(options)
    except BadQuestion as error:
        return _refuse(str(error))


def _fit(options: argparse.Namespace) -> int:
    """Fit and report."""
    path = _table(options)
    if path is not None:
        return run_table(path, options.out, _columns(options), tuple(options.form or ()), _how(options))
    place = Place(mode=mode_of("auto"), project=options.wandb_project, entity=options.wandb_entity)
    metrics = tuple(dict.fromkeys(options.metric or DEFAULT_METRICS))
    return run(options.folders, options.out, metrics, place if options.wandb else None, _how(options))


def _table(options: argparse.Namespace) -> str | None:
    """The path of the table of points; None where the command line names results folders. Raises BadQuestion."""
    path = next((path for path in options.folders if Path(path).is_file()), None)
    given = [f"--{role}" for role in _TABLE if getattr(options, role) is not None]
    if path is None and given:
        missing = "no such file" if not Path(options.folders[0]).exists() else "a folder"
        raise BadQuestion(f"{options.folders[0]}: {missing}, and {given[0]} names a column of a table of points")
    if path is None:
        return None
    if len(options.folders) > 1:
        raise BadQuestion(f"{path}: a table of points is fitted alone")
    if options.metric or options.wandb:
        raise BadQuestion(f"{path}: --metric and --wandb are for results folders, and this is a table of points")
    if options.y is None or all(getattr(options, axis) is None for axis in ("n", "d", "beams", "c")):
        raise BadQuestion(
            f"{path}: name its columns: --y, and at least one of --n, --d, --beams, --c; {_columns_of(path)}"
        )
    return str(path)


def _asked(options: argparse.Namespace) -> int:
    """Fit and answer a question. Raises BadQuestion."""
    path = _table(options)
    fitted: Callable[[], tuple[Tables, list[Finding]]]
    if path is not None:
        if options.next is not None:
            raise BadQuestion(f"{path}: --next is for results folders, and this is a table of points")
        if options.target is not None and options.target.partition("=")[0].strip() != options.y:
            raise BadQuestion(f"--target {options.target}: what is fitted is {options.y!r}")
        fitted = partial(fit_table, path, _columns(options), tuple(options.form or ()), _how(options))
    else:
        metrics = planning.metrics_of(options, (*LOSSES, *METRICS), DEFAULT_METRICS)
        fitted = partial(fit_folders, options.folders, metrics, _how(options))
    try:
        if options.next is not None:
            return _next(options, fitted)
        inquiry, terms = planning.inquiry_of(options), planning.terms_of(options)
        return answer(fitted()[1], inquiry, terms, json_out=bool(options.json))
    except (BadTable, BadAddress) as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"{error.filename or options.folders[0]}: {error.strerror or error}")


def _next(options: argparse.Namespace, fitted: Callable[[], tuple[Tables, list[Finding]]]) -> int:
    """Choose trials of a grid file, and write a grid of them where --out names a file. Raises BadQuestion."""
    from orchestrator.candidates import read_candidates, results_of, write_grid
    from workers.errors import BadInput

    aim = planning.aim_of(options)

    def write(trials: Sequence[str]) -> str:
        if options.out is None:
            return ""
        grid = write_grid(candidates, trials, Path(options.out))
        again = any(one.trains_again for one in candidates.trials if one.trial in trials)
        more = " --retrain-dropped" if again else ""
        return f"written {options.out}: grid {grid.name}; next: python run_grid.py {options.out} --dry-run{more}"

    try:
        candidates = read_candidates(Path(options.next), results_of(options.folders[0]))
        json_out = bool(options.json)
        return answer_next(fitted()[1], candidates.trials, aim, write, assumed=candidates.assumed, json_out=json_out)
    except BadInput as error:
        return _refuse(str(error))


def _columns(options: argparse.Namespace) -> Columns:
    return Columns(**{role: getattr(options, role) for role in _TABLE}, is_metric=options.higher_is_better)


def _how(options: argparse.Namespace) -> Options:
    return Options(loss=options.loss, weights=options.weights)


def _columns_of(path: str) -> str:
    try:
        return f"it has {', '.join(header(path)[:20])}"
    except (BadTable, OSError) as error:
        return str(error)


def _refuse(line: str) -> int:
    print("fit_laws: " + " ".join(line.split()), file=sys.stderr)
    return 2


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(
        prog="fit_laws.py",
        description="Fit scaling laws to finished sweeps or a table of points, and write a report that says how far "
        "to trust them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    results = os.environ.get("GRIDLAW_RESULTS")
    found.add_argument(
        "folders",
        nargs="*" if results else "+",
        default=[results] if results else None,
        metavar="FOLDER",
        help="results folders or grids' own, or s3://bucket/folder; GRIDLAW_RESULTS by default, where it is set; or "
        "one file with a table of points",
    )
    found.add_argument(
        "--out",
        metavar="PATH",
        help="where to write; FOLDER/report of the first by default. With --next: the grid file",
    )
    found.add_argument(
        "--metric",
        action="append",
        choices=(*LOSSES, *METRICS),
        metavar="NAME",
        help=f"what to fit, repeatable: {', '.join((*LOSSES, *METRICS))}; by default {', '.join(DEFAULT_METRICS)}",
    )
    found.add_argument(
        "--loss",
        choices=("squared", "relative", "huber-log"),
        default="squared",
        help="of the residuals: squares (default), squares of relative ones, or Huber's loss of logarithms "
        f"(delta {DELTA:g})",
    )
    found.add_argument(
        "--weights",
        choices=("equal", "intervals"),
        default="equal",
        help="of the points: equal (default), or by the width of the metric's own interval",
    )
    found.add_argument("--wandb", action="store_true", help="show the report in Weights & Biases too")
    found.add_argument("--wandb-project", default="gridlaw", metavar="P", help="W&B's project (default: gridlaw)")
    found.add_argument("--wandb-entity", metavar="E", help="whose project it is; W&B's default where left out")
    table = found.add_argument_group("a table of points (CSV or Parquet): which column holds what")
    for role, words in _TABLE.items():
        table.add_argument(f"--{role}", metavar="COLUMN", help=words)
    table.add_argument("--higher-is-better", action="store_true", help="y is a metric in [0, 1]")
    table.add_argument(
        "--form",
        action="append",
        choices=all_names(),
        metavar="NAME",
        help="fit only this form (and those that extend it), repeatable; see `forms` below",
    )
    planning.add_options(found)
    return found


if __name__ == "__main__":
    sys.exit(main())
