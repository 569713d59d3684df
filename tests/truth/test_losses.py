"""Distillation losses against torch.distributions, closed forms and finite differences."""

import copy

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

import luthier as lt
from luthier.distillation import losses
from luthier.distillation.lesson import DEFAULT, Fade, Lesson, fading
from luthier.distillation.losses.kl import KL
from luthier.distillation.taps import Taps, read_taps
from luthier.errors import UsageError
from luthier.task import Batch, Task


def _logits(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_kl_is_the_divergence_of_softened_distributions_times_t_squared(temperature):
    student, teacher = _logits(0, 7, 5), _logits(1, 7, 5)
    p, q = Categorical(logits=teacher / temperature), Categorical(logits=student / temperature)
    expected = kl_divergence(p, q).mean() * temperature**2
    assert torch.allclose(KL(temperature)(student, teacher), expected, rtol=1e-12)


def test_kl_over_positions_is_the_mean_over_all_of_them():
    student, teacher = _logits(0, 3, 5, 4), _logits(1, 3, 5, 4)
    flat = KL(2.0)(student.movedim(1, -1).reshape(-1, 5), teacher.movedim(1, -1).reshape(-1, 5))
    assert torch.allclose(KL(2.0)(student, teacher), flat, rtol=1e-12)


def test_kl_gradient_keeps_its_size_for_high_temperatures():
    """For T -> infinity the gradient is (student - teacher) / (n classes), both centred: Hinton et al., equation 4."""
    student, teacher = _logits(0, 6, 4).requires_grad_(), _logits(1, 6, 4)
    KL(1e4)(student, teacher).backward()
    centred = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    assert torch.allclose(student.grad, centred.detach() / (6 * 4), atol=1e-4)


def _call(name, student, teacher, temperature=3.0):
    """Any loss, with true classes where it sees them."""
    loss = losses.get(name, temperature=temperature)
    target = (torch.arange(len(student)) % student.shape[1],) if loss.sees == "targets" else ()
    return loss(student, teacher, *target)


def _pair(name, seed=2):
    """Outputs, or features with positions, of student and teacher."""
    shape = (6, 4) if losses.get(name, 1.0).sees != "features" else (6, 4, 3)
    return _logits(seed, *shape), _logits(seed + 1, *shape)


def _contrast(student, teacher, sharpness=0.1):
    """By hand: the own one among all, by torch.distributions, in both directions."""
    s, t = (x.flatten(1) / x.flatten(1).norm(dim=1, keepdim=True) for x in (student, teacher))
    alike, own = s @ t.T / sharpness, torch.arange(len(s))
    return -float((Categorical(logits=alike).log_prob(own) + Categorical(logits=alike.T).log_prob(own)).mean()) / 2


@pytest.mark.parametrize("name", losses.names())
class TestEveryLoss:
    def test_is_zero_where_student_and_teacher_agree(self, name):
        """But for CRD, whose value there is that of the teacher's own embeddings."""
        outputs, _ = _pair(name)
        least = _contrast(outputs, outputs) if name == "crd" else 0
        assert float(_call(name, outputs, outputs.clone())) == pytest.approx(least, abs=1e-12)

    def test_is_positive_where_they_differ(self, name):
        assert float(_call(name, *_pair(name))) > 1e-3

    def test_gradient_by_finite_differences(self, name):
        student, teacher = _pair(name)
        assert torch.autograd.gradcheck(lambda s: _call(name, s, teacher), (student.requires_grad_(),))

    def test_the_teacher_gets_no_smaller_by_learning_from_it(self, name):
        """A step against the gradient brings the student nearer."""
        student, teacher = _pair(name)
        student.requires_grad_()
        before = _call(name, student, teacher)
        (step,) = torch.autograd.grad(before, student)
        after = _call(name, student.detach() - 1e-3 * step / step.norm(), teacher)
        assert after.item() < before.item()


@pytest.mark.parametrize("name", [n for n in losses.names() if n not in ("rkd", "dkd", "crd")])
def test_is_the_mean_over_the_batch(name):
    student, teacher = _pair(name)
    halves = (_call(name, student[:3], teacher[:3]) + _call(name, student[3:], teacher[3:])) / 2
    assert torch.allclose(_call(name, student, teacher), halves)


def test_dkd_with_the_teachers_doubt_as_weight_is_kl():
    """Zhao et al., equation 5: KL = TCKD + (1 - p_target) NCKD."""
    student, teacher = _logits(0, 1, 5), _logits(1, 1, 5)
    doubt = 1 - float(torch.softmax(teacher / 2.0, 1)[0, 3])
    loss = losses.DKD(temperature=2.0, alpha=1.0, beta=doubt)
    assert torch.allclose(loss(student, teacher, torch.tensor([3])), KL(2.0)(student, teacher))


def test_cosine_by_hand():
    assert float(losses.Cosine()(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]]))) == pytest.approx(1 - 0.5**0.5)


