"""How numbers, formulas and names are written for readers."""

import math
import re
from collections.abc import Iterable

from markupsafe import Markup, escape

from laws.points import Group
from laws.tables import Measured

GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "kappa": "κ", "theta": "θ", "lambda": "λ", "sigma": "σ",
}  # fmt: skip
FAMILIES = {"t5": "T5", "llama": "LLaMA"}
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float | None, digits: int = 4) -> str:
    """A number for readers: 0.3456, 29,235, 1.249 × 10⁸; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        text = f"{value:,.{digits}g}" if abs(value) < 1000 else f"{value:,.0f}"
        return text.replace("-", "−")
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa} × 10{str(int(exponent)).translate(_RAISED)}".replace("-", "−")


def fit_quality(r2: float | None) -> str:
    """R²: with as many digits as tell it from a perfect fit."""
    if r2 is None or math.isnan(r2) or r2 == 1:
        return number(r2)
    return next((text for digits in range(4, 12) if (text := number(r2, digits)) != "1"), "1")


def percent(share: float | None, digits: int = 3) -> str:
    """A share of one with its sign: +1.3%; a dash where there is none."""
    if share is None or not math.isfinite(share):
        return "–"
    return f"{100 * share:+.{digits}g}%".replace("-", "−")


def value(measured: Measured) -> str:
    """A metric in a table: .412, 3.597; a dash where there is none."""
    if not measured.known:
        return "–"
    return f"{measured.value:.3f}".removeprefix("0") if abs(measured.value) < 1 else f"{measured.value:.3f}"


def ends(measured: Measured) -> str:
    """Its interval: .38–.44; empty where there is none."""
    if math.isnan(measured.lo) or math.isnan(measured.hi):
        return ""
    return "–".join(f"{end:.2f}".removeprefix("0") for end in (measured.lo, measured.hi))


def greek(name: str) -> str:
    """A parameter's letter; A_t5 and the like keep what follows."""
    head, _, rest = name.partition("_")
    return GREEK.get(head, head) + (f" ({FAMILIES.get(rest, rest)})" if rest else "")


def formula(text: str) -> Markup:
    """A formula of `laws.forms` with Greek letters and raised exponents."""
    for name, letter in GREEK.items():
        text = re.sub(rf"\b{name}\b", letter, text)
    text = re.sub(r"(\d)e([+-]\d+)", lambda found: f"{found[1]} × 10^{int(found[2])}", text)
    text = re.sub(
        r"\^\(([^()]*)\)|\^(-?\w+(?:\.\d+)?)", lambda power: f"<sup>{power[1] or power[2]}</sup>", str(escape(text))
    )
    text = re.sub(r"(?<![<\w])-|(?<=\s)-(?=\s)", "−", text)
    return Markup(re.sub(r"\b([A-Ga-cND])\b(?![^<]*>)", r"<i>\1</i>", text))


def slug(text: str) -> str:
    """For file names and anchors."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def family_name(family: str) -> str:
    """As it is written in a heading."""
    return FAMILIES.get(family, family)


def group_name(group: Group, among: Iterable[Group]) -> str:
    """The family, and what else tells it from the other groups of its sweep: init, recipe, split, as far as needed."""
    alike = [other for other in among if other.sweep == group.sweep and other.family == group.family]
    told = []
    for field, words in (
        ("init", group.init or "init unknown"),
        ("recipe", f"recipe {group.recipe[:8] or 'unknown'}"),
        ("split", f"{group.split or 'unknown'} queries"),
    ):
        same = [other for other in alike if getattr(other, field) == getattr(group, field)]
        told += [words] if len(same) < len(alike) else []
        alike = same
    name = family_name(group.family)
    return f"{name} ({', '.join(told)})" if told else name


def sweep_name(sweep: tuple[str, str, str], among: Iterable[tuple[str, str, str]]) -> str:
    """Corpus and identifiers; with the corpus's hash where two corpora share a name."""
    corpus, corpus_hash, identifiers = sweep
    twins = {other[1] for other in among if other[0] == corpus}
    name = f"{corpus} [{corpus_hash[:8]}]" if len(twins) > 1 else corpus
    return f"{name}, {identifiers}" if identifiers else name


def typeset(name: str) -> str:
    """A quantity's name with a minus in place of a hyphen: `1 − Hit@10`."""
    return name.replace("1 - ", "1 − ").replace("-log", "−log")


def sentence(text: str) -> str:
    """The text with a capital and a full stop."""
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text + "."
