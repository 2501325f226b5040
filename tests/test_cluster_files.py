"""The files that start clusters, checked as far as that goes without a cluster, and the doors' part in them."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from clusters import PROJECT

import fit_laws
import run_grid

CLUSTER_FILES = ("cluster.yaml", "docker/cluster-local.yaml")


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((PROJECT / name).read_text())


# ---------------------------------------------------------------- the files


@pytest.mark.parametrize("name", CLUSTER_FILES)
def test_ray_takes_the_cluster_files(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(read(name))
    validate_config(prepared)
    commands = prepared["head_start_ray_commands"]
    assert any("--dashboard-host=127.0.0.1" in command for command in commands)
    assert any("--autoscaling-config=~/ray_bootstrap_config.yaml" in command for command in commands)


def test_ray_refuses_a_key_that_it_does_not_know() -> None:
    """So that the test above means something."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    with pytest.raises(Exception, match="colour"):
        validate_config(prepare_config(read("cluster.yaml") | {"colour": "blue"}))


def test_aws_scales_from_no_gpu_machine_to_eight_on_the_spot_market() -> None:
    config = read("cluster.yaml")
    gpu = config["available_node_types"]["gpu"]
    assert (gpu["min_workers"], gpu["max_workers"], config["max_workers"]) == (0, 8, 8)
    assert gpu["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    head = config["available_node_types"][config["head_node_type"]]
    assert "GPU" not in head["resources"]
    assert "InstanceMarketOptions" not in head["node_config"]
    profiles = {
        resource["Properties"]["InstanceProfileName"]
        for resource in yaml.load((PROJECT / "docker/aws.yaml").read_text(), _Template)["Resources"].values()
        if resource["Type"] == "AWS::IAM::InstanceProfile"
    }
    assert {kind["node_config"]["IamInstanceProfile"]["Name"] for kind in (head, gpu)} == profiles


class _Template(yaml.SafeLoader):
    """CloudFormation's own tags, read as what they are applied to."""


_Template.add_multi_constructor("!", lambda loader, tag, node: loader.construct_scalar(node))


@pytest.mark.parametrize("name", CLUSTER_FILES)
def test_every_module_and_grid_reaches_the_nodes(name: str) -> None:
    """By a mount that has it where it stands in the project, and not by one that holds sweeps' data too."""
    config = read(name)
    home = "/home/ray" if name == "cluster.yaml" else "~"
    mounts = {local: remote for remote, local in config["file_mounts"].items()}
    assert all(remote == f"{home}/gridlaw/{local}" for local, remote in mounts.items() if ".ray" not in local)
    assert mounts["~/.ray/auth_token"] == f"{home}/.ray/auth_token"
    wanted = subprocess.run(
        ["git", "ls-files", "*.py", "*.j2", "grids", "pyproject.toml", "constraints.txt"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    left = {path.split("/")[0] for path in wanted if not any(Path(path).is_relative_to(local) for local in mounts)}
    assert left == {"benchmarks", "tests"}
    assert config["rsync_filter"] == [".gitignore"]
    assert "/*/" in (PROJECT / "results" / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize("name", CLUSTER_FILES)
def test_a_token_is_asked_for_and_stands_in_no_command(name: str) -> None:
    text = (PROJECT / name).read_text()
    assert "RAY_AUTH_MODE=token" in text
    assert "RAY_AUTH_TOKEN" not in text
    assert "0.0.0.0" not in text


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cpu"])
def test_dockerfiles_copy_what_there_is(name: str) -> None:
    text = (PROJECT / "docker" / name).read_text().replace("\\\n", " ")
    instructions = [line.split(maxsplit=1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    known = {"FROM", "ARG", "ENV", "RUN", "COPY", "USER", "WORKDIR", "CMD"}
    assert {word for word, _ in instructions} <= known
    copied = [source for word, rest in instructions if word == "COPY" for source in rest.split()[1:-1]]
    assert {"pyproject.toml", "orchestrator", "workers", "results", "laws", "grids"} <= set(copied)
    assert all((PROJECT / source).exists() for source in copied)
    for command in (rest for word, rest in instructions if word == "RUN"):
        subprocess.run(["bash", "-n", "-c", command], check=True)


def test_both_images_have_one_system_and_one_user() -> None:
    gpu, cpu = ((PROJECT / "docker" / name).read_text() for name in ("Dockerfile", "Dockerfile.cpu"))
    assert re.search(r"^FROM nvidia/cuda:.*-ubuntu24.04$", gpu, re.M)
    assert re.search(r"^FROM ubuntu:24.04$", cpu, re.M)
    assert gpu.count("--uid 1000") == cpu.count("--uid 1000") == 1


# ---------------------------------------------------------------- paths and defaults


def test_a_copy_of_the_script_works_in_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `ray submit` leaves it in the home folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_grid, "__file__", str(tmp_path / "run_grid.py"))
    run_grid.find_project(Path("nowhere.yaml"))
    assert Path.cwd() == tmp_path
    (tmp_path / "grids").mkdir()
    (tmp_path / "grids" / "smoke.yaml").touch()
    run_grid.find_project(Path("grids/smoke.yaml"))
    assert Path.cwd() == tmp_path, "a grid that is here is meant"
    run_grid.find_project(Path("grids/full.yaml"))
    assert Path.cwd() == PROJECT


def test_the_script_itself_stays_where_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_grid.find_project(Path("grids/full.yaml"))
    assert Path.cwd() == tmp_path


def test_results_lie_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRIDLAW_RESULTS", raising=False)
    assert str(run_grid.parser().parse_args(["g.yaml"]).results) == "results"
    with pytest.raises(SystemExit):
        fit_laws.main([])
    monkeypatch.setenv("GRIDLAW_RESULTS", "/shared/gridlaw")
    assert str(run_grid.parser().parse_args(["g.yaml"]).results) == "/shared/gridlaw"
    assert str(run_grid.parser().parse_args(["g.yaml", "--results", "here"]).results) == "here"


def test_laws_are_fitted_to_the_results_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRIDLAW_RESULTS", str(tmp_path / "none"))
    assert fit_laws.main([]) == 2
    assert str(tmp_path / "none") in capsys.readouterr().err