def test_attention_sees_where_and_not_how_much_nor_how_wide():
    features = _logits(4, 2, 8, 5, 5).abs()
    assert float(losses.Attention()(features, 7 * features)) == pytest.approx(0, abs=1e-12)
    wide = torch.cat([features, features], 1)
    assert float(losses.Attention()(features, wide)) == pytest.approx(0, abs=1e-12)


def test_rkd_by_brute_force():
    s, t = _logits(5, 4, 3), _logits(6, 4, 2)

    def relations(x):
        gaps = torch.tensor([[float((a - b).norm()) for b in x] for a in x])
        cosines = torch.zeros(4, 4, 4)
        for j in range(4):
            for i in range(4):
                for k in range(4):
                    if j not in (i, k):
                        u, v = x[i] - x[j], x[k] - x[j]
                        cosines[j, i, k] = u @ v / (u.norm() * v.norm())
        return gaps / gaps[gaps > 0].mean(), cosines

    (ds, cs), (dt, ct) = relations(s), relations(t)
    huber = torch.nn.functional.smooth_l1_loss
    assert float(losses.RKD()(s, t)) == pytest.approx(float(huber(ds, dt) + 2 * huber(cs, ct)), rel=1e-5)


def test_crd_by_hand():
    s, t = _logits(5, 4, 3), _logits(6, 4, 3)
    assert float(losses.CRD(sharpness=0.5)(s, t)) == pytest.approx(_contrast(s, t, 0.5))


def test_mse_by_torch_distributions():
    """The log density of a normal of variance 1/2 is minus the squared difference, but for a constant."""
    s, t = _logits(5, 4, 3), _logits(6, 4, 3)
    normal = torch.distributions.Normal(t, 0.5**0.5)
    assert torch.allclose(losses.MSE()(s, t), (normal.log_prob(t) - normal.log_prob(s)).mean())


@pytest.mark.parametrize("name", losses.names())
def test_a_temperature_is_given_to_those_that_have_one(name):
    loss = losses.get(name, temperature=3.0)
    assert getattr(loss, "temperature", None) == (3.0 if name in ("kl", "dkd") else None)


def test_rkd_of_equal_examples_has_a_gradient():
    same = torch.ones(4, 3, requires_grad=True)
    losses.RKD()(same, torch.randn(4, 3)).backward()
    assert torch.isfinite(same.grad).all()


def _net(width):
    torch.manual_seed(width)
    stages = [("one", torch.nn.Conv2d(1, width, 3)), ("two", torch.nn.Conv2d(width, width, 3))]
    net = torch.nn.Sequential()
    for name, stage in stages:
        net.add_module(name, stage)
    net.add_module("flat", torch.nn.Flatten())
    net.add_module("head", torch.nn.Linear(4 * width, 3))
    return net


def test_taps_catch_what_modules_give_and_leave_nothing_behind():
    net, x = _net(4), torch.randn(2, 1, 6, 6)
    with Taps(net, ["one", "two"]) as taps:
        net(x)
    assert torch.equal(taps["one"], net.one(x))
    assert torch.equal(taps["two"], net.two(net.one(x)))
    assert not any(m._forward_hooks for m in net.modules())


