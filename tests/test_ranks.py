"""How layers are divided among machines, and what ranks say to each other."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from command_line import run
from hypothesis import given, settings
from hypothesis import strategies as st
from streamed import GOLDEN

from moestream.errors import RankError
from moestream.gguf import GGUFFile
from moestream.models import read_config, used_names
from moestream.models.part import names_of
from moestream.ranks.costs import Costs
from moestream.ranks.division import LayerCost, Machine, divide, lacking
from moestream.ranks.hello import Hello, require_alike
from moestream.ranks.launch import launched
from moestream.ranks.message import Kind, Message, bytes_to_come, decode, encode

LAYER = LayerCost(10, 100, 30)
NO_ENDS = LayerCost(0, 0, 0)


def lengths(layers, ends, *machines: Machine) -> list[int]:
    return [len(part) for part in divide(layers, ends, machines)]


def test_machines_that_are_alike_get_the_same():
    assert lengths([LAYER] * 8, NO_ENDS, Machine(10_000, 1), Machine(10_000, 1.2)) == [4, 4]


def test_a_fast_machine_gets_more():
    assert lengths([LAYER] * 8, NO_ENDS, Machine(10_000, 3), Machine(10_000, 1)) == [6, 2]


def test_what_has_room_is_not_streamed():
    assert lengths([LAYER] * 8, NO_ENDS, Machine(700, 1), Machine(220, 9)) == [6, 2]


def test_all_stream_the_same_share_where_all_must():
    """Though the first has the output's work besides."""
    ends = LayerCost(0, 0, 60)
    assert lengths([LAYER] * 8, ends, Machine(240, 1), Machine(240, 1)) == [4, 4]
    assert lengths([LAYER] * 8, ends, Machine(440, 1), Machine(440, 1)) == [4, 4]
    assert lengths([LAYER] * 8, ends, Machine(1000, 1), Machine(1000, 1)) == [3, 5]


def test_what_is_always_in_memory_comes_first():
    layers = [LayerCost(100, 0, 1)] * 4
    assert lengths(layers, NO_ENDS, Machine(100, 1), Machine(300, 1)) == [1, 3]


def test_the_ends_are_the_first_machines():
    ends = LayerCost(0, 0, 60)
    assert lengths([LAYER] * 8, ends, Machine(10_000, 1), Machine(10_000, 1)) == [3, 5]


def test_a_part_begins_where_it_may():
    layers = [LayerCost(10, 100, 30, may_begin=n in (0, 3)) for n in range(8)]
    assert lengths(layers, NO_ENDS, Machine(10_000, 1), Machine(10_000, 1)) == [3, 5]
    with pytest.raises(RankError, match="3 machines are too many for the 8 layers"):
        divide(layers, NO_ENDS, [Machine(10_000, 1)] * 3)


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=4, max_size=9), st.data()
)
def test_no_division_is_better(sizes, data):
    """Against all of them, for three machines."""
    layers = [LayerCost(dense, experts, dense + experts) for dense, experts in sizes]
    machines = [
        Machine(data.draw(st.integers(1, 300)), data.draw(st.sampled_from([1, 2, 4])))
        for _ in range(3)
    ]
    count = len(layers)

    def cost(parts):
        lacks = [max(lacking(p, layers, None, m), 0) for p, m in zip(parts, machines, strict=True)]
        rooms = [max(-lacking(p, layers, None, m), 0) for p, m in zip(parts, machines, strict=True)]
        experts = [sum(layers[i].expert_bytes for i in part) for part in parts]
        streamed = [max(n - room, 0) for n, room in zip(experts, rooms, strict=True)]
        slowed = [1 + 10 * n / max(all_, 1) for n, all_ in zip(streamed, experts, strict=True)]
        times = [
            sum(layers[i].token_bytes for i in part) * slow / machine.speed
            for part, slow, machine in zip(parts, slowed, machines, strict=True)
        ]
        return sum(lacks), sum(streamed), max(times)

    best = min(
        cost([range(a), range(a, b), range(b, count)])
        for a in range(1, count - 1)
        for b in range(a + 1, count)
    )
    assert cost(divide(layers, NO_ENDS, machines)) == best


