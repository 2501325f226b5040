"""How points of a grid are named in tables and file names."""

import hashlib
import json
import re

from orchestrator.origins import ELSEWHERE, identifiers_values, in_effect
from workers.settings import AnyIdentifiers, ModelSettings

LONGEST = 60
"""Characters of a label."""
_DIGITS = 6

_SIZE = {
    "ngram": ("length",),
    "multiview": ("length",),
    "codebook": ("levels", "codes"),
    "hierarchical": ("branching", "leaf"),
}
"""Settings of a kind that stand in its label without their names."""


def identifiers_label(identifiers: AnyIdentifiers) -> str:
    """The kind, followed by every setting that is not the default: `ngram-10`, `codebook-32x256`.

    Where this does not say all (a model or file is named by its last part, a long label is cut) six hex digits of
    the settings follow. Files count by what they hold, so moving one does not rename anything.
    """
    identifiers = in_effect(identifiers)
    fields = type(identifiers).model_fields
    parts: list[str] = [identifiers.kind]
    size = _SIZE.get(identifiers.kind, ())
    if any(getattr(identifiers, name) != fields[name].default for name in size):
        parts.append("x".join(str(getattr(identifiers, name)) for name in size))
    given = {
        name: getattr(identifiers, name)
        for name in sorted(fields.keys() - {"kind", *size})
        if getattr(identifiers, name) != fields[name].default
    }
    parts += [f"{name}{str(value).rstrip('/').split('/')[-1]}" for name, value in given.items()]
    text = "-".join(parts)
    if given.keys() & set(ELSEWHERE) or len(safe(text, None)) > LONGEST:
        return f"{safe(text, LONGEST - 1 - _DIGITS)}-{_digest(identifiers)}"
    return safe(text)


def _digest(identifiers: AnyIdentifiers) -> str:
    text = json.dumps(identifiers_values(identifiers), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def init_label(model: ModelSettings) -> str:
    """How the token embeddings start: random, ppmi, ppmi-r16 or pretrained."""
    if model.pretrained is not None:
        return "pretrained"
    if model.embeddings.kind == "ppmi" and model.embeddings.rank is not None:
        return f"ppmi-r{model.embeddings.rank}"
    return model.embeddings.kind


def safe(text: str, length: int | None = LONGEST) -> str:
    """Usable as part of a file name; cut to a length, where one is given."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text)[:length]
