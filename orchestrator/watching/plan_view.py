"""What `--dry-run` shows: trials, steps, and what carrying out the plan will take. As tables, and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from orchestrator.forecasting.forecast import Forecast
from orchestrator.keys import RECIPES
from orchestrator.nodes import ANY, Demand, Node
from orchestrator.plan import Plan, plain_table
from orchestrator.rows import budget_columns
from orchestrator.steps import Step
from orchestrator.watching.console import describe, duration
from workers.settings import TrainJob

UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
EVALUATION = ("score", "search")


def show(plan: Plan, forecast: Forecast, console: Console) -> None:
    """Tables of trials and steps, then totals, a line each."""
    grid = plan.loaded.grid
    console.print(_corpus_line(plan), soft_wrap=True)
    console.print(_trial_table(plan))
    console.print(_step_table(plan, forecast))
    placements = _placements(plan, forecast)
    if placements:
        console.print(_placement_table(placements))
    done, new = sum(plan.is_done(trial) for trial in plan.graph.trials), len(plan.foreseen)
    console.print(
        f"{grid.name}: {len(plan.graph.trials):,} trials ({done:,} done), {len(plan.graph.steps):,} steps: "
        f"{len(plan.graph.steps) - new:,} cached, {new:,} new",
        soft_wrap=True,
    )
    for line in _totals(plan, forecast):
        console.print(line, soft_wrap=True)


def _corpus_line(plan: Plan) -> str:
    if plan.summary is None:
        return f"corpus {plan.loaded.grid.corpus.source}: not read in a dry run, so D is not checked against it"
    documents, pairs = plan.summary["documents"], plan.summary["train_pairs"]
    line = f"corpus {plan.summary['name']}: {documents:,} documents, {pairs:,} training pairs of query and document"
    return line + (" (read just now, to check the grid; a run will find it)" if plan.read_now else "")


def _trial_table(plan: Plan) -> Table:
    table = plain_table("trial", "init", "N", "D", "budget", "new steps", left=("init",))
    for trial in plan.graph.trials:
        new = sum(key not in plan.finished for key in (trial.train, trial.score, trial.search))
        n = f"{trial.n_params:,}" if trial.n_params else "?"
        table.add_row(trial.trial, trial.init, n, f"{trial.pairs:,}", trial.budget.label, str(new) if new else "done")
    return table


def _step_table(plan: Plan, forecast: Forecast) -> Table:
    total = plan.graph.count()
    table = plain_table("steps", "all", "cached", "new", "FLOPs", "GPU-hours", "CPU-hours")
    for kind in RECIPES:
        one = forecast.kinds[kind]
        if total[kind]:
            flops = f"{one.flops:.2e}" if one.flops else ""
            hours = [f"{value:,.2f}" if value else "" for value in (one.gpu_hours, one.cpu_hours)]
            table.add_row(kind, f"{total[kind]:,}", f"{total[kind] - one.new:,}", f"{one.new:,}", flops, *hours)
    return table


# ---------------------------------------------------------------- totals


def _totals(plan: Plan, forecast: Forecast) -> list[str]:
    """Wall time, device-hours, disk, cost, and what they stand on."""
    if not plan.foreseen:
        return [f"disk: {size(forecast.disk_peak_bytes)}"]
    lines = [f"on {machines(forecast.nodes)}: {_time(forecast)}"]
    lines.append(f"disk: {size(forecast.disk_peak_bytes)} at the peak")
    lines += _memory(plan, forecast)
    if forecast.cost is not None and forecast.cost_while_busy is not None:
        lines.append(
            f"cost: {forecast.cost:,.2f} with all machines rented until the end, "
            f"{forecast.cost_while_busy:,.2f} for what of them works"
        )
    assumed = f"; assumes {', '.join(forecast.assumed)}" if forecast.assumed else ""
    lines.append(f"these times are {forecast.basis}{assumed}")
    return lines


def _memory(plan: Plan, forecast: Forecast) -> list[str]:
    """Who needs most."""
    found = {step.key: forecast.estimates.demands.get(step.key, ANY) for step in plan.foreseen}
    most = max(found, key=lambda key: (min(1.0, found[key].gpus) * found[key].gpu_bytes, found[key].memory))
    demand = found[most]
    if not demand.memory:
        return []
    gpu = f"a GPU of {size(demand.gpu_bytes)} and " if demand.gpus >= 1 else ""
    stage = f" with ZeRO-{demand.zero_stage}" if demand.zero_stage else ""
    what = describe(plan.graph, plan.graph.steps[most])
    return [f"memory: {gpu}{size(demand.memory)} of RAM at most a worker ({what}{stage})"]


def _time(forecast: Forecast) -> str:
    if forecast.timeline.stuck:
        return f"no room for {len(forecast.timeline.stuck):,} of the steps, or what they need"
    hours = [f"{forecast.gpu_hours:,.1f} GPU-hours"] if forecast.gpu_hours else []
    hours += [
        f"{forecast.cpu_hours:,.1f} core-hours" if forecast.gpu_hours else f"{forecast.cpu_hours:,.2f} core-hours"
    ]
    return f"about {duration(forecast.timeline.seconds)}, {' and '.join(hours)}"


def machines(nodes: Sequence[Node]) -> str:
    """`8 x (8 A100-80GB, 128 cores) and 2 x (16 cores)`."""
    kinds: dict[str, int] = {}
    for node in nodes:
        gpus = f"{node.gpus} {node.device}, " if node.gpus else ""
        what = f"{gpus}{node.cpus:g} cores"
        kinds[what] = kinds.get(what, 0) + 1
    return " and ".join(f"{count} x ({what})" if count > 1 or len(kinds) > 1 else what for what, count in kinds.items())


def size(count: float) -> str:
    """`1.2 GB`."""
    for unit, name in UNITS:
        if count >= unit:
            return f"{count / unit:,.1f} {name}"
    return f"{count:.0f} B"


# ---------------------------------------------------------------- placement


def _placements(plan: Plan, forecast: Forecast) -> dict[tuple[str, Demand], list[Step]]:
    """New trainings by (model, what they take)."""
    found: dict[tuple[str, Demand], list[Step]] = {}
    for step in plan.foreseen:
        if isinstance(step.settings, TrainJob):
            demand = forecast.estimates.demands.get(step.key, ANY)
            found.setdefault((step.settings.model.label, demand), []).append(step)
    return found


def _placement_table(placements: dict[tuple[str, Demand], list[Step]]) -> Table:
    table = plain_table("model", "trainings", "workers", "each", "ZeRO", "offload", "micro-batch", "RAM each")
    for (model, demand), steps in placements.items():
        each = f"{demand.gpus:g} GPU of {size(demand.gpu_bytes)}" if demand.gpus else f"{demand.cpus:g} core"
        micro = "" if demand.micro_batch is None else f"{demand.micro_batch:,}"
        memory = size(demand.memory) if demand.memory else ""
        table.add_row(
            model, f"{len(steps):,}", f"{demand.workers}", each, f"{demand.zero_stage}", demand.offload, micro, memory
        )
    return table


# ---------------------------------------------------------------- JSON


def as_json(plan: Plan, forecast: Forecast) -> dict[str, Any]:
    """The plan for a program: every trial and step, totals, and estimates with their units in their names."""
    new = {step.key for step in plan.foreseen}
    return {
        "grid": plan.loaded.grid.name,
        "corpus": plan.summary,
        "trials": [
            {
                "trial": trial.trial,
                "corpus": trial.corpus,
                "identifiers": trial.identifiers,
                "family": trial.family,
                "model": trial.model,
                "init": trial.init,
                "n_params": trial.n_params,
                "d_pairs": trial.pairs,
                "seed": trial.seed,
                **budget_columns(trial.budget),
                "steps": {"train": trial.train, "score": trial.score, "search": trial.search},
                "done": plan.is_done(trial),
            }
            for trial in plan.graph.trials
        ],
        "steps": [_step_json(forecast, step, step.key in new) for step in plan.graph.steps.values()],
        "totals": {
            "trials": len(plan.graph.trials),
            "steps": len(plan.graph.steps),
            "cached": len(plan.graph.steps) - len(new),
            "new": len(new),
        },
        "estimates": _estimates_json(plan, forecast),
    }


def _step_json(forecast: Forecast, step: Step, is_new: bool) -> dict[str, Any]:
    estimates = forecast.estimates
    return {
        "kind": step.kind,
        "key": step.key,
        "needs": dict(step.needs),
        "state": "new" if is_new else "cached",
        "seconds": estimates.seconds_of(step),
        "flops": estimates.works[step.key].flops,
        "demand": asdict(estimates.demands.get(step.key, ANY)),
    }


def _estimates_json(plan: Plan, forecast: Forecast) -> dict[str, Any]:
    resources = plan.loaded.grid.resources
    kinds, total = forecast.kinds, plan.graph.count()
    demands = [forecast.estimates.demands.get(step.key, ANY) for step in plan.foreseen]
    return {
        "basis": forecast.basis,
        "calibrated_steps": sum(forecast.estimates.calibration.counts.values()),
        "assumed": list(forecast.assumed),
        "wall_seconds": forecast.wall_seconds,
        "gpu_hours": forecast.gpu_hours,
        "cpu_hours": forecast.cpu_hours,
        "train_flops": kinds["train"].flops,
        "evaluation_flops": sum(kinds[kind].flops for kind in EVALUATION),
        "disk_peak_bytes": round(forecast.disk_peak_bytes),
        "cost": forecast.cost,
        "cost_while_busy": forecast.cost_while_busy,
        "largest_gpu_bytes": max((round(min(1, one.gpus) * one.gpu_bytes) for one in demands), default=0),
        "largest_memory_bytes": max((one.memory for one in demands), default=0),
        "largest_zero_stage": max((one.zero_stage for one in demands), default=0),
        "no_room": list(forecast.timeline.stuck),
        "kinds": {
            kind: {"all": total[kind], "cached": total[kind] - one.new, **asdict(one)}
            for kind, one in kinds.items()
            if total[kind]
        },
        "machines": [asdict(node) | {"price_per_hour": resources.price_of(node.name)} for node in forecast.nodes],
        "placement": [
            {"model": model, "trainings": len(steps), **asdict(demand)}
            for (model, demand), steps in _placements(plan, forecast).items()
        ],
    }
