"""How points of a grid are named in tables and file names."""

import re

from workers.settings import AnyIdentifiers, ModelSettings

_SIZE = {
    "ngram": ("length",),
    "multiview": ("length",),
    "codebook": ("levels", "codes"),
    "hierarchical": ("branching", "leaf"),
}
"""Settings of a kind that stand in its label without their names."""


def identifiers_label(identifiers: AnyIdentifiers) -> str:
    """The kind, followed by every setting that is not the default: `ngram-10`, `codebook-32x256`."""
    fields = type(identifiers).model_fields
    parts: list[str] = [identifiers.kind]
    size = _SIZE.get(identifiers.kind, ())
    if any(getattr(identifiers, name) != fields[name].default for name in size):
        parts.append("x".join(str(getattr(identifiers, name)) for name in size))
    for name in fields.keys() - {"kind", "pairs", "only", *size}:
        value = getattr(identifiers, name)
        if value != fields[name].default:
            parts.append(f"{name}{str(value).rstrip('/').split('/')[-1]}")
    return safe("-".join(parts[:2] + sorted(parts[2:])))


def init_label(model: ModelSettings) -> str:
    """How the token embeddings start: random, ppmi, ppmi-r16 or pretrained."""
    if model.pretrained is not None:
        return "pretrained"
    if model.embeddings.kind == "ppmi" and model.embeddings.rank is not None:
        return f"ppmi-r{model.embeddings.rank}"
    return model.embeddings.kind


def safe(text: str) -> str:
    """Usable as part of a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text)[:60]
