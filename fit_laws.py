"""Door: from a results folder, or anybody's table of points, to its scaling laws. See `python fit_laws.py -h`."""

import argparse
import os
import sys
from pathlib import Path

from laws.anyones import Columns, header
from laws.command import run, run_table
from laws.fitting import DELTA, Options
from laws.questions import all_names
from laws.study import DEFAULT_METRICS
from laws.tables import BadTable
from results.dashboard import Place, mode_of
from results.schema import LOSSES, METRICS

_EPILOG = f"""\
reads     <folder>/<grid>/trials/*.parquet, baselines/ and queries/, or those of one grid's own folder;
          or a CSV or Parquet file, with the columns that --n, --d, --y ... name
writes    <folder>/report/report.html, laws.json, figures/*.svg and *.png; of points.csv into points-laws/
laws      (a/x)^b + c along N, D and the budget; [(A/D)^(alpha/beta) + B/N]^beta + delta and E + A/N^alpha + B/D^beta
          over N and D, and with a gain from the budget over all three; for a metric in [0, 1] on its error, on
          -log and between floor and ceiling; each with a verdict: supported, weak, under-determined or no law
forms     {", ".join(all_names())}
exit code 0 all well; 1 no law can be given: all verdicts are `no law`, or no axis has three values;
          2 the command line or the tables are wrong

examples  python fit_laws.py results/
          python fit_laws.py results/quickstart --metric cgl --metric rr@10
          python fit_laws.py results/a results/b --out results/both
          python fit_laws.py results/squad --wandb
          python fit_laws.py results/slgr2025                       # the published points, and what they support
          python fit_laws.py points.csv --n params --d tokens --y loss
          python fit_laws.py runs.parquet --n N --d D --y acc --higher-is-better --run seed --form additive
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
    given = [f"--{role}" for role in _TABLE if getattr(options, role) is not None]
    tables = [path for path in options.folders if Path(path).is_file()]
    if tables:
        return _fit_table(options, tables[0])
    if given:
        missing = "no such file" if not Path(options.folders[0]).exists() else "a folder"
        return _refuse(f"{options.folders[0]}: {missing}, and {given[0]} names a column of a table of points")
    place = Place(mode=mode_of("auto"), project=options.wandb_project, entity=options.wandb_entity)
    metrics = tuple(dict.fromkeys(options.metric or DEFAULT_METRICS))
    return run(options.folders, options.out, metrics, place if options.wandb else None, _how(options))


def _fit_table(options: argparse.Namespace, path: str) -> int:
    if len(options.folders) > 1:
        return _refuse(f"{path}: a table of points is fitted alone")
    if options.metric or options.wandb:
        return _refuse(f"{path}: --metric and --wandb are for results folders, and this is a table of points")
    if options.y is None or all(getattr(options, axis) is None for axis in ("n", "d", "beams", "c")):
        return _refuse(
            f"{path}: name its columns: --y, and at least one of --n, --d, --beams, --c; {_columns_of(path)}"
        )
    columns = Columns(**{role: getattr(options, role) for role in _TABLE}, is_metric=options.higher_is_better)
    return run_table(path, options.out, columns, tuple(options.form or ()), _how(options))


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
    found.add_argument("--out", metavar="DIR", help="where to write; FOLDER/report of the first by default")
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
    return found


if __name__ == "__main__":
    sys.exit(main())
