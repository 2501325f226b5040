"""What `fit_laws.py` does: read, study, write, print."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from laws.anyones import Columns, asked_of
from laws.dashboard import send
from laws.fitting import Options
from laws.points import Group, describe, label
from laws.reporting import report
from laws.reporting.words import group_name, sweep_name
from laws.study import Finding, answer, members, study, unasked
from laws.tables import BadTable, Tables, read_tables
from results.dashboard import Place
from results.errors import BadAddress
from results.local import LocalStore
from results.opening import open_store
from results.store import Store

ROOM_FOR_WHY = 100
"""Columns of a terminal below which the reasons would stand a word a line: the report has them."""
_COLOURS = {"supported": "green", "weak": "yellow", "under-determined": "blue", "no law": "red"}


def run(
    folders: Sequence[str],
    out: str | None,
    metrics: Sequence[str],
    place: Place | None = None,
    options: Options | None = None,
) -> int:
    """Fit everything in the folders and write the report; the exit code.

    0: all well. 1: no law can be given: all verdicts are `no law`, or none could be asked for.
    2: the folders cannot be read, or `out` cannot be written.

    Args:
        place: where in W&B the report is shown too; what becomes of it there does not change the exit code.
        options: of all fits.
    """
    return _report(lambda: fit_folders(folders, metrics, options), out or folders[0], "" if out else "report", place)


def run_table(
    path: str, out: str | None, columns: Columns, names: Sequence[str] = (), options: Options | None = None
) -> int:
    """Fit anybody's table of points and write the report; the exit code, as of `run`.

    Args:
        out: where to write; by default beside the table, in a folder of its name and `-laws`.
        names: of the forms to fit, see `laws.questions.form_name`; all that its axes allow if empty.
        options: of all fits.
    """
    folder = out or str(Path(path).with_suffix("")) + "-laws"
    return _report(lambda: fit_table(path, columns, names, options), folder, "", None)


def fit_folders(
    folders: Sequence[str], metrics: Sequence[str], options: Options | None = None
) -> tuple[Tables, list[Finding]]:
    """Read and fit. Raises BadTable or OSError."""
    tables = read_tables(folders)
    return tables, study(tables, metrics, options)


def fit_table(
    path: str, columns: Columns, names: Sequence[str] = (), options: Options | None = None
) -> tuple[Tables, list[Finding]]:
    """Read and fit anybody's table of points. Raises BadTable or OSError."""
    findings = [finding for asked in asked_of(path, columns) for finding in answer(asked, options, names)]
    if not findings:
        raise BadTable(f"{path}: no form of {', '.join(names)} runs along {', '.join(columns.axes)}")
    return Tables(folders=(Path(path).name,), trials=(), baselines=(), duplicates=0), findings


def _report(read: Callable[[], tuple[Tables, list[Finding]]], out: str, below: str, place: Place | None) -> int:
    """Read and fit, write the report to `out`, or a folder below it, and print what was found; the exit code."""
    sent = ""
    try:
        tables, findings = read()
        target = open_store(out).below(below) if below else open_store(out)
        with _workplace(target) as made:
            report.write(tables, findings, made)
            _publish(made, target)
            if place is not None:
                sent = send(place, tables, findings, made)
    except (BadTable, BadAddress) as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"{error.filename or out}: {error.strerror or error}")
    # a terminal and COLUMNS say how wide; a file or a pipe does not
    console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120)
    _print(console, tables, findings)
    for what, name in (
        ("report", "report.html"),
        ("laws", "laws.json"),
        ("table", "laws.parquet"),
        ("figures", "figures"),
    ):
        console.print(f"{what:8} {target.shown(name)}", markup=False, highlight=False, soft_wrap=True)
    if sent:
        console.print(f"wandb    {sent}", markup=False, highlight=False, soft_wrap=True)
    if not any(finding.could_be_asked and finding.verdict.word != "no law" for finding in findings):
        print("fit_laws: no law can be given: " + _why_none(tables, findings), file=sys.stderr)
        return 1
    return 0


