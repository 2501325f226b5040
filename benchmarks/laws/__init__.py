"""Laws: is the truth recovered, is the optimum found, how fast.

recovery   every form with known parameters under noise, 200 repeats: how often the truth lies in the 90% interval
optimum    the fitted objective against the best of 2,000 random starts of scipy's L-BFGS-B, on every form and on the
           published points
verdicts   pure noise, true laws with 1% noise and laws with a hidden break: how often the verdict is as it should be
speed      one fit of 240 points and 4,000 bootstraps of it, against L-BFGS-B in the same run
report     the laws and the report of 1,000 trials
"""

from collections.abc import Iterator

from benchmarks.laws import optimum, recovery, report, speed, verdicts
from benchmarks.rows import Options, Row, Skipped

PARTS = {
    "recovery": recovery.measure,
    "optimum": optimum.measure,
    "verdicts": verdicts.measure,
    "speed": speed.measure,
    "report": report.measure,
}


def measure(options: Options) -> Iterator[Row | Skipped]:
    """All parts asked for."""
    for name, part in PARTS.items():
        if not options.parts or name in options.parts:
            yield from part(options)
