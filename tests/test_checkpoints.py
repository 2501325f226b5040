"""Checkpoints: one that is torn, of another layout, or no longer what was saved costs no more than the steps since."""

import json
import pickle
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
from conftest import Steps
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from safetensors.torch import save_file
from test_training import job, losses, run, weights

from orchestrator.running import failures
from workers import checkpoints, training
from workers.errors import Diverged, storage_trouble
from workers.settings import TrainJob
from workers.states import Unreadable, read_state, write_state

Damage = Callable[[Path], object]


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """End the training without a word after so many steps, as a kill would."""
    original, done = training._optimizer_step, []

    def dies(*arguments):
        if len(done) == steps:
            raise KeyboardInterrupt
        done.append(1)
        return original(*arguments)

    monkeypatch.setattr(training, "_optimizer_step", dies)


def killed(steps: Steps, out: Path, asked: TrainJob, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, after)
        with pytest.raises(KeyboardInterrupt):
            run(steps, out, asked)


def resumed_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Filled with the step that a training goes on from."""
    found: list[int] = []
    original = checkpoints.restore

    def noted(*arguments):
        engine, progress = original(*arguments)
        found.append(progress.step)
        return engine, progress

    monkeypatch.setattr(checkpoints, "restore", noted)
    return found


def equal(one: Path, two: Path) -> bool:
    first, second = weights(one), weights(two)
    same = first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    return same and losses(one) == losses(two)


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


def overwrite(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


@pytest.mark.parametrize("damage", [cut_short, flip_a_byte, overwrite, Path.unlink])
@pytest.mark.parametrize(("damaged", "left"), [({"step-10"}, 5), ({"step-5", "step-10"}, 0)])
def test_a_torn_checkpoint_falls_back(
    finished_steps: Steps, tmp_path: Path, monkeypatch, capfd, damage: Damage, damaged: set[str], left: int
) -> None:
    asked = job(zero_stage=1)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(finished_steps, whole, asked)
    killed(finished_steps, broken, asked, monkeypatch, after=13)
    assert {path.name for path in broken.glob("step-*")} == {"step-5", "step-10"}, "the one before is kept"
    for name in damaged:
        damage(next((broken / name / "state").glob("*optim_states.pt")))
    found = resumed_at(monkeypatch)
    run(finished_steps, broken, asked)
    assert found == [left]
    said = capfd.readouterr().out
    assert all(f"the checkpoint {name} is torn; it is dropped" in said for name in damaged)
    assert equal(whole, broken)
    assert not list(broken.glob("step-*"))


def test_what_no_marker_names_is_cleared_away(finished_steps: Steps, tmp_path: Path, monkeypatch) -> None:
    """A worker that is killed while it saves leaves a folder without a marker, or with a marker that is no JSON."""
    out = tmp_path / "out"
    killed(finished_steps, out, job(), monkeypatch, after=7)
    shutil.copytree(out / "step-5", out / "step-6")
    (out / "step-6" / checkpoints.MARKER).unlink()
    shutil.copytree(out / "step-5", out / "step-7")
    (out / "step-7" / checkpoints.MARKER).write_text('{"step": 7, "fi')
    found = resumed_at(monkeypatch)
    killed(finished_steps, out, job(), monkeypatch, after=0)
    assert found == [5]
    assert [path.name for path in out.glob("step-*")] == ["step-5"]


def test_one_that_does_not_load_is_dropped(finished_steps: Steps, tmp_path: Path, monkeypatch, capfd) -> None:
    """Whole by every digest, and yet not what this program can load: never an endless failure."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    run(finished_steps, whole, job())
    killed(finished_steps, out, job(), monkeypatch, after=13)
    replace_state(out / "step-10", lambda state: state | {"optimizer": {"state": {}, "param_groups": []}})
    found = resumed_at(monkeypatch)
    run(finished_steps, out, job())
    assert found == [5]
    assert "the checkpoint step-10 does not load: ValueError: loaded state dict" in capfd.readouterr().out
    assert equal(whole, out)


def replace_state(checkpoint: Path, change: Callable[[dict], object]) -> None:
    """Change what a checkpoint's first file holds, and have its marker agree."""
    file = next((checkpoint / "state").glob("*.pt"))
    write_state(file, change(read_state(file)))
    remark(checkpoint)


def remark(checkpoint: Path) -> None:
    marker = json.loads((checkpoint / checkpoints.MARKER).read_text())
    marker["files"] = checkpoints._files(checkpoint / "state", training.ALONE)
    (checkpoint / checkpoints.MARKER).write_text(json.dumps(marker))


