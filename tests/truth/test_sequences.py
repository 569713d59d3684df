"""Sequence tasks: CTC against enumeration, masks that hide what does not count, scores by hand."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, kl_divergence

import luthier as lt
from luthier.batch import Batch, Layout
from luthier.distillation.lesson import Lesson
from luthier.distillation.losses.dkd import DKD
from luthier.distillation.losses.kl import KL
from luthier.errors import LuthierError
from luthier.metrics import Metric, Transcript, metric
from luthier.sequences import at, ctc, positions, read_greedily
from luthier.train import task_loss


def _random(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _collapsed(path):
    return [c for i, c in enumerate(path) if c and (i == 0 or path[i - 1] != c)]


def test_ctc_is_the_sum_over_all_alignments():
    outputs, label = _random(0, 1, 3, 4), [1, 2]
    logs = outputs.log_softmax(1)[0]
    paths = [p for p in itertools.product(range(3), repeat=4) if _collapsed(p) == label]
    total = torch.logsumexp(torch.stack([sum(logs[c, t] for t, c in enumerate(p)) for p in paths]), 0)
    assert float(ctc(outputs, torch.tensor([label]))) == pytest.approx(-float(total) / 2)  # over the label's length


def test_ctc_targets_come_in_three_forms():
    outputs = _random(0, 2, 4, 6)
    padded = torch.tensor([[1, 2, 3], [2, -100, -100]])
    lengths = torch.tensor([3, 1])
    forms = (padded, (padded, lengths), (padded, torch.tensor([6, 6]), lengths))
    assert len({float(ctc(outputs, form)) for form in forms}) == 1
    assert float(ctc(outputs, (padded, torch.tensor([6, 4]), lengths))) != float(ctc(outputs, padded))


def test_ctc_gradient_by_finite_differences():
    target = (torch.tensor([[1, 2], [2, -100]]), torch.tensor([4, 3]), torch.tensor([2, 1]))
    assert torch.autograd.gradcheck(lambda x: ctc(x, target), (_random(0, 2, 3, 4).requires_grad_(),))


def test_greedy_reading_merges_and_stops_where_frames_end():
    frames = torch.tensor([[1, 1, 0, 1, 2, 2], [0, 2, 2, 1, 1, 1]])
    outputs = nn.functional.one_hot(frames, 3).movedim(-1, 1).float()
    assert read_greedily(outputs, torch.tensor([6, 3])) == [[1, 1, 2], [2]]


def _read(*rows):
    frames = torch.tensor(rows)
    return nn.functional.one_hot(frames, 30).movedim(-1, 1).float()


def test_error_rates_by_hand():
    outputs = _read([1, 2, 3, 0], [4, 0, 0, 0])
    target = torch.tensor([[1, 2, 5], [4, -100, -100]])
    assert metric("cer")(outputs, target) == pytest.approx(1 / 4)  # one of four letters is another
    assert metric("wer")(outputs, target) == pytest.approx(1 / 4)  # where every class is a word
    assert metric("transcript_accuracy")(outputs, target) == 0.5


def test_words_are_told_apart_by_letters():
    letters = "ab "  # classes 1, 2, 3
    outputs, target = _read([1, 2, 3, 1, 0]), torch.tensor([[1, 2, 3, 2]])  # read "ab a", true "ab b"
    assert Metric("wer", Transcript("word_error_rate", letters), "min")(outputs, target) == pytest.approx(1 / 2)
    assert Metric("cer", Transcript("char_error_rate", letters), "min")(outputs, target) == pytest.approx(1 / 4)


def test_positions_that_do_not_count_are_not_compared():
    target = torch.tensor([[0, 1, -100], [2, -100, -100]])
    outputs = _random(0, 2, 4, 3)
    mask = positions(Batch((), target), outputs)
    assert mask.tolist() == [[True, True, False], [True, False, False]]
    student, teacher = at(outputs, mask), at(_random(1, 2, 4, 3), mask)
    expected = kl_divergence(Categorical(logits=teacher / 2), Categorical(logits=student / 2)).mean() * 4
    assert torch.allclose(KL(2.0)(student, teacher), expected)


def test_an_attention_mask_hides_positions_too():
    target = torch.tensor([[0, 1, -100], [2, 1, 1]])
    batch = Batch((), target, named={"attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])})
    assert positions(batch, torch.zeros(2, 4, 3)).tolist() == [[True, True, False], [True, True, False]]


class _Tagger(nn.Module):
    """Hugging Face's way: arguments by name, logits of shape (n, positions, classes)."""

    def __init__(self, width):
        super().__init__()
        self.embed, self.head = nn.Embedding(9, width), nn.Linear(width, 3)

    def forward(self, input_ids, attention_mask):
        return {"logits": self.head(self.embed(input_ids) * attention_mask[..., None])}


