"""Which machines a step is given: what fits, what is cheapest of it, and one clear line where nothing does."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.grid import Loaded, load
from orchestrator.nodes import Demand, Node
from orchestrator.placing.cuts import best_cut, cuts, kinds_of, placed_cut, usable
from orchestrator.placing.placement import demands
from orchestrator.placing.sizes import Sizes, sizes_of
from orchestrator.resources import GIB, GPUS, nodes_of, this_machine
from orchestrator.running.fitting import fitted
from orchestrator.steps import Graph, Step, expand, recipe_of
from workers.errors import BadInput
from workers.settings import TrainJob
from workers.training_memory import PROCESS

GRID = """
name: placed
corpus: {source: hf, path: some/where, columns: {text: t, query: q}}
identifiers: [{kind: ngram, length: 10}]
models:
  - {family: t5, pretrained: [google-t5/t5-small, google-t5/t5-large, google-t5/t5-3b, google-t5/t5-11b]}
  - {family: llama, pretrained: [meta-llama/Llama-2-7b-hf, meta-llama/Llama-2-13b-hf, meta-llama/Llama-2-70b-hf]}
data: {pairs: [1000]}
inference: {beams: [1, 100]}
training: {batch: 1024, learning_rate: 1e-4}
evaluation: {batch: 16}
resources:
  cluster: [{nodes: 8, gpus: 8, gpu: A100-80GB, cpus: 128, memory_gb: 2048, price_per_hour: 32}]
"""
SMALL = "models=[{family: t5, size: [7k, 17m]}]"
T5_11B = "models=[{family: t5, pretrained: google-t5/t5-11b}]"
UP_TO_13B = "models.1.pretrained=[meta-llama/Llama-2-7b-hf, meta-llama/Llama-2-13b-hf]"
LLAMA_7B = "models=[{family: llama, pretrained: meta-llama/Llama-2-7b-hf}]"


def loaded(tmp_path: Path, *overrides: str) -> Loaded:
    (tmp_path / "grid.yaml").write_text(GRID)
    return load(tmp_path / "grid.yaml", overrides)


def place(tmp_path: Path, *overrides: str) -> tuple[Loaded, Graph, dict[str, Demand]]:
    grid = loaded(tmp_path, *overrides)
    graph = expand(grid.grid)
    return grid, graph, demands(graph, grid, nodes_of(grid.grid.resources))


def training_steps(graph: Graph) -> list[tuple[Step, Sizes, TrainJob]]:
    found = []
    for step in graph.steps.values():
        if isinstance(step.settings, TrainJob):
            sizes = sizes_of(graph, step)
            assert sizes is not None
            found.append((step, sizes, step.settings))
    return found


def trainings(graph: Graph, found: dict[str, Demand]) -> dict[str, Demand]:
    """Model -> its training's."""
    return {job.model.label: found[step.key] for step, _, job in training_steps(graph)}


def cluster(gpu: str, nodes: int = 1, gpus: int = 8, memory: int = 2048) -> str:
    return f"resources.cluster=[{{nodes: {nodes}, gpus: {gpus}, gpu: {gpu}, cpus: 128, memory_gb: {memory}}}]"


# ---------------------------------------------------------------- what is chosen


def test_models_of_a_paper_on_its_cluster(tmp_path: Path) -> None:
    """Small ones share a GPU, large ones are spread over a node, the largest in stage 3."""
    _, graph, found = place(tmp_path)
    chosen = trainings(graph, found)
    assert chosen["t5-small"].gpus == 0.125
    for name in ("t5-large", "t5-3b"):
        assert (chosen[name].workers, chosen[name].gpus, chosen[name].zero_stage) == (1, 1.0, 0)
    for name in ("t5-11b", "Llama-2-7b-hf", "Llama-2-13b-hf"):
        assert 1 < chosen[name].workers <= 8, "one node is enough"
        assert chosen[name].zero_stage >= 1
        assert chosen[name].offload == "none"
    assert chosen["Llama-2-70b-hf"].zero_stage == 3


