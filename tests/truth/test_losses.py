"""Distillation losses against torch.distributions, closed forms and finite differences."""

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from luthier.distillation import losses
from luthier.distillation.losses.kl import KL
from luthier.distillation.student import distillation_loss
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


@pytest.mark.parametrize("name", losses.names())
class TestEveryLoss:
    def test_is_zero_where_student_and_teacher_agree(self, name):
        outputs = _logits(2, 6, 4)
        assert float(losses.get(name, temperature=3.0)(outputs, outputs.clone())) == pytest.approx(0, abs=1e-12)

    def test_is_positive_where_they_differ(self, name):
        assert float(losses.get(name, temperature=3.0)(_logits(2, 6, 4), _logits(3, 6, 4))) > 1e-3

    def test_gradient_by_finite_differences(self, name):
        student, teacher = _logits(2, 3, 4).requires_grad_(), _logits(3, 3, 4)
        assert torch.autograd.gradcheck(lambda s: losses.get(name, temperature=2.0)(s, teacher), (student,))

    def test_is_the_mean_over_the_batch(self, name):
        student, teacher = _logits(2, 4, 4), _logits(3, 4, 4)
        loss = losses.get(name, temperature=2.0)
        halves = (loss(student[:2], teacher[:2]) + loss(student[2:], teacher[2:])) / 2
        assert torch.allclose(loss(student, teacher), halves)


def test_weights_add_up_with_the_task_loss():
    x, y = torch.randn(8, 3), torch.randint(4, (8,))
    teacher, student = torch.nn.Linear(3, 4), torch.nn.Linear(3, 4)
    task = Task(train=(x, y), valid=(x, y))
    both = distillation_loss(teacher, task, {"kl": 0.3, "task": 0.7}, 2.0)(student, Batch((x,), y))
    expected = 0.3 * KL(2.0)(student(x), teacher(x)) + 0.7 * torch.nn.functional.cross_entropy(student(x), y)
    assert torch.allclose(both, expected)


@pytest.mark.parametrize(
    ("weights", "word"), [({"lk": 1.0}, "lk"), ({"kl": -1.0}, "weight"), ({"kl": 0.0}, "weight"), ({}, "weight")]
)
def test_useless_weights_are_refused(weights, word):
    task = Task(train=[(torch.zeros(1, 2), torch.zeros(1).long())], valid=[])
    with pytest.raises(UsageError, match=word):
        distillation_loss(torch.nn.Linear(2, 2), task, weights, 1.0)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_temperatures_are_refused(temperature):
    with pytest.raises(UsageError, match="temperature"):
        KL(temperature)
