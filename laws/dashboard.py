"""A report in Weights & Biases: one run a grid, with the laws as tables, the figures and laws.json."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from laws.points import Group, describe, groups, label
from laws.reporting.provenance import provenance
from laws.reporting.words import group_name, sweep_name
from laws.study import Finding
from laws.tables import Tables
from results import dashboard
from results.dashboard import LONGEST_ID, Identity, Place
from results.local import LocalStore

if TYPE_CHECKING:
    import wandb

LAWS = (
    *("corpus and identifiers", "family", "metric", "over", "form", "held", "points", "R2", "RMSE"),
    *("verdict", "reason", "formula"),
)
PARAMETERS = ("corpus and identifiers", "family", "metric", "over", "form", "held", "parameter", "value", "lo", "hi")


def send(place: Place, tables: Tables, findings: Sequence[Finding], out: Path) -> str:
    """Write a finished report as a run, which later reports of the same grids go on with.

    Returns:
        One line that says where it is, or why it is not: W&B changes nothing about a report.
    """
    if place.mode == "off":
        return "not written: WANDB_MODE says so"
    grids = sorted({trial.grid for trial in tables.trials})
    identity = identify(grids, {"grids": grids, "metrics": sorted({one.metric for one in findings})}, tables)
    try:
        if place.mode == "offline":
            return _write_offline(place, identity, tables, findings, out)
        with dashboard.scratch() as folder:
            run = dashboard.start(place, identity, folder)
            address = run.url
            _fill(run, run.starting_step, tables, findings, out)
            dashboard.finish(run, 0)
        return address or identity.id
    except Exception as error:  # whatever W&B raises
        return f"not written: {dashboard.why(error)}"
    finally:
        dashboard.stop()


def identify(grids: Sequence[str], config: dict[str, Any], tables: Tables) -> Identity:
    """The run of these grids: the same id whenever and wherever they are fitted."""
    name = "+".join(grids)
    run_id = f"laws-{name}"
    if len(run_id) > LONGEST_ID:
        run_id = f"{run_id[: LONGEST_ID - 13]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    found = provenance(tables)
    return Identity(
        id=run_id,
        name=f"laws of {', '.join(grids)}",
        group=name[:128],
        job_type="laws",
        tags=("laws", *sorted({trial.corpus for trial in tables.trials})),
        config=config | {key: found[key] for key in ("corpora", "git_commits", "fitted_with", "fit")},
    )


def _write_offline(place: Place, identity: Identity, tables: Tables, findings: Sequence[Finding], out: Path) -> str:
    store = LocalStore(root=out.absolute())
    earlier = [name for name in store.listing("wandb") if name.endswith(f"-{identity.id}")]

    def write(run: "wandb.Run") -> int:
        _fill(run, len(earlier), tables, findings, out)  # a step a report: `wandb sync` puts them one after another
        return 0

    with dashboard.written_offline(place, identity, write) as made:
        for name in dashboard.parts(made):
            store.put_file(f"wandb/{made.name}/{name}", made / name)
    return f"wandb sync {out / 'wandb' / made.name}"


def _fill(run: "wandb.Run", step: int, tables: Tables, findings: Sequence[Finding], out: Path) -> None:
    import wandb

    asked = [finding for finding in findings if finding.could_be_asked]
    names = _Names(tables)
    dashboard.log_table(run, "laws", LAWS, [names.law(one) for one in asked], step=step, commit=False)
    cells = [row for one in asked for row in names.parameters(one)]
    dashboard.log_table(run, "parameters", PARAMETERS, cells, step=step, commit=False)
    figures = {f"figures/{path.stem}": wandb.Image(str(path)) for path in sorted((out / "figures").glob("*.png"))}
    run.log(figures, step=step, commit=True)
    verdicts = Counter(one.verdict.word for one in asked)
    run.summary.update({f"verdicts/{word}": count for word, count in sorted(verdicts.items())})
    run.save(str(out / "laws.json"), base_path=str(out), policy="now")


class _Names:
    """How the report calls things, for the rows of the tables."""

    def __init__(self, tables: Tables) -> None:
        self._groups: tuple[Group, ...] = tuple(groups(tables.trials))
        self._sweeps = list(dict.fromkeys(group.sweep for group in self._groups))

    def _of(self, finding: Finding) -> tuple[Any, ...]:
        group = finding.group
        sweep, family = sweep_name(group.sweep, self._sweeps), group_name(group, self._groups)
        return sweep, family, label(finding.metric), finding.axes, finding.form.name, describe(finding.held)

    def law(self, finding: Finding) -> tuple[Any, ...]:
        """A row of `laws`."""
        law, verdict = finding.law, finding.verdict
        fit = (law.r2, law.rmse) if law else (None, None)
        return *self._of(finding), len(finding.points), *fit, verdict.word, verdict.reason, finding.form.text

    def parameters(self, finding: Finding) -> Iterator[tuple[Any, ...]]:
        """Rows of `parameters`: none where no curve could be drawn."""
        for item in finding.law.parameters if finding.law else ():
            yield *self._of(finding), item.name, item.value, item.lo, item.hi