@pytest.mark.parametrize("gpu", ["L4-24GB", "A100-40GB", "H200-141GB"])
def test_what_is_chosen_fits_by_the_formula(tmp_path: Path, gpu: str) -> None:
    """And with the most pairs at a time that fit."""
    grid, graph, found = place(tmp_path, cluster(gpu, nodes=4), UP_TO_13B)
    nodes = nodes_of(grid.grid.resources)
    for step, sizes, job in training_steps(graph):
        demand = found[step.key]
        wanted = (demand.workers, demand.zero_stage, demand.offload, demand.gpus)
        all_cuts = cuts(sizes, job.training, grid.grid.resources, kinds_of(nodes)[0])
        memory = next(
            cut.memory
            for cut in all_cuts
            if (cut.memory.workers, cut.memory.stage, cut.memory.offload, cut.gpus) == wanted
        )
        assert demand.micro_batch is not None
        room, share = usable(GPUS[gpu].memory, min(1, demand.gpus)), 1024 // demand.workers
        assert memory.on_gpu(demand.micro_batch) <= room
        assert share % demand.micro_batch == 0
        assert demand.micro_batch == share or memory.on_gpu(2 * demand.micro_batch) > room
        assert demand.memory >= 4 * memory.parameters
        assert sum(node.memory // demand.memory for node in nodes) >= demand.workers


def test_a_larger_gpu_needs_fewer_of_them(tmp_path: Path) -> None:
    spent = []
    for gpu in ("A100-40GB", "A100-80GB", "H200-141GB"):
        _, graph, found = place(tmp_path, cluster(gpu), LLAMA_7B)
        demand = trainings(graph, found)["Llama-2-7b-hf"]
        spent.append((demand.workers, demand.zero_stage))
    assert spent == sorted(spent, reverse=True)
    assert spent[0] > spent[-1]


def test_offload_where_gpus_are_few(tmp_path: Path) -> None:
    _, graph, found = place(tmp_path, cluster("A100-40GB", gpus=1), LLAMA_7B)
    demand = trainings(graph, found)["Llama-2-7b-hf"]
    assert (demand.workers, demand.offload) == (1, "optimizer")
    assert demand.memory > 20 * 6.7e9, "the optimizer is in RAM"


def test_several_small_trainings_share_a_node(tmp_path: Path) -> None:
    _, graph, found = place(tmp_path, SMALL, cluster("A100-80GB"))
    small = trainings(graph, found)["t5-7k"]
    assert small.gpus == 0.125
    assert 64 * small.memory < 2048 * GIB, "an eighth of each of eight GPUs"


@pytest.mark.parametrize(("memory", "nodes"), [(2048, 1), (110, 4)])
def test_ram_decides_how_many_go_on_a_node(tmp_path: Path, memory: int, nodes: int) -> None:
    """Each worker builds the whole model in RAM: of eight GPUs two are used where RAM holds two models."""
    grid, graph, found = place(
        tmp_path, cluster("A100-80GB", nodes=8, memory=memory), T5_11B, "resources.workers_per_training=8"
    )
    step, sizes, job = training_steps(graph)[0]
    cut = best_cut(sizes, job.training, grid.grid.resources, kinds_of(nodes_of(grid.grid.resources)))
    assert cut is not None
    assert cut.nodes == nodes
    assert found[step.key].workers == 8


def test_all_evaluations_of_a_training_are_given_the_same(tmp_path: Path) -> None:
    _, graph, found = place(tmp_path, "training.precision=fp32", "evaluation.batch=null")
    given: dict[str, set[Demand]] = {}
    for key, step in graph.steps.items():
        if step.kind in ("score", "search"):
            given.setdefault(dict(step.needs)["train"], set()).add(found[key])
    assert all(len(each) == 1 for each in given.values())
    gpus = {job.model.label: next(iter(given[step.key])).gpus for step, _, job in training_steps(graph)}
    assert gpus["t5-small"] < gpus["Llama-2-7b-hf"] <= 1 < gpus["Llama-2-70b-hf"]
    assert gpus["Llama-2-70b-hf"] == 8, "257 GiB of weights"
    assert all(demand.workers == 1 for each in given.values() for demand in each)


def test_steps_without_a_model_take_no_gpu(tmp_path: Path) -> None:
    encoder = "identifiers=[{kind: codebook, embedding: some/encoder}, {kind: ngram}]"
    _, graph, found = place(tmp_path, SMALL, encoder)
    for key, step in graph.steps.items():
        if step.kind in ("corpus", "tokenizer", "embeddings", "baselines"):
            assert found[key].gpus == 0
            assert found[key].memory > 0
    made = sorted(found[key].gpus for key, step in graph.steps.items() if step.kind == "identifiers")
    assert made == [0.0, 1.0], "an encoder has a GPU"


def test_of_two_kinds_of_gpu_the_small_one_has_the_small_model(tmp_path: Path) -> None:
    kinds = [f"{{gpus: 4, gpu: {gpu}, cpus: 64, memory_gb: 512}}" for gpu in ("H100-80GB", "L4-24GB")]
    both = "models=[{family: t5, size: 17m}, {family: t5, pretrained: google-t5/t5-11b}]"
    _, graph, found = place(tmp_path, f"resources.cluster=[{', '.join(kinds)}]", both, "training.batch=32")
    chosen = trainings(graph, found)
    assert chosen["t5-17m"].gpu_bytes == GPUS["L4-24GB"].memory
    assert chosen["t5-11b"].gpu_bytes == GPUS["H100-80GB"].memory


# ---------------------------------------------------------------- what is given


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["training.zero_stage=3"], {"zero_stage": 3}),
        (["training.zero_stage=2", "training.offload=optimizer"], {"zero_stage": 2, "offload": "optimizer"}),
        (["training.offload=parameters"], {"zero_stage": 3, "offload": "parameters"}),
        (["resources.workers_per_training=16"], {"workers": 16}),
        (["training.micro_batch=4"], {"micro_batch": 4}),
        (["resources.gpus_per_worker=1"], {"gpus": 1.0}),
        (["resources.gpus_per_worker=0.5"], {"gpus": 0.5}),
    ],
)
def test_what_the_grid_says_is_kept(tmp_path: Path, overrides: list[str], wanted: dict) -> None:
    _, graph, found = place(tmp_path, SMALL, *overrides)
    for demand in trainings(graph, found).values():
        assert {name: getattr(demand, name) for name in wanted} == wanted