@pytest.mark.parametrize("target", ["module", "graph"])
def test_taps_catch_what_a_module_gives_whatever_works_on_it_in_place(target):
    net, x = torch.nn.Sequential(), torch.randn(5, 1, 6, 6)
    net.add_module("conv", torch.nn.Conv2d(1, 6, 3))
    net.add_module("act", torch.nn.ReLU(inplace=True))
    net.add_module("flat", torch.nn.Flatten())
    net.add_module("head", torch.nn.Linear(96, 2))
    model = lt.prune_neurons(net, x[:2], ratio=0.5, target=target).model
    with Taps(model, ["conv"]) as taps:
        model(x)
    state = model.state_dict()
    expected = torch.nn.functional.conv2d(x, state["conv.weight"], state["conv.bias"])
    assert torch.allclose(taps["conv"], expected, atol=1e-6)
    assert expected.min() < 0


def test_layers_of_the_same_name_are_paired_without_the_head():
    assert [p[:2] for p in read_taps(_net(4), _net(8), None)] == [("one", "one"), ("two", "two")]


@pytest.mark.parametrize("weights", [{"hint": 1.0}, {"attention": 1.0}, {"rkd": 1.0}, {"hint": 0.5, "kl": 0.5}])
def test_losses_of_features_are_learned_though_widths_differ(weights):
    x, y = torch.randn(64, 1, 6, 6), torch.randint(3, (64,))
    task = lt.Task(train=(x, y), valid=(x, y))
    student, teacher = _net(3), _net(8)
    seen = []
    lt.distill(
        student, teacher, task, losses=weights, epochs=8, lr=1e-2, progress=False, on_epoch=lambda e, s: seen.append(s)
    )
    assert seen[-1]["loss"] < 0.9 * seen[0]["loss"]
    assert [n for n, _ in student.named_parameters()] == [n for n, _ in _net(3).named_parameters()]


def test_the_hints_map_is_learned_along_and_dropped():
    x, y = torch.randn(8, 1, 6, 6), torch.randint(3, (8,))
    lesson = Lesson(_net(3), _net(8), lt.Task(train=(x, y), valid=(x, y)), {"hint": 1.0})
    assert [tuple(p.shape) for p in lesson.maps.parameters()] == [(8, 3), (8, 3)]
    assert Lesson(_net(3), _net(3), lt.Task(train=(x, y), valid=(x, y)), {"attention": 1.0}).maps is None


def test_hints_with_and_without_a_learned_projection():
    x, y = torch.randn(8, 1, 6, 6), torch.randint(3, (8,))
    task = lt.Task(train=(x, y), valid=(x, y))

    def maps(width, projection):
        hint = losses.Hint(projection=projection)
        return Lesson(_net(width), _net(8), task, {"hint": (1.0, hint)}).maps

    assert [len(list(maps(8, p).parameters())) for p in ("auto", "always")] == [0, 2]
    assert maps(8, "never") is None
    with pytest.raises(UsageError, match="shape"):
        lt.distill(_net(3), _net(8), task, losses={"hint": (1.0, losses.Hint("never"))}, epochs=1, progress=False)


def test_a_loss_of_ones_own_is_a_function():
    x, y = torch.randn(8, 3), torch.randint(4, (8,))
    teacher, student = torch.nn.Linear(3, 4), torch.nn.Linear(3, 4)
    task = Task(train=(x, y), valid=(x, y))
    lesson = Lesson(student, teacher, task, {"mine": (0.5, lambda s, t: (s - t).abs().mean())})
    assert torch.allclose(lesson(student, Batch((x,), y)), 0.5 * (student(x) - teacher(x)).abs().mean())


def test_several_teachers_pull_towards_the_mean_of_their_probabilities():
    x, y = torch.randn(8, 3), torch.randint(4, (8,))
    first, second, student = (torch.nn.Linear(3, 4) for _ in range(3))
    task = Task(train=(x, y), valid=(x, y))
    lesson = Lesson(student, [first, second], task, {"kl": 1.0}, 2.0, shares=[3, 1])
    mine = torch.autograd.grad(lesson(student, Batch((x,), y)), list(student.parameters()))
    mean = 0.75 * torch.softmax(first(x) / 2, 1) + 0.25 * torch.softmax(second(x) / 2, 1)
    theirs = torch.autograd.grad(KL(2.0)(student(x), 2 * mean.log().detach()), list(student.parameters()))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(mine, theirs, strict=True))


