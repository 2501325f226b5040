"""The search for many patterns at once finds what Python's `in` finds."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.corpus import leaks

ALPHABET = "ab 漢\ud800😀"
SHORT = st.text(ALPHABET, max_size=9)
LONG = st.text("ab", min_size=30, max_size=140)


@settings(deadline=None, max_examples=150)
@given(st.lists(SHORT | LONG, max_size=12), st.lists(SHORT | LONG, max_size=12), st.integers(1, 60))
def test_equals_brute_force(patterns: list[str], texts: list[str], chunk: int) -> None:
    expected = {(p, t) for p, one in enumerate(patterns) for t, text in enumerate(texts) if one and one in text}
    before = leaks._CHUNK
    leaks._CHUNK = chunk
    try:
        assert set(leaks.matches(patterns, texts)) == expected
        assert leaks.contained(patterns, texts) == {pattern for pattern, _ in expected}
        distinct = list(dict.fromkeys(patterns))
        inside = {p for p, one in enumerate(distinct) for other in distinct if one and one != other and one in other}
        assert leaks.contained_in_others(distinct) == inside
    finally:
        leaks._CHUNK = before


def test_patterns_cut_from_long_texts_are_found() -> None:
    generator = np.random.default_rng(0)
    words = np.array(["alpha", "beta", "gamma", "delta", "the", "of", "x"])
    texts = [" ".join(generator.choice(words, size=400)) for _ in range(200)]
    patterns = []
    for text in texts:
        start, length = generator.integers(0, len(text) - 300), generator.integers(1, 300)
        patterns.append(text[start : start + length])
    absent = [pattern + "!" for pattern in patterns]
    assert leaks.contained(patterns + absent, texts) == set(range(len(patterns)))