def test_trouble_of_the_machine_says_nothing_against_a_checkpoint(finished_steps, tmp_path, monkeypatch) -> None:
    killed(finished_steps, tmp_path / "out", job(), monkeypatch, after=7)
    for error in (MemoryError("no room"), OSError(116, "Stale file handle")):
        with monkeypatch.context() as patch:
            patch.setattr("workers.states.read_state", lambda path, error=error: raises(error))
            with pytest.raises(type(error)):
                run(finished_steps, tmp_path / "out", job())
        assert (tmp_path / "out" / "step-5").is_dir()


def raises(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"zero_stage": 2}, "is of zero_stage 0, now zero_stage 2"),
        ({"precision": "bf16"}, "is of precision fp32, now precision bf16"),
        (
            {"zero_stage": 1, "offload": "optimizer"},
            "is of offload none, zero_stage 0, now offload optimizer, zero_stage 1",
        ),
    ],
)
def test_another_layout_starts_afresh(finished_steps, tmp_path, monkeypatch, capfd, changes, why) -> None:
    out = tmp_path / "out"
    killed(finished_steps, out, job(), monkeypatch, after=7)
    found = resumed_at(monkeypatch)
    killed(finished_steps, out, job(**changes), monkeypatch, after=0)
    assert found == [0]
    assert why in capfd.readouterr().out
    assert not list(out.glob("step-*"))


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("t5", {"zero_stage": 1, "precision": "bf16"}),
        ("llama", {"zero_stage": 2, "precision": "bf16"}),
        ("t5", {"zero_stage": 3, "precision": "bf16"}),
        ("llama", {"precision": "bf16"}),
        ("t5", {"zero_stage": 2, "offload": "optimizer"}),
        ("t5", {"zero_stage": 3, "offload": "parameters"}),
    ],
)
def test_every_layout_resumes_bit_for_bit(finished_steps, tmp_path, monkeypatch, family, changes) -> None:
    asked = job(family, pairs=100, **changes)
    run(finished_steps, tmp_path / "whole", asked)
    killed(finished_steps, tmp_path / "out", asked, monkeypatch, after=8)
    found = resumed_at(monkeypatch)
    run(finished_steps, tmp_path / "out", asked)
    assert found == [5]
    assert equal(tmp_path / "whole", tmp_path / "out")


