"""CGL: milliseconds a query with 256 negatives, n-grams of 4 to 10 tokens, queries of 8 to 24.

Timed: from tokens to losses. Baselines, same model, same process, one thread: a forward pass of the plain model for
each (query, identifier), and one for all identifiers of a query, padded, with the query repeated. Values must be
equal to 1e-5.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from scipy.special import logsumexp
from transformers import PreTrainedModel

from benchmarks.decoding.data import SEED
from benchmarks.decoding.retrieval import END, LONGEST, MODELS, TEXT_TOKENS
from benchmarks.rows import Options, Row, cost, medians
from workers.cgl import Contest, contest_losses, draw_contests
from workers.decoding.index import build_index
from workers.decoding.view import View
from workers.identifiers.sets import IdentifierSet, Pairs
from workers.models.build import build
from workers.models.prompts import prompts
from workers.ragged import Ragged
from workers.settings import ModelSettings

NEGATIVES = 256
GOAL = 5.0
Nll = Callable[[PreTrainedModel, np.ndarray, Ragged], np.ndarray]
"""(model, prompt, identifiers) -> summed NLL of each."""


def measure(options: Options) -> Iterator[Row]:
    """Two rows for each family."""
    ids = held_out_set(np.random.default_rng(SEED), 400)
    contests = draw_contests(ids.held_out, np.arange(1 if options.quick else 4), NEGATIVES, SEED)
    for family, size in MODELS.items():
        model = build(ModelSettings(family=family, size=size), TEXT_TOKENS, 0, SEED).eval()
        ours = partial(contest_losses, model, ids, contests, END, LONGEST)
        one = partial(baseline, model, ids, contests, one_by_one)
        padded = partial(baseline, model, ids, contests, together)
        for each in (one, padded):
            assert np.allclose(ours().cgl, each(), rtol=1e-5, atol=1e-5), "the losses differ"
        seconds = medians({"ours": ours, "one": one, "padded": padded}, 1 if options.quick else 3)
        value, each_forward, one_forward = (1e3 * seconds[each] / len(contests) for each in ("ours", "one", "padded"))
        name = f"CGL, {family} {size}, {NEGATIVES} negatives, against"
        yield cost(f"{name} a forward each", value, "ms a query", each_forward, GOAL)
        yield cost(f"{name} one padded forward", value, "ms a query", one_forward)


def held_out_set(rng: np.random.Generator, documents: int) -> IdentifierSet:
    """Held-out pairs of random tokens, three identifiers a query, a query a document."""

    def rows(count: int, shortest: int, longest: int) -> Ragged:
        return Ragged.of([rng.integers(2, TEXT_TOKENS, size=rng.integers(shortest, longest + 1)) for _ in range(count)])

    targets = rows(3 * documents, 4, 10)
    source = np.repeat(np.arange(documents), 3)
    pairs = Pairs(
        sources=rows(documents, 8, 24),
        source=source,
        document=source,
        target=targets,
        view=np.zeros(len(source), dtype=np.int8),
    )
    view = View(
        name="body",
        index=build_index(targets, TEXT_TOKENS, "suffixes"),
        documents=source.astype(np.int32),
        marker=None,
        max_length=10,
    )
    return IdentifierSet(
        kind="ngram",
        views=(view,),
        train=pairs,
        held_out=pairs,
        vocabulary=TEXT_TOKENS,
        ranks_by="evidence",
        mean_nll=True,
        token_vectors=None,
    )


def baseline(model: PreTrainedModel, ids: IdentifierSet, contests: list[Contest], nll_of: Nll) -> np.ndarray:
    """The sound form for each contest, as `contest_losses` defines it."""
    losses = []
    for contest in contests:
        prompt = prompts(ids.held_out.sources, np.array([contest.query]), np.array([END]), LONGEST)[0]
        targets = ids.held_out.target.take(np.append(contest.right[:1], contest.negatives))
        mean = nll_of(model, prompt, targets) / targets.lengths
        losses.append(logsumexp(-mean) + mean[0])
    return np.array(losses)


def one_by_one(model: PreTrainedModel, prompt: np.ndarray, targets: Ragged) -> np.ndarray:
    """A forward pass an identifier, without padding."""
    return np.concatenate([together(model, prompt, targets.take(np.array([row]))) for row in range(len(targets))])


@torch.inference_mode()
def together(model: PreTrainedModel, prompt: np.ndarray, targets: Ragged) -> np.ndarray:
    """One forward pass, the prompt repeated and identifiers padded to the longest."""
    labels = torch.from_numpy(targets.padded(np.arange(len(targets)), fill=0))
    repeated = torch.from_numpy(prompt.astype(np.int64)).repeat(len(targets), 1)
    if model.config.is_encoder_decoder:
        start = torch.full((len(targets), 1), model.config.decoder_start_token_id)
        logits = model(input_ids=repeated, decoder_input_ids=torch.cat([start, labels[:, :-1]], dim=1)).logits
    else:
        logits = model(input_ids=torch.cat([repeated, labels[:, :-1]], dim=1)).logits[:, len(prompt) - 1 :]
    log_probs = torch.log_softmax(logits.float(), dim=-1).gather(2, labels[:, :, None])[:, :, 0]
    inside = torch.from_numpy(np.arange(labels.shape[1]) < targets.lengths[:, None])
    return -(log_probs.double() * inside).sum(dim=1).numpy()
