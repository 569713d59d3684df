"""Teachers' outputs on disk: the size that was said, the likeliest classes, and damage."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, TensorDataset, default_collate

import luthier as lt
from luthier.batch import Layout
from luthier.distillation import Cache
from luthier.distillation.cache import answers_over, is_fixed
from luthier.distillation.disk import shortened
from luthier.errors import OutputError, UsageError


def _data(n=40):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 4, generator=generator), torch.randint(6, (n,), generator=generator)


def _teacher(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6))


def _loader(x, y):
    return DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True)


@pytest.mark.parametrize(("top_k", "expected"), [(None, 40 * 6 * 4), (2, 40 * (2 * 8 + 4)), (6, 40 * 6 * 4)])
def test_the_size_is_said_before_and_is_right(tmp_path, top_k, expected):
    said = []
    cache = Cache(tmp_path, top_k)

    def tell(text):
        said.append((text, list(tmp_path.iterdir())))

    answers_over(_teacher(), _loader(*_data()), Layout(), cache, tell)
    (file,) = tmp_path.iterdir()
    assert cache.bytes(40, (6,)) == expected
    assert said == [(f"the teacher's outputs for 40 examples take {expected:,} bytes in {tmp_path}", [])]
    assert expected < file.stat().st_size < expected + 1024


@pytest.mark.parametrize("top_k", [None, 2])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_size_is_right_in_other_precisions(tmp_path, dtype, top_k):
    said, (x, y), cache = [], _data(), Cache(tmp_path, top_k)
    answers = answers_over(_teacher().to(dtype), _loader(x.to(dtype), y), Layout(), cache, said.append)
    (file,) = tmp_path.iterdir()
    held = sum(part.numel() * part.element_size() for part in answers.parts)
    assert held < file.stat().st_size < held + 1024
    assert f"take {held:,} bytes" in said[0]
    assert cache.bytes(40, (6,), dtype) == held


def test_stored_outputs_are_the_teachers(tmp_path):
    x, y = _data()
    teacher = _teacher()
    for _ in range(2):  # computed, then read
        answers = answers_over(teacher, _loader(x, y), Layout(), Cache(tmp_path))
        assert torch.allclose(answers.dense(answers.parts), teacher(x), atol=1e-6)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("class_dim", [1, -1])
def test_the_likeliest_classes_keep_their_probabilities(class_dim):
    outputs = torch.randn(5, 7, 3, generator=torch.Generator().manual_seed(1)).movedim(1, class_dim)
    kept = shortened(outputs, 2, class_dim)
    full, short = outputs.softmax(class_dim), kept.dense(kept.parts).softmax(class_dim)
    assert short.shape == full.shape
    order = full.argsort(class_dim, descending=True)
    best, rest = order.narrow(class_dim, 0, 2), order.narrow(class_dim, 2, 5)
    assert torch.allclose(full.gather(class_dim, best), short.gather(class_dim, best), atol=1e-6)
    others = short.gather(class_dim, rest)
    assert torch.allclose(others, others.mean(class_dim, keepdim=True).expand_as(others), atol=1e-6)


def test_all_classes_are_the_outputs_themselves():
    outputs = torch.randn(5, 7)
    assert shortened(outputs, 7).parts == (outputs,)


def test_another_teacher_or_other_data_get_a_file_of_their_own(tmp_path):
    x, y = _data()
    for teacher, inputs in ((_teacher(0), x), (_teacher(1), x), (_teacher(0), x + 1)):
        answers = answers_over(teacher, _loader(inputs, y), Layout(), Cache(tmp_path))
        assert torch.allclose(answers.dense(answers.parts), teacher(inputs), atol=1e-6)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "noise"])
def test_a_damaged_file_is_made_anew(tmp_path, damage):
    x, y = _data()
    teacher = _teacher()
    answers_over(teacher, _loader(x, y), Layout(), Cache(tmp_path))
    (file,) = tmp_path.iterdir()
    good = file.read_bytes()
    flipped = good[:-5] + bytes([good[-5] ^ 1]) + good[-4:]
    file.write_bytes({"cut": good[:-8], "flip": flipped, "empty": b"", "noise": bytes(200)}[damage])
    with pytest.warns(UserWarning, match="made anew"):
        answers = answers_over(teacher, _loader(x, y), Layout(), Cache(tmp_path))
    assert torch.allclose(answers.dense(answers.parts), teacher(x), atol=1e-6)
    assert file.read_bytes()[-960:] == good[-960:]  # 40 x 6 numbers; the header lists its entries in any order


def test_a_teacher_whose_code_has_changed_is_noticed(tmp_path):
    class Teacher(nn.Linear):
        sign = 1

        def forward(self, x):
            return self.sign * super().forward(x)

    x, y = _data()
    teacher = Teacher(4, 6)
    answers_over(teacher, _loader(x, y), Layout(), Cache(tmp_path))
    Teacher.sign = -1
    with pytest.warns(UserWarning, match="other outputs"):
        answers = answers_over(teacher, _loader(x, y), Layout(), Cache(tmp_path))
    assert torch.allclose(answers.parts[0], teacher(x), atol=1e-6)


def test_distilled_from_the_cache_as_without_it(tmp_path):
    x, y = _data()
    task = lt.Task(train=(x, y), valid=(x, y), batch_size=16)
    weights = []
    for cache in (None, tmp_path, tmp_path):
        torch.manual_seed(3)
        student = nn.Linear(4, 6)
        lt.distill(student, _teacher(), task, losses={"kl": 1.0}, cache=cache, epochs=2, progress=False)
        weights.append(student.weight.detach())
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])


def test_several_teachers_from_the_cache(tmp_path):
    x, y = _data()
    task = lt.Task(train=(x, y), valid=(x, y), batch_size=16)
    how = {"losses": {"kl": 1.0}, "cache": Cache(tmp_path, top_k=3), "epochs": 1, "progress": False}
    lt.distill(nn.Linear(4, 6), [_teacher(0), _teacher(1)], task, **how)
    assert len(list(tmp_path.iterdir())) == 2


def test_data_that_may_differ_from_pass_to_pass_are_refused(tmp_path):
    x, y = _data()
    task = lt.Task(train=[(x, y)], valid=(x, y))
    with pytest.raises(UsageError, match="augment"):
        lt.distill(nn.Linear(4, 6), _teacher(), task, cache=tmp_path, epochs=1, progress=False)


class _Louder(TensorDataset):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x * 100, y


class _Seeing(nn.Linear):
    """Keeps the inputs that it is trained on."""

    def forward(self, x):
        if self.training:
            self.seen.append(x.detach())
        return super().forward(x)


def _louder(items):
    x, y = default_collate(items)
    return x * 100, y


_OWN_LOADERS = {
    "collate_fn": lambda d: DataLoader(d, 16, shuffle=True, collate_fn=_louder),
    "data set": lambda d: DataLoader(_Louder(*d.tensors), 16, shuffle=True),
    "with replacement": lambda d: DataLoader(d, 16, sampler=RandomSampler(d, replacement=True)),
    "fewer": lambda d: DataLoader(d, 16, sampler=RandomSampler(d, num_samples=20)),
    "part": lambda d: DataLoader(d, 16, sampler=SequentialSampler(range(20))),
    "own stream": lambda d: DataLoader(d, 16, sampler=RandomSampler(d, generator=torch.Generator().manual_seed(5))),
    "plain": lambda d: DataLoader(d, 16, shuffle=True),
}


@pytest.mark.parametrize("kind", _OWN_LOADERS)
def test_a_student_is_distilled_on_just_what_the_loader_gives(kind, tmp_path):
    x, y = _data()
    seen = {}
    for verb in ("fit", "distill"):
        loader = _OWN_LOADERS[kind](TensorDataset(x, y))
        student, task = _Seeing(4, 6), lt.Task(train=loader, valid=(x, y))
        student.seen = []
        if verb == "fit":
            lt.fit(student, task, epochs=2, progress=False)
        else:
            lt.distill(student, _teacher(), task, losses={"kl": 1.0}, epochs=2, progress=False)
        seen[verb] = torch.cat(student.seen)
    assert torch.equal(seen["fit"], seen["distill"])
    assert is_fixed(loader) == (kind in ("plain", "own stream"))
    if not is_fixed(loader):
        with pytest.raises(UsageError, match="cannot be cached"):
            lt.distill(nn.Linear(4, 6), _teacher(), task, cache=tmp_path, epochs=1, progress=False)


def test_a_cache_that_features_cannot_use_is_said(tmp_path):
    x, y = _data()
    task = lt.Task(train=(x, y), valid=(x, y))
    with pytest.warns(UserWarning, match="cache is not used"):
        lt.distill(_teacher(1), _teacher(), task, losses={"hint": 1.0}, cache=tmp_path, epochs=1, progress=False)
    assert not list(tmp_path.iterdir())


def test_no_class_at_all_is_refused():
    with pytest.raises(UsageError, match="top_k"):
        Cache("x", top_k=0)


class _Stateful(nn.Linear):
    """A module that keeps more than tensors."""

    extra: object = None

    def get_extra_state(self):
        return self.extra

    def set_extra_state(self, state):
        self.extra = state


def test_a_teacher_may_keep_more_than_tensors(tmp_path):
    x, y = _data()
    states = [{"scale": 1}, {"scale": 2}, [torch.zeros(2000)], [torch.ones(2000)], b"one", object(), object()]
    for state in states:
        teacher = _Stateful(x.shape[1], 3)
        with torch.no_grad():
            teacher.weight.zero_()
            teacher.bias.zero_()
        teacher.extra = state
        answers_over(teacher, _loader(x, y), Layout(), Cache(tmp_path))
    assert len(list(tmp_path.iterdir())) == len(states) - 1  # two objects of a kind are alike


@pytest.mark.parametrize("loss", ["bce", "mse"])
def test_the_likeliest_of_outputs_that_are_no_classes_are_not_stored(tmp_path, loss):
    x = torch.randn(8, 3)
    task = lt.Task(train=(x, torch.zeros(8, 4)), valid=(x, torch.zeros(8, 4)), loss=loss, metrics=["mse"])
    with pytest.raises(UsageError, match="no classes"):
        lt.distill(nn.Linear(3, 4), nn.Linear(3, 4), task, cache=Cache(tmp_path, top_k=2), progress=False)


def test_a_cache_that_is_no_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("of the user's")
    x = torch.randn(8, 3)
    task = lt.Task(train=(x, torch.zeros(8).long()), valid=(x, torch.zeros(8).long()))
    with pytest.raises(OutputError, match="file"):
        lt.distill(nn.Linear(3, 4), nn.Linear(3, 4), task, cache=tmp_path / "file", progress=False)