@contextmanager
def _workplace(target: Store) -> Iterator[Path]:
    """The report's folder on this machine: its own, or one that is published from."""
    if isinstance(target, LocalStore):
        yield target.root
    else:
        with TemporaryDirectory(prefix="report-") as made:
            yield Path(made)


def _publish(made: Path, target: Store) -> None:
    """Copy the report to where it belongs, the page last, and remove figures of an earlier one."""
    if isinstance(target, LocalStore):
        return
    names = sorted(str(path.relative_to(made)) for path in made.rglob("*") if path.is_file())
    for name in sorted(names, key=lambda name: name == "report.html"):
        target.put_file(name, made / name)
    for name in target.listing("figures"):
        if f"figures/{name}" not in names:
            target.delete(f"figures/{name}")


def _refuse(line: str) -> int:
    print("fit_laws: " + " ".join(line.split()), file=sys.stderr)
    return 2


def _why_none(tables: Tables, findings: Sequence[Finding]) -> str:
    if tables.trials and len(tables.failed) == len(tables.trials):
        return f"all {len(tables.failed)} trials failed"
    if drawn := sum(finding.law is not None for finding in findings):
        return f"the verdict is `no law` on each of the {drawn} curves that were fitted; the report says why"
    return "no axis has three usable values; the report says what was left out"


def _print(console: Console, tables: Tables, findings: Sequence[Finding]) -> None:
    console.print(_counted(tables, findings))
    known = members(tables, findings)
    sweeps = list(dict.fromkeys(group.sweep for group in known))
    for sweep in sweeps:
        name = sweep_name(sweep, sweeps)
        table = Table(title=escape(name), title_justify="left", box=None, pad_edge=False, title_style="bold")
        columns = ("family", "law", "points", "R²", "verdict", "why")[: None if console.width >= ROOM_FOR_WHY else -1]
        for column in columns:
            table.add_column(
                column, justify="right" if column in ("points", "R²") else "left", no_wrap=column not in ("law", "why")
            )
        mine = [finding for finding in findings if finding.group.sweep == sweep]
        for finding in mine:
            if finding.could_be_asked:
                table.add_row(*_cells(finding, group_name(finding.group, known))[: len(columns)])
        console.print(table)
        for line in unasked(mine, lambda group: group_name(group, known)):
            console.print(f"  not asked for: {line}", markup=False, style="dim")
        notes = (f"{label(one.metric, one.points.quantity)}: {note}" for one in mine for note in one.notes)
        for note in dict.fromkeys(notes):
            console.print(f"  {note}", markup=False, style="dim")


def _counted(tables: Tables, findings: Sequence[Finding]) -> str:
    if not tables.trials:
        largest: dict[Group, int] = {}
        for finding in findings:
            largest[finding.group] = max(largest.get(finding.group, 0), len(finding.points))
        return f"{sum(largest.values())} points"
    failed = len(tables.failed)
    return (
        f"{len(tables.trials) - failed} finished trials"
        + (f", {failed} failed and left out" if failed else "")
        + (f", {tables.duplicates} repeated rows left out" if tables.duplicates else "")
    )


def _cells(finding: Finding, family: str) -> tuple[Text, ...]:
    form = f", {finding.form.name}" if finding.form.name != "power" else ""
    law = f"{label(finding.metric, finding.points.quantity)} over {finding.axes}{form}"
    held = describe(finding.held)
    return (
        Text(family),
        Text(law + (f" {held}" if held else "")),
        Text(f"{finding.points.distinct(finding.form.axes)}"),
        Text(f"{finding.law.r2:.4f}" if finding.law else "-"),
        Text(finding.verdict.word, style=_COLOURS[finding.verdict.word]),
        Text(finding.verdict.reason.split("; ")[0] + ("; …" if "; " in finding.verdict.reason else "")),
    )