def test_several_teachers_by_their_features():
    x, y = torch.randn(32, 1, 6, 6), torch.randint(3, (32,))
    task, seen = lt.Task(train=(x, y), valid=(x, y)), []
    how = {"epochs": 6, "lr": 1e-2, "progress": False, "on_epoch": lambda e, s: seen.append(s["loss"])}
    lt.distill(_net(3), [_net(8), _net(5)], task, losses={"hint": 1.0, "kl": 1.0}, teacher_weights=[1, 2], **how)
    assert seen[-1] < seen[0]


@pytest.mark.parametrize("target", ["module", "graph"])
def test_after_a_cut_the_pairs_follow_from_the_plan(target):
    """The student's channels are compared with just those of the teacher's that were kept; no map is learned."""
    x, y = torch.randn(16, 1, 6, 6), torch.randint(3, (16,))
    dense = _net(8)
    pruned = lt.prune_neurons(dense, x[:2], ratio=0.5, target=target)
    task = lt.Task(train=(x, y), valid=(x, y))
    lesson = Lesson(pruned.model, dense, task, {"hint": 1.0}, plan=pruned.plan)
    assert [p[:2] for p in lesson.pairs[0]] == [("one", "one"), ("two", "two")]
    assert [list(p.kept) for p in lesson.pairs[0]] == [pruned.plan.kept[f"{n}.weight"][0] for n in ("one", "two")]
    assert not list(lesson.maps.parameters())
    with lesson.open():
        found = lesson(pruned.model, Batch((x,), y))
    mine, theirs = _features(pruned.model, x), _features(dense, x)
    gaps = [torch.nn.functional.mse_loss(mine[p.student], theirs[p.teacher][:, list(p.kept)]) for p in lesson.pairs[0]]
    assert torch.allclose(found, torch.stack(gaps).mean(), atol=1e-6)
    before = pruned.model(x)
    lt.distill(pruned, dense, task, losses={"hint": 1.0}, epochs=2, progress=False)
    assert not torch.equal(before, pruned.model(x))  # it learned, and runs as before


def _features(net, x):
    """By the parameters' names, so that it works for a rebuilt graph too."""
    state = net.state_dict()
    one = torch.nn.functional.conv2d(x, state["one.weight"], state["one.bias"])
    return {"one": one, "two": torch.nn.functional.conv2d(one, state["two.weight"], state["two.bias"])}


