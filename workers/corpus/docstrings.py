"""Docstrings taken apart: which sentences are prose, and what is left without them.

Knows the three common layouts (Google, NumPy, Sphinx). Prose is every flush-left paragraph outside of
parameter sections, doctests, literal blocks, directives, lists, tables and field lists.
"""

import inspect
import re

_MIN_WORDS = 3

_SECTION = re.compile(
    r"^(args|arguments|parameters|params|other parameters|keyword args|keyword arguments|attributes|returns?|yields?|"
    r"receives|raises|except|exceptions|warns|warnings?|examples?|example usage|usage|see also|references?|methods|"
    r"inputs?|outputs?|shapes?|todo|notes?|tips?|properties|fields|variables|side effects|throws)\s*:{1,2}\s*$",
    re.IGNORECASE,
)
_UNDERLINE = re.compile(r"^([=\-~^\"'*+#])\1{2,}\s*$")
_NOT_PROSE = re.compile(
    r"^(>>>|\.\.\.|\.\. |:[\w ]+[^:]*:|@\w+|```|~~~|\$ |#|\||\+[-=+]+|[-=~^*+]{3,}|[-*+•] |\(?\d+[.)] |"
    r"[A-Za-z_]\w*\s*[=(]|[\w*, `.\[\]]{1,60}\s:\s|"
    r"(returns?|yields?|raises|args|parameters|defaults?|type|example|usage|inputs?|outputs?): )",
    re.IGNORECASE,
)
_FENCE = re.compile(r"^(```|~~~)")
_PROSE_SECTIONS = {"notes", "note", "description", "extended summary", "summary", "warning", "warnings", "overview"}
_ABBREVIATION = re.compile(r"\b((?i:e\.g|i\.e|etc|vs|cf|resp|fig|eq|eqs|approx|ref|refs|dr|al)|[A-Z])\.$")
_END = re.compile(r"[.!?][\"')\]`*]*\s+(?=[\"'(\[`*]*[A-Z0-9_`:*])")


def take_apart(docstring: str) -> tuple[list[str], str]:
    """(sentences of the prose in their order, what is left of the docstring without them).

    The first sentence is the summary where the docstring opens with one. Sentences of fewer than three words
    stay in the rest.
    """
    sentences: list[str] = []
    rest: list[str] = []
    for block, prose in _blocks(inspect.cleandoc(docstring).splitlines()):
        if not prose:
            rest.append("\n".join(block).rstrip())
            continue
        kept: list[str] = []
        for sentence in split_sentences(" ".join(" ".join(block).split())):
            wordy = len(re.findall(r"[^\W\d_]{2,}", sentence)) >= _MIN_WORDS
            (sentences if wordy else kept).append(sentence)
        if kept:
            rest.append(" ".join(kept))
    return sentences, "\n\n".join(block for block in rest if block)


def split_sentences(paragraph: str) -> list[str]:
    """Sentences of a paragraph without line breaks: cut after `.`, `!` or `?` before a capital, a digit or code."""
    sentences = []
    start = 0
    for match in _END.finditer(paragraph):
        head = paragraph[start : match.end()].strip()
        if _ABBREVIATION.search(head) or not head:
            continue
        sentences.append(head)
        start = match.end()
    tail = paragraph[start:].strip()
    return [*sentences, tail] if tail else sentences


def _blocks(lines: list[str]) -> list[tuple[list[str], bool]]:
    """Paragraphs with whether each is prose; a section that is none stays together with its header."""
    blocks: list[tuple[list[str], bool]] = []
    position = 0
    while position < len(lines):
        if not lines[position].strip():
            position += 1
            continue
        end, prose = _block(lines, position)
        blocks.append((lines[position:end], prose))
        position = end
    return blocks


def _block(lines: list[str], start: int) -> tuple[int, bool]:
    """(line after the block that starts here, whether it is prose)."""
    first = lines[start]
    following = lines[start + 1] if start + 1 < len(lines) else ""
    if _FENCE.match(first):
        closing = (n for n in range(start + 1, len(lines)) if _FENCE.match(lines[n].strip()))
        return next(closing, len(lines) - 1) + 1, False
    if _UNDERLINE.match(following) and not first.startswith(" "):
        if first.strip().lower() in _PROSE_SECTIONS:
            return start + 2, False
        return _next_section(lines, start + 2), False
    if _SECTION.match(first):
        return _after_indented(lines, start + 1), False
    if first.startswith((" ", "\t")) or _NOT_PROSE.match(first):
        return _after_indented(lines, start + 1, blank_ends=not first.startswith(".. ")), False
    end = start + 1
    while end < len(lines) and _continues(lines, end):
        end += 1
    return end, True


def _continues(lines: list[str], number: int) -> bool:
    line = lines[number]
    if not line.strip() or line.startswith((" ", "\t")) or _SECTION.match(line) or _NOT_PROSE.match(line):
        return False
    return not (number + 1 < len(lines) and _UNDERLINE.match(lines[number + 1]))


def _after_indented(lines: list[str], start: int, blank_ends: bool = False) -> int:
    """The first flush-left line from here on (or the first after a blank line), else the end."""
    for number in range(start, len(lines)):
        line = lines[number]
        if not line.strip():
            if blank_ends:
                return number
        elif not line.startswith((" ", "\t")):
            return number
    return len(lines)


def _next_section(lines: list[str], start: int) -> int:
    """Where the next underlined header stands, else the end."""
    for number in range(start, len(lines) - 1):
        if lines[number].strip() and _UNDERLINE.match(lines[number + 1]):
            return number
    return len(lines)
