"""Metrics against scikit-learn, through PyTorch and through an ONNX file."""

import decimal
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn import metrics as reference
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

import luthier as lt
from luthier.answers import Known
from luthier.errors import LuthierError, UsageError
from luthier.metrics import Metric, Transcript, metric, names
from luthier.train import validate

NAMES = ["accuracy", "accuracy_macro", "f1_macro", "f1_micro", "recall_macro", "precision_macro"]


@pytest.fixture
def answers():
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(200, 5, generator=generator)
    targets = torch.randint(5, (200,), generator=generator)
    return outputs, targets


def _reference(name, targets, classes):
    return {
        "accuracy": lambda: reference.accuracy_score(targets, classes),
        "accuracy_macro": lambda: reference.balanced_accuracy_score(targets, classes),
        "f1_macro": lambda: reference.f1_score(targets, classes, average="macro"),
        "f1_micro": lambda: reference.f1_score(targets, classes, average="micro"),
        "recall_macro": lambda: reference.recall_score(targets, classes, average="macro"),
        "precision_macro": lambda: reference.precision_score(targets, classes, average="macro"),
    }[name]()


@pytest.mark.parametrize("name", NAMES)
def test_classification_metrics_are_those_of_scikit_learn(name, answers):
    outputs, targets = answers
    assert metric(name)(outputs, targets) == pytest.approx(_reference(name, targets, outputs.argmax(1)), abs=1e-6)


@pytest.mark.parametrize("average", ["micro", "macro", "weighted"])
@pytest.mark.parametrize(("name", "function"), [("f1", "f1_score"), ("precision", "precision_score"),
                                                ("recall", "recall_score")])  # fmt: skip
def test_every_average_is_that_of_scikit_learn(name, function, average, answers):
    outputs, targets = answers
    expected = getattr(reference, function)(targets, outputs.argmax(1), average=average)
    assert metric(f"{name}_{average}")(outputs, targets) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("name", "average"), [("auroc", "macro"), ("auroc_weighted", "weighted")])
def test_the_area_under_the_curve_is_that_of_scikit_learn(name, average, answers):
    outputs, targets = answers
    expected = reference.roc_auc_score(targets, outputs.softmax(1), multi_class="ovr", average=average)
    assert metric(name)(outputs, targets) == pytest.approx(expected, abs=1e-5)
    yes_no, answer = outputs[:, 0], targets % 2
    assert metric("auroc")(yes_no, answer) == pytest.approx(reference.roc_auc_score(answer, yes_no), abs=1e-5)