class _Tagger(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = torch.nn.Linear(4, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 3)

    def forward(self, x):
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


def test_pairs_of_a_plan_with_sequences_have_their_channels_last():
    dense, x = _Tagger(), torch.randn(6, 5, 4)
    pruned = lt.prune_neurons(dense, x[:2], ratio=0.5)
    task = lt.Task(train=(x, torch.randint(3, (6, 5))), valid=(x, torch.randint(3, (6, 5))), class_dim=-1)
    lesson = Lesson(pruned.model, dense, task, {"hint": 1.0}, plan=pruned.plan)
    assert [(p.student, p.last) for p in lesson.pairs[0]] == [("a", True), ("b", True)]
    lt.distill(pruned, dense, task, losses={"hint": 1.0, "kl": 1.0}, epochs=1, progress=False)


class _Attending(torch.nn.Module):
    """Two layers that never run as modules: attention reads its projection's weights itself, a list gives nothing."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(8, 8)
        self.attn = torch.nn.MultiheadAttention(8, 2, batch_first=True)
        self.blocks = torch.nn.ModuleList([torch.nn.Linear(8, 8)])
        self.second, self.head = torch.nn.Linear(8, 8), torch.nn.Linear(8, 3)

    def forward(self, x):
        x = self.first(x).relu()
        x = self.blocks[0](self.attn(x, x, x, need_weights=False)[0])
        return self.head(self.second(x).relu().mean(1))


@pytest.mark.parametrize("target", ["module", "graph", None])
def test_only_layers_that_run_are_paired(target):
    dense, x, y = _Attending(), torch.randn(16, 5, 8), torch.randint(3, (16,))
    task = lt.Task(train=(x, y), valid=(x, y))
    student = _Attending() if target is None else lt.prune_neurons(dense, x[:2], ratio=0.5, target=target)
    plan = None if target is None else student.plan
    network = student if target is None else student.model
    found = [p.student for p in Lesson(network, dense, task, {"hint": 1.0}, plan=plan).pairs[0]]
    assert found == (["first", "attn", "second"] if target is None else ["first", "blocks.0", "second"])
    lt.distill(student, dense, task, losses={"hint": 1.0, "kl": 1.0}, epochs=1, progress=False)


def test_a_plan_of_another_network_says_nothing():
    pruned = lt.prune_neurons(_net(8), torch.randn(2, 1, 6, 6), ratio=0.5)
    assert [p.kept for p in read_taps(pruned.model, _net(6), None, pruned.plan)] == [None, None]


@pytest.mark.parametrize(
    ("act", "word"),
    [
        (lambda: Taps(_net(3), ["tow"]), "two"),
        (lambda: read_taps(_net(3), _net(3), [("one", "one", "two")]), "pair"),
        (lambda: Lesson(_net(3), _net(3), lt.Task(train=[], valid=[]), {"kl": 1.0}, taps=["tow"]), "two"),
        (lambda: read_taps(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), None), "same name"),
        (lambda: losses.Hint()(torch.zeros(2, 3), torch.zeros(2, 4)), "shape"),
        (lambda: losses.Attention()(torch.zeros(2, 3), torch.zeros(2, 3)), "positions"),
        (lambda: losses.DKD()(torch.zeros(2, 3), torch.zeros(2, 3)), "true classes"),
        (lambda: losses.DKD(temperature=0.0), "temperature"),
    ],
)
def test_features_that_do_not_fit_are_named(act, word):
    with pytest.raises(UsageError, match=word):
        act()


def test_weights_add_up_with_the_task_loss():
    x, y = torch.randn(8, 3), torch.randint(4, (8,))
    teacher, student = torch.nn.Linear(3, 4), torch.nn.Linear(3, 4)
    task = Task(train=(x, y), valid=(x, y))
    both = Lesson(student, teacher, task, {"kl": 0.3, "task": 0.7}, 2.0)(student, Batch((x,), y))
    expected = 0.3 * KL(2.0)(student(x), teacher(x)) + 0.7 * torch.nn.functional.cross_entropy(student(x), y)
    assert torch.allclose(both, expected)


@pytest.mark.parametrize("done", [0.0, 0.25, 1.0])
def test_a_weight_may_change_over_the_run(done):
    x, y = torch.randn(8, 3), torch.randint(4, (8,))
    teacher, student = torch.nn.Linear(3, 4), torch.nn.Linear(3, 4)
    task = Task(train=(x, y), valid=(x, y))
    changing = Lesson(student, teacher, task, {"kl": Fade(0.8), "task": lambda done: 1 + done**2})
    steady = Lesson(student, teacher, task, {"kl": 0.8 * (1 - done), "task": 1 + done**2})
    changing.done = done
    assert torch.allclose(changing(student, Batch((x,), y)), steady(student, Batch((x,), y)))


def test_the_default_ends_with_the_task_alone():
    x, y = torch.randn(8, 3), torch.randint(4, (8,))
    teacher, student = torch.nn.Linear(3, 4), torch.nn.Linear(3, 4)
    lesson = Lesson(student, teacher, Task(train=(x, y), valid=(x, y)), DEFAULT)
    kl, own = KL(4.0)(student(x), teacher(x)), torch.nn.functional.cross_entropy(student(x), y)
    for done, expected in ((0.0, 0.5 * kl + 0.5 * own), (0.5, 0.25 * kl + 0.75 * own), (1.0, own)):
        lesson.done = done
        assert torch.allclose(lesson(student, Batch((x,), y)), expected)


@pytest.mark.parametrize("shape", [(8,), (8, 1), (8, 3), (8, 3, 5)])
def test_kl_of_yes_no_questions_is_the_divergence_of_each(shape):
    x, target = torch.randn(8, 4), torch.randint(2, shape).double()
    target.view(-1)[3] = -100  # does not count
    mine, theirs = torch.randn(shape, dtype=torch.double), torch.randn(shape, dtype=torch.double)
    task = Task(train=(x, target), valid=(x, target), loss="bce")
    student = Says(mine)
    lesson = Lesson(student, Says(theirs), task, {"kl": 1.0}, 3.0)
    p, q = (torch.distributions.Bernoulli(logits=z.flatten() / 3) for z in (theirs, mine))
    each = torch.distributions.kl_divergence(p, q)[target.flatten() != -100]
    assert lesson(student, Batch((x,), target)).item() == pytest.approx(9 * each.mean().item(), rel=1e-9)


class Says(torch.nn.Module):
    """Gives the same outputs whatever it is asked."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = torch.nn.Parameter(outputs)

    def forward(self, x):
        return self.outputs


def test_kl_of_yes_no_questions_none_of_which_counts_is_zero():
    x, target = torch.randn(2, 4), torch.full((2, 3), -100.0)
    student = torch.nn.Linear(4, 3)
    task = Task(train=(x, target), valid=(x, target), loss="bce")
    assert Lesson(student, torch.nn.Linear(4, 3), task, {"kl": 1.0})(student, Batch((x,), target)).item() == 0.0


def far(outputs, target):
    return (outputs - target).abs().mean()


@pytest.mark.parametrize("loss", ["mse", "l1", torch.nn.functional.huber_loss, torch.nn.MSELoss(), far])
def test_the_default_teaches_numbers_by_their_squared_difference(loss):
    torch.manual_seed(0)
    x = torch.randn(64, 3)
    teacher, student = torch.nn.Linear(3, 1), torch.nn.Linear(3, 1)
    task = Task(train=(x, torch.zeros(64, 1)), valid=(x, torch.zeros(64, 1)), loss=loss, metrics=["mse"])
    how = {"epochs": 40, "lr": 0.05, "schedule": "constant", "keep": "last", "progress": False}
    other = copy.deepcopy(student)
    lt.distill(student, teacher, task, **how)
    lt.distill(other, teacher, task, losses=fading(0.5, "mse"), **how)
    assert torch.equal(student.weight, other.weight)


def test_cosines_of_numbers_are_refused():
    with pytest.raises(UsageError, match="vectors"):
        losses.Cosine()(torch.randn(4), torch.randn(4))


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 1, 6)])
def test_kl_of_outputs_that_are_no_classes_is_refused(shape):
    with pytest.raises(UsageError, match="compares classes"):
        KL()(torch.randn(shape), torch.randn(shape))