def test_workers_are_no_more_than_the_grid_has(tmp_path: Path) -> None:
    _, graph, found = place(tmp_path, T5_11B, "resources.workers=4")
    assert trainings(graph, found)["t5-11b"].workers <= 4


def test_a_worker_is_handed_what_was_chosen(tmp_path: Path) -> None:
    _, graph, found = place(tmp_path)
    for key, step in graph.steps.items():
        demand = found[key]
        ready = fitted(step.settings, demand, demand.workers, 0)
        if isinstance(ready, TrainJob):
            training = ready.training
            assert (training.zero_stage, training.offload) == (demand.zero_stage, demand.offload)
            assert training.micro_batch == demand.micro_batch
            assert training.batch % (training.micro_batch * demand.workers) == 0
        else:
            assert ready is step.settings


def test_keys_say_nothing_of_the_machine(tmp_path: Path) -> None:
    """What `auto` chooses is in no key, and to ask for the defaults is to ask for the same."""

    def keys(*overrides: str) -> tuple[list[str], str]:
        graph = expand(loaded(tmp_path, SMALL, *overrides).grid)
        return list(graph.steps), recipe_of(graph, graph.trials[0])

    assert (
        keys()
        == keys("resources.cluster=null")
        == keys("training.zero_stage=0", "training.offload=none", "resources.workers_per_training=1")
        == keys(cluster("L4-24GB", gpus=2), "resources.gpus_per_worker=0.5")
    )
    different = [
        keys("training.zero_stage=1"),
        keys("training.micro_batch=4"),
        keys("resources.workers_per_training=2"),
        keys("training.offload=optimizer"),
    ]
    assert all(each[0] != keys()[0] and each[1] != keys()[1] for each in different)


