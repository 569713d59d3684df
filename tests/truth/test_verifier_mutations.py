"""The proof must fail where it should: each mistake that surgery could make is made on purpose."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from luthier.errors import CheckError
from luthier.model import analyse
from luthier.surgery.cut import cut_program, slice_state
from luthier.surgery.plan import make_plan
from luthier.surgery.verify import demand, faithful, verify


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(12)
        self.qkv = nn.Linear(12, 36)
        self.out = nn.Linear(12, 12)
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, t, 3, 4, 3).permute(2, 0, 3, 1, 4).unbind(0)
        a = torch.softmax(q @ k.transpose(-1, -2), -1) @ v
        return self.head(x + self.out(a.transpose(1, 2).reshape(n, t, 12)))


def conv():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.SiLU(), nn.Conv2d(6, 5, 3), nn.SiLU(), nn.Flatten(), nn.Linear(20, 3)
    )
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.5, 2)
    net[1].weight.data.normal_()
    net[1].bias.data.normal_()
    return net, torch.randn(3, 2, 6, 6), {"0": [0, 2, 5], "3": [1, 3]}


def attention():
    torch.manual_seed(0)
    return Attention(), torch.randn(2, 5, 12), {"qkv": [1, 2]}


def prepared(made):
    net, x, keep = made
    analysis = analyse(net, x)
    plan = make_plan(analysis, keep)
    program, copies = cut_program(analysis, plan.groups)
    return analysis, plan, program, copies


def holds(analysis, plan, program, copies, state=None):
    state = slice_state(analysis.traced.state, plan) if state is None else state
    return demand([faithful(analysis), *verify(analysis, plan, program, copies, state)])


@pytest.mark.parametrize("made", [conv, attention])
def test_an_honest_cut_passes(made):
    assert all(p.passed for p in holds(*prepared(made())))


def edited(plan, name, dim, index):
    kept = copy.deepcopy(plan.kept)
    kept[name][dim] = index
    return replace(plan, kept=kept)


def test_a_misaligned_consumer_is_caught():
    analysis, plan, program, copies = prepared(conv())
    with pytest.raises(CheckError, match="cut == masked"):
        holds(analysis, edited(plan, "3.weight", 1, [1, 2, 5]), program, copies)


def test_consumer_and_producer_swapped_in_order_are_caught():
    analysis, plan, program, copies = prepared(conv())
    state = slice_state(analysis.traced.state, plan)
    state["3.weight"] = state["3.weight"].flip(1)
    with pytest.raises(CheckError, match="tensors == slices"):
        holds(analysis, plan, program, copies, state)


def test_a_stale_batch_norm_is_caught():
    analysis, plan, program, copies = prepared(conv())
    state = slice_state(analysis.traced.state, plan)
    for name in ("1.running_mean", "1.running_var"):
        state[name] = analysis.traced.state[name][:3].clone()
        with pytest.raises(CheckError, match="tensors == slices"):
            holds(analysis, plan, program, copies, state)


@pytest.mark.parametrize("name", ["0.bias", "1.bias", "3.bias", "6.bias"])
def test_a_dropped_bias_is_caught(name):
    analysis, plan, program, copies = prepared(conv())
    state = slice_state(analysis.traced.state, plan)
    state[name] = torch.zeros_like(state[name])
    with pytest.raises(CheckError, match="tensors == slices"):
        holds(analysis, plan, program, copies, state)


def test_a_wrong_head_grouping_is_caught():
    analysis, plan, program, copies = prepared(attention())
    rows = plan.kept["qkv.weight"][0]
    assert rows == [3, 4, 5, 6, 7, 8, 15, 16, 17, 18, 19, 20, 27, 28, 29, 30, 31, 32]
    wrong = [3, 4, 6, 7, 9, 10, 15, 16, 18, 19, 21, 22, 27, 28, 30, 31, 33, 34]
    bad = edited(edited(plan, "qkv.weight", 0, wrong), "qkv.bias", 0, wrong)
    with pytest.raises(CheckError, match="cut == masked"):
        holds(analysis, bad, program, copies)


def test_a_wrong_prediction_of_cost_is_caught():
    analysis, plan, program, copies = prepared(conv())
    with pytest.raises(CheckError, match="predicted cost"):
        holds(analysis, replace(plan, macs=(plan.macs[0], plan.macs[1] - 1)), program, copies)


def test_a_graph_that_is_not_the_model_is_caught():
    analysis, *rest = prepared(conv())
    with torch.no_grad():
        analysis.model[6].bias = nn.Parameter(analysis.model[6].bias + 1)
    with pytest.raises(CheckError, match="graph == model"):
        holds(analysis, *rest)


def test_not_a_number_is_no_proof():
    analysis, plan, program, copies = prepared(conv())
    state = slice_state(analysis.traced.state, plan)
    state["6.bias"] = torch.full_like(state["6.bias"], float("nan"))
    with pytest.raises(CheckError, match="tensors == slices"):
        holds(analysis, plan, program, copies, state)


def test_a_stale_plan_for_a_batch_norm_is_caught():
    analysis, plan, program, copies = prepared(conv())
    buffers = copy.deepcopy(plan.buffers)
    buffers["1.running_mean"] = [[0, 1, 2]]
    with pytest.raises(CheckError, match="cut == masked"):
        holds(analysis, replace(plan, buffers=buffers), program, copies)


def test_a_branch_that_begins_at_zero_hides_nothing():
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.a, self.b, self.out = (nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2))
            nn.init.zeros_(self.b.weight)
            nn.init.zeros_(self.b.bias)

        def forward(self, x):
            x = torch.tanh(self.stem(x))
            return self.out(x + self.b(torch.tanh(self.a(x))))

    analysis, plan, program, copies = prepared((Branch(), torch.randn(3, 4), {"a": [0, 1, 4]}))
    with pytest.raises(CheckError, match="cut == masked"):
        holds(analysis, edited(plan, "b.weight", 1, [0, 1, 5]), program, copies)


def test_a_missing_attention_scale_is_caught():
    class Fused(Attention):
        def forward(self, x):
            n, t, _ = x.shape
            q, k, v = self.qkv(self.norm(x)).reshape(n, t, 3, 4, 3).permute(2, 0, 3, 1, 4).unbind(0)
            a = nn.functional.scaled_dot_product_attention(q, k, v)
            return self.head(x + self.out(a.transpose(1, 2).reshape(n, t, 12)))

    net = Fused()
    analysis = analyse(net, torch.randn(2, 5, 12))
    (size,) = [g for g in analysis.all_groups if "head size" in g.roles]
    plan = make_plan(analysis, {size.name: [0, 2]})
    program, copies = cut_program(analysis, plan.groups)
    holds(analysis, plan, program, copies)
    for node in program.graph.nodes:
        if "scaled_dot_product" in str(node.target):
            assert node.kwargs["scale"] == pytest.approx(3**-0.5)
            node.kwargs = {}
    with pytest.raises(CheckError, match="cut == masked"):
        holds(analysis, plan, program, copies)
