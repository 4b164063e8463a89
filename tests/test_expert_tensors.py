"""What counts as experts, in files with all that may lie beside them: one answer everywhere."""

from pathlib import Path

import numpy as np
import pytest
from expert_files import add_experts
from gguf import GGUFWriter

from golden.files import finish
from golden.models import MODELS
from moestream.engine.model_plan import plan_model
from moestream.forecast.demand import read_demand
from moestream.gguf import GGUFFile
from moestream.models.summary import summarize
from moestream.profiles import Fingerprint
from moestream.streaming.store import ExpertStore

GOLDEN = Path(__file__).parent / "data" / "golden"
N, E, F = 4, 32, 16
EXPERT_BYTES = 3 * E * F * 4


def write(path: Path, shards: int, fused: bool) -> Path:
    """Layers: dense, experts with biases and scales and a shared one, and one that foretells."""
    writer = GGUFWriter(path, "llama", split_max_tensors=5 if shards > 1 else 0)
    writer.add_block_count(3)
    writer.add_uint32("llama.nextn_predict_layers", 1)
    writer.add_expert_used_count(2)
    writer.add_head_count_kv([2, 1, 1])

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(name, np.zeros(shape, np.float32))

    add("token_embd.weight", 8, E)
    add("blk.0.ffn_up.weight", F, E)
    for layer in (1, 2):
        # Before the weights: who takes the first that looks like an expert's gets this.
        add(f"blk.{layer}.ffn_down_exps.scale", N)
        add(f"blk.{layer}.ffn_down_exps.bias", N, E)
        add(f"blk.{layer}.ffn_gate_exps.bias", N, F)
        add(f"blk.{layer}.ffn_up_exps.bias", N, F)
        add(f"blk.{layer}.ffn_down_shexp.weight", E, F)
        add_experts(add, layer, (N, F, E), fused=fused)
    finish(writer)
    return path if path.exists() else min(path.parent.glob(f"{path.stem}-*.gguf"))


@pytest.fixture(params=[(1, False), (1, True), (3, False), (3, True)])
def file(tmp_path: Path, request: pytest.FixtureRequest):
    shards, fused = request.param
    with GGUFFile.open(write(tmp_path / "m.gguf", shards, fused)) as opened:
        assert (len(opened.shards) > 1) == (shards > 1)
        yield opened


def test_biases_scales_and_shared_experts_are_dense(file: GGUFFile) -> None:
    dense = (8 * E + F * E + N * (1 + E + 2 * F) + E * F) * 4
    plan = plan_model("1G", file, num_experts_per_tok=2, kv_bytes=0, process_bytes=0)
    assert (plan.dense_bytes, plan.total_expert_bytes) == (dense, N * EXPERT_BYTES)
    assert plan.floor_bytes == 2 * EXPERT_BYTES


def test_the_store_has_the_layers_that_run(file: GGUFFile) -> None:
    with ExpertStore(file) as store:
        assert list(store.layers) == [1]
        assert (store.num_experts, store.total_bytes) == (N, N * EXPERT_BYTES)
    fingerprint = Fingerprint.of(file)
    assert (fingerprint.num_experts, dict(fingerprint.expert_bytes)) == (N, {1: EXPERT_BYTES})


def test_inspect_counts_the_file_and_what_a_token_uses_of_it(file: GGUFFile) -> None:
    told = summarize(file)
    assert told.sizes.expert_bytes == 2 * N * EXPERT_BYTES
    assert told.sizes.expert_bytes_per_token == 2 * EXPERT_BYTES
    assert told.shape.num_moe_layers == 1
    assert told.shape.num_kv_heads == [2, 1, 1]
    plan = plan_model("1G", file, num_experts_per_tok=2, kv_bytes=0, process_bytes=0)
    assert told.sizes.active_parameters == (plan.dense_bytes + 2 * EXPERT_BYTES) // 4


READ_IN_PART = ("_chexps.weight", "ffn_gate_tid2eid.weight")


@pytest.mark.parametrize("model", [m for m in MODELS if m.experts], ids=lambda m: m.name)
def test_every_architecture_adds_up(model) -> None:
    with GGUFFile.open(GOLDEN / f"{model.name}.gguf") as opened, ExpertStore(opened) as store:
        told, demand = summarize(opened), read_demand(opened, "f32", "f32")
        k = demand.num_experts_per_tok
        plan = plan_model("1G", opened, num_experts_per_tok=k, kv_bytes=0, process_bytes=0)
        assert list(store.layers) == model.moe_layers
        assert store.num_experts == demand.num_experts == model.experts
        assert demand.num_moe_layers == told.shape.num_moe_layers == len(model.moe_layers)
        assert store.total_bytes == plan.total_expert_bytes
        # An embedding that is not the output's too stays in the file.
        read = sum(demand.dense_bytes.values())
        some = any(name.endswith(READ_IN_PART) for name in opened.tensors)
        assert plan.dense_bytes >= read if some else plan.dense_bytes == read
        per_token = {store.token_bytes(k), plan.floor_bytes, sum(demand.expert_bytes.values())}
        assert per_token == {told.sizes.expert_bytes_per_token}
