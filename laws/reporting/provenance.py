"""Where the numbers of a report come from."""

import json
from importlib.metadata import version
from typing import Any

from laws.fitting import INTERVAL
from laws.reporting.sections import CAUTIONS
from laws.tables import Tables
from laws.trust.card import OPTIMISER, OWN_DEFINITIONS

LIBRARIES = ("numpy", "scipy", "matplotlib", "plotly", "pyarrow")


def provenance(tables: Tables) -> dict[str, Any]:
    """Corpora, grids, commits, versions, how it was fitted, and what N, D and the metrics mean."""
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
        "fitted_with": {name: version(name) for name in LIBRARIES},
        "fit": {"optimiser": OPTIMISER, "interval": INTERVAL, "loss, weights, starts, seed": "on each law's fit card"},
        "definitions": {
            **OWN_DEFINITIONS,
            "CGL as published": CAUTIONS["cgl_published"],
            "1 - metric": "the error that is fitted in place of a metric in [0, 1]",
        },
    }
