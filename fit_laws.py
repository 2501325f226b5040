"""Door: from a results folder to its scaling laws. See `python fit_laws.py -h`."""

import argparse
import os
import sys

from laws.command import run
from laws.study import DEFAULT_METRICS
from results.dashboard import Place, mode_of
from results.schema import LOSSES, METRICS

_EPILOG = """\
reads     <folder>/<grid>/trials/*.parquet and baselines/*.parquet, or those of one grid's own folder
writes    <folder>/report/report.html, laws.json, figures/*.svg and *.png
laws      (a/x)^b + c along N, D and beams; [(A/D)^(alpha/beta) + B/N]^beta + delta and E + A/N^alpha + B/D^beta
          over N and D; each with a verdict: supported, weak, under-determined or no law
exit code 0 all well; 1 no law can be given: all verdicts are `no law`, or no axis has three values;
          2 the command line or the tables are wrong

examples  python fit_laws.py results/
          python fit_laws.py results/quickstart --metric cgl --metric rr@10
          python fit_laws.py results/a results/b --out results/both
          python fit_laws.py results/squad --wandb
"""


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and fit; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="fit_laws.py",
        description="Fit scaling laws to finished sweeps and write a report that says how far to trust them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    results = os.environ.get("GRIDLAW_RESULTS")
    parser.add_argument(
        "folders",
        nargs="*" if results else "+",
        default=[results] if results else None,
        metavar="FOLDER",
        help="results folders or grids' own, or s3://bucket/folder; GRIDLAW_RESULTS by default, where it is set",
    )
    parser.add_argument("--out", metavar="DIR", help="where to write; FOLDER/report of the first by default")
    parser.add_argument(
        "--metric",
        action="append",
        choices=(*LOSSES, *METRICS),
        metavar="NAME",
        help=f"what to fit, repeatable: {', '.join((*LOSSES, *METRICS))}; by default {', '.join(DEFAULT_METRICS)}",
    )
    parser.add_argument("--wandb", action="store_true", help="show the report in Weights & Biases too")
    parser.add_argument("--wandb-project", default="gridlaw", metavar="P", help="W&B's project (default: gridlaw)")
    parser.add_argument("--wandb-entity", metavar="E", help="whose project it is; W&B's default where left out")
    options = parser.parse_args(arguments)
    place = Place(mode=mode_of("auto"), project=options.wandb_project, entity=options.wandb_entity)
    return run(
        options.folders,
        options.out,
        tuple(dict.fromkeys(options.metric or DEFAULT_METRICS)),
        place if options.wandb else None,
    )


if __name__ == "__main__":
    sys.exit(main())
