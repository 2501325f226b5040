"""The loops of `evidence.py`: locating n-grams, matching them against texts, and taking occurrences greedily."""

from typing import NamedTuple

import numba
import numpy as np

REPETITION = 0.8
"""How much of a weight is lost where all of an n-gram's tokens were seen in the document."""
PAIRS = 1 << 16
"""Entries of a table that most places in a text, which begin no n-gram, are recognised by; fits a core's cache."""


class Ngrams(NamedTuple):
    """N-grams as loops see them, sorted by view and then by their tokens. A tuple, because numba knows these."""

    tokens: np.ndarray
    """int32 (n-grams, longest): -1 behind an n-gram's end."""
    length: np.ndarray
    """int64 (n-grams,)."""
    types: np.ndarray
    """int32 (n-grams, longest): distinct tokens, in front."""
    type_count: np.ndarray
    """int64 (n-grams,)."""
    weight: np.ndarray
    """float64 (n-grams,)."""
    by_weight: np.ndarray
    """int64 (n-grams,): a permutation that sorts them by falling weight, equal ones as they are."""
    place: np.ndarray
    """int64 (n-grams,): where each is in `by_weight`."""


@numba.njit(cache=True)
def ascends(values: np.ndarray) -> bool:
    """Whether no value is below the one before; without a temporary array."""
    place = 1
    while place < len(values) and values[place] >= values[place - 1]:
        place += 1
    return place >= len(values)


@numba.njit(cache=True)
def copy_rows(tokens: np.ndarray, start: np.ndarray, length: np.ndarray, target: np.ndarray, out: np.ndarray) -> None:
    """Copy the row that begins at `tokens[start[i]]` to `out[target[i]]`, for all i."""
    for row in range(len(start)):
        for place in range(length[row]):
            out[target[row] + place] = tokens[start[row] + place]