def _tagged(n=32, length=7):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 9, (n, length), generator=generator)
    mask = (torch.arange(length) < torch.randint(2, length + 1, (n, 1), generator=generator)).long()
    labels = torch.where(mask.bool(), ids % 3, torch.full_like(ids, -100))
    return [{"input_ids": ids[i : i + 8], "attention_mask": mask[i : i + 8], "labels": labels[i : i + 8]}
            for i in range(0, n, 8)]  # fmt: skip


def test_token_classification_with_dicts_and_masks():
    batches = _tagged()
    task = lt.Task(train=batches, valid=batches, class_dim=-1, metrics=["accuracy", "f1_macro", "perplexity"])
    torch.manual_seed(0)
    teacher = lt.fit(_Tagger(8), task, epochs=30, lr=0.1, progress=False)
    scores = lt.evaluate(teacher, batches, ["accuracy", "perplexity"], class_dim=-1)
    assert scores["accuracy"] == 1.0
    assert scores["perplexity"] < 1.2
    student = lt.distill(_Tagger(4), teacher, task, losses={"kl": 1.0}, epochs=30, lr=0.1, progress=False)
    assert lt.evaluate(student, batches, ["accuracy"], class_dim=-1)["accuracy"] == 1.0


@pytest.mark.parametrize("loss", ["kl", "dkd", "mse", "cosine"])
def test_what_is_masked_has_no_gradient(loss):
    class Given(nn.Module):
        def __init__(self, outputs):
            super().__init__()
            self.outputs = nn.Parameter(outputs)

        def forward(self, x):
            return self.outputs

    target = torch.tensor([[0, 1, -100], [2, -100, -100]])
    student, teacher = Given(_random(0, 2, 3, 4)), Given(_random(1, 2, 3, 4))
    task = lt.Task(train=[(torch.zeros(2, 1), target)], valid=[(torch.zeros(2, 1), target)], class_dim=-1)
    Lesson(student, teacher, task, {loss: 0.5, "task": 0.5})(student, Batch((torch.zeros(2, 1),), target)).backward()
    counted = student.outputs.grad.abs().sum(-1) > 0
    assert counted.tolist() == (target >= 0).tolist()


class _Reader(nn.Module):
    """Frames of shape (n, frames, features) -> (n, frames, classes)."""

    def __init__(self, width):
        super().__init__()
        self.rnn = nn.GRU(5, width, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * width, 5)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


