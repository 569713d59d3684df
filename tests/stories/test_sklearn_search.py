"""SearchCV as scikit-learn's users expect it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris, make_regression
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

import luthier as lt
from luthier.adapters.sklearn import SearchCV
from luthier.errors import UsageError

X, Y = load_iris(return_X_y=True)
GRID = {"C": [0.01, 0.1, 1.0, 10.0], "kernel": ["linear", "rbf"]}
SPACE = lt.Space(C=lt.Ordinal(GRID["C"]), kernel=lt.Choice(GRID["kernel"]))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_grid_agrees_with_grid_search_cv(workers):
    theirs = GridSearchCV(SVC(), GRID, cv=4).fit(X, Y)
    ours = SearchCV(SVC(), SPACE, algorithm="grid", cv=4, workers=workers).fit(X, Y)
    assert ours.best_score_ == pytest.approx(theirs.best_score_)
    mine = {tuple(p.values()): i for i, p in enumerate(ours.cv_results_["params"])}
    order = [mine[tuple(p.values())] for p in theirs.cv_results_["params"]]
    columns = [*(f"split{k}_test_score" for k in range(4)), "mean_test_score", "std_test_score", "rank_test_score"]
    for column in columns:
        np.testing.assert_allclose(ours.cv_results_[column][order], theirs.cv_results_[column], err_msg=column)
    assert list(ours.cv_results_["param_kernel"][order]) == list(theirs.cv_results_["param_kernel"])
    assert (ours.predict(X) == SVC(**ours.best_params_).fit(X, Y).predict(X)).all()
    assert ours.score(X, Y) == (ours.predict(X) == Y).mean()


def test_a_pipeline_a_scorer_and_conditions():
    space = lt.Space(
        svc__kernel=lt.Choice(["linear", "rbf"]),
        svc__gamma=lt.Float(1e-3, 1.0, log=True).when(svc__kernel="rbf"),
    )
    pipe = make_pipeline(StandardScaler(), SVC(probability=False))
    search = SearchCV(pipe, space, trials=6, algorithm="random", scoring="f1_macro", cv=StratifiedKFold(3)).fit(X, Y)
    again = cross_val_score(
        clone(pipe).set_params(**search.best_params_), X, Y, scoring="f1_macro", cv=StratifiedKFold(3)
    )
    assert search.best_score_ == pytest.approx(again.mean())
    kinds = [p["svc__kernel"] for p in search.cv_results_["params"]]
    assert list(search.cv_results_["param_svc__gamma"].mask) == [kind == "linear" for kind in kinds]
    assert not hasattr(search, "predict_proba")
    assert hasattr(search, "decision_function")


def test_unsupervised_and_sample_weights():
    search = SearchCV(KMeans(n_init=1, random_state=0), lt.Space(n_clusters=lt.Int(2, 4)), algorithm="grid", cv=3).fit(
        X
    )
    assert search.transform(X).shape == (len(X), search.best_params_["n_clusters"])
    inputs, targets = make_regression(60, 3, noise=1.0, random_state=0)
    weight = np.r_[np.ones(30), np.zeros(30)]
    space = lt.Space(alpha=lt.Float(0.1, 0.2))
    weighted = SearchCV(Ridge(), space, trials=2, cv=3).fit(inputs, targets, sample_weight=weight)
    same = Ridge(**weighted.best_params_).fit(inputs, targets, sample_weight=weight)
    np.testing.assert_allclose(weighted.best_estimator_.coef_, same.coef_)


def test_a_stop_rule_saves_folds_and_failures_are_rows():
    class Late:
        def stops(self, trial, others, objectives):
            return "too late" if trial.number == 1 and len(trial.reports) == 2 else None

    space = lt.Space(C=lt.Ordinal([1.0, 2.0, 3.0]), solver=lt.Choice(["lbfgs", "nonsense"]))
    search = SearchCV(LogisticRegression(max_iter=300), space, algorithm="grid", cv=4, stop=Late()).fit(X, Y)
    nonsense = [p["solver"] == "nonsense" for p in search.cv_results_["params"]]
    scores = search.cv_results_["mean_test_score"]
    assert np.isnan(scores[nonsense]).all()
    assert search.best_params_["solver"] == "lbfgs"
    assert search.cv_results_["rank_test_score"][search.best_index_] == 1
    with pytest.raises(UsageError, match=r"(?s)no configuration.*nonsense"):
        SearchCV(LogisticRegression(solver="nonsense"), lt.Space(C=lt.Float(1, 2)), trials=2).fit(X, Y)


def test_groups_stay_together_as_in_grid_search_cv():
    groups = np.random.default_rng(0).integers(0, 9, len(X))
    theirs = GridSearchCV(SVC(), {"C": GRID["C"]}, cv=GroupKFold(3)).fit(X, Y, groups=groups)
    ours = SearchCV(SVC(), lt.Space(C=SPACE["C"]), algorithm="grid", cv=GroupKFold(3)).fit(X, Y, groups=groups)
    np.testing.assert_allclose(ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"])


def test_what_fit_is_given_is_split_only_where_it_has_an_entry_for_each_sample():
    class Told(LogisticRegression):
        def fit(self, X, y, weight=None, validate=None, mode=None, sparse=None):
            assert len(weight) == len(X) == sparse.shape[0]
            assert [len(x) for x, _ in validate] == [20]
            assert mode == "m" * 150
            return super().fit(X, y)

    given = {"weight": [1.0] * 150, "validate": [(X[:20], Y[:20])], "mode": "m" * 150, "sparse": csr_matrix(X)}
    search = SearchCV(Told(max_iter=300), lt.Space(C=lt.Float(0.1, 1)), trials=2).fit(X, Y, **given)
    assert search.score(X, Y) > 0.9


def test_methods_are_those_of_the_estimator():
    inner = PCA(random_state=0)
    search = SearchCV(inner, lt.Space(n_components=lt.Int(1, 3)), algorithm="grid").fit(X)
    best = clone(inner).set_params(**search.best_params_).fit(X)
    np.testing.assert_allclose(search.score_samples(X), best.score_samples(X))
    np.testing.assert_allclose(search.inverse_transform(search.transform(X)), best.inverse_transform(best.transform(X)))
    search = SearchCV(LogisticRegression(max_iter=300), lt.Space(C=lt.Float(1, 2)), trials=2).fit(X, Y)
    np.testing.assert_allclose(search.predict_log_proba(X), np.log(search.predict_proba(X)))
    bare = search.set_params(refit=False).fit(X, Y)
    for name in ("predict", "classes_", "transform"):
        assert not hasattr(bare, name)
    with pytest.raises(AttributeError, match="refit=True"):
        bare.score(X, Y)


def test_estimators_among_the_options_stay_as_they_were():
    scaler, model = StandardScaler(), SVC()
    pipe = Pipeline([("scale", "passthrough"), ("model", LogisticRegression())])
    space = lt.Space(scale=lt.Choice([scaler]), model=lt.Choice([model]), model__C=lt.Ordinal([0.5, 2.0]))
    search = SearchCV(pipe, space, algorithm="grid").fit(X, Y)
    assert search.predict(X).shape == Y.shape
    assert search.best_params_["scale"] is scaler
    assert not hasattr(scaler, "mean_")
    assert (model.C, hasattr(model, "support_")) == (1.0, False)


@pytest.mark.parametrize("scoring", [["accuracy"], {"a": "accuracy"}])
def test_several_scorers_are_refused(scoring):
    with pytest.raises(UsageError, match="several scorers"):
        SearchCV(SVC(), SPACE, scoring=scoring).fit(X, Y)


def test_a_fit_that_was_interrupted_goes_on(tmp_path):
    options = {"algorithm": "random", "store": tmp_path / "s.db", "name": "n", "cv": 3}
    SearchCV(SVC(), SPACE, trials=2, **options).fit(X, Y)
    search = SearchCV(SVC(), SPACE, trials=5, **options).fit(X, Y)
    assert len(search.cv_results_["params"]) == 5


@parametrize_with_checks(
    [SearchCV(LogisticRegression(), lt.Space(C=lt.Ordinal([1.0])), algorithm="grid", cv=2)],
    expected_failed_checks=lambda _: {"check_dtype_object": "failed configurations are told in one UsageError"},
)
def test_scikit_learns_own_conventions(estimator, check):
    check(estimator)
