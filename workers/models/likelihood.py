"""How likely a model finds whole identifiers: the candidates of a query are walked as a trie.

A prefix that several candidates share goes through the model once, and only prefixes that go on are rows, so
nothing is padded. An identifier ends where it ends: no end token is scored.
"""

from dataclasses import dataclass

import numpy as np
import torch

from workers.models.sessions import ScoringSession
from workers.ragged import Ragged


@dataclass(frozen=True, kw_only=True)
class Likelihoods:
    """What a walk gave and what it cost."""

    log_probs: np.ndarray
    """float64 (targets,): sum of a target's token log-probabilities; the same for targets of the same tokens."""
    rows: np.ndarray
    """int64 (queries, passes): rows of each query that went through the model in each pass."""


def identifier_log_probs(session: ScoringSession, owner: np.ndarray, targets: Ragged) -> Likelihoods:
    """Score `targets[i]` given query `owner[i]` of a session that has just begun or was restarted.

    An empty target has log-probability 0.
    """
    queries, vocabulary = session.first.shape
    lengths = targets.lengths
    going = np.flatnonzero(lengths > 0)
    node = np.asarray(owner, dtype=np.int64)[going]
    query_of_node = np.arange(queries)
    token = _tokens_at(targets, going, 0)
    device = session.first.device
    found = session.first[tuple(torch.from_numpy(each).to(device) for each in (node, token))]
    sums = torch.zeros(len(targets), dtype=torch.float64, device=device)
    rows = [np.ones(queries, dtype=np.int64)]
    depth = 0
    while len(going):
        sums.index_add_(0, torch.from_numpy(going).to(device, non_blocking=True), found.double())
        depth += 1
        on = lengths[going] > depth
        going = going[on]
        if not len(going):
            break
        # Sorted by parent first, so the new rows are in the order of their queries.
        edges, node = np.unique(node[on] * vocabulary + token[on], return_inverse=True)
        parents, tokens = np.divmod(edges, vocabulary)
        query_of_node = query_of_node[parents]
        token = _tokens_at(targets, going, depth)
        found = session.score(torch.from_numpy(parents), torch.from_numpy(tokens), node, token)
        rows.append(np.bincount(query_of_node, minlength=queries))
    return Likelihoods(log_probs=sums.cpu().numpy(), rows=np.stack(rows, axis=1))


def _tokens_at(targets: Ragged, which: np.ndarray, depth: int) -> np.ndarray:
    """int64 (which,): the token of each at `depth`."""
    return targets.values[targets.offsets[which] + depth].astype(np.int64)


def first_alike(targets: Ragged) -> np.ndarray:
    """int64 (targets,): for each target the first one of the same tokens."""
    lengths = targets.lengths
    group = np.unique(lengths, return_inverse=True)[1]
    for depth in range(int(lengths.max(initial=0))):
        inside = lengths > depth
        token = np.full(len(targets), -1, dtype=np.int64)
        token[inside] = targets.values[targets.offsets[:-1][inside] + depth]
        group = np.unique(group * (token.max() + 2) + token + 1, return_inverse=True)[1]
    return np.unique(group, return_index=True, return_inverse=True)[1][group]
