"""Requests: defaults, what is refused before anything runs, and inputs that reproduce the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cost_models.hardware import load_hardware
from cost_models.masks import parse_mask
from cost_models.models import load_model
from cost_models.topology import load_topology
from simulator.request import SimulationRequest
from traces.errors import InputError

HEADS: dict[str, Any] = {"heads": 8, "kv_heads": 2, "head_dim": 64}
BASE: dict[str, Any] = {"seq_len": "8k", "gpus": 4, "topology": "dgx-h100"}
SLIDING = {
    "model_type": "mistral",
    "num_hidden_layers": 2,
    "hidden_size": 512,
    "num_attention_heads": 8,
    "intermediate_size": 64,
    "vocab_size": 100,
    "sliding_window": 4096,
}


def request_of(**options: Any) -> SimulationRequest:
    return SimulationRequest(**(BASE | options))


def test_a_model_gives_its_heads() -> None:
    workload = request_of(model="deepseek-v3", batch=2).resolve().workload
    assert (workload.heads, workload.kv_heads, workload.head_dim, workload.v_head_dim) == (128, 128, 192, 128)
    assert (workload.batch, workload.seq_len, workload.dtype, str(workload.mask)) == (2, 8192, "bf16", "causal")


def test_heads_instead_of_a_model() -> None:
    workload = request_of(**HEADS).resolve().workload
    assert (workload.heads, workload.kv_heads, workload.head_dim, workload.v_head_dim) == (8, 2, 64, 64)
    assert request_of(heads=8, head_dim=64).resolve().workload.kv_heads == 8


def test_objects_are_as_good_as_text() -> None:
    text = request_of(model="yi-34b", mask="sliding-window:window=1k", nodes=1)
    objects = request_of(
        model=load_model("yi-34b"),
        mask=parse_mask("sliding-window:window=1k"),
        topology=load_topology("dgx-h100", 4),
        seq_len=8192,
    )
    assert text.resolve().inputs == objects.resolve().inputs


@pytest.mark.parametrize(
    ("options", "hardware", "topology", "nodes"),
    [
        ({}, "h100-sxm", "dgx-h100", 1),
        ({"gpus": 16}, "h100-sxm", "dgx-h100", 2),
        ({"nodes": 2}, "h100-sxm", "dgx-h100", 2),
        ({"topology": None, "hardware": "h200-sxm"}, "h200-sxm", "hgx-h200", 1),
        ({"topology": None, "hardware": "rtx4090"}, "rtx4090", "pcie-8x", 1),
        ({"topology": "dgx-a100", "hardware": "a100-40"}, "a100-40", "dgx-a100", 1),
        ({"hardware": "mine.toml"}, "mine.toml", "dgx-h100", 1),
    ],
)
def test_places_default_to_each_other(options: dict[str, Any], hardware: str, topology: str, nodes: int) -> None:
    inputs = request_of(**HEADS | options).resolve().inputs
    assert (inputs["hardware"], inputs["topology"], inputs["nodes"]) == (hardware, topology, nodes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "attention has no shape: got neither"),
        ({"model": "yi-34b", "heads": 8}, "both model and heads are given"),
        ({"model": "yi-34b", "head_dim": 8}, "both model and head_dim are given"),
        ({"heads": 8}, "attention has no shape: got heads"),
        ({"kv_heads": 8, "head_dim": 64}, "got kv_heads and head_dim"),
        (HEADS | {"kv_heads": 3}, "do not divide"),
        ({"model": "gpt-5"}, "no such model"),
        (HEADS | {"seq_len": "many"}, "seq_len is not a whole number"),
        (HEADS | {"seq_len": 0}, "seq_len"),
        (HEADS | {"gpus": 0}, "gpus is not a positive whole number"),
        (HEADS | {"gpus": 2**18 + 1}, "at most 262144"),
        (HEADS | {"gpus": 2.0}, "gpus is not a positive whole number"),
        (HEADS | {"batch": -1}, "batch is not a positive whole number"),
        (HEADS | {"head_dim": 0}, "head_dim is not a positive whole number"),
        (HEADS | {"nodes": 3}, "nodes does not divide gpus: got 4 gpus on 3 nodes"),
        (HEADS | {"gpus": 9, "nodes": 1}, "do not fit on the nodes"),
        (HEADS | {"dtype": "int64"}, "dtype"),
        (HEADS | {"mask": "diagonal"}, "unknown mask"),
        (HEADS | {"mask": "document:lengths=1k+2k"}, "lengths do not sum"),
        (HEADS | {"engine": "fast"}, "unknown engine"),
        (HEADS | {"layers": "all"}, "unknown layers"),
        (HEADS | {"layers": "model"}, "layers model needs a model"),
        (HEADS | {"tp": 2}, "tp does not go with layers attention: got 2"),
        ({"model": "yi-34b", "layers": "layer", "zero": 3}, "zero does not go with layers layer"),
        ({"model": "yi-34b", "layers": "layer", "pass_": "step"}, "pass does not go with layers layer: got step"),
        (HEADS | {"pass_": "decode"}, "pass does not go with layers attention: got decode, expected one of both"),
        (HEADS | {"pass_": "sideways"}, "pass does not go with layers attention"),
        (HEADS | {"topology": "nope"}, "no such topology"),
        (HEADS | {"hardware": "a100-80"}, "has other GPUs"),
        (HEADS | {"topology": None}, "neither topology nor hardware is given"),
        (HEADS | {"schedule": "ring:"}, "schedule is malformed"),
        (HEADS | {"topology": load_topology("dgx-h100", 8)}, "topology does not have the ranks asked for"),
    ],
)
def test_refused_before_anything_runs(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        request_of(**options).resolve()


def test_a_topology_without_a_gpu_needs_the_hardware(tmp_path: Any) -> None:
    table = tmp_path / "topo.txt"
    table.write_text("\tGPU0\tGPU1\nGPU0\t X \tPIX\nGPU1\tPIX\t X \n")
    with pytest.raises(InputError, match="does not say which GPU it has; name the hardware"):
        request_of(**HEADS, topology=table, gpus=2).resolve()
    assert request_of(**HEADS, topology=str(table), gpus=2, hardware="l40s").resolve().hardware == "l40s"


@pytest.mark.parametrize("shape", [HEADS, {"model": "llama-3.1-8b"}], ids=["heads", "model"])
def test_inputs_are_json_and_reproduce_the_run(shape: dict[str, Any]) -> None:
    asked = request_of(**shape, schedule="ring:grad=bf16", mask="document:lengths=4k+4k,causal=true", pass_="forward")
    inputs = asked.resolve().inputs
    again = json.loads(json.dumps(inputs))
    again["pass_"] = again.pop("pass")
    assert SimulationRequest(**again).resolve().inputs == inputs


def test_a_window_that_the_mask_does_not_have_is_a_warning(tmp_path: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SLIDING))
    resolved = request_of(model=str(tmp_path)).resolve()
    assert "2 of 2 layers" in resolved.warnings[-1]
    assert "simulated is the mask causal" in resolved.warnings[-1]
    assert request_of(model=str(tmp_path), seq_len=4096).resolve().warnings == resolved.topology.warnings


def test_the_same_cluster_is_found_once() -> None:
    """So that its routes and NCCL's channels are too; other options are another cluster."""
    first = request_of(**HEADS, what_if="nvlink=0.5").resolve().topology
    assert request_of(**HEADS, what_if="nvlink=0.5", mask="full").resolve().topology is first
    others = [request_of(**HEADS, **more).resolve().topology
              for more in ({}, {"what_if": "nvlink=2"}, {"gpus": 8}, {"nccl": ["NCCL_MAX_NCHANNELS=4"]})]  # fmt: skip
    assert len({id(each) for each in (first, *others)}) == 5