@numba.njit(cache=True)
def token_types(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each n-gram's distinct tokens, at the front of a row of int32 (n-grams, longest), and how many they are."""
    types = np.empty_like(tokens)
    count = np.zeros(len(tokens), dtype=np.int64)
    for n in range(len(tokens)):
        for token in tokens[n]:
            if token < 0:
                break
            known = False
            for earlier in range(count[n]):
                known = known or types[n, earlier] == token
            if not known:
                types[n, count[n]] = token
                count[n] += 1
    return types, count


@numba.njit(cache=True)
def _discounted(ngrams: Ngrams, n: int, seen: np.ndarray, stamp: int) -> float:
    """The weight of `n` times 1 - r + r x (types not in `seen` / types); they then are, by `stamp`."""
    new = 0
    for token in ngrams.types[n, : ngrams.type_count[n]]:
        if seen[token] != stamp:
            seen[token] = stamp
            new += 1
    return ngrams.weight[n] * (1.0 - REPETITION + REPETITION * new / ngrams.type_count[n])


@numba.njit(cache=True)
def _take(begins: np.ndarray, ends: np.ndarray, taken: int, begin: int, end: int) -> bool:
    """Put [begin, end) among the first `taken` intervals, which are disjoint and ascend, unless it overlaps."""
    low, high = 0, taken
    while low < high:
        middle = (low + high) // 2
        if ends[middle] > begin:
            high = middle
        else:
            low = middle + 1
    if low < taken and begins[low] < end:
        return False
    for place in range(taken, low, -1):
        begins[place] = begins[place - 1]
        ends[place] = ends[place - 1]
    begins[low] = begin
    ends[low] = end
    return True


@numba.njit(cache=True)
def locate(
    intervals: tuple[np.ndarray, ...],
    order: np.ndarray,
    row_starts: np.ndarray,
    documents: np.ndarray,
    before: int,
    document: np.ndarray,
    start: np.ndarray,
) -> None:
    """Write document and first position of all occurrences in intervals of one shard.

    `intervals`: lo, hi, and where in `document` and `start` to write. `documents`: those of the shard's rows.
    `before`: added to positions.
    """
    lo, hi, target = intervals
    for n in range(len(lo)):
        for entry in range(lo[n], hi[n]):
            position = order[entry]
            low, high = 0, len(row_starts) - 1
            while high - low > 1:
                middle = (low + high) // 2
                if row_starts[middle] <= position:
                    low = middle
                else:
                    high = middle
            to = target[n] + entry - lo[n]
            document[to] = documents[low]
            start[to] = before + np.int64(position)


@numba.njit(cache=True)
def group_by_document(document: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct documents in the order in which they first occur, where the group of each ends, and the grouped hits.

    `place`: zeros, one a document of the corpus; zeros again afterwards.
    """
    found = np.empty(len(document), dtype=np.int64)
    ends = np.zeros(len(document), dtype=np.int64)
    number = 0
    for each in document:
        if place[each] == 0:
            found[number] = each
            number += 1
            place[each] = number
        ends[place[each] - 1] += 1
    found, ends = found[:number].copy(), ends[:number].copy()
    ends = np.cumsum(ends)
    hits = np.empty(len(document), dtype=np.int64)
    free = ends.copy()
    for hit in range(len(document) - 1, -1, -1):
        group = place[document[hit]] - 1
        free[group] -= 1
        hits[free[group]] = hit
    for each in found:
        place[each] = 0
    return found, ends, hits


@numba.njit(cache=True)
def score_found(
    ngrams: Ngrams, group_ends: np.ndarray, ngram: np.ndarray, start: np.ndarray, seen: np.ndarray
) -> np.ndarray:
    """First stage: each document's score by its group of hits, in their order. `seen`: zeros, one a token."""
    scores = np.zeros(len(group_ends), dtype=np.float64)
    largest, begin = 0, 0
    for end in group_ends:
        largest = max(largest, end - begin)
        begin = end
    begins = np.empty(largest, dtype=np.int64)
    ends = np.empty(largest, dtype=np.int64)
    begin = 0
    for group in range(len(group_ends)):
        taken, counted = 0, -1
        for hit in range(begin, group_ends[group]):
            n = ngram[hit]
            if not _take(begins, ends, taken, start[hit], start[hit] + ngrams.length[n]):
                continue
            taken += 1
            if n != counted:
                counted = n
                scores[group] += _discounted(ngrams, n, seen, group + 1)
        begin = group_ends[group]
    return scores


@numba.njit(cache=True)
def by_first_token(view: np.ndarray, tokens: np.ndarray, views: int, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the n-grams of a view that start with a token begin and end: int32 (views, vocabulary) each."""
    begins = np.zeros((views, vocabulary), dtype=np.int32)
    ends = np.zeros((views, vocabulary), dtype=np.int32)
    for n in range(len(view)):
        if ends[view[n], tokens[n, 0]] == 0:
            begins[view[n], tokens[n, 0]] = n
        ends[view[n], tokens[n, 0]] = n + 1
    return begins, ends


@numba.njit(cache=True)
def _pair(token: int, following: int) -> int:
    """A place in a table of PAIRS entries for two tokens; different pairs may share one."""
    return (token * 40503 + following) & (PAIRS - 1)


@numba.njit(cache=True)
def beginnings(view: np.ndarray, tokens: np.ndarray, views: int) -> np.ndarray:
    """Whether any n-gram of a view may begin with two tokens, by their `_pair`: bool (views, PAIRS)."""
    table = np.zeros((views, PAIRS), dtype=np.bool_)
    for n in range(len(view)):
        if tokens.shape[1] > 1 and tokens[n, 1] >= 0:
            table[view[n], _pair(tokens[n, 0], tokens[n, 1])] = True
        else:
            table[view[n]] = True
    return table


@numba.njit(cache=True)
def _bound(column: np.ndarray, low: int, high: int, token: int) -> int:
    """The first place in [low, high) of an ascending column with a value of at least `token`."""
    while low < high:
        middle = (low + high) // 2
        if column[middle] < token:
            low = middle + 1
        else:
            high = middle
    return low


@numba.njit(cache=True)
def _match(ngrams: Ngrams, low: int, high: int, text: np.ndarray, out: np.ndarray) -> int:
    """Places by weight of the n-grams that begin `text`, out of [low, high), which share their first token.

    One of less weight than a shorter one is left out: wherever that one is not taken, this one overlaps too.
    """
    found = 0
    best = len(ngrams.length)
    depth = 1
    while low < high:
        while low < high and ngrams.length[low] == depth:
            if ngrams.place[low] < best:
                best = ngrams.place[low]
                out[found] = best
                found += 1
            low += 1
        if depth == len(text):
            break
        low = _bound(ngrams.tokens[:, depth], low, high, text[depth])
        high = _bound(ngrams.tokens[:, depth], low, high, text[depth] + 1)
        depth += 1
    return found


@numba.njit(cache=True)
def score_texts(
    ngrams: Ngrams,
    values: np.ndarray,
    offsets: np.ndarray,
    view_of_row: np.ndarray,
    rows_end: np.ndarray,
    begins: np.ndarray,
    ends: np.ndarray,
    likely: np.ndarray,
    seen: np.ndarray,
) -> np.ndarray:
    """Second stage: each document's score by all n-grams that occur in its rows.

    Row r is `values[offsets[r]:offsets[r + 1]]`, document d has the rows from `rows_end[d - 1]` to `rows_end[d]`.
    `begins` and `ends`: as of `by_first_token`. `likely`: as of `beginnings`. `seen`: zeros, one a token.
    """
    scores = np.zeros(len(rows_end), dtype=np.float64)
    found_here = np.empty(len(ngrams.length), dtype=np.int64)
    matches = np.empty(1024, dtype=np.int64)
    first_row = 0
    for document in range(len(rows_end)):
        base = offsets[first_row]
        span = offsets[rows_end[document]] - base
        count = 0
        for row in range(first_row, rows_end[document]):
            view = view_of_row[row]
            last = offsets[row + 1] - 1
            for position in range(offsets[row], last + 1):
                first, second = values[position], values[min(position + 1, last)]
                if not likely[view, _pair(first, second)]:
                    continue
                text = values[position : last + 1]
                found = _match(ngrams, begins[view, first], ends[view, first], text, found_here)
                while count + found > len(matches):
                    matches = np.concatenate((matches, np.empty_like(matches)))
                for each in range(found):
                    matches[count + each] = found_here[each] * span + position - base
                count += found
        # Sorted by falling weight, then from left to right.
        in_order = np.sort(matches[:count])
        scores[document] = _greedy(ngrams, in_order, span, seen, document + 1)
        first_row = rows_end[document]
    return scores


@numba.njit(cache=True)
def _greedy(ngrams: Ngrams, matches: np.ndarray, span: int, seen: np.ndarray, stamp: int) -> float:
    """Score of one document. A match is `place by weight x span + position in the document`."""
    score = 0.0
    most = min(len(matches), span)
    begins = np.empty(most, dtype=np.int64)
    ends = np.empty(most, dtype=np.int64)
    taken, counted = 0, -1
    for match in matches:
        place, position = match // span, match % span
        n = ngrams.by_weight[place]
        if not _take(begins, ends, taken, position, position + ngrams.length[n]):
            continue
        taken += 1
        if n != counted:
            counted = n
            score += _discounted(ngrams, n, seen, stamp)
    return score


@numba.njit(cache=True)
def weightiest_match(
    ngrams: Ngrams,
    view: np.ndarray,
    values: np.ndarray,
    offsets: np.ndarray,
    view_of_row: np.ndarray,
    rows_end: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Row and position in `values` of the weightiest n-gram of each document, the first from the left.

    `rows_end`: where each document's rows end. A document without a match has its first row's beginning.
    """
    row = np.empty(len(rows_end), dtype=np.int64)
    start = np.empty(len(rows_end), dtype=np.int64)
    first = 0
    for document in range(len(rows_end)):
        row[document], start[document] = first, offsets[first]
        found = False
        for n in ngrams.by_weight:
            for each in range(first, rows_end[document]):
                if found or view_of_row[each] != view[n]:
                    continue
                at = _find(ngrams.tokens[n, : ngrams.length[n]], values[offsets[each] : offsets[each + 1]])
                if at >= 0:
                    row[document], start[document], found = each, offsets[each] + at, True
            if found:
                break
        first = rows_end[document]
    return row, start


@numba.njit(cache=True)
def _find(ngram: np.ndarray, text: np.ndarray) -> int:
    """Where an n-gram first stands in a text; -1 where it does not."""
    for at in range(len(text) - len(ngram) + 1):
        same = 0
        while same < len(ngram) and text[at + same] == ngram[same]:
            same += 1
        if same == len(ngram):
            return at
    return -1