# ---------------------------------------------------------------- CPUs


def on_cpus(tmp_path: Path, memory: float, *overrides: str) -> dict[str, Demand]:
    grid = loaded(tmp_path, SMALL, "training.batch=32", "resources.cluster=null", *overrides)
    graph = expand(grid.grid)
    node = Node(id="a", name="a", cpus=2, memory=int(memory * GIB))
    return trainings(graph, demands(graph, grid, [node]))


def test_on_a_cpu_the_whole_share_goes_at_once(tmp_path: Path) -> None:
    for demand in on_cpus(tmp_path, 8).values():
        assert (demand.workers, demand.gpus, demand.zero_stage, demand.offload) == (1, 0, 0, "none")
        assert demand.micro_batch is None, "nothing is changed of what the grid says"
        assert demand.memory > PROCESS
    assert on_cpus(tmp_path, 8, "resources.workers_per_training=2")["t5-7k"].workers == 2


def test_on_a_cpu_larger_models_need_more_ram(tmp_path: Path) -> None:
    small, large = on_cpus(tmp_path, 8).values()
    assert small.memory < large.memory - 300e6
    cramped = on_cpus(tmp_path, large.memory / GIB - 0.1)["t5-17m"]
    assert cramped.micro_batch == 16
    assert cramped.memory < large.memory


def test_a_node_without_the_ram_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"models\.0\.size: t5-17m needs 1\.\d GB of RAM a worker; the .* has 0\.9 GB"):
        on_cpus(tmp_path, 0.9)


def test_gpus_may_be_left_alone(tmp_path: Path) -> None:
    _, _, found = place(tmp_path, SMALL, "resources.gpus_per_worker=0")
    assert all(demand.gpus == 0 for demand in found.values())


# ---------------------------------------------------------------- refusals


