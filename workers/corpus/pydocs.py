"""API documentation of the standard library and of installed packages, read from their source and never imported.

A document is a public function, class or method with a docstring: its qualified name is the id and, as words, the
title; its text is the signature and what is left of the docstring once the sentences of its prose are taken out.
Those are its queries.
Sentences that stand in more than two docstrings say nothing of one document: they are neither query nor text.
"""

import ast
import gc
import os
import re
import sys
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from workers.corpus.docstrings import take_apart
from workers.corpus.documents import Corpus, Document, Query, clean, normalise, one_line
from workers.corpus.settings import PydocsCorpus
from workers.errors import BadInput

DISTRIBUTION = "gridlaw"
STDLIB = "stdlib"
READER = 1
"""Raised whenever the same source gives other documents."""

_LEFT_OUT = {"test", "tests", "_tests", "idlelib", "idle_test", "lib2to3", "turtledemo"}
_LEFT_OUT |= {"site-packages", "dist-packages"}
_SHARED = 2
"""The most docstrings that a query may stand in (an inherited method often repeats its parent's)."""
_FEW_FILES = 300
"""Up to so many are read in this process: starting others would take longer."""

Row = tuple[str, str, list[str]]
"""(qualified name, text, sentences)"""


def name(settings: PydocsCorpus) -> str:
    """`pydocs`."""
    return settings.source


def is_local(settings: PydocsCorpus) -> bool:
    """Always: only installed files are read."""
    return True


def fingerprint(settings: PydocsCorpus) -> str:
    """SHA-256 over the versions of this Python and of the packages that are read, and of this reader."""
    chosen = sorted({*_packages(settings)})
    distributions = metadata.packages_distributions()
    owners = {canonicalize_name(owner) for package in chosen for owner in distributions.get(package, ())}
    lines = [f"reader=={READER}", "python=={}.{}.{}".format(*sys.version_info[:3]), *chosen]
    lines += [f"{owner}=={metadata.version(owner)}" for owner in sorted(owners)]
    return sha256("\n".join(lines).encode()).hexdigest()


def read(settings: PydocsCorpus) -> Corpus:
    """Every documented public object of the packages that has at least `min_queries` sentences."""
    files = [file for package, paths in sorted(_packages(settings).items()) for file in _modules(package, paths)]
    rows: dict[str, Row] = {}
    for row in _scan(files):
        rows.setdefault(row[0], row)
    shared = Counter(form for _, _, sentences in rows.values() for form in {*map(normalise, sentences)})
    documents = []
    queries: list[Query] = []
    for docid, text, sentences in (rows[key] for key in sorted(rows)):
        own = [sentence for sentence in sentences if shared[normalise(sentence)] <= _SHARED]
        if len(own) >= settings.min_queries:
            documents.append(Document(docid=docid, title=words(docid), text=text))
            queries += [Query(qid=f"{docid}#{n}", text=sentence, docids=(docid,)) for n, sentence in enumerate(own)]
    return Corpus(name=name(settings), documents=tuple(documents), queries=tuple(queries))


def words(qualified: str) -> str:
    """A name as words: `json.JSONDecoder.raw_decode` -> `json JSON Decoder raw decode`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", re.sub(r"[._]+", " ", qualified))
    return " ".join(spaced.split())


def readable(docid: str) -> str:
    """Words apart, dots kept between them; a part without a letter or digit stays as it is."""
    return " ".join(" . ".join(words(part) or part for part in docid.split(".")).split())


# ---------------------------------------------------------------- which files


def requirements(distribution: str = DISTRIBUTION) -> set[str]:
    """Canonical names of all installed distributions that a distribution needs, directly or not, with the extras
    that are asked for (`ray[tune]`) and the markers of this machine. Itself and its own extras are left out."""
    todo = [(canonicalize_name(distribution), "")]
    seen = set(todo)
    while todo:
        current, extra = todo.pop()
        try:
            needs = metadata.requires(current) or []
        except metadata.PackageNotFoundError:
            continue  # wanted by a marker or an extra that the installer resolved otherwise
        for need in map(Requirement, needs):
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                for wanted in ("", *sorted(need.extras)):
                    entry = (canonicalize_name(need.name), wanted)
                    if entry not in seen:
                        seen.add(entry)
                        todo.append(entry)
    return {str(name) for name, _ in seen} - {str(canonicalize_name(distribution))}


def _packages(settings: PydocsCorpus) -> dict[str, list[Path]]:
    """Top-level import name -> where it lies (`stdlib`: the folder). An unknown name in the settings is an error."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    available = {STDLIB: [stdlib]}
    for distribution in sorted(requirements()):
        for package, path in _import_names(distribution):
            available.setdefault(package, []).append(path)
    if settings.packages is None:
        return available
    chosen = {}
    for package in settings.packages:
        paths = available.get(package) or [p for p in (stdlib / package, stdlib / f"{package}.py") if p.exists()]
        if not paths:
            raise BadInput(f"corpus.packages: {package!r} is not in the standard library nor among Gridlaw's packages")
        chosen[package] = paths
    return chosen