def _spoken(n=64, frames=12):
    """Three labels, each heard over three frames; the rest is noise that must not count."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.stack([torch.randperm(4, generator=generator)[:3] + 1 for _ in range(n)])
    x = 0.1 * torch.randn(n, frames, 5, generator=generator)
    for i in range(3):
        x[torch.arange(n), 3 * i + 1, labels[:, i]] += 3
    return x, labels, torch.full((n,), 9), torch.full((n,), 3)


def test_ctc_is_trained_and_distilled_with_lengths():
    data = _spoken()
    scores = ["transcript_accuracy", "cer"]
    task = lt.Task(train=data, valid=data, loss="ctc", targets=3, class_dim=-1, batch_size=16, metrics=scores)
    torch.manual_seed(0)
    teacher = lt.fit(_Reader(16), task, epochs=40, lr=0.02, progress=False)
    assert lt.evaluate(teacher, data, scores, targets=3, class_dim=-1)["transcript_accuracy"] > 0.9
    how = {"epochs": 30, "lr": 0.02, "progress": False}
    student = lt.distill(_Reader(8), teacher, task, losses={"kl": 1.0, "task": 0.1}, temperature=1.0, **how)
    assert lt.evaluate(student, data, scores, targets=3, class_dim=-1)["transcript_accuracy"] > 0.9


def test_frames_beyond_a_transcripts_length_are_not_learned_from():
    data = _spoken(4)
    task = lt.Task(train=data, valid=data, loss="ctc", targets=3, class_dim=-1, metrics=["cer"])
    teacher, student = _Reader(8), _Reader(4)
    lesson, batch = Lesson(student, teacher, task, {"kl": 1.0}), next(task.batches("valid"))
    with torch.no_grad():
        outputs = teacher(*batch.inputs)
        other = outputs.clone()
        other[:, 9:] += 5
        values = [float(lesson(student, batch.taught((x,)))) for x in (outputs, other)]
    assert values[0] == values[1]


def test_batches_of_different_lengths_are_scored_together():
    batches = [(_read([1, 2, 0]), torch.tensor([[1, 2]])), (_read([3, 0, 4, 5]), torch.tensor([[3, 4, 5]]))]
    assert lt.evaluate(nn.Identity(), batches, ["cer", "transcript_accuracy"]) == {
        "cer": 0.0,
        "transcript_accuracy": 1.0,
    }


def test_targets_may_be_nested_or_flat():
    labels, lengths = torch.tensor([[1, 2]]), torch.tensor([2])
    nested = Layout().read((torch.zeros(1), (labels, lengths)))
    flat = Layout(targets=2).read((torch.zeros(1), labels, lengths))
    assert all(torch.equal(a, b) for a, b in zip(nested.target, flat.target, strict=True))
    assert nested.size == 1


def test_perplexity_is_exp_of_the_mean_cross_entropy():
    outputs, target = _random(0, 2, 4, 3), torch.tensor([[0, 1, -100], [2, 3, 1]])
    mean = nn.functional.cross_entropy(outputs, target, ignore_index=-100)
    assert metric("perplexity")(outputs, target) == pytest.approx(math.exp(float(mean)), rel=1e-6)


@pytest.mark.parametrize(
    ("act", "word"),
    [
        (lambda: ctc(torch.zeros(2, 3, 4), torch.zeros(3, 2).long()), "fit"),
        (lambda: ctc(torch.zeros(1, 3, 4), torch.tensor([[1, 5]])), "1 to 2"),
        (lambda: ctc(torch.zeros(1, 3, 4), torch.tensor([[0, 1]])), "blank"),
        (lambda: ctc(torch.zeros(1, 3, 4), (torch.tensor([[1]]), torch.tensor([9]), torch.tensor([1]))), "frame"),
        (lambda: lt.Task(train=[], valid=[], class_dim=0), "class_dim"),
        (lambda: lt.Task(train=[], valid=[], targets=0), "targets"),
        (lambda: Layout().read({"x": torch.zeros(1)}), "labels"),
        (lambda: lt.evaluate(nn.Identity(), [(torch.zeros(2, 3, 4), torch.zeros(2, 3).long())]), "class_dim=-1"),
        (lambda: lt.Task(train=_tagged(), valid=[]).example(), "in order"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(act, word):
    with pytest.raises(LuthierError, match=word):
        act()


@pytest.mark.parametrize("name", ["mse", "mae", "rmse"])
@pytest.mark.parametrize("kind", [torch.float32, torch.int64])
def test_numbers_of_batches_of_different_lengths_are_not_scored_on_padding(name, kind):
    batches = [(torch.ones(2, 3, n), torch.ones(2, 3, n, dtype=kind)) for n in (5, 7)]
    assert lt.evaluate(nn.Identity(), batches, [name]) == {name: 0.0}
    mixed = [(torch.ones(1, 2), torch.zeros(1, 2)), (torch.ones(1, 6), torch.ones(1, 6))]
    assert lt.evaluate(nn.Identity(), mixed, ["mse"])["mse"] == 0.25  # 2 of 8 numbers are off by 1


def test_a_function_of_ones_own_sees_no_padding():
    seen = []

    def share(outputs, target):
        seen.append((tuple(outputs.shape), tuple(target.shape)))
        return (outputs.argmax(1) == target).float().mean()

    batches = [(nn.functional.one_hot(torch.zeros(2, n).long(), 3).float(), torch.zeros(2, n).long()) for n in (4, 6)]
    assert lt.evaluate(nn.Identity(), batches, [share, "accuracy"], class_dim=-1) == {"share": 1.0, "accuracy": 1.0}
    assert seen == [((20, 3), (20,))]


def test_what_cannot_be_joined_without_padding_is_refused():
    starts = [(torch.ones(2, n), torch.zeros(2).long()) for n in (4, 6)]  # which position, of differently many
    with pytest.raises(LuthierError, match="different lengths"):
        lt.evaluate(nn.Identity(), starts, ["accuracy"])
    several = [(torch.ones(2, 2, n), torch.zeros(2).long(), torch.zeros(2).long()) for n in (4, 6)]
    with pytest.raises(LuthierError, match="different lengths"):
        lt.evaluate(nn.Identity(), several, [lambda o, t: 0.0], targets=2)


@pytest.mark.parametrize("loss", ["cross_entropy", "bce"])
def test_a_number_for_each_class_of_batches_of_different_lengths_is_read_by_position(loss):
    generator = torch.Generator().manual_seed(0)
    outputs = [torch.randn(4, 3, n, generator=generator) for n in (5, 7)]
    shares = [torch.randn(x.shape, generator=generator).softmax(1) for x in outputs]
    if loss == "bce":
        shares = [(s > 0.3).float() for s in shares]
    flat, true = (torch.cat([x.movedim(1, -1).reshape(-1, 3) for x in each]) for each in (outputs, shares))
    expected = (flat.argmax(1) == true.argmax(1)) if loss == "cross_entropy" else ((flat > 0) == true)
    got = lt.evaluate(nn.Identity(), list(zip(outputs, shares, strict=True)), ["accuracy", "mse"], loss=loss)
    assert got["accuracy"] == pytest.approx(float(expected.double().mean()), abs=1e-6)
    assert got["mse"] == pytest.approx(float((flat - true).square().mean()), abs=1e-6)


def test_transcripts_of_different_lengths_are_read_to_their_ends():
    batches = [(_read([1, 2, 3, 0]), torch.tensor([[1, 2, 3]])), (_read([4, 4]), torch.tensor([[4]]))]
    assert lt.evaluate(nn.Identity(), batches, ["transcript_accuracy"])["transcript_accuracy"] == 1.0


class _Given(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, outputs, attention_mask):
        return outputs * self.scale


def test_what_is_outside_the_attention_mask_counts_in_no_loss_and_no_metric():
    outputs = nn.functional.one_hot(torch.tensor([[0, 1, 2, 2]]), 3).float()
    batch = {"outputs": outputs, "attention_mask": torch.tensor([[1, 1, 0, 0]]), "labels": torch.tensor([[0, 1, 0, 0]])}
    assert lt.evaluate(_Given(), [batch], ["accuracy"], class_dim=-1)["accuracy"] == 1.0
    task = lt.Task(train=[batch], valid=[batch], class_dim=-1)
    loss = task_loss(task)(_Given(), next(task.batches("train")))
    assert float(loss.detach()) == pytest.approx(math.log(math.e + 2) - 1)


def test_a_decoders_labels_are_not_hidden_by_the_encoders_mask():
    labels, mask = torch.tensor([[0, 1]]), torch.tensor([[1, 0]])
    batch = {"attention_mask": mask, "decoder_input_ids": labels, "labels": labels}
    assert Layout().read(batch).target.tolist() == [[0, 1]]


def test_yes_no_answers_of_minus_100_count_in_no_loss_and_no_metric():
    outputs = torch.tensor([[2.0, -1.0], [3.0, 1.0]])
    target = torch.tensor([[1, -100], [-100, 0]])
    assert float(metric("accuracy")(outputs, target)) == 0.5
    task = lt.Task(train=(outputs, target), valid=(outputs, target), loss="bce")
    expected = nn.functional.binary_cross_entropy_with_logits(torch.tensor([2.0, 1.0]), torch.tensor([1.0, 0.0]))
    assert torch.equal(task.loss_function(outputs, target), expected)
    assert metric("f1_macro")(outputs, target) >= 0
    assert metric("auroc")(torch.randn(8, 2), torch.tensor([[0, 1], [1, 0]] * 3 + [[-100, 1], [0, -100]])) >= 0


_PLAIN = {"optimizer": "sgd", "momentum": 0.0, "schedule": "constant", "weight_decay": 0.0, "warmup": 0.0}


def _trained(batches, weights):
    """A tagger's parameters after plain descent: a step that nothing counts in must leave them where they are."""
    torch.manual_seed(0)
    net, teacher = _Tagger(4), _Tagger(6)
    task = lt.Task(train=batches, valid=_tagged(), class_dim=-1)
    how = {**_PLAIN, "epochs": 1, "lr": 0.1, "keep": "last", "progress": False}
    if weights is None:
        lt.fit(net, task, **how)
    else:
        lt.distill(net, teacher, task, losses=weights, taps=["embed"], **how)
    return torch.cat([p.detach().flatten() for p in net.parameters()])