@pytest.mark.parametrize("scale", [1, 20, 100])
def test_the_area_under_the_curve_sees_no_ties_where_probabilities_round_to_one(scale):
    """Against ranks by decimals of 400 digits."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(3, (60,), generator=generator)
    outputs = (torch.randn(60, 3, generator=generator) + F.one_hot(targets, 3)) * scale + scale
    with decimal.localcontext(prec=400):
        powers = [[decimal.Decimal(x).exp() for x in row] for row in outputs.tolist()]
        chances = [[p / sum(row) for p in row] for row in powers]
        ranks = [np.argsort(np.argsort([row[c] for row in chances])) for c in range(3)]
    expected = np.mean([reference.roc_auc_score(targets == c, ranks[c]) for c in range(3)])
    assert metric("auroc")(outputs, targets) == pytest.approx(expected, abs=1e-9)
    yes_no = outputs[:, :1]
    assert metric("auroc")(yes_no, targets == 0) == pytest.approx(reference.roc_auc_score(targets == 0, yes_no))


def test_equal_probabilities_stay_equal_under_the_curve():
    x, y = torch.randn(300, 3).numpy(), torch.randint(3, (300,)).numpy()
    estimator = KNeighborsClassifier(5).fit(x[:150], y[:150])
    expected = reference.roc_auc_score(y[150:], estimator.predict_proba(x[150:]), multi_class="ovr")
    assert lt.evaluate(estimator, (x[150:], y[150:]), ["auroc"])["auroc"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("several", [False, True])
def test_a_class_without_examples_is_left_out_of_the_mean_area_and_said(several, answers):
    outputs, targets = answers
    targets = torch.where(targets == 2, 0, targets)
    asked = F.one_hot(targets, 5) if several else targets
    scores = outputs if several else outputs.softmax(1)
    expected = np.mean([reference.roc_auc_score(targets == c, scores[:, c]) for c in (0, 1, 3, 4)])
    with pytest.warns(UserWarning, match="class 2"):
        assert metric("auroc")(outputs, asked, Known(loss="bce")) == pytest.approx(expected, abs=1e-6)
    with pytest.warns(UserWarning, match="no AUROC"):
        assert math.isnan(metric("auroc")(outputs, torch.zeros_like(targets)))


@pytest.mark.parametrize("name", ["accuracy", "f1_macro", "auroc", "perplexity"])
@pytest.mark.parametrize("loss", ["cross_entropy", nn.CrossEntropyLoss(label_smoothing=0.1), None])
def test_shares_of_classes_are_scored_by_the_largest(name, loss, answers):
    outputs, targets = answers
    shares = F.one_hot(targets, 5) * 0.9 + 0.02
    expected = lt.evaluate(nn.Identity(), (outputs, targets), [name])
    assert lt.evaluate(nn.Identity(), (outputs, shares), [name], loss=loss) == pytest.approx(expected)
    one_hot = F.one_hot(targets, 5).double()
    assert lt.evaluate(nn.Identity(), (outputs, one_hot), [name], loss="cross_entropy") == pytest.approx(expected)


def test_a_task_says_what_targets_of_the_outputs_shape_are(answers):
    outputs, targets = answers
    one_hot = F.one_hot(targets, 5).float()
    for loss, expected in (("cross_entropy", (outputs.argmax(1) == targets)), ("bce", ((outputs > 0) == one_hot))):
        task = lt.Task(train=(outputs, one_hot), valid=(outputs, one_hot), loss=loss)
        assert validate(nn.Identity(), task)["accuracy"] == pytest.approx(float(expected.double().mean()), abs=1e-6)


def test_where_nothing_says_what_one_hot_targets_are_the_reading_is_said(answers):
    outputs, targets = answers
    with pytest.warns(UserWarning, match="read as classes"):
        got = lt.evaluate(nn.Identity(), (outputs, F.one_hot(targets, 5).float()))
    assert got == lt.evaluate(nn.Identity(), (outputs, targets))
    with pytest.warns(UserWarning, match="read as yes/no questions"):
        lt.evaluate(nn.Identity(), (outputs, F.one_hot(targets, 5)))


def test_smoothed_answers_to_yes_no_questions_are_yes_above_a_half():
    outputs, targets = torch.randn(200, 3), torch.randint(2, (200, 3))
    smooth = targets * 0.8 + 0.1
    for name in ("accuracy", "f1_macro", "auroc"):
        assert metric(name)(outputs, smooth) == metric(name)(outputs, targets)
        assert metric(name)(outputs[:, 0], smooth[:, 0]) == metric(name)(outputs[:, 0], targets[:, 0])


@pytest.mark.parametrize("name", ["accuracy", "f1_macro", "auroc", "perplexity", "mse"])
def test_outputs_that_are_not_numbers_have_no_score_and_their_share_is_said(name, answers):
    outputs, targets = answers[0].clone(), answers[1].clone()
    outputs[:50, 1], targets[:10] = math.nan, -100
    wanted = outputs + 1 if name == "mse" else targets
    with pytest.warns(UserWarning, match=r"5\.0%" if name == "mse" else r"21\.1%"):  # 50 of 1000; 40 of 190
        assert math.isnan(metric(name)(outputs, wanted))
    if name != "mse":
        targets[:50] = -100
        assert metric(name)(outputs, targets) == pytest.approx(metric(name)(outputs[50:], targets[50:]))


@pytest.mark.parametrize("name", ["accuracy", "f1_macro", "auroc", "perplexity"])
def test_where_no_target_counts_there_is_no_score(name):
    with pytest.warns(UserWarning, match="no target counts"):
        assert math.isnan(metric(name)(torch.zeros(4, 3), torch.full((4,), -100)))


@pytest.mark.parametrize(
    ("name", "function"),
    [("mse", "mean_squared_error"), ("rmse", "root_mean_squared_error"), ("mae", "mean_absolute_error"),
     ("r2", "r2_score")],
)  # fmt: skip
def test_scores_of_numbers_are_those_of_scikit_learn(name, function):
    generator = torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(50, 1, generator=generator), torch.randn(50, generator=generator)
    assert metric(name)(outputs, targets) == pytest.approx(getattr(reference, function)(targets, outputs), abs=1e-6)


def test_targets_of_minus_100_do_not_count(answers):
    outputs, targets = answers
    hidden = torch.where(torch.arange(200) < 50, -100, targets)
    for name in ("accuracy", "f1_macro", "auroc"):
        assert metric(name)(outputs, hidden) == pytest.approx(metric(name)(outputs[50:], targets[50:]), abs=1e-6)


@pytest.mark.parametrize("name", [n for n in names() if n not in ("cer", "wer", "transcript_accuracy")])
def test_every_name_scores_something(name, answers):
    outputs, targets = answers
    numbers = name in ("mse", "rmse", "mae", "r2")
    assert metric(name)(outputs[:, 0] if numbers else outputs, outputs[:, 1] if numbers else targets) != 0


SAME = ["accuracy", "f1_macro", "recall_weighted", "auroc", "perplexity"]


def test_the_same_through_every_door(tmp_path):
    """A logistic regression of scikit-learn, the torch module of the same weights, and its ONNX file."""
    x, y = torch.randn(120, 6, dtype=torch.float64), torch.randint(3, (120,))
    estimator = LogisticRegression().fit(x.numpy(), y.numpy())
    model = nn.Linear(6, 3).double()
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(estimator.coef_))
        model.bias.copy_(torch.from_numpy(estimator.intercept_))
    lt.export_onnx(model, tmp_path / "m.onnx", x[:4])
    batches = [(x[:70], y[:70]), (x[70:], y[70:])]
    scores = [lt.evaluate(m, batches, SAME) for m in (model, tmp_path / "m.onnx", estimator)]
    for other in scores[1:]:
        assert other == pytest.approx(scores[0], abs=1e-6)


@pytest.mark.parametrize(("name", "expected"), [("mse", 2.5), ("mae", 1.5)])
def test_regression_metrics_by_hand(name, expected):
    assert metric(name)(torch.tensor([[1.0], [4.0]]), torch.tensor([2.0, 2.0])) == pytest.approx(expected)


def test_binary_logits_are_yes_above_zero():
    outputs, targets = torch.tensor([[2.0], [-1.0], [3.0]]), torch.tensor([1, 1, 1])
    assert metric("accuracy")(outputs, targets) == pytest.approx(2 / 3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_a_yes_no_question_has_two_classes(name, shape):
    generator = torch.Generator().manual_seed(1)
    outputs, targets = torch.randn(200, generator=generator), torch.randint(2, (200,), generator=generator)
    expected = _reference(name, targets, (outputs > 0).long())
    assert metric(name)(outputs.reshape(shape), targets.reshape(shape)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("name", "average"), [("f1_macro", "macro"), ("f1_micro", "micro")])
def test_several_yes_no_questions_are_scored_one_by_one(name, average):
    generator = torch.Generator().manual_seed(1)
    outputs, targets = torch.randn(200, 3, generator=generator), torch.randint(2, (200, 3), generator=generator)
    expected = reference.f1_score(targets, outputs > 0, average=average)
    assert metric(name)(outputs, targets) == pytest.approx(expected, abs=1e-6)


def test_logits_of_a_dict_are_what_counts():
    class Two(nn.Module):
        def forward(self, x):
            return {"aux": -x, "logits": x}

    batches = [(torch.eye(3), torch.tensor([0, 1, 2]))]
    assert lt.evaluate(Two(), batches) == {"accuracy": 1.0}


def test_logits_of_a_dict_are_what_counts_in_the_file_too(tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            y = self.layer(x)
            return {"aux": -y, "logits": y}

    model, x = Two(), torch.randn(40, 3)
    batches = [(x, model(x)["logits"].argmax(1))]
    lt.export_onnx(model, tmp_path / "m.onnx", x[:4])
    assert lt.evaluate(tmp_path / "m.onnx", batches) == {"accuracy": 1.0}


def test_evaluate_is_over_the_data_set_and_not_a_mean_of_batches(answers):
    outputs, targets = answers
    batches = [(outputs[:1], targets[:1]), (outputs[1:], targets[1:])]
    got = lt.evaluate(nn.Identity(), batches, ["accuracy"])["accuracy"]
    assert got == pytest.approx(reference.accuracy_score(targets, outputs.argmax(1)), abs=1e-6)


def test_evaluate_gives_the_same_through_the_onnx_file(tmp_path):
    x, y = torch.randn(50, 6), torch.randint(3, (50,))
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    lt.export_onnx(model, tmp_path / "a model.onnx", x[:4])
    batches = [(x[:30], y[:30]), (x[30:], y[30:])]
    assert lt.evaluate(tmp_path / "a model.onnx", batches) == lt.evaluate(model, batches)


def test_what_an_onnx_file_does_not_take_is_named(tmp_path):
    model, x, y = nn.Linear(3, 2), torch.randn(40, 3), torch.zeros(40).long()
    lt.export_onnx(model, tmp_path / "m.onnx", x[:4])
    torch.onnx.export(model.eval(), (x[:16],), tmp_path / "held.onnx", verbose=False)
    cases = [("m", (x[:, :2], y), "Expected: 3"), ("m", [(x, x, y)], r"\(40, 3\), \(40, 3\)"),
             ("m", [{"foo": x, "labels": y}], "foo"), ("held", [(x, y)], "batches of 16")]  # fmt: skip
    for name, data, word in cases:
        with pytest.raises(UsageError, match=word):
            lt.evaluate(tmp_path / f"{name}.onnx", data)


def test_evaluate_leaves_the_mode_as_it_was():
    net = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(2)).train()
    net[1].eval()
    lt.evaluate(net, [(torch.eye(2), torch.tensor([0, 1]))])
    assert [m.training for m in net] == [True, False]


def test_a_function_of_ones_own_is_a_metric(answers):
    outputs, targets = answers

    def hits(out, target):
        return (out.argmax(1) == target).sum()

    assert lt.evaluate(nn.Identity(), [answers], [hits])["hits"] == float(hits(outputs, targets))


@pytest.mark.parametrize(
    ("act", "word"),
    [
        (lambda: lt.evaluate(nn.Identity(), [], ["accuracy"]), "empty"),
        (lambda: lt.evaluate(nn.Identity(), [torch.zeros(2)], ["accuracy"]), "cannot be read"),
        (lambda: lt.evaluate(nn.Identity(), [(torch.eye(2), torch.tensor([0, 1]))], ["acuracy"]), "accuracy"),
        (lambda: lt.evaluate(42, [(torch.eye(2), torch.tensor([0, 1]))]), "no model"),
        (
            lambda: lt.evaluate(nn.Identity(), (torch.eye(2) * 3, torch.tensor([0, 1])), outputs="probabilities"),
            "0 to 1",
        ),
        (lambda: lt.evaluate(nn.Identity(), (torch.eye(2), torch.tensor([0, 1])), outputs="probs"), "probabilities"),
        (lambda: lt.evaluate("nowhere.onnx", [(torch.eye(2), torch.tensor([0, 1]))]), "no file"),
        (lambda: lt.evaluate(nn.Identity(), [(torch.eye(2), torch.tensor([0, 5]))]), "classes"),
        (lambda: Metric("x", lambda o, t: 0.0, "up"), "direction"),
        (lambda: lt.evaluate(nn.Identity(), [(torch.eye(2), torch.tensor([0, -1]))]), "classes"),
        (lambda: lt.evaluate(nn.Identity(), [(torch.eye(2), torch.tensor([0, 1]))], "accuracy"), "list"),
        (lambda: lt.evaluate(nn.Identity(), [(torch.eye(2), torch.tensor([0, 1]))], [lambda o, t: None]), "no number"),
        (lambda: lt.evaluate(nn.Identity(), [(torch.zeros(4, 2), torch.zeros(4))], ["mse"]), "shape"),
        (lambda: metric("accuracy")(torch.zeros(4, 2), torch.full((4, 2), 3)), "yes/no"),
        (lambda: metric("accuracy")(torch.zeros(4, 1), torch.tensor([0.0, 1.0, 2.5, 0.0])), "yes/no"),
        (lambda: metric("accuracy")(torch.zeros(4, dtype=torch.long), torch.zeros(4)), "nothing about classes"),
        (lambda: lt.evaluate(nn.Identity(), (torch.zeros(4, 2), torch.ones(4, 2)), loss="cross_entropy"), "shares"),
        (lambda: metric("perplexity")(torch.zeros(4, 2), torch.ones(4, 2)), "yes/no"),
        (lambda: Transcript(letters="a")(torch.eye(3)[None], torch.tensor([[1, 2]])), "fewer letters"),
    ],
)
def test_bad_input_is_named(act, word):
    with pytest.raises(LuthierError, match=word):
        act()


def test_a_file_that_is_no_onnx_is_refused(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(UsageError, match="not an ONNX file"):
        lt.evaluate(tmp_path / "bad.onnx", [(torch.eye(2), torch.tensor([0, 1]))])


@pytest.mark.parametrize("shape", [(30,), (30, 1), (30, 4)])
def test_r2_is_the_mean_over_columns_as_in_scikit_learn(shape):
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(shape, generator=generator) * torch.arange(1, shape[-1] + 1) + 100
    outputs = target + torch.randn(shape, generator=generator)
    expected = reference.r2_score(target.double(), outputs.double())
    assert metric("r2")(outputs, target) == pytest.approx(expected, rel=1e-6)


def test_one_example_has_no_r2():
    with pytest.warns(UserWarning, match="no spread"):
        assert math.isnan(metric("r2")(torch.randn(1, 2), torch.randn(1, 2)))


class Sure(nn.Module):
    """A probability of yes, changed after the sigmoid."""

    def __init__(self, change):
        super().__init__()
        self.layer, self.change = nn.Linear(3, 1), change

    def forward(self, x):
        return self.change(torch.sigmoid(self.layer(x)))


def test_probabilities_kept_off_0_and_1_are_known_as_such(tmp_path):
    torch.manual_seed(0)
    model, x = Sure(lambda p: p.clamp(1e-6, 1 - 1e-6)), torch.randn(60, 3)
    y = (x[:, 0] > 0).float()
    expected = float(((model.layer(x)[:, 0] > 0) == (y > 0)).float().mean())
    lt.export_onnx(model, tmp_path / "sure.onnx", x[:2])
    for found in (lt.evaluate(model, (x, y)), lt.evaluate(tmp_path / "sure.onnx", (x, y))):
        assert found["accuracy"] == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(60, 1), (60,), (60, 3)])
def test_probabilities_that_nobody_can_tell_from_logits_are_doubted(shape):
    outputs, target = torch.rand(shape), torch.randint(2, shape).float()
    with pytest.warns(UserWarning, match="outputs='probabilities'"):
        lt.evaluate(nn.Identity(), (outputs, target), loss="bce")
    found = lt.evaluate(nn.Identity(), (outputs, target), loss="bce", outputs="probabilities")
    assert found["accuracy"] == pytest.approx(float(((outputs > 0.5) == (target > 0)).float().mean()))


def test_a_model_and_data_of_different_precision_are_named():
    x, y = np.zeros((4, 3)), np.zeros(4, dtype=np.int64)
    with pytest.raises(UsageError, match="precision"):
        lt.evaluate(nn.Linear(3, 2), (x, y))
    assert lt.evaluate(nn.Sequential(Single(), nn.Linear(3, 2)), (x, y)).keys() == {"accuracy"}


class Single(nn.Module):
    def forward(self, x):
        return x.float()
