"""scikit-learn estimators through ``evaluate``, against scikit-learn's own scores."""

import warnings

import numpy as np
import pandas
import pytest
import torch
from scipy import sparse
from sklearn import metrics as reference
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC

import luthier as lt
from luthier.errors import UsageError


def test_estimators_bring_their_own_names_of_classes():
    x, y = torch.randn(90, 4).numpy(), torch.randint(3, (90,)).numpy()
    names_of = np.array(["cat", "dog", "eel"])
    for estimator in (LogisticRegression(), LinearSVC(), RidgeClassifier(), make_pipeline(StandardScaler(), SVC())):
        estimator.fit(x, names_of[y])
        expected = reference.accuracy_score(names_of[y], estimator.predict(x))
        assert lt.evaluate(estimator, (x, names_of[y]))["accuracy"] == pytest.approx(expected)
    with pytest.raises(UsageError, match="not seen"):
        lt.evaluate(estimator, (x, np.where(y == 0, "ant", names_of[y])))


def _questions():
    x = torch.randn(120, 4).numpy()
    return x, (x[:, :3] + 0.5 * torch.randn(120, 3).numpy() > 0).astype(int)


@pytest.mark.parametrize(
    "estimator",
    [
        MLPClassifier((8,), max_iter=300),
        KNeighborsClassifier(4),
        RandomForestClassifier(5),
        RidgeClassifier(),
        MultiOutputClassifier(LogisticRegression()),
        MultiOutputClassifier(LinearSVC()),
        OneVsRestClassifier(LogisticRegression()),
        make_pipeline(StandardScaler(), MultiOutputClassifier(SVC())),
    ],
    ids=lambda e: type(e).__name__,
)
@pytest.mark.parametrize("names_of", [np.array([0, 1]), np.array(["no", "yes"])], ids=["numbers", "names"])
@pytest.mark.filterwarnings("ignore")
def test_estimators_of_several_yes_no_questions_agree_with_what_they_predict(estimator, names_of):
    x, y = _questions()
    plain = isinstance(estimator, MLPClassifier | RidgeClassifier | OneVsRestClassifier)
    y = y if plain else names_of[y]
    estimator.fit(x[:80], y[:80])
    predicted, true = (a if plain else a == names_of[1] for a in (estimator.predict(x[80:]), y[80:]))
    got = lt.evaluate(estimator, (x[80:], y[80:]), ["accuracy", "f1_macro"])
    assert got["accuracy"] == pytest.approx((predicted == true).mean(), abs=1e-6)
    assert got["f1_macro"] == pytest.approx(reference.f1_score(true, predicted, average="macro"), abs=1e-6)


def test_the_area_of_several_questions_goes_by_the_estimators_probabilities():
    x, y = _questions()
    forest = RandomForestClassifier(5).fit(x[:80], y[:80])
    chances = np.stack([p[:, 1] for p in forest.predict_proba(x[80:])], 1)
    expected = reference.roc_auc_score(y[80:], chances)
    assert lt.evaluate(forest, (x[80:], y[80:]), ["auroc"])["auroc"] == pytest.approx(expected, abs=1e-9)


def test_estimators_take_texts_frames_and_sparse_matrices():
    texts, y = ["a good film", "bad", "good", "a bad film"] * 5, [1, 0, 1, 0] * 5
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, y)
    frame = pandas.DataFrame({"age": np.arange(20.0), "city": ["x", "y"] * 10})
    columns = ColumnTransformer([("n", StandardScaler(), ["age"]), ("c", OneHotEncoder(), ["city"])])
    tree = make_pipeline(columns, LogisticRegression()).fit(frame, y)
    matrix = sparse.csr_matrix(np.eye(20))
    line = LogisticRegression().fit(matrix, y)
    with warnings.catch_warnings(action="error"):
        for estimator, x in ((model, texts), (model, np.array(texts)), (model, pandas.Series(texts)), (tree, frame),
                             (line, matrix)):  # fmt: skip
            expected = estimator.score(x, y)
            for target in (y, np.array(y), pandas.Series(y), pandas.DataFrame({"y": y}), torch.tensor(y)):
                assert lt.evaluate(estimator, (x, target))["accuracy"] == pytest.approx(expected)
        halves = [(texts[:7], y[:7]), (texts[7:], y[7:])]
        assert lt.evaluate(model, halves)["accuracy"] == pytest.approx(model.score(texts, y))


X, Y = np.zeros((6, 3)), np.array([0, 1] * 3)


@pytest.mark.parametrize(
    ("model", "data", "word"),
    [
        (LogisticRegression(), (X, Y), "fit"),
        (LogisticRegression(), (X, Y.astype(str)), "not fitted"),
        (LogisticRegression().fit(X, Y), (X[:, :2], Y), "expecting 3 features"),
        (LogisticRegression().fit(X, Y), (X, Y.astype(str)), "not seen"),
        (LogisticRegression().fit(X, Y), [{"x": X, "labels": Y}], "X, y"),
        (LinearRegression().fit(X, Y), (X, Y), "nothing about classes"),
        (KMeans(1, n_init=1).fit(X), (X, Y), "nothing about classes"),
        (RandomForestClassifier(2).fit(X, np.stack([Y, np.arange(6)], 1)), (X, np.stack([Y, Y], 1)), "two classes"),
    ],
)
def test_what_an_estimator_cannot_be_asked_is_named(model, data, word):
    with pytest.raises(UsageError, match=word):
        lt.evaluate(model, data)


def test_regressors_are_scored_too():
    x, y = torch.randn(90, 4).numpy(), torch.randn(90).numpy()
    estimator = LinearRegression().fit(x, y)
    assert lt.evaluate(estimator, (x, y), ["r2"])["r2"] == pytest.approx(estimator.score(x, y), abs=1e-6)