@pytest.mark.parametrize(
    "weights", [None, *({name: 1.0} for name in ("kl", "mse", "cosine", "dkd", "hint", "attention", "rkd", "crd"))]
)
@pytest.mark.parametrize("masked", [False, True])
def test_a_batch_of_padding_alone_changes_nothing(weights, masked):
    batches = _tagged()
    empty = {**batches[0], "labels": torch.full_like(batches[0]["labels"], -100)}
    if masked:
        empty["attention_mask"] = torch.zeros_like(empty["attention_mask"])
    alone, with_padding = _trained(batches, weights), _trained([batches[0], empty, *batches[1:]], weights)
    assert torch.equal(alone, with_padding)


def test_answers_and_frames_of_which_none_counts_give_no_gradient():
    outputs = _random(0, 3, 4).requires_grad_()
    task = lt.Task(train=[], valid=[], loss="bce")
    loss = task.loss_function(outputs, torch.full((3, 4), -100.0))
    loss.backward()
    assert (float(loss.detach()), float(outputs.grad.abs().sum())) == (0.0, 0.0)
    x, labels, frames, _ = _spoken(4)
    none = torch.zeros_like(frames)
    task = lt.Task(train=[(x, labels, none, none)], valid=[], targets=3, loss="ctc", class_dim=-1, metrics=["cer"])
    student = _Reader(4)
    loss = Lesson(student, _Reader(6), task, {"kl": 0.5, "task": 0.5})(student, Batch((x,), (labels, none, none)))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert all(float(p.grad.abs().sum()) == 0 for p in student.parameters())