def _import_names(distribution: str) -> Iterator[tuple[str, Path]]:
    """(import name, folder or file) of what a distribution installs at the top level, in Python source."""
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        return
    found: dict[str, Path] = {}
    for file in files:
        if file.suffix == ".py" and file.parts[0] != "..":
            top = file.parts[0].removesuffix(".py")
            if top.isidentifier() and top not in found:
                found[top] = Path(str(file.locate())).parents[len(file.parts) - 1] / file.parts[0]
    yield from found.items()


def _modules(package: str, paths: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """(module's name, its file) of every public Python file below the paths that is no test, in sorted order."""
    for path in paths:
        root = path if package == STDLIB else path.parent
        for file in [path] if path.is_file() else sorted(_python_files(path)):
            parts = list(file.relative_to(root).with_suffix("").parts)
            if parts[-1] == "__init__":
                parts.pop()
            if parts and all(part.isidentifier() and not part.startswith("_") for part in parts):
                yield ".".join(parts), str(file)


def _python_files(folder: Path) -> Iterator[Path]:
    for current, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in _LEFT_OUT and not name.startswith("_")]
        yield from (Path(current, name) for name in files if name.endswith(".py"))


# ---------------------------------------------------------------- what stands in a file


def _scan(files: list[tuple[str, str]]) -> Iterator[Row]:
    """Rows of all files in their order, over as many processes as there are cores."""
    if len(files) <= _FEW_FILES:
        yield from scan(files)
        return
    workers = os.cpu_count() or 1
    size = max(1, min(100, len(files) // (4 * workers)))
    chunks = [files[start : start + size] for start in range(0, len(files), size)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for rows in pool.map(scan, chunks):
            yield from rows


def scan(files: list[tuple[str, str]]) -> list[Row]:
    """Rows of some files, in their order."""
    collecting = gc.isenabled()
    gc.disable()  # syntax trees are millions of objects without a cycle: collecting doubles the time
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in the strings of others
            return [row for module, path in files for row in _of_file(module, Path(path))]
    finally:
        if collecting:
            gc.enable()


def _of_file(module: str, path: Path) -> list[Row]:
    """Rows of one file. One that this Python cannot parse (a template, another version's) has none."""
    source = path.read_bytes()
    if b'"""' not in source and b"'''" not in source:
        return []
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return []
    return list(_definitions(tree.body, module))


def _definitions(body: list[ast.stmt], prefix: str) -> Iterator[Row]:
    """Documented public functions, classes and methods of a body, those under `if` and `try` too."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if node.name.startswith("_"):
                continue
            qualified = f"{prefix}.{node.name}"
            docstring = ast.get_docstring(node, clean=False)
            if docstring and docstring.strip():
                sentences, rest = take_apart(clean(docstring).expandtabs())
                text = "\n\n".join(part for part in (signature(node), rest) if part)
                yield qualified, clean(text), [one_line(sentence) for sentence in sentences]
            if isinstance(node, ast.ClassDef):
                yield from _definitions(node.body, qualified)
        elif isinstance(node, ast.If | ast.Try):
            for part in (node.body, node.orelse, *(h.body for h in getattr(node, "handlers", ()))):
                yield from _definitions(part, prefix)


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str:
    """The line that defines the object, on one line and without decorators."""
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(part) for part in (*node.bases, *node.keywords))
        return f"class {node.name}({bases})" if bases else f"class {node.name}"
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    kind = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    return re.sub(r"\s+", " ", f"{kind} {node.name}({ast.unparse(node.args)}){returns}")
