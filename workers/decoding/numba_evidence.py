"""The loops of `evidence.py`: locating n-grams, matching them against texts, and taking occurrences greedily."""

from typing import NamedTuple

import numba
import numpy as np

import workers.decoding.numba_cache  # noqa: F401 - one hash for all compiled modules

REPETITION = 0.8
"""How much of a weight is lost where all of an n-gram's tokens were seen in the document."""
PAIRS = 1 << 16
"""Entries of a table that most places in a text, which begin no n-gram, are recognised by; fits a core's cache."""
POSITION_BITS = 40
"""A match is one number, n-gram x 2^40 + position, so that sorting puts matches in the order of the rule."""
BLOCK = 64
"""Positions whose row is looked up together."""


class Ngrams(NamedTuple):
    """N-grams as loops see them, in the order of the rule: by falling weight. A tuple, because numba knows these."""

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


@numba.njit(cache=True)
def ascends(values: np.ndarray) -> bool:
    """Whether no value is below the one before; without a temporary array."""
    place = 1
    while place < len(values) and values[place] >= values[place - 1]:
        place += 1
    return place >= len(values)


@numba.njit(cache=True)
def rows_of_blocks(row_starts: np.ndarray) -> np.ndarray:
    """int32 (blocks,): the row that the first position of each BLOCK positions of a shard lies in."""
    rows = np.empty((np.int64(row_starts[-1]) + BLOCK - 1) // BLOCK, dtype=np.int32)
    row = 0
    for block in range(len(rows)):
        while row_starts[row + 1] <= block * BLOCK:
            row += 1
        rows[block] = row
    return rows


@numba.njit(cache=True)
def prefixes(
    tokens: np.ndarray, order: np.ndarray, lo: np.ndarray, length: np.ndarray, row: np.ndarray, out: np.ndarray
) -> None:
    """Write to `out[row[i]]` the `length[i]` tokens that the state with `lo[i]` in a shard stands for, -1 behind."""
    for state in range(len(lo)):
        start = np.int64(order[lo[state]])
        for place in range(out.shape[1]):
            out[row[state], place] = np.int32(tokens[start + place]) if place < length[state] else np.int32(-1)


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
    row_of_block: np.ndarray,
    documents: np.ndarray,
    before: int,
    document: np.ndarray,
    start: np.ndarray,
) -> None:
    """Write document and first position of all occurrences in intervals of one shard.

    `intervals`: lo, hi, and where in `document` and `start` to write. `row_of_block`: as of `rows_of_blocks`.
    `documents`: those of the shard's rows. `before`: added to positions.
    """
    lo, hi, target = intervals
    for n in range(len(lo)):
        for entry in range(lo[n], hi[n]):
            position = np.int64(order[entry])
            row = row_of_block[position // BLOCK]
            while row_starts[row + 1] <= position:
                row += 1
            to = target[n] + entry - lo[n]
            document[to] = documents[row]
            start[to] = before + position


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
def most_possible(ngrams: Ngrams, group_ends: np.ndarray, ngram: np.ndarray) -> np.ndarray:
    """float64 (groups,): the sum of the weights of each group's n-grams, which no score by them is above.

    Nor is it for rounding: sums are in the order of the rule, and adding floats is monotone.
    """
    bounds = np.zeros(len(group_ends), dtype=np.float64)
    begin = 0
    for group in range(len(group_ends)):
        counted = -1
        for hit in range(begin, group_ends[group]):
            if ngram[hit] != counted:
                counted = ngram[hit]
                bounds[group] += ngrams.weight[counted]
        begin = group_ends[group]
    return bounds


@numba.njit(cache=True)
def score_groups(
    ngrams: Ngrams,
    groups: np.ndarray,
    group_ends: np.ndarray,
    ngram: np.ndarray,
    start: np.ndarray,
    further: np.ndarray,
    further_ends: np.ndarray,
    rearranged: bool,
    seen: np.ndarray,
) -> np.ndarray:
    """Score of each document by its group of hits and by further matches. `groups`: of each document.

    `further`: matches, and `further_ends`: where those of each document end. The matches of an n-gram are taken as the
    hits are, or from left to right where they are `rearranged`. `seen`: zeros, one a token.
    """
    scores = np.zeros(len(groups), dtype=np.float64)
    matches = np.empty(len(ngram) + len(further), dtype=np.int64)  # more than one document's, and not touched there
    begins, ends = np.empty_like(matches), np.empty_like(matches)
    begin_further = 0
    for document in range(len(groups)):
        begin = group_ends[groups[document] - 1] if groups[document] > 0 else 0
        count = 0
        for hit in range(begin, group_ends[groups[document]]):
            matches[count] = (ngram[hit] << POSITION_BITS) + start[hit]
            count += 1
        for match in further[begin_further : further_ends[document]]:
            matches[count] = match
            count += 1
        begin_further = further_ends[document]
        if rearranged and not ascends(matches[:count]):
            matches[:count].sort()
        scores[document] = _greedy(ngrams, matches[:count], begins, ends, seen, document + 1)
    return scores


@numba.njit(cache=True)
def _greedy(
    ngrams: Ngrams, matches: np.ndarray, begins: np.ndarray, ends: np.ndarray, seen: np.ndarray, stamp: int
) -> float:
    """Score of one document by its matches, which are taken in this order. `begins` and `ends`: room for as many."""
    score = 0.0
    taken, counted = 0, -1
    for match in matches:
        n, position = match >> POSITION_BITS, match & ((1 << POSITION_BITS) - 1)
        if not _take(begins, ends, taken, position, position + ngrams.length[n]):
            continue
        taken += 1
        if n != counted:
            counted = n
            score += _discounted(ngrams, n, seen, stamp)
    return score


@numba.njit(cache=True)
def by_first_token(tokens: np.ndarray, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    """Where those of the sorted n-grams that start with a token begin and end: int32 (vocabulary,) each."""
    begins = np.zeros(vocabulary, dtype=np.int32)
    ends = np.zeros(vocabulary, dtype=np.int32)
    for n in range(len(tokens)):
        if ends[tokens[n, 0]] == 0:
            begins[tokens[n, 0]] = n
        ends[tokens[n, 0]] = n + 1
    return begins, ends


@numba.njit(cache=True)
def _pair(token: int, following: int) -> int:
    """A place in a table of PAIRS entries for two tokens; different pairs may share one."""
    return int((np.int64(token) * 40503 + np.int64(following)) & (PAIRS - 1))


@numba.njit(cache=True)
def beginnings(tokens: np.ndarray) -> np.ndarray:
    """Whether any n-gram may begin with two tokens, by their `_pair`: bool (PAIRS,)."""
    table = np.zeros(PAIRS, dtype=np.bool_)
    for n in range(len(tokens)):
        if tokens.shape[1] > 1 and tokens[n, 1] >= 0:
            table[_pair(tokens[n, 0], tokens[n, 1])] = True
        else:
            table[:] = True
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
def _match(
    ngrams: Ngrams, chosen: np.ndarray, tokens: np.ndarray, low: int, high: int, text: np.ndarray, out: np.ndarray
) -> int:
    """N-grams that begin `text`, out of `chosen[low:high]`, which share their first token. `tokens`: of the chosen.

    One of less weight than a shorter one is left out: wherever that one is not taken, this one overlaps too.
    """
    found = 0
    best = len(ngrams.length)
    depth = 1
    while low < high:
        while low < high and ngrams.length[chosen[low]] == depth:
            if chosen[low] < best:
                best = chosen[low]
                out[found] = best
                found += 1
            low += 1
        if depth == len(text):
            break
        low = _bound(tokens[:, depth], low, high, text[depth])
        high = _bound(tokens[:, depth], low, high, text[depth] + 1)
        depth += 1
    return found


@numba.njit(cache=True)
def scan(
    ngrams: Ngrams,
    chosen: np.ndarray,
    tables: tuple[np.ndarray, np.ndarray, np.ndarray],
    tokens: np.ndarray,
    begin: np.ndarray,
    end: np.ndarray,
    before: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and matches, int64 each, of some n-grams in rows of a shard: row i is `tokens[begin[i]:end[i]]`.

    `chosen`: n-grams of one view, sorted by their tokens. `tables`: of them, as of `by_first_token` and `beginnings`.
    `before`: added to positions.
    """
    begins, ends, likely = tables
    chosen_tokens = ngrams.tokens[chosen]
    here = np.empty(len(chosen), dtype=np.int64)
    matches, rows = np.empty(256, dtype=np.int64), np.empty(256, dtype=np.int64)
    count = 0
    for row in range(len(begin)):
        last = end[row] - 1
        for position in range(begin[row], last + 1):
            first = tokens[position]
            if ends[first] == 0 or not likely[_pair(first, tokens[min(position + 1, last)])]:
                continue
            text = tokens[position : last + 1]
            found = _match(ngrams, chosen, chosen_tokens, begins[first], ends[first], text, here)
            while count + found > len(matches):
                matches = np.concatenate((matches, np.empty_like(matches)))
                rows = np.concatenate((rows, np.empty_like(rows)))
            for each in range(found):
                matches[count + each] = (here[each] << POSITION_BITS) + before + position
                rows[count + each] = row
            count += found
    return rows[:count], matches[:count]


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
        for n in range(len(ngrams.length)):
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
