"""Nothing that lies in the results folder is ever unpickled: files there may come from anybody."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Trainer

from workers.errors import BadInput
from workers.models import build
from workers.ragged import Ragged
from workers.retrieval import load_trained

ROOT = Path(__file__).parent.parent
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS = {"torch.load", "pd.read_pickle", "torch.jit.load", "hub.load"}
ARGUMENTS = {"allow_pickle", "trust_remote_code"}


def sources() -> list[Path]:
    folders = [ROOT / name for name in ("results", "workers", "orchestrator", "laws")]
    return [path for folder in folders for path in folder.rglob("*.py")] + [ROOT / "run_grid.py", ROOT / "fit_laws.py"]


def unpickling(tree: ast.AST) -> list[str]:
    """What in a source can read a pickle, or run code that came with a model."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [each.name for each in node.names if each.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            found.append(str(node.module))
        elif isinstance(node, ast.Call):
            if ast.unparse(node.func) in CALLS:
                found.append(ast.unparse(node.func))
            given = [each for each in node.keywords if each.arg in ARGUMENTS]
            found += [ast.unparse(each) for each in given if ast.unparse(each.value) != "False"]
    return found


def test_no_source_unpickles() -> None:
    assert len(sources()) > 100
    assert {path.name: bad for path in sources() if (bad := unpickling(ast.parse(path.read_text())))} == {}


def test_the_search_of_sources_finds_something() -> None:
    for text in ("import pickle", "from joblib import load", "torch.load(x)", "np.load(x, allow_pickle=True)"):
        assert unpickling(ast.parse(text))
    assert not unpickling(ast.parse("np.load(x, allow_pickle=False)"))


def test_pickled_weights_are_refused(trained: Trainer, tmp_path: Path) -> None:
    """Also where nothing else is there, and where the pickle is named as transformers would name it."""
    original = trained("t5", "ngram")["train"] / "weights"
    folder = tmp_path / "weights"
    folder.mkdir()
    for file in original.iterdir():
        if file.suffix == ".json":
            (folder / file.name).write_bytes(file.read_bytes())
    torch.save(build.load(original).state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(OSError, match=r"model\.safetensors"):
        build.load(folder)


def test_a_pickled_array_is_refused(tmp_path: Path) -> None:
    Ragged.of([np.arange(3)]).save(tmp_path, "texts")
    assert len(Ragged.load(tmp_path, "texts")) == 1
    np.save(tmp_path / "texts_offsets.npy", np.array([{"an": "object"}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        Ragged.load(tmp_path, "texts")


def test_dropped_weights_are_named_as_such(trained: Trainer, tmp_path: Path) -> None:
    folders = trained("t5", "ngram")
    (tmp_path / "metrics.json").write_bytes((folders["train"] / "metrics.json").read_bytes())
    with pytest.raises(BadInput, match=r"training\.keep_weights: the weights of the training .* were dropped"):
        load_trained(**{**folders, "train": tmp_path})
