"""The training loop: against torch's own schedulers, hand-written loops, and repeated."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn

import luthier as lt
from luthier.checkpoint import seeded
from luthier.errors import LuthierError
from luthier.recipe import Recipe, rate
from luthier.train import Trainer, recalibrate


def _data(n: int = 96):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 4, generator=generator)
    return x, (x[:, 0] + x[:, 1] > 0).long()


def _task(**settings) -> lt.Task:
    return lt.Task(train=_data(), valid=_data(), batch_size=32, **settings)


def _net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 2))


def test_cosine_is_torchs_cosine():
    steps = 20
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    recipe = Recipe(warmup=0.0)
    for step in range(steps):
        assert rate(recipe, step, steps) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        theirs.step()


def test_warmup_rises_to_one_and_then_falls():
    factors = [rate(Recipe(warmup=0.2), step, 20) for step in range(21)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[-1] == pytest.approx(0)
    assert all(a >= b for a, b in itertools.pairwise(factors[4:]))


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [("step", [1, 0.1, 0.01]), ("exponential", [1, 0.1, 0.01**0.75]), (lambda done: 1 - done**2, [1, 0.75, 0.4375])],
)
def test_further_schedules(schedule, factors):
    assert [rate(Recipe(warmup=0.0, schedule=schedule), s, 20) for s in (0, 10, 15)] == pytest.approx(factors)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_computes_in_the_short_type_and_learns(precision):
    seen, net = set(), _net()
    net[4].register_forward_hook(lambda m, i, o: seen.add(o.dtype) if m.training else None)
    lt.fit(net, _task(), epochs=8, lr=1e-2, precision=precision, progress=False)
    assert seen == {getattr(torch, precision)}
    assert net[0].weight.dtype == torch.float32
    assert lt.evaluate(net, _data())["accuracy"] > 0.8


def test_a_clipped_step_is_no_longer_than_it_may_be():
    x, y = _data(32)
    model = nn.Linear(4, 2)
    before = model.weight.detach().clone(), model.bias.detach().clone()
    settings = {"optimizer": "sgd", "momentum": 0.0, "schedule": "constant", "weight_decay": 0.0, "warmup": 0.0}
    lt.fit(model, lt.Task(train=[(x, y)], valid=[(x, y)]), epochs=1, lr=1.0, clip=1e-3, progress=False, **settings)
    moved = [float((a - b).detach().square().sum()) for a, b in zip(before, (model.weight, model.bias), strict=True)]
    assert sum(moved) ** 0.5 == pytest.approx(1e-3, rel=1e-3)


def test_one_step_of_plain_sgd_by_hand():
    model, twin = nn.Linear(4, 2), nn.Linear(4, 2)
    twin.load_state_dict(model.state_dict())
    x, y = _data(32)
    task = lt.Task(train=[(x, y)], valid=[(x, y)])
    settings = {"optimizer": "sgd", "momentum": 0.0, "schedule": "constant", "weight_decay": 0.0, "warmup": 0.0}
    lt.fit(model, task, epochs=1, lr=0.5, clip=None, progress=False, **settings)
    nn.functional.cross_entropy(twin(x), y).backward()
    with torch.no_grad():
        assert torch.allclose(model.weight, twin.weight - 0.5 * twin.weight.grad)


def test_accumulated_batches_are_one_large_batch():
    x, y = _data(64)
    states = []
    for batches, accumulate in (([(x, y)], 1), ([(x[:32], y[:32]), (x[32:], y[32:])], 2)):
        torch.manual_seed(0)
        model = nn.Linear(4, 2)
        task = lt.Task(train=batches, valid=[(x, y)])
        lt.fit(model, task, epochs=3, accumulate=accumulate, lr=0.1, clip=None, progress=False)
        states.append(model.weight.detach())
    assert torch.allclose(*states, atol=1e-6)


@pytest.mark.parametrize(("sizes", "accumulate"), [((16,), 4), ((64, 8), 2), ((24, 8, 16), 8)])
def test_a_step_takes_the_mean_over_the_examples_of_its_batches(sizes, accumulate):
    x, y = _data(sum(sizes))
    model = nn.Linear(4, 2)
    twin = copy.deepcopy(model)
    task = lt.Task(train=list(zip(x.split(sizes), y.split(sizes), strict=True)), valid=[(x, y)])
    settings = {"optimizer": "sgd", "momentum": 0.0, "schedule": "constant", "weight_decay": 0.0, "warmup": 0.0}
    lt.fit(model, task, epochs=1, lr=0.5, clip=None, accumulate=accumulate, progress=False, **settings)
    nn.functional.cross_entropy(twin(x), y).backward()
    assert torch.allclose(model.weight, twin.weight - 0.5 * twin.weight.grad, atol=1e-6)


def test_same_seed_same_weights_and_the_global_stream_is_left_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    weights = [lt.fit(_seeded_net(before), _task(), epochs=2, seed=3, progress=False)[0].weight for _ in range(2)]
    assert torch.equal(*weights)
    assert torch.equal(torch.get_rng_state(), before)


def _seeded_net(state: torch.Tensor) -> nn.Module:
    net = _net()
    torch.set_rng_state(state)
    return net


def test_the_best_epoch_is_kept():
    seen = {}
    model, task = _net(), _task()

    def spoil(epoch, scores):
        seen[epoch] = scores["accuracy"]
        if epoch == 2:
            with torch.no_grad():
                model[4].weight.mul_(-1)  # from here on everything is wrong
                model[4].bias.mul_(-1)

    lt.fit(model, task, epochs=3, lr=1e-2, progress=False, on_epoch=spoil)
    assert lt.evaluate(model, task.loader("valid"))["accuracy"] == pytest.approx(max(seen.values()))
    assert seen[3] < max(seen.values())


@pytest.mark.parametrize("where", ["loss", "metric"])
def test_what_was_learned_before_a_nan_is_not_lost(where):
    model, seen = _net(), {}

    def spoil(epoch, scores):
        seen[epoch] = copy.deepcopy(model.state_dict())
        if epoch == 2 and where == "loss":
            with torch.no_grad():
                model[0].weight.fill_(math.nan)

    def score(outputs, target):
        return math.nan if where == "metric" and 2 in seen else len(seen)  # of the epochs the second is the best

    with pytest.raises(LuthierError, match="diverged" if where == "loss" else "NaN"):
        lt.fit(model, _task(metrics=[score]), epochs=4, lr=1e-2, progress=False, on_epoch=spoil)
    assert all(torch.equal(value, seen[2][name]) for name, value in model.state_dict().items())
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


def test_an_interrupted_run_leaves_the_best_epoch_before():
    model, seen = _net(), {}

    def interrupt(epoch, scores):
        seen[epoch] = copy.deepcopy(model.state_dict())
        if epoch == 3:
            raise KeyboardInterrupt

    def score(outputs, target):
        return [1.0, 3.0, 2.0][len(seen)]

    with pytest.raises(KeyboardInterrupt):
        lt.fit(model, _task(metrics=[score]), epochs=4, lr=1e-2, progress=False, on_epoch=interrupt)
    assert all(torch.equal(value, seen[2][name]) for name, value in model.state_dict().items())
    assert not model.training


@pytest.mark.parametrize(
    ("outputs", "target", "word"),
    [
        (torch.zeros(4, 3), torch.zeros(4), "target.long()"),
        (torch.zeros(4, 3), torch.rand(4), "mse"),
        (torch.zeros(4, 5, 3), torch.zeros(4, 5).long(), "class_dim=-1"),
    ],
)
def test_what_makes_targets_no_classes_is_said(outputs, target, word):
    with pytest.raises(LuthierError, match="not classes") as refused:
        lt.evaluate(nn.Identity(), [(outputs, target)])
    assert word in str(refused.value)


def test_patience_ends_training():
    seen = []
    lt.fit(_net(), _task(), epochs=50, lr=0.0, patience=2, progress=False, on_epoch=lambda e, s: seen.append(e))
    assert seen == [1, 2, 3]


def test_vectors_are_not_decayed():
    model = _net()
    trainer = Trainer(model, _task(), Recipe(weight_decay=0.3))
    decayed, free = trainer.optimizer.param_groups
    assert {p.ndim for p in decayed["params"]} == {2}
    assert {p.ndim for p in free["params"]} == {1}
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.3, 0.0)


def test_recalibrated_statistics_are_those_of_the_data():
    x, y = _data(96)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, momentum=0.3))
    recalibrate(model, lt.Task(train=[(x[:48], y[:48]), (x[48:], y[48:])], valid=[]))
    inner = model[0](x).detach()
    assert torch.allclose(model[1].running_mean, inner.mean(0), atol=1e-5)
    expected = (inner[:48].var(0) + inner[48:].var(0)) / 2
    assert torch.allclose(model[1].running_var, expected, atol=1e-5)
    assert model[1].momentum == 0.3
    assert not model.training


def test_a_last_batch_of_one_is_left_out_for_batch_norm():
    x, y = _data(65)
    task = lt.Task(train=(x, y), valid=(x, y), batch_size=64)
    lt.fit(_net(), task, epochs=2, progress=False)
    recalibrate(_net(), task)
    teacher = _net()
    assert lt.distill(_net(), teacher, task, epochs=1, progress=False) is not teacher


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
@pytest.mark.parametrize(("loss", "metric"), [("mse", "mse"), ("l1", "mae"), ("bce", "accuracy")])
def test_targets_of_n_and_n_by_one_are_the_same(loss, metric, shape):
    x, y = _data(64)
    target = y.reshape(shape) if loss == "bce" else x[:, 0].reshape(shape)
    task = lt.Task(train=(x, target), valid=(x, target), loss=loss, metrics=[metric])
    torch.manual_seed(0)
    model = lt.fit(nn.Linear(4, 1), task, epochs=40, lr=0.1, progress=False)
    score = lt.evaluate(model, (x, target), [metric])[metric]
    assert score > 0.9 if metric == "accuracy" else score < 0.05


@pytest.mark.parametrize("kind", [torch.int32, torch.int16, torch.uint8])
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_classes_come_in_any_whole_type(kind, shape):
    x, y = _data(64)
    target = y.to(kind).reshape(shape)
    model = lt.fit(nn.Linear(4, 2), lt.Task(train=(x, target), valid=(x, target)), epochs=2, progress=False)
    assert lt.evaluate(model, (x.numpy(), y.numpy()))["accuracy"] == lt.evaluate(model, (x, y))["accuracy"]


def test_teacher_outputs_are_the_same_computed_once_or_each_time():
    x, y = _data(64)
    teacher = _net().eval()
    students = []
    for train in ((x, y), [(x[:32], y[:32]), (x[32:], y[32:])]):
        torch.manual_seed(0)
        student = nn.Linear(4, 2)
        task = lt.Task(train=train, valid=(x, y), batch_size=64)
        lt.distill(student, teacher, task, losses={"kl": 1.0}, epochs=1, lr=0.0, progress=False)
        students.append(student.weight.detach())
    assert torch.equal(*students)


def test_distilled_student_agrees_with_its_teacher_more_than_before():
    x, y = _data(256)
    task = lt.Task(train=(x, y), valid=(x, y))
    teacher = lt.fit(_net(), task, epochs=10, lr=1e-2, progress=False)
    torch.manual_seed(5)
    student = nn.Linear(4, 2)

    def agreement():
        return float((student(x).argmax(1) == teacher(x).argmax(1)).float().mean())

    before = agreement()
    lt.distill(student, teacher, task, losses={"kl": 1.0}, epochs=20, lr=0.05, progress=False)
    assert agreement() > max(before, 0.9)


def test_the_teacher_is_not_changed():
    teacher = _net().train()
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    lt.distill(nn.Linear(4, 2), teacher, _task(), epochs=1, progress=False)
    assert all(torch.equal(before[k], v) for k, v in teacher.state_dict().items())
    assert teacher.training


def _flat_task(n):
    images = torch.randn(n, 1, 3, 3), torch.randint(2, (n,))
    return lt.Task(train=images, valid=images, batch_size=32)


def _flat_convolutions():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def _unreduced(outputs, target):
    return outputs.abs().sum(1)


@pytest.mark.parametrize(
    ("act", "word"),
    [
        (lambda: lt.fit(_net(), _task(), epochs=1, learning_rate=0.1), "learning_rate"),
        (lambda: lt.fit(_net(), _task(), optimizer="adamww"), "adamw"),
        (lambda: lt.fit(_net(), _task(), lr=-1.0), "lr"),
        (lambda: lt.fit(_net(), _task(), epochs=-1), "epochs"),
        (lambda: lt.Task(train=_data(), valid=_data(), loss="crossentropy"), "cross_entropy"),
        (lambda: lt.Task(train=_data(), valid=_data(), metrics=[]), "metrics"),
        (lambda: lt.Task(train=iter([_data()]), valid=_data()), "once"),
        (lambda: lt.Task(train=(torch.zeros(3), torch.zeros(2)), valid=_data()), "length"),
        (lambda: lt.fit(_net(), lt.Task(train=(torch.zeros(0, 4), torch.zeros(0)), valid=_data())), "empty"),
        (lambda: _task().loader("test"), "no test data"),
        (lambda: lt.fit(_net(), _task(), clip=-1.0), "clip"),
        (lambda: lt.fit(_net(), _task(), clip=0.0), "clip"),
        (lambda: lt.fit(_net(), _task(), warmup=3), "warmup"),
        (lambda: lt.fit(_net(), _task(), momentum=2), "momentum"),
        (lambda: lt.fit(_net(), _task(), patience=-1), "patience"),
        (lambda: lt.fit(_net(), _task(), epochs=True), "epochs"),
        (lambda: lt.fit(_net(), _task(), lr="0.1"), "lr"),
        (lambda: lt.fit(None, _task()), "Module"),
        (lambda: lt.fit(_net(), "task"), "Task"),
        (lambda: lt.fit(_net().requires_grad_(False), _task()), "nothing to train"),
        (lambda: lt.fit(_net().double(), _task(), progress=False), "precision"),
        (lambda: lt.fit(_net(), _task(metrics=[lambda o, t: math.nan]), epochs=1, progress=False), "NaN"),
        (lambda: lt.fit(_net(), lt.Task(train=_data(), valid=_data(), batch_size=1), progress=False), "one example"),
        (lambda: lt.fit(_flat_convolutions(), _flat_task(33)), "a batch of 1"),
        (lambda: lt.fit(_net(), _task(loss=_unreduced), progress=False), "_unreduced.*no scalar"),
        (lambda: lt.distill(_net(), _net(), _task(loss=_unreduced), progress=False), "_unreduced.*no scalar"),
        (lambda: lt.distill(_net(), _net(), _task(), losses={"mine": (1, _unreduced)}, progress=False), "mine.*no"),
        (lambda: _task(metrics=["accuracy", "accuracy"]), "two metrics"),
        (lambda: lt.distill(None, _net(), _task()), "modules"),
        (lambda: lt.distill(nn.Linear(4, 3), _net(), _task(), epochs=1, progress=False), "shapes"),
        (lambda: lt.fit(_net(), lt.Task(train=[(torch.full((4, 4), math.nan), torch.zeros(4).long())], valid=_data())),
         "diverged"),
    ],
)  # fmt: skip
def test_bad_input_is_named(act, word):
    with pytest.raises(LuthierError, match=word):
        act()


class _Fabric:
    """A Fabric of mixed precision, as far as a loop sees it: what it is asked for, gradients times 1024."""

    world_size, scale, device = 1, 1024.0, "cpu"

    def __init__(self, rank: int = 0) -> None:
        self.global_rank, self.norms = rank, []

    def setup(self, model, optimizer):
        self.model = model
        return model, optimizer

    def setup_dataloaders(self, loader, move_to_device):
        return loader

    def backward(self, loss):
        (loss * self.scale).backward()

    def clip_gradients(self, module, optimizer, max_norm):
        for p in module.parameters():
            p.grad /= self.scale
        torch.nn.utils.clip_grad_norm_(module.parameters(), max_norm)
        self.norms.append(float(sum(p.grad.square().sum() for p in module.parameters()) ** 0.5))

    def all_reduce(self, tensor, reduce_op):
        return tensor

    def broadcast(self, scores):
        return scores


def test_a_fabric_clips_gradients_without_its_scale():
    fabric, model, alone = _Fabric(), _net(), _net()
    alone.load_state_dict(model.state_dict())
    how = {"epochs": 1, "optimizer": "sgd", "lr": 0.1, "clip": 1e-3, "progress": False, "keep": "last"}
    x, y = _data()
    data = torch.utils.data.TensorDataset(x, y)
    task = lt.Task(train=torch.utils.data.DataLoader(data, batch_size=len(x)), valid=(x, y))
    lt.fit(alone, task, **how)
    lt.fit(model, task, fabric=fabric, **how)
    assert fabric.norms == [pytest.approx(1e-3, rel=1e-3)]
    for p, q in zip(model.parameters(), alone.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-6)


def test_each_process_goes_on_with_random_numbers_of_its_own(tmp_path):
    class Drawing(nn.Linear):
        drawn: list = []  # noqa: RUF012

        def forward(self, x):
            if self.training:
                self.drawn.append(float(torch.rand(())))
            return super().forward(x)

    x, y = _data()
    data = torch.utils.data.TensorDataset(x, y)
    task = lt.Task(train=torch.utils.data.DataLoader(data, batch_size=len(x)), valid=(x, y))
    path = tmp_path / "run.ckpt"
    torch.manual_seed(0)

    def stop(epoch, scores):
        if epoch == 1:
            raise KeyboardInterrupt

    how = {"epochs": 2, "lr": 0.01, "progress": False, "checkpoint": path}
    with pytest.raises(KeyboardInterrupt):
        lt.fit(Drawing(x.shape[1], 8), task, fabric=_Fabric(), on_epoch=stop, **how)
    saved = path.read_bytes()
    drawn = []
    for rank in (0, 1, 2, 1):
        path.write_bytes(saved)
        Drawing.drawn.clear()
        lt.fit(Drawing(x.shape[1], 8), task, fabric=_Fabric(rank), **how)
        drawn.append(tuple(Drawing.drawn))
    assert len(set(drawn)) == 3
    assert drawn[1] == drawn[3]


def test_looking_at_the_random_streams_does_not_start_cuda(monkeypatch):
    def started():
        raise AssertionError("CUDA was started")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", started)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: started())
    before = torch.get_rng_state()
    with seeded(3):
        inside = torch.rand(4)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(inside, torch.rand(4, generator=torch.Generator().manual_seed(3)))


def test_gradients_from_before_count_in_no_step():
    x, y = torch.randn(16, 3), torch.randint(2, (16,))
    task = lt.Task(train=[(x, y)], valid=[(x, y)])
    fresh = nn.Linear(3, 2)
    used = copy.deepcopy(fresh)
    (100 * used(x).sum()).backward()
    for net in (fresh, used):
        lt.fit(net, task, epochs=2, optimizer="sgd", lr=0.1, progress=False)
    assert torch.equal(fresh.weight, used.weight)


class Stream(torch.utils.data.IterableDataset):
    """Examples one by one, without saying how many."""

    def __iter__(self):
        generator = torch.Generator().manual_seed(0)
        for _ in range(20):
            x = torch.randn(3, generator=generator)
            yield x, (x[0] > 0).long()


def test_a_stream_of_examples_is_learned_from_as_from_its_batches():
    loader = torch.utils.data.DataLoader(Stream(), batch_size=8)
    streamed = nn.Linear(3, 2)
    listed = copy.deepcopy(streamed)
    lt.fit(streamed, lt.Task(train=loader, valid=loader), epochs=3, progress=False)
    lt.fit(listed, lt.Task(train=list(loader), valid=list(loader)), epochs=3, progress=False)
    assert torch.equal(streamed.weight, listed.weight)


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        ([(torch.zeros(3), torch.tensor(1))], "single examples"),
        ([((torch.zeros(4, 3),), torch.zeros(4).long())], "cannot be read"),
        ([(torch.zeros(4, 3).numpy(), torch.zeros(4).long())], "cannot be read"),
    ],
)
def test_batches_that_cannot_be_read_are_named(batches, words):
    with pytest.raises(LuthierError, match=words):
        lt.fit(nn.Linear(3, 2), lt.Task(train=batches, valid=batches), epochs=1, progress=False)


class _Tabled(nn.Module):
    """Makes a table for the longest input so far and keeps it, as positional encodings are."""

    def __init__(self):
        super().__init__()
        self.layer, self.table = nn.Linear(4, 2), torch.zeros(0, 1)

    def forward(self, x):
        if len(self.table) < x.shape[1]:
            self.table = torch.arange(x.shape[1])[:, None].float().cos()
        return (self.layer(x) * self.table[: x.shape[1]]).mean(1)


def test_what_a_network_keeps_while_it_is_evaluated_can_be_trained_with():
    net, x, y = _Tabled(), torch.randn(16, 3, 4), torch.randint(2, (16,))
    lt.evaluate(net, (x, y))
    seen = []
    task = lt.Task(train=(x, y), valid=(torch.randn(16, 6, 4), y))
    lt.fit(net, task, epochs=2, progress=False, on_epoch=lambda e, s: seen.append(s["loss"]))
    assert len(seen) == 2
    assert len(net.table) == 6


@pytest.mark.parametrize("kind", ["tensors", "loader", "batches"])
def test_a_schedule_counts_only_the_batches_that_are_learned_from(kind):
    x, y, seen = torch.randn(33, 4), torch.randint(2, (33,)), []
    batches = [(x[:16], y[:16]), (x[16:32], y[16:32]), (x[32:], y[32:])]  # the last is too small for batch norm
    loader = torch.utils.data.DataLoader(list(zip(x, y, strict=True)), batch_size=16)
    train = {"tensors": (x, y), "loader": loader, "batches": batches}[kind]
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    task = lt.Task(train=train, valid=(x, y), batch_size=16)
    how = {"epochs": 3, "warmup": 0.0, "schedule": lambda done: seen.append(done) or 1.0, "progress": False}
    lt.fit(net, task, **how)
    assert list(dict.fromkeys(seen)) == [pytest.approx(step / 6) for step in range(6)]


def test_what_is_called_after_an_epoch_is_looked_at_before_the_first():
    net = nn.Linear(4, 2)
    before = net.weight.clone()
    x, y = torch.randn(8, 4), torch.randint(2, (8,))
    with pytest.raises(LuthierError, match="on_epoch"):
        lt.fit(net, lt.Task(train=(x, y), valid=(x, y)), epochs=1, progress=False, on_epoch=[print])
    assert torch.equal(net.weight, before)


def test_training_learns_where_gradients_are_switched_off():
    nets = [nn.Linear(4, 2)]
    nets.append(copy.deepcopy(nets[0]))
    x, y = torch.randn(8, 4), torch.randint(2, (8,))
    task = lt.Task(train=[(x, y)], valid=[(x, y)])
    lt.fit(nets[0], task, epochs=2, progress=False)
    with torch.no_grad():
        lt.fit(nets[1], task, epochs=2, progress=False)
    assert torch.equal(nets[0].weight, nets[1].weight)


def test_a_data_set_without_a_loader_is_told_what_to_do():
    data = torch.utils.data.TensorDataset(torch.randn(8, 4), torch.randint(2, (8,)))
    with pytest.raises(LuthierError, match="the data is not a loader") as refused:
        lt.evaluate(nn.Linear(4, 2), data)
    assert "DataLoader" in str(refused.value)
