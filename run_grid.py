#!/usr/bin/env python
"""Run the sweep that a grid file describes, or show what it would do, or how far it is."""

import argparse
import os
import sys
from pathlib import Path

EPILOG = """\
examples:
  python run_grid.py grids/smoke.yaml --dry-run
  python run_grid.py grids/quickstart.yaml
  python run_grid.py grids/squad.yaml --set 'corpus={source: jsonl, path: my.jsonl.xz}' --set models.0.size=29k
  python run_grid.py grids/quickstart.yaml --status

The same command again resumes: a finished step never runs twice, and several at once share the work. What has failed
for good stays failed until --retry-failed. Ctrl-C once stops cleanly, trainings with a checkpoint; twice ends at once.

exit codes: 0 all well, 1 a trial failed, 2 the grid or the command line is wrong (nothing started), 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = argparse.ArgumentParser(
        prog="run_grid.py",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    line.add_argument("grid", metavar="GRID", type=Path, help="the grid file, such as grids/quickstart.yaml")
    line.add_argument(
        "--set",
        metavar="KEY=VALUE",
        dest="overrides",
        action="append",
        default=[],
        help="override a setting, such as training.epochs=3 or identifiers.0.length=6; may be repeated",
    )
    line.add_argument(
        "--results",
        metavar="DIR",
        default=os.environ.get("GRIDLAW_RESULTS") or "results",
        help="where results are kept: a folder, or s3://bucket/folder (default: GRIDLAW_RESULTS, else results)",
    )
    mode = line.add_mutually_exclusive_group()
    mode.add_argument(
        "--dry-run", action="store_true", help="show trials, steps, FLOPs, time, memory, disk and cost; start nothing"
    )
    mode.add_argument("--status", action="store_true", help="show what is done, running, waiting, failed and why")
    mode.add_argument(
        "--retry-failed", action="store_true", help="try failed steps again, trainings from their last checkpoint"
    )
    mode.add_argument("--restart-failed", action="store_true", help="try failed steps again from nothing")
    line.add_argument(
        "--retrain-dropped",
        action="store_true",
        help="train again where new evaluations need weights that training.keep_weights: false has removed",
    )
    line.add_argument("--json", action="store_true", help="with --dry-run or --status: print JSON")
    return line


def find_project(grid: Path) -> None:
    """Make the project the working folder where only it has the grid, and this file is a copy that left it.

    `ray submit` copies this one file to the head's home folder and starts it there; `grids/full.yaml`, and whatever
    paths stand in it, then mean what they meant where the command was typed.
    """
    import orchestrator

    project = Path(orchestrator.__file__).resolve().parent.parent
    if Path(__file__).resolve().parent != project and not grid.exists() and (project / grid).is_file():
        os.chdir(project)


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    line = parser()
    options = line.parse_args(arguments)
    if options.json and not (options.dry_run or options.status):
        line.error("--json goes with --dry-run or --status")
    from laws.newest import newest_law
    from orchestrator.sweep import Request, carry_out
    from results.errors import LostLease, StorageRefused, StorageTrouble
    from workers.errors import BadInput

    find_project(options.grid)
    request = Request(
        grid=options.grid,
        overrides=tuple(options.overrides),
        results=options.results,
        mode="plan" if options.dry_run else "status" if options.status else "run",
        json=options.json,
        failed="retry" if options.retry_failed else "restart" if options.restart_failed else "keep",
        retrain=options.retrain_dropped,
    )
    try:
        return carry_out(request, law=newest_law)
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    except StorageTrouble as error:
        print(f"the results folder is out of reach: {error.strerror}", file=sys.stderr)
        return 2 if isinstance(error, StorageRefused) else 1
    except (OSError, LostLease) as error:  # a full disk, say
        print(f"{error}; nothing that is finished is lost: the same command goes on from here", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