def test_a_class_that_is_impossible_adds_nothing_to_kl():
    mine, theirs = torch.randn(5, 4, dtype=torch.double), torch.randn(5, 4, dtype=torch.double)
    closed = theirs.clone()
    closed[:, 2] = -torch.inf
    mine.requires_grad_()
    p, q = closed.softmax(1), mine.softmax(1)
    expected = (p[:, [0, 1, 3]] * (p[:, [0, 1, 3]] / q[:, [0, 1, 3]]).log()).sum(1).mean()
    found = KL(1.0)(mine, closed)
    assert found.item() == pytest.approx(expected.item())
    wanted, got = (torch.autograd.grad(v, mine, retain_graph=True)[0] for v in (expected, found))
    assert torch.allclose(wanted, got)


def test_nothing_said_is_the_default():
    x = torch.randn(24, 2)
    task = Task(train=(x, (x[:, 0] > 0).long()), valid=(x, (x[:, 0] > 0).long()), batch_size=4)
    torch.manual_seed(0)
    teacher, first = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    second = copy.deepcopy(first)
    lt.distill(first, teacher, task, epochs=2, lr=0.1, keep="last", progress=False)
    lt.distill(second, teacher, task, losses=DEFAULT, epochs=2, lr=0.1, keep="last", progress=False)
    assert torch.equal(first.weight, second.weight)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weights", [{"kl": 1.0}, {"kl": 0.5, "hint": 0.5, "crd": 0.1, "rkd": 0.1}])
