"""A training run that is killed goes on from its checkpoint, bit for bit."""

import copy
import functools
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

import luthier as lt
from luthier.distillation import Fade
from luthier.errors import LuthierError

SCRIPT = """
import os, signal, sys, random
import numpy as np, torch
from torch import nn
import luthier as lt
from luthier.distillation import Fade

place, kill_after, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
x = torch.randn(96, 4, generator=generator)
y = (x[:, 0] + x[:, 1] > 0).long()
task = lt.Task(train=(x, y), valid=(x, y), batch_size=32)
torch.manual_seed(1)
net = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2))
teacher = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

def tell(epoch, scores):
    random.random(), np.random.rand()  # a user's augmentation may draw from these
    print(epoch, flush=True)
    if epoch == kill_after:
        os.kill(os.getpid(), signal.SIGKILL)

settings = dict(epochs=6, lr=1e-2, accumulate=2, progress=False, on_epoch=tell, checkpoint=place + ".ckpt")
if how == "fit":
    lt.fit(net, task, **settings)
else:
    lt.distill(net, teacher, task, losses={"kl": Fade(0.5), "task": lambda done: 0.5 + 0.5 * done}, **settings)
torch.save({"state": net.state_dict(), "next": [random.random(), float(np.random.rand())]}, place + ".pt")
"""


def _run(place, kill_after, how):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(place), str(kill_after), how], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout.split(), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("how", ["fit", "distill"])
def test_a_killed_run_goes_on_bit_for_bit(tmp_path, how):
    code, epochs, error = _run(tmp_path / "whole", 0, how)
    assert code == 0, error
    assert epochs == list("123456")
    assert _run(tmp_path / "killed", 2, how)[:2] == (-signal.SIGKILL, ["1", "2"])
    assert _run(tmp_path / "killed", 4, how)[:2] == (-signal.SIGKILL, ["2", "3", "4"])  # 2 had not been told
    assert _run(tmp_path / "killed", 0, how)[:2] == (0, ["4", "5", "6"])
    whole, killed = (torch.load(tmp_path / f"{n}.pt", weights_only=True)["state"] for n in ("whole", "killed"))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


def _task():
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    return lt.Task(train=(x, (x[:, 0] > 0).long()), valid=(x, (x[:, 0] > 0).long()))


def test_a_finished_run_gives_its_result_again(tmp_path):
    seen, states = [], []
    for _ in range(2):
        torch.manual_seed(0)
        net = lt.fit(
            nn.Linear(4, 2), _task(), epochs=3, checkpoint=tmp_path / "a", progress=False,
            on_epoch=lambda e, s: seen.append(e),
        )  # fmt: skip
        states.append(net.weight.detach())
    assert seen == [1, 2, 3]
    assert torch.equal(*states)


def _net(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))


class Several:
    """Calls one after the other, and remembers for those that must."""

    def __init__(self, *calls):
        self.calls = calls

    def __call__(self, epoch, scores):
        for call in self.calls:
            call(epoch, scores)

    def state_dict(self):
        return {str(i): call.state_dict() for i, call in enumerate(self.calls) if hasattr(call, "state_dict")}

    def load_state_dict(self, state):
        for i, known in state.items():
            self.calls[int(i)].load_state_dict(known)


def _at(epoch, act):
    return lambda e, s: act() if e == epoch else None


def _killed():
    raise KeyboardInterrupt


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("keep", ["last", "best"])
def test_gradual_pruning_goes_on_bit_for_bit(tmp_path, keep, order):
    how = {"epochs": 6, "keep": keep, "progress": False}
    whole, killed, again = _net(0), _net(0), _net(7)
    lt.fit(whole, _task(), on_epoch=lt.GradualPruning(whole, lt.Schedule(0.8, steps=4)), **how)
    prune = lt.GradualPruning(killed, lt.Schedule(0.8, steps=4))
    with pytest.raises(KeyboardInterrupt):
        lt.fit(killed, _task(), checkpoint=tmp_path / "a", on_epoch=Several(*(prune, _at(2, _killed))[::order]), **how)
    prune, zeros = lt.GradualPruning(again, lt.Schedule(0.8, steps=4)), []
    see = Several(prune, lambda e, s: zeros.append(prune.masked.sparsity))
    lt.fit(again, _task(), checkpoint=tmp_path / "a", on_epoch=see, **how)
    assert all(
        torch.equal(*pair) for pair in zip(whole.state_dict().values(), again.state_dict().values(), strict=True)
    )
    assert [round(96 * z) for z in zeros] == [round(96 * lt.Schedule(0.8, steps=4)(e)) for e in (2, 3, 4, 5, 6)]


