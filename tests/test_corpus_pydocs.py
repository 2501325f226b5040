"""API documentation as a corpus: what is read, which sentences become queries, and what is left as text."""

import os
import textwrap
from pathlib import Path

import pytest

from workers import corpus
from workers.corpus import pydocs
from workers.corpus.docstrings import split_sentences, take_apart
from workers.corpus.settings import PydocsCorpus
from workers.errors import BadInput

GOOGLE = """Scale a vector to unit length.

    The zero vector, e.g. one that Alice made, is returned as it is. Short one.
    It wraps over
    two lines!  Is it so?

    Args:
        x: The vector. It is not changed here.

    Returns:
        Another vector of the same length.

    .. note::
        This is a directive of two lines and
        stays in the text.

    - A list item is no sentence.

    >>> scale([1, 1])

    This closing sentence is prose again
    """

NUMPY = """Return the roots of a polynomial.

    Parameters
    ----------
    p : array_like
        Coefficients of the polynomial to solve.

    Notes
    -----
    The companion matrix is used here. See [1]_ for details.

    Examples
    --------
    A sentence that stands among the examples.
    >>> roots([1, 2])
    """


def test_google_layout() -> None:
    sentences, rest = take_apart(GOOGLE)
    assert sentences == [
        "Scale a vector to unit length.",
        "The zero vector, e.g. one that Alice made, is returned as it is.",
        "It wraps over two lines!",
        "Is it so?",
        "This closing sentence is prose again",
    ]
    for kept in ("Short one.", "It is not changed here.", "Another vector", "stays in the text", "A list item", ">>>"):
        assert kept in rest
    assert not any(sentence in " ".join(rest.split()) for sentence in sentences)


def test_numpy_layout() -> None:
    sentences, rest = take_apart(NUMPY)
    assert sentences == [
        "Return the roots of a polynomial.",
        "The companion matrix is used here.",
        "See [1]_ for details.",
    ]
    assert "Coefficients of the polynomial" in rest
    assert "among the examples" in rest


@pytest.mark.parametrize("text", ["", "\n\n", "x", "Args:", "```\nopen fence", "----\n----", ".. note::", "a\n===\n"])
def test_odd_docstrings_are_taken(text: str) -> None:
    sentences, rest = take_apart(text)
    assert isinstance(rest, str)
    assert all(sentences)


def test_sentences() -> None:
    assert split_sentences("Uses J. Smith's rule, i.e. Two. Then `x` ends.") == [
        "Uses J. Smith's rule, i.e. Two.",
        "Then `x` ends.",
    ]
    assert split_sentences("Version 1.2 is old.  It goes.") == ["Version 1.2 is old.", "It goes."]


SOURCE = '''
def plain(a, b: int = 2, *rest, key=None, **more) -> str:
    """Join all of the parts. Give back the whole."""

def _hidden():
    """Nobody should ever see this."""

def silent():
    return 1

class Box(Base, metaclass=Meta):
    """Hold one value at most."""
    def open(self):
        """Open the lid of the box."""
    class Inner:
        async def wait(self):
            """Wait until someone has come."""
try:
    pass
except ImportError:
    def fallback():
        """Stand in for something else."""
'''


def test_definitions(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(SOURCE)
    (tmp_path / "broken.py").write_text('"""x"""\ndef (:')
    (tmp_path / "nul.py").write_bytes(b'"""x"""\0')
    rows = pydocs.scan(
        [("pkg.m", str(tmp_path / "m.py")), *(("x", str(tmp_path / f)) for f in ("broken.py", "nul.py"))]
    )
    assert [row[0] for row in rows] == [
        "pkg.m.plain",
        "pkg.m.Box",
        "pkg.m.Box.open",
        "pkg.m.Box.Inner.wait",
        "pkg.m.fallback",
    ]
    assert rows[0][1] == "def plain(a, b: int=2, *rest, key=None, **more) -> str"
    assert rows[0][2] == ["Join all of the parts.", "Give back the whole."]
    assert rows[1][1] == "class Box(Base, metaclass=Meta)"
    assert rows[3][1].startswith("async def wait")


def test_names_as_words() -> None:
    assert pydocs.words("json.JSONDecoder.raw_decode") == "json JSON Decoder raw decode"


def test_the_standard_library_is_read_but_its_tests_are_not() -> None:
    settings = PydocsCorpus(source="pydocs", packages=("json", "unittest"), min_queries=1)
    read = pydocs.read(settings)
    ids = {document.docid for document in read.documents}
    assert "json.dumps" in ids
    assert "unittest.case.TestCase.assertEqual" in ids
    assert not any(".test." in docid or ".tests." in docid or "._" in docid for docid in ids)
    dumps = next(document for document in read.documents if document.docid == "json.dumps")
    mine = [query.text for query in read.queries if query.docids == ("json.dumps",)]
    assert mine[0] == "Serialize ``obj`` to a JSON formatted ``str``."
    assert dumps.text.startswith("def dumps(obj, *, skipkeys=False")
    assert mine[0] not in dumps.text


def test_several_processes_read_what_one_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = PydocsCorpus(source="pydocs", packages=("email",))
    alone = pydocs.read(settings)
    monkeypatch.setattr(pydocs, "_FEW_FILES", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert pydocs.read(settings) == alone


def test_requirements_follow_extras_and_leave_development_out() -> None:
    needed = pydocs.requirements()
    assert {"torch", "ray", "numpy", "requests", "packaging"} <= needed
    assert "tensorboardx" in needed  # of ray[tune] alone
    assert not {"gridlaw", "pytest", "ruff", "mypy"} & needed


def test_fingerprint_follows_the_packages() -> None:
    one, two = (PydocsCorpus(source="pydocs", packages=(name,)) for name in ("yaml", "tqdm"))
    assert corpus.fingerprint(one) != corpus.fingerprint(two)


def test_unknown_package() -> None:
    with pytest.raises(BadInput, match=r"corpus\.packages: 'nosuch'"):
        pydocs.read(PydocsCorpus(source="pydocs", packages=("nosuch",)))


def test_nothing_is_imported(tmp_path: Path) -> None:
    path = tmp_path / "trap.py"
    path.write_text(textwrap.dedent('def f():\n    """Say what it does."""\nraise SystemExit(3)\n'))
    assert [row[0] for row in pydocs.scan([("trap", str(path))])] == ["trap.f"]
