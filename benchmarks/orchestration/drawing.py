"""A timeline as a picture: a line a GPU, a bar a step."""

from collections.abc import Sequence
from pathlib import Path

from orchestrator.nodes import Node
from orchestrator.running.simulation import Span, Timeline

COLOURS = {"train": "#4269d0", "score": "#efb118", "search": "#ff725c"}
OTHER = "#9498a0"
HOUR = 3600.0


def draw(timeline: Timeline, nodes: Sequence[Node], title: str, path: Path) -> None:
    """Write a PNG. Steps that take no GPU are left out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    lines = {(node.id, device): 0 for node in nodes for device in range(node.gpus)}
    lines = {line: number for number, line in enumerate(lines)}
    figure = Figure(figsize=(12, 8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for span in timeline.spans:
        for device in span.devices:
            axes.broken_barh([_bar(span)], (lines[span.node, device], 0.9), facecolors=COLOURS.get(span.kind, OTHER))
    for number in range(0, len(lines), max(1, nodes[0].gpus)):
        axes.axhline(number - 0.05, color="#cccccc", linewidth=0.5)
    axes.set(xlabel="hours", ylabel="GPU", title=title, xlim=(0, timeline.seconds / HOUR), ylim=(0, len(lines)))
    axes.invert_yaxis()
    kinds = {span.kind for span in timeline.spans if span.devices}
    axes.legend(
        handles=[Patch(color=COLOURS.get(kind, OTHER), label=kind) for kind in sorted(kinds)], loc="upper right"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _bar(span: Span) -> tuple[float, float]:
    return span.start / HOUR, (span.end - span.start) / HOUR