@pytest.mark.parametrize("name", ["qwen3moe", "glm-dsa", "gpt-oss"])
def test_parts_have_all_tensors_of_a_model_once(name):
    with GGUFFile.open(GOLDEN / f"{name}.gguf") as file:
        used, count = used_names(file), read_config(file).num_layers
    parts = [names_of(range(count // 2), used), names_of(range(count // 2, count), used)]
    shared = parts[0] & parts[1]
    assert parts[0] | parts[1] == used
    assert all(each.startswith("rope") for each in shared)
    assert "token_embd.weight" in parts[0] - parts[1]


def test_costs_are_those_of_the_file():
    with GGUFFile.open(GOLDEN / "qwen3moe.gguf") as file:
        costs = Costs.of(file, {"context_length": 64})
        sizes = {name: file.tensors[name].n_bytes for name in used_names(file)}
    experts = sum(n for name, n in sizes.items() if "_exps" in name)
    assert sum(each.expert_bytes for each in costs.layers) == experts
    dense = sum(n for name, n in sizes.items() if "_exps" not in name and name.startswith("blk"))
    assert sum(each.token_bytes for each in costs.layers) < dense + experts
    assert sum(each.resident_bytes for each in costs.layers) > dense  # and keys and values


@pytest.mark.parametrize("name", ["qwen4exp", "gemma4-e"])
def test_models_that_stay_on_one_machine(name):
    """All parts would need tokens, which the first alone knows."""
    with GGUFFile.open(GOLDEN / f"{name}.gguf") as file:
        costs = Costs.of(file, {"context_length": 64})
        sizes = {name: file.tensors[name].n_bytes for name in used_names(file)}
    told = sum(each.token_bytes for each in costs.layers) + costs.ends.token_bytes
    assert told <= sum(sizes.values()) - sizes["per_layer_token_embd.weight"]
    with pytest.raises(RankError, match=r"of which 1 can be a machine's first"):
        divide(costs.layers, costs.ends, [Machine(1 << 30, 1)] * 2)


def test_a_part_begins_where_a_layer_has_an_index():
    with GGUFFile.open(GOLDEN / "glm5-next.gguf") as file:
        config = read_config(file)
    assert config.kv_heads == (0, 1, 0, 1, 0, 1)
    assert config.indexed == (True, True, True, False, True, True)
    begins = [config.may_begin(layer) for layer in range(6)]
    assert begins == [True, True, False, False, True, True]


HELLO = Hello("rank 0 (a)", "1", "llama", "m.gguf", 9, "ab", "cpu", 64, 1 << 30, 1e9)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"backend": "mlx"}, "rank 1 (b) computes with mlx, and rank 0 (a) with cpu"),
        ({"context": 65}, "rank 1 (b) has a context of 65"),
        ({"version": "2"}, "rank 1 (b) runs moestream 2, and rank 0 (a) 1"),
        ({"header_sha256": "cd"}, "rank 1 (b) has another file"),
    ],
)
def test_ranks_that_are_not_alike(change, told):
    other = replace(HELLO, name="rank 1 (b)")
    require_alike([HELLO, other])
    with pytest.raises(RankError, match=re.escape(told)):
        require_alike([HELLO, replace(other, **change)])


def test_no_share_is_no_share():
    done = run("generate", "demo", "-p", "x", "--hosts-share", "1G,none")
    assert done.returncode == 2
    assert "none is no share: layers are divided by the memory" in done.stderr


@settings(max_examples=30)
@given(
    st.integers(0, 40),
    st.integers(1, 8),
    st.integers(20, 4000),
    st.dictionaries(st.text(max_size=9), st.integers() | st.text(max_size=9), max_size=4),
)
def test_messages_come_as_they_were_sent(tokens, size, frame_bytes, body):
    body.pop("shape", None)
    rows = np.random.default_rng(1).standard_normal((tokens, size)).astype(np.float32)
    data = encode(Message(Kind.RUN, body, rows), frame_bytes)
    assert len(data) == frame_bytes + bytes_to_come(data[:frame_bytes])
    found = decode(data)
    assert (found.kind, found.body) == (Kind.RUN, body)
    np.testing.assert_array_equal(found.rows, rows)


def test_a_stranger_is_told_apart():
    with pytest.raises(RankError, match="another protocol"):
        bytes_to_come(np.zeros(64, np.uint8))


def test_what_the_launcher_leaves(tmp_path):
    hosts = tmp_path / "hosts"
    environment = {"MLX_RANK": "1", "MLX_HOSTFILE": str(hosts)}
    assert launched({}) is None
    assert launched(environment) is None
    hosts.write_text("")  # of one machine
    assert launched(environment) is None
    hosts.write_text(json.dumps([["10.0.0.1:32323"], ["10.0.0.2:32324"]]))
    found = launched(environment)
    assert found.rank == 1
    assert found.name(0) == "rank 0 (10.0.0.1)"
    assert found.name(2) == "rank 2"