@pytest.mark.parametrize("padded", [False, True])
def test_dkd_is_the_mean_over_the_positions_that_count(padded):
    ids = torch.randint(9, (5, 6), generator=torch.Generator().manual_seed(0))
    labels = (ids % 3).masked_fill(torch.arange(6) >= 4, -100) if padded else ids % 3
    student, teacher = nn.Embedding(9, 3), nn.Embedding(9, 3)
    task = lt.Task(train=(ids, labels), valid=(ids, labels), class_dim=-1)
    found = Lesson(student, teacher, task, {"dkd": 1.0})(student, Batch((ids,), labels))
    single = [DKD()(student(i)[None], teacher(i)[None], c[None])
              for i, c in zip(ids.flatten(), labels.flatten(), strict=True) if c >= 0]  # fmt: skip
    assert torch.allclose(found, torch.stack(single).mean(), atol=1e-6)


def test_dkd_leaves_out_examples_without_a_class():
    student, teacher, target = _random(0, 4, 5), _random(1, 4, 5), torch.tensor([2, -100, 0, -100])
    assert torch.allclose(DKD()(student, teacher, target), DKD()(student[::2], teacher[::2], target[::2]))
    assert float(DKD()(student, teacher, torch.full((4,), -100))) == 0.0


@pytest.mark.parametrize("longest", [3, 12])  # as many labels as frames are no classes of frames either
def test_dkd_is_refused_for_transcripts(longest):
    x, labels, frames, lengths = _spoken(4)
    labels = nn.functional.pad(labels, (0, longest - 3), value=-100)
    for parts in ((labels,), (labels, lengths), (labels, frames, lengths)):
        task = lt.Task(
            train=(x, *parts), valid=(x, *parts), targets=len(parts), loss="ctc", class_dim=-1, metrics=["cer"]
        )
        with pytest.raises(LuthierError, match="true class of each position"):
            lt.distill(_Reader(4), _Reader(6), task, losses={"dkd": 1.0}, epochs=1, progress=False)


@pytest.mark.parametrize("name", ["kl", "mse", "cosine", "dkd", "task"])
def test_examples_of_minus_100_count_in_no_loss_of_distillation(name):
    x, y = torch.randn(12, 5), torch.randint(4, (12,))
    hidden = y.clone()
    hidden[:5] = -100
    student, teacher = nn.Linear(5, 4), nn.Linear(5, 4)
    lesson = Lesson(student, teacher, lt.Task(train=(x, y), valid=(x, y)), {name: 1.0})
    found, expected = lesson(student, Batch((x,), hidden)), lesson(student, Batch((x[5:],), y[5:]))
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_number_of_minus_100_is_a_number():
    x, y = torch.randn(12, 5), torch.full((12,), -100.0)
    student, teacher = nn.Linear(5, 1), nn.Linear(5, 1)
    lesson = Lesson(student, teacher, lt.Task(train=(x, y), valid=(x, y), loss="mse", metrics=["mse"]), {"mse": 1.0})
    expected = nn.functional.mse_loss(student(x), teacher(x))
    assert lesson(student, Batch((x,), y)).item() == pytest.approx(expected.item())