def test_a_teacher_may_be_of_another_precision(kind, weights):
    x, y = torch.randn(16, 1, 6, 6), torch.randint(3, (16,))
    task, teacher = Task(train=[(x, y)], valid=[(x, y)]), _net(6).to(kind)
    student = _net(4)
    lesson = Lesson(student, teacher, task, weights)
    with lesson.open():
        found = lesson(student, Batch((x,), y))
    torch.manual_seed(0)
    same = Lesson(student, copy.deepcopy(teacher).float(), task, weights)
    if same.maps is not None:
        same.maps.load_state_dict(lesson.maps.state_dict())
    with same.open():
        expected = same(student, Batch((x,), y))
    assert found.item() == pytest.approx(expected.item(), rel=2e-2, abs=1e-2)
    lt.distill(student, teacher, task, losses=weights, epochs=1, progress=False)
    assert student.one.weight.dtype == torch.float32


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_learned_maps_are_of_the_students_precision(kind):
    x, y = torch.randn(16, 1, 6, 6).to(kind), torch.randint(3, (16,))
    task, student = Task(train=(x, y), valid=(x, y)), _net(4).to(kind)
    seen = []
    how = {"losses": {"hint": 1.0}, "epochs": 5, "lr": 1e-2, "progress": False}
    lt.distill(student, _net(6).to(kind), task, on_epoch=lambda e, s: seen.append(s["loss"]), **how)
    assert student.one.weight.dtype == kind
    assert seen[-1] < seen[0]


def test_a_run_says_how_much_of_it_is_done():
    seen = []
    x = torch.randn(12, 2)
    task = Task(train=(x, (x[:, 0] > 0).long()), valid=(x, (x[:, 0] > 0).long()), batch_size=4)
    weights = {"kl": lambda done: seen.append(done) or 1.0, "task": 0.1}
    lt.distill(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), task, losses=weights, epochs=2, progress=False)
    assert seen[-6:] == [pytest.approx(k / 6) for k in range(6)]


@pytest.mark.parametrize(
    ("weights", "word"),
    [
        ({"kl": Fade(1.0, -0.1)}, "weight"),
        ({"kl": lambda s, t: 0.0}, "weight"),
        ({"kl": lambda done: float("nan")}, "weight"),
        ({"kl": Fade(0.0)}, "weight"),
        ({"lk": 1.0}, "lk"),
        ({"kl": -1.0}, "weight"),
        ({"kl": 0.0}, "weight"),
        ({}, "weight"),
        (["kl"], "weights"),
        ("kl", "weights"),
    ],
)
def test_useless_weights_are_refused(weights, word):
    task = Task(train=[(torch.zeros(1, 2), torch.zeros(1).long())], valid=[])
    with pytest.raises(UsageError, match=word):
        Lesson(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), task, weights, 1.0)


def test_the_tasks_own_loss_is_not_given_twice():
    x, y = torch.zeros(4, 2), torch.zeros(4).long()
    weights = {"task": (1.0, torch.nn.functional.mse_loss)}
    with pytest.raises(UsageError, match="own loss"):
        Lesson(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), Task(train=(x, y), valid=(x, y)), weights)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_temperatures_are_refused(temperature):
    with pytest.raises(UsageError, match="temperature"):
        KL(temperature)


def test_a_students_own_attribute_named_plan_is_left_alone():
    x = torch.randn(16, 4)
    task = lt.Task(train=(x, torch.zeros(16).long()), valid=(x, torch.zeros(16).long()))
    student = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    student.plan = "a word of the user's"
    before = student[0].weight.detach().clone()
    teacher = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    lt.distill(student, teacher, task, losses={"hint": 1.0}, epochs=1, keep="last", progress=False)
    assert not torch.equal(student[0].weight, before)