def refused(tmp_path: Path, *overrides: str) -> str:
    with pytest.raises(BadInput) as caught:
        place(tmp_path, *overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_fits_nowhere_is_told_with_what_would(tmp_path: Path) -> None:
    """And what is said to do does."""
    two = "models=[{family: t5, pretrained: google-t5/t5-3b}, {family: llama, pretrained: meta-llama/Llama-2-70b-hf}]"
    line = refused(tmp_path, two, cluster("A100-40GB", gpus=2, memory=512))
    assert line.startswith("--set: models.1.pretrained: Llama-2-70b-hf needs ")
    assert "there are 2 x 39 GB (A100-40GB)" in line
    more = re.search(r"(\d+) GPUs in (\d+) nodes", line)
    assert more, line
    grid = loaded(tmp_path, two, cluster("A100-40GB", nodes=int(more[2]), gpus=2, memory=512))
    graph = expand(grid.grid)
    _, sizes, job = training_steps(graph)[-1]
    assert best_cut(sizes, job.training, grid.grid.resources, kinds_of(nodes_of(grid.grid.resources)))


def test_a_larger_gpu_is_named_where_it_would_do(tmp_path: Path) -> None:
    line = refused(tmp_path, LLAMA_7B, "training.offload=none", cluster("A100-40GB", gpus=2))
    wanted = re.search(r"\b2 of (\d+) GB", line)
    assert wanted, line
    larger = f"resources.cluster=[{{gpus: 2, gpu: any, gpu_memory_gb: {wanted[1]}, cpus: 64, memory_gb: 2048}}]"
    place(tmp_path, LLAMA_7B, "training.offload=none", larger)


@pytest.mark.parametrize(
    ("override", "does"),
    [
        ("training.micro_batch=512", "training.micro_batch=null"),
        ("resources.workers_per_training=1", "resources.workers_per_training=auto"),
        ("training.zero_stage=0", "training.zero_stage=auto"),
    ],
)
def test_a_setting_that_is_in_the_way_is_named(tmp_path: Path, override: str, does: str) -> None:
    line = refused(tmp_path, LLAMA_7B, "training.offload=none", override)
    assert does in line
    place(tmp_path, LLAMA_7B, "training.offload=none", override, does)


def test_short_ram_is_told_as_such(tmp_path: Path) -> None:
    line = refused(tmp_path, T5_11B, cluster("A100-80GB", memory=32))
    assert re.search(r"t5-11b needs \d+ GB of RAM a worker.* in nodes of 32 GB RAM", line), line


def test_an_evaluation_that_fits_nowhere(tmp_path: Path) -> None:
    line = refused(tmp_path, T5_11B, "training.offload=parameters", cluster("T4-16GB", gpus=2))
    assert "t5-11b needs " in line
    assert "evaluation.batch below 16" in line


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("resources.cluster=[{gpus: 2, gpu: odd, cpus: 1, memory_gb: 1}]", "the GPUs' memory of 'odd' is not known"),
        ("resources.cluster=[]", "resources.cluster: holds no machine"),
        ("resources.cluster=[{cpus: 2, memory_gb: 1, price_an_hour: 3}]", "did you mean `price_per_hour`"),
        ("resources.gpus_per_worker=0.3", "gpus_per_worker: must be `auto` or 0, an eighth"),
        ("resources.workers_per_training=0", "workers_per_training: must be `auto` or a whole number from 1 on, not 0"),
        ("training.zero_stage=4", "training.zero_stage: must be `auto` or a stage from 0 to 3, not 4"),
        ("training.offload=all", "training.offload: must be `auto` or one of none, optimizer, parameters, not 'all'"),
        ("training={offload: parameters, zero_stage: 1}", "`offload: parameters` needs `zero_stage: 3` or more"),
    ],
)
def test_what_the_grid_may_not_say(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        loaded(tmp_path, override)


def test_the_price_of_a_node(tmp_path: Path) -> None:
    resources = loaded(tmp_path).grid.resources
    nodes = nodes_of(resources)
    assert len(nodes) == 8
    assert {resources.price_of(node.name) for node in nodes} == {32}
    assert resources.price_of("10.0.0.3") is None
    assert [replace(node, id="", name="") for node in nodes[1:]] == [replace(nodes[0], id="", name="")] * 7


def test_this_machine_is_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its GPUs are those that the driver tells of."""
    monkeypatch.setenv("PATH", str(tmp_path))
    alone = this_machine()
    assert alone.cpus >= 1
    assert alone.memory > GIB / 4
    assert (alone.gpus, alone.gpu_bytes, alone.device) == (0, 0, "cpu")
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA L4, 23034'\necho 'NVIDIA L4, 23034'\n")
    program.chmod(0o755)
    assert this_machine() == replace(alone, gpus=2, gpu_bytes=23034 * 2**20, device="NVIDIA L4")
    program.write_text("#!/bin/sh\necho 'no driver'\nexit 9\n")
    assert this_machine() == alone


def test_a_cut_across_nodes_costs_more(tmp_path: Path) -> None:
    grid, graph, _ = place(tmp_path, LLAMA_7B)
    _, sizes, job = training_steps(graph)[0]
    kind = kinds_of(nodes_of(grid.grid.resources))[0]
    far = replace(kind, nodes=tuple(replace(node, gpus=1) for node in kind.nodes))
    compared = 0
    for cut in cuts(sizes, job.training, grid.grid.resources, kind):
        here, there = (placed_cut(replace(cut, kind=each), job.training, grid.grid.resources) for each in (kind, far))
        if here and there and 1 < cut.memory.workers <= 8:
            compared += 1
            assert here.nodes == 1 < there.nodes
            assert here.gpu_seconds < there.gpu_seconds
    assert compared > 3