def test_another_micro_batch_resumes(finished_steps: Steps, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "out"
    run(finished_steps, tmp_path / "whole", job())
    killed(finished_steps, out, job(), monkeypatch, after=7)
    found = resumed_at(monkeypatch)
    metrics = run(finished_steps, out, job(micro_batch=4))
    assert found == [5]
    assert (metrics["micro_batch"], metrics["accumulation"], metrics["steps"]) == (4, 4, 26)
    assert losses(out)[:7] == losses(tmp_path / "whole")[:5] + losses(out)[5:7]
    torch.testing.assert_close(losses(out), losses(tmp_path / "whole"), rtol=1e-3, atol=0)


# ---------------------------------------------------------------- a disk that is full


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """As a full disk or a quota: the system refuses to write beyond `size` bytes of any file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_last_checkpoint_whole(finished_steps: Steps, tmp_path: Path, monkeypatch) -> None:
    """It fills up before the second checkpoint; once there is room, training goes on from the first."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    run(finished_steps, whole, job())
    original = checkpoints.save

    def save(engine, folder, group, layout, progress):
        with no_file_above(10_000 if progress.step == 10 else 10**9):
            original(engine, folder, group, layout, progress)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", save)
        with pytest.raises(Exception) as failed:  # noqa: PT011  of Rust's making, without a class of its own
            run(finished_steps, out, job())
    assert failures.classify(failed.value) == failures.STORAGE
    assert [path.name for path in out.glob("step-*")] == ["step-5"], "what was torn takes no room"
    found = resumed_at(monkeypatch)
    run(finished_steps, out, job())
    assert found == [5]
    assert equal(whole, out)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("may not mount a file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_really_full_disk(finished_steps: Steps, tiny_disk: Path, tmp_path: Path, monkeypatch) -> None:
    whole, out, filler = tmp_path / "whole", tiny_disk / "out", tiny_disk / "filler"
    run(finished_steps, whole, job())
    original = checkpoints.save

    def save(engine, folder, group, layout, progress):
        if progress.step == 10:
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        original(engine, folder, group, layout, progress)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", save)
        with pytest.raises(Exception, match="No space left on device") as failed:
            run(finished_steps, out, job())
    assert failures.classify(failed.value) == failures.STORAGE
    assert [path.name for path in out.glob("step-*")] == ["step-5"]
    filler.unlink()
    run(finished_steps, out, job())
    assert equal(whole, out)


def test_a_disk_that_fills_up_at_the_weights(finished_steps: Steps, tmp_path: Path, monkeypatch) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    run(finished_steps, whole, job())
    original = training.ds.save_weights

    def save_weights(*arguments):
        with no_file_above(10_000):
            original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training.ds, "save_weights", save_weights)
        with pytest.raises(Exception) as failed:  # noqa: PT011
            run(finished_steps, out, job())
    assert failures.classify(failed.value) == failures.STORAGE
    assert storage_trouble(failed.value)
    found = resumed_at(monkeypatch)
    run(finished_steps, out, job())
    assert found == [26], "no step is done again"
    assert equal(whole, out)


# ---------------------------------------------------------------- what diverged


@pytest.mark.parametrize("clip", [1.0, 1e30])
def test_what_diverges_leaves_no_checkpoint_of_it(finished_steps: Steps, tmp_path: Path, clip: float) -> None:
    """A learning rate that no model survives; a checkpoint is due after every step."""
    asked = job(learning_rate=1e38, clip=clip, warmup=0.0, checkpoint_every=1)
    with pytest.raises(Diverged):
        run(finished_steps, tmp_path / "out", asked)
    for checkpoint in (tmp_path / "out").glob("step-*"):
        for file in (checkpoint / "state").glob("*.pt"):
            assert all(tensor.isfinite().all() for tensor in read_state(file)["module"].values())


# ---------------------------------------------------------------- no pickle


class Harmful:
    """Unpickled, it leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, (str(self.trace), "w"))  # type: ignore[return-value]


def torch_zip(file: Path, trace: Path) -> None:
    torch.save(Harmful(trace), file)


def torch_legacy(file: Path, trace: Path) -> None:
    torch.save(Harmful(trace), file, _use_new_zipfile_serialization=False)


def plain_pickle(file: Path, trace: Path) -> None:
    file.write_bytes(pickle.dumps(Harmful(trace)))


@pytest.mark.parametrize("write", [torch_zip, torch_legacy, plain_pickle])
def test_a_pickle_in_a_checkpoint_is_not_run(finished_steps, tmp_path, monkeypatch, capfd, write) -> None:
    """Its marker agrees with it, so it gets as far as being read, and is refused there; training goes on without it."""
    trace, whole, out = tmp_path / "trace", tmp_path / "whole", tmp_path / "out"
    write(tmp_path / "pickle", trace)
    with suppress(RuntimeError):
        torch.load(tmp_path / "pickle", weights_only=False)
    assert trace.exists(), "it would do harm"
    trace.unlink()
    run(finished_steps, whole, job())
    killed(finished_steps, out, job(), monkeypatch, after=7)
    write(out / "step-5" / "state" / "mp_rank_00_model_states.pt", trace)
    remark(out / "step-5")
    run(finished_steps, out, job())
    assert not trace.exists()
    assert "the checkpoint step-5 does not load: Unreadable" in capfd.readouterr().out
    assert equal(whole, out)


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    tied = torch.arange(12.0).reshape(3, 4)
    state = {
        "weights": {"a": tied, "b": tied, "row": torch.ones(2, dtype=torch.bfloat16), "none": torch.zeros(0)},
        "by number": {0: {"step": torch.tensor(3.0)}, 1: torch.arange(6).reshape(2, 3).T},
        "plain": [None, True, 2, 0.5, float("inf"), "text", (1, "two"), {"dict": [], "tensor": 1}, {3}],
        "scaler": LossScaler(4.0),
    }
    write_state(tmp_path / "state.pt", state)
    found = read_state(tmp_path / "state.pt")
    assert found["plain"] == state["plain"]
    assert found["scaler"].cur_scale == 4.0
    assert list(found["by number"]) == [0, 1]
    for one, two in (
        *((found["weights"][name], state["weights"][name]) for name in state["weights"]),
        (found["by number"][0]["step"], state["by number"][0]["step"]),
        (found["by number"][1], state["by number"][1]),
    ):
        assert one.dtype == two.dtype
        assert torch.equal(one, two)
    assert (tmp_path / "state.pt").stat().st_size < 48 + 2 * 4 + 4 + 48 + 2000, "tied weights are there once"


def test_a_state_holds_no_other_objects(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"a checkpoint cannot hold pathlib"):
        write_state(tmp_path / "state.pt", {"path": tmp_path})
    for note in ('{"eval": ["1"]}', '{"tensor": "9"}', "{", '{"LossScaler": {"odd": 1}}', '{"a": 1, "b": 2}'):
        save_file({"0": torch.zeros(1)}, tmp_path / "odd.pt", metadata={"state": note})
        with pytest.raises(Unreadable, match=r"odd\.pt is no state of a training"):
            read_state(tmp_path / "odd.pt")