def _sampled(data):
    order = RandomSampler(data, generator=torch.Generator().manual_seed(3))
    return DataLoader(data, batch_sampler=BatchSampler(order, 32, drop_last=False))


@pytest.mark.parametrize(
    "load", [_sampled, lambda data: DataLoader(data, 32, shuffle=True, num_workers=1, persistent_workers=True)]
)
def test_loaders_go_on_in_the_order_that_they_would_have_had(tmp_path, load):
    x = torch.randn(96, 4, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(x, (x[:, 0] > 0).long())
    how, nets = {"epochs": 3, "progress": False}, [_net(0), _net(0), _net(7)]
    lt.fit(nets[0], lt.Task(train=load(data), valid=data.tensors), **how)
    how["checkpoint"] = tmp_path / "a"
    with pytest.raises(KeyboardInterrupt):
        lt.fit(nets[1], lt.Task(train=load(data), valid=data.tensors), on_epoch=_at(1, _killed), **how)
    lt.fit(nets[2], lt.Task(train=load(data), valid=data.tensors), **how)
    assert all(torch.equal(p, q) for p, q in zip(nets[0].parameters(), nets[2].parameters(), strict=True))


def test_a_paused_trial_goes_on_after_the_epoch_that_it_reported(tmp_path):
    seen, net = [], _net(0)

    def pause():
        raise lt.TrialStopped("for now")

    how = {"epochs": 4, "checkpoint": tmp_path / "a", "progress": False}
    with pytest.raises(lt.TrialStopped):
        lt.fit(net, _task(), on_epoch=Several(lambda e, s: seen.append(e), _at(2, pause)), **how)
    lt.fit(net, _task(), on_epoch=lambda e, s: seen.append(e), **how)
    assert seen == [1, 2, 3, 4]


def test_weights_of_an_early_epoch_are_there_after_a_resume(tmp_path):
    early, killed, again = {}, _net(0), _net(7)
    rewind = lt.Rewind(killed, at=1)
    keep = _at(1, lambda: early.update({n: w.detach().clone() for n, w in killed.named_parameters()}))
    how = {"epochs": 4, "checkpoint": tmp_path / "a", "progress": False}
    with pytest.raises(KeyboardInterrupt):
        lt.fit(killed, _task(), on_epoch=Several(rewind, keep, _at(3, _killed)), **how)
    rewind = lt.Rewind(again, at=1)
    lt.fit(again, _task(), on_epoch=Several(rewind), **how)
    masked = rewind.onto(lt.prune_weights(again, ratio=0.5))
    assert torch.equal(masked.finalize()[0].weight, early["0.weight"] * masked.masks["0.weight"])


def test_of_a_network_that_is_pruned_on_the_way_only_epochs_at_the_last_masks_are_kept():
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    for steps in (3, 6):
        net, states = _net(0), {}
        prune = lt.GradualPruning(net, lt.Schedule(0.9, steps=steps))

        def each(epoch, scores, net=net, prune=prune, states=states):
            states[epoch] = (scores["accuracy"], {n: v.clone() for n, v in net.state_dict().items()})
            prune(epoch)

        lt.fit(net, lt.Task(train=(x, y), valid=(x, y)), epochs=6, lr=0.05, progress=False, on_epoch=each)
        assert prune.masked.sparsity == pytest.approx(0.9, abs=0.01)
        if steps == 3:  # masks grow last after epoch 3: of 4, 5 and 6 the best, the later of equals
            best = max((4, 5, 6), key=lambda e: (states[e][0], e))
            assert all(torch.equal(v, states[best][1][n]) for n, v in net.state_dict().items())


def test_an_early_stop_is_remembered(tmp_path):
    seen = []
    how = {"epochs": 20, "lr": 0.0, "patience": 2, "checkpoint": tmp_path / "a", "progress": False}
    for _ in range(2):
        torch.manual_seed(0)
        lt.fit(nn.Linear(4, 2), _task(), on_epoch=lambda e, s: seen.append(e), **how)
    assert seen == [1, 2, 3]


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    lt.fit(nn.Linear(4, 2), _task(), epochs=1, checkpoint=tmp_path / "a", progress=False)
    for net, settings in ((nn.Linear(4, 2), {"epochs": 2}), (nn.Sequential(nn.Linear(4, 2)), {"epochs": 1})):
        with pytest.raises(LuthierError, match="another run"):
            lt.fit(net, _task(), checkpoint=tmp_path / "a", progress=False, **settings)


class Falling:
    """A schedule that is printed with its place in memory, which is another one in every process."""

    def __call__(self, done):
        return 1 - done


@pytest.mark.parametrize("make", [Falling, lambda: functools.partial(lambda power, done: (1 - done) ** power, 2)])
def test_a_run_goes_on_under_a_schedule_that_is_made_anew(tmp_path, make):
    held = [make() for _ in range(2)]  # at two places
    for schedule in held:
        lt.fit(nn.Linear(4, 2), _task(), epochs=1, schedule=schedule, checkpoint=tmp_path / "a", progress=False)


def test_a_checkpoint_of_other_data_is_refused(tmp_path):
    def task(x, y, kind):
        return lt.Task(train=(x, y) if kind == "tensors" else [(x[:16], y[:16]), (x[16:], y[16:])], valid=(x, y))

    x, y = torch.randn(32, 4), torch.randint(2, (32,))
    other = x.clone()
    other[-1, -1] += 1
    for kind in ("tensors", "batches"):
        how = {"epochs": 2, "checkpoint": tmp_path / kind, "progress": False}
        for _ in range(2):
            lt.fit(nn.Linear(4, 2), task(x.clone(), y, kind), **how)
        with pytest.raises(LuthierError, match="training data"):
            lt.fit(nn.Linear(4, 2), task(other, y, kind), **how)


def test_a_checkpoint_of_another_lesson_is_refused(tmp_path):
    def learn(teacher, start=0.5, **how):
        losses = {"kl": Fade(start), "mine": (0.1, lambda s, t: (s - t).abs().mean()), "task": lambda done: done}
        how = {"epochs": 1, "checkpoint": tmp_path / "a", "progress": False, **how}
        lt.distill(nn.Linear(4, 2), teacher, _task(), losses=losses, **how)

    teacher = nn.Linear(4, 2)
    learn(teacher)
    learn(copy.deepcopy(teacher))
    for act in (lambda: learn(nn.Linear(4, 2)), lambda: learn(teacher, 0.6), lambda: learn(teacher, temperature=2.0)):
        with pytest.raises(LuthierError, match="another run"):
            act()


@pytest.mark.parametrize("contents", [b"", b"no checkpoint", b"PK\x03\x04" + bytes(50)])
def test_a_damaged_checkpoint_is_named(tmp_path, contents):
    (tmp_path / "a").write_bytes(contents)
    with pytest.raises(LuthierError, match="cannot be read"):
        lt.fit(nn.Linear(4, 2), _task(), epochs=1, checkpoint=tmp_path / "a", progress=False)


def test_a_checkpoint_that_would_run_code_is_not_read(tmp_path):
    class Evil:
        def __reduce__(self):
            return (exec, ("raise SystemExit('ran')",))

    torch.save({"version": 1, "key": Evil()}, tmp_path / "a")
    with pytest.raises(LuthierError, match="cannot be read"):
        lt.fit(nn.Linear(4, 2), _task(), epochs=1, checkpoint=tmp_path / "a", progress=False)


def test_training_leaves_every_random_stream_as_it_was():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    lt.fit(nn.Linear(4, 2), _task(), epochs=1, progress=False)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
