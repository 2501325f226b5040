"""Real clusters on this machine, from their start to the rows of a sweep: over ssh, by `ray job submit`, in a batch."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import clusters
import psutil
import pytest
from clusters import PROJECT, Machine

from results import schema, tables
from results.local import LocalStore

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

SMALLEST = (
    *("--set", "models=[{family: t5, size: 7k}]"),
    *("--set", "identifiers=[{kind: ngram, length: 6}]"),
    *("--set", "data.pairs=[200]"),
    *("--set", "resources.workers=2"),
)
"""Of grids/smoke.yaml: one training, two trials."""


@pytest.fixture
def mark() -> Iterator[str]:
    """What all processes of one test are known by; those that it leaves behind are ended."""
    name = uuid4().hex
    yield name
    clusters.end(name)


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder with a short name: Ray keeps sockets below it, whose paths may have 107 characters."""
    with tempfile.TemporaryDirectory(prefix="gl", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def ray(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ray.scripts.scripts", *arguments]


def call(command: list[str], environment: dict[str, str], cwd: Path = PROJECT) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
    )
    done.stdout = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", done.stdout)
    return done


def trials(results: Path) -> list[dict[str, Any]]:
    return tables.read_rows(LocalStore(root=results), "smoke/trials", schema.TRIALS).to_pylist()


@pytest.fixture
def laptop(root: Path, mark: str) -> dict[str, str]:
    """The environment of the one who starts a cluster; the token is in its home folder."""
    home = root / "laptop"
    (home / "t").mkdir(parents=True)
    environment = clusters.environment(home, mark)
    assert call(ray("get-auth-token", "--generate"), environment).returncode == 0
    return environment


def local_cluster(root: Path, machines: list[Machine], port: int, results: Path) -> Path:
    """docker/cluster-local.yaml with these machines, this port and these results in it, and nothing else changed."""
    text = (PROJECT / "docker" / "cluster-local.yaml").read_text()
    replaced = {
        "cluster_name: gridlaw-local": f"cluster_name: {root.name}",
        "192.168.0.10 ": f"{machines[0].address} ",
        "[192.168.0.11, 192.168.0.12]": str([machine.address for machine in machines[1:]]),
        "ssh_user: ubuntu": f"ssh_user: {os.environ.get('USER') or 'root'}",
        "~/.ssh/id_ed25519": str(machines[0].key),
        "# ssh_proxy_command: nc %h 2222": f"ssh_proxy_command: nc %h {port}",
        "/shared/gridlaw": str(results),
        "6379": str(clusters.free_port()),
    }
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    (root / "cluster.yaml").write_text(text)
    return root / "cluster.yaml"


def test_ray_up_and_ray_submit(root: Path, mark: str, laptop: dict[str, str]) -> None:
    """A head and a worker, each with a home folder and an sshd of its own: the command as typed, and again."""
    clusters.need_ssh()
    results, port = root / "results", clusters.free_port()
    with clusters.machines(root, mark, ["127.0.0.1", "127.0.0.2"], port) as (head, worker):
        cluster = str(local_cluster(root, [head, worker], port, results))
        up = call(ray("up", "-y", "--no-config-cache", cluster), laptop)
        assert up.returncode == 0, up.stdout
        first = call(ray("submit", "--no-config-cache", cluster, "run_grid.py", "grids/smoke.yaml", *quoted()), laptop)
        assert first.returncode == 0, first.stdout
        rows = trials(results)
        assert [row["status"] for row in rows] == ["done", "done"], first.stdout
        assert (head.home / "run_grid.py").exists()
        assert "nodes: 2" in nodes(head, mark, 2)
        for machine in (head, worker):
            there = machine.home / "gridlaw"
            assert (there / "grids" / "smoke.yaml").read_text() == (PROJECT / "grids" / "smoke.yaml").read_text()
            assert (there / "results" / "schema.py").exists()
            assert not [path for path in (there / "results").iterdir() if path.is_dir() and path.name[0] != "_"]
            assert (machine.home / ".ray" / "auth_token").stat().st_mode & 0o077 == 0
        again = call(ray("submit", "--no-config-cache", cluster, "run_grid.py", "grids/smoke.yaml", *quoted()), laptop)
        assert again.returncode == 0, again.stdout
        assert " 0 of them new" in again.stdout
        assert trials(results) == rows
        token = (root / "laptop" / ".ray" / "auth_token").read_text().strip()
        assert all(token not in run.stdout for run in (up, first, again))
        assert not _logs_with(token, root)


def quoted() -> list[str]:
    """The overrides, for a shell: `ray submit` puts what follows the script into its command line as it is."""
    return ["--", *map(shlex.quote, SMALLEST)]


COUNT = """
import sys, time, ray
ray.init(logging_level=50, log_to_driver=False)
end = time.monotonic() + 90
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[1]) and time.monotonic() < end:
    time.sleep(1)
print("nodes:", sum(node["Alive"] for node in ray.nodes()))
"""


def nodes(head: Machine, mark: str, number: int) -> str:
    """How many there are once there are so many: the head starts the others by itself, after `ray up` has ended."""
    environment = clusters.environment(head.home, mark, RAY_ADDRESS="auto", RAY_AUTH_MODE="token")
    return call([str(head.home / "gridlaw-env" / "bin" / "python"), "-c", COUNT, str(number)], environment).stdout


def _logs_with(text: str, root: Path) -> list[Path]:
    """Ray's logs, and ours, that have it."""
    logs = [path for path in root.rglob("*") if path.is_file() and path.suffix in (".log", ".out", ".err")]
    assert logs
    return [path for path in logs if text in path.read_text(errors="replace")]


def test_ray_job_submit_asks_for_the_token(root: Path, mark: str, laptop: dict[str, str]) -> None:
    """A head as cluster.yaml starts it; who has no token, or another one, is sent away."""
    gcs, board = clusters.free_port(), clusters.free_port()
    results = root / "results"
    home = root / "laptop"
    known = laptop | {"RAY_AUTH_MODE": "token", "RAY_ADDRESS": f"http://127.0.0.1:{board}"}
    # The agent that starts the jobs has one port on every machine, and goes without where another Ray holds it.
    ports = (f"--port={gcs}", f"--dashboard-port={board}", f"--dashboard-agent-listen-port={clusters.free_port()}")
    head = {name: value for name, value in known.items() if name != "RAY_ADDRESS"}
    started = call(ray("start", "--head", *ports, "--dashboard-host=127.0.0.1", "--num-cpus=2"), head)
    assert started.returncode == 0, started.stdout
    assert set(listening(board)) == {"127.0.0.1"}

    command = f"{shlex.quote(sys.executable)} run_grid.py grids/smoke.yaml {shlex.join(SMALLEST)}"
    work = ("--working-dir", str(checkout(root)))
    environment = f'{{"env_vars": {{"GRIDLAW_RESULTS": "{results}", "PYTHONPATH": "."}}}}'
    submit = ray("job", "submit", *work, "--runtime-env-json", environment, "--", "sh", "-c", command)
    (root / "stranger").mkdir()
    nobody = known | {"HOME": str(root / "stranger")}
    for stranger in (nobody | {"RAY_AUTH_MODE": "disabled"}, nobody | {"RAY_AUTH_TOKEN": "0" * 64}):
        refused = call(submit, stranger)
        assert refused.returncode != 0
        assert re.search("(?i)authentication token|unauthorized|invalid.*token", refused.stdout), refused.stdout
    assert not results.exists()
    deadline = time.monotonic() + 90
    while "No available agent" in (taken := call(submit, known)).stdout and time.monotonic() < deadline:
        time.sleep(2)  # the head answers before it can start anything
    assert taken.returncode == 0, taken.stdout
    assert "succeeded" in taken.stdout
    assert [row["status"] for row in trials(results)] == ["done", "done"], taken.stdout
    token = (home / ".ray" / "auth_token").read_text().strip()
    assert token not in taken.stdout
    assert not _logs_with(token, root)


def checkout(root: Path) -> Path:
    """The project's own files, as a clone has them: what `--working-dir .` sends."""
    folder = root / "checkout"
    names = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    for name in names.split("\0"):
        if name and (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, folder / name)
    return folder


def listening(port: int) -> list[str]:
    """The addresses at which somebody listens on the port."""
    found = [one for one in psutil.net_connections("tcp") if one.status == "LISTEN" and one.laddr.port == port]
    assert found
    return [one.laddr.ip for one in found]


SRUN = """#!/bin/bash
# A stand-in for SLURM's: every node of the job is this machine.
copies=1
while [[ $1 == --* ]]; do
    [[ $1 == --ntasks=* ]] && copies=${1#*=}
    shift
done
for ((i = 0; i < copies; i++)); do "$@" & done
trap 'kill $(jobs -p)' TERM
wait; wait
"""
SCONTROL = """#!/bin/bash
[[ "$1 $2" == 'show hostnames' ]] && printf '%s\\n' one two
[[ $1 == requeue ]] && echo "$2" >> requeued
exit 0
"""


@pytest.fixture
def slurm(root: Path, mark: str) -> Iterator[dict[str, str]]:
    """The environment of a job on two nodes, in a checkout of the project."""
    folder = checkout(root)
    (folder / ".venv").symlink_to(Path(sys.prefix))
    (root / "bin").mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (root / "bin" / name).write_text(text)
        (root / "bin" / name).chmod(0o755)
    (root / "home").mkdir()
    job = {"SLURM_JOB_ID": str(clusters.free_port()), "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_CPUS_PER_TASK": "1"}
    environment = clusters.environment(root / "home", mark) | job | {"SLURM_SUBMIT_DIR": str(folder)}
    del environment["RAY_TMPDIR"]
    yield environment | {"PATH": f"{root / 'bin'}:{environment['PATH']}", "PYTHONPATH": str(folder)}
    clusters.end(mark)
    shutil.rmtree(f"/tmp/ray-{job['SLURM_JOB_ID']}", ignore_errors=True)


def batch(slurm: dict[str, str], *arguments: str) -> list[str]:
    return ["bash", str(Path(slurm["SLURM_SUBMIT_DIR"]) / "slurm" / "gridlaw.sbatch"), "grids/smoke.yaml", *arguments]


def test_slurm_runs_the_same_command(root: Path, mark: str, slurm: dict[str, str]) -> None:
    done = call(batch(slurm, *SMALLEST), slurm, root)
    folder = Path(slurm["SLURM_SUBMIT_DIR"])
    assert done.returncode == 0, done.stdout
    assert [row["status"] for row in trials(folder / "results")] == ["done", "done"], done.stdout
    assert not (folder / "requeued").exists()
    assert not list((root / "home").glob("*.token"))
    assert not clusters.running(mark), "Ray ends with the job"


@pytest.mark.faults
def test_slurm_puts_a_job_back_that_runs_out_of_time(root: Path, mark: str, slurm: dict[str, str]) -> None:
    folder = Path(slurm["SLURM_SUBMIT_DIR"])
    with (root / "log").open("w") as log:
        job = subprocess.Popen(batch(slurm, *SMALLEST), env=slurm, cwd=root, stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while not (folder / "results" / "steps").exists():
            assert job.poll() is None, (root / "log").read_text()
            assert time.monotonic() < deadline, (root / "log").read_text()
            time.sleep(0.1)
        tokens = list((root / "home").glob("*.token"))
        assert [path.stat().st_mode & 0o777 for path in tokens] == [0o600]
        job.send_signal(signal.SIGTERM)  # what --signal=B:TERM@300 sends to the batch script alone
        assert job.wait(60) != 0
    assert (folder / "requeued").read_text().split() == [slurm["SLURM_JOB_ID"]]
    assert not clusters.running(mark)
    assert trials(folder / "results") == []