def test_a_topology_file_that_has_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "topo.txt"
    for gpus in (4, 2):
        path.write_text(_smi_matrix(gpus))
        resolved = request_of(**HEADS, topology=str(path), hardware="h100-sxm", gpus=2).resolve()
        assert resolved.topology.gpus_per_node == gpus


def _smi_matrix(gpus: int) -> str:
    names = [f"GPU{i}" for i in range(gpus)]
    rows = ["\t".join(["", *names, "CPU Affinity", "NUMA Affinity"])]
    for i, name in enumerate(names):
        rows.append("\t".join([name, *["X" if i == j else "NV18" for j in range(gpus)], "0-31", "0"]))
    return "\n".join(rows) + "\n"


def test_a_pruned_model_is_smaller_everywhere() -> None:
    options = {"model": "llama-3.1-8b", "seq_len": "8k", "gpus": 2, "topology": "dgx-h100"}
    pruned = SimulationRequest(**options, prune="heads=0.5,neurons=0.25").resolve()
    assert (pruned.workload.heads, pruned.workload.kv_heads) == (16, 4)
    assert pruned.model is not None and pruned.model.intermediate == 14336 // 4
    assert pruned.inputs["prune"] == "heads=0.5,neurons=0.25"
    for text, why in (("heads=half", "no shares"), ("heads=0.3", "whole ones"), ("layers=0.5", "layers")):
        with pytest.raises(InputError, match=why):
            SimulationRequest(**options, prune=text).resolve()


def test_attention_in_layers_takes_turns_with_products() -> None:
    alone = SimulationRequest(
        seq_len=16384, gpus=1, heads=32, kv_heads=8, head_dim=128, hardware="h100-sxm", topology="dgx-h100"
    )
    step = SimulationRequest(
        seq_len=16384, gpus=1, model="llama-3.1-8b", layers="model", hardware="h100-sxm", topology="dgx-h100"
    )
    assert alone.resolve().profile == load_hardware("h100-sxm")
    assert step.resolve().profile == load_hardware("h100-sxm").beside_products()
