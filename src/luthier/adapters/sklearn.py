"""scikit-learn: a search over an estimator's parameters that behaves like ``GridSearchCV``.

from luthier.adapters.sklearn import SearchCV
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from luthier.errors import UsageError
from luthier.extras import need
from luthier.pareto import Array
from luthier.run import Limits
from luthier.search import Algorithm
from luthier.space import Space
from luthier.stop import StopRule
from luthier.study import Study, tune
from luthier.trial import Status, Trial

need("sklearn", "sklearn", "SearchCV")

from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone, is_classifier  # noqa: E402
from sklearn.metrics import check_scoring  # noqa: E402
from sklearn.model_selection import check_cv  # noqa: E402
from sklearn.utils import _safe_indexing, get_tags, indexable  # noqa: E402
from sklearn.utils.metaestimators import available_if  # noqa: E402
from sklearn.utils.validation import _num_samples, check_is_fitted  # noqa: E402


@dataclass(frozen=True)
class _Folds:
    """Scores one configuration, fold by fold."""

    estimator: Any
    X: Any
    y: Any
    splits: list[tuple[Any, Any]]
    scorer: Any
    fit_params: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, trial: Any) -> dict[str, float]:
        scores: list[float] = []
        for step, (train, test) in enumerate(self.splits, start=1):
            model = _made(self.estimator, trial.params)
            _fit(model, self.X, self.y, self.fit_params, train)
            inputs, labels = _part(self.X, test), _part(self.y, test)
            scores.append(float(self.scorer(model, inputs) if labels is None else self.scorer(model, inputs, labels)))
            trial.report(step, score=float(np.mean(scores)), fold=scores[-1])
        return {"score": float(np.mean(scores))}


def _made(estimator: Any, params: Mapping[str, Any]) -> Any:
    """The estimator with these parameters; those that are estimators are copied, too."""
    return clone(estimator).set_params(**{n: clone(v, safe=False) for n, v in params.items()})


def _part(data: Any, rows: Any) -> Any:
    return None if data is None else _safe_indexing(data, rows)


def _fit(model: Any, X: Any, y: Any, fit_params: Mapping[str, Any], rows: Any) -> Any:
    count = _num_samples(X)
    aligned = {n: _part(v, rows) if _holds(v, count) else v for n, v in fit_params.items()}
    labels = _part(y, rows)
    return model.fit(_part(X, rows), **aligned) if labels is None else model.fit(_part(X, rows), labels, **aligned)


def _holds(value: Any, count: int) -> bool:
    """Whether it has one entry for each sample; pairs to validate on, texts and the like have not."""
    if isinstance(value, str | bytes | Mapping):
        return False
    try:
        return bool(_num_samples(value) == count)
    except TypeError:
        return False


def _best_has(method: str) -> Callable[[Any], bool]:
    def check(self: Any) -> bool:
        self._refits(method)
        getattr(getattr(self, "best_estimator_", self.estimator), method)
        return True

    return check


class SearchCV(MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    """Chooses an estimator's parameters by cross-validation, with any of Luthier's algorithms.

    Each fold is a step, so that a stop rule ends hopeless configurations after the first folds.

    Args:
        estimator: what to tune; it is cloned, never changed.
        space: its parameters; nested ones as ``"forest__max_depth"``.
        trials: how many configurations; None: the whole grid, or 50.
        algorithm: a name or an object, see :func:`luthier.tune`.
        scoring: a scorer's name or a callable; None: the estimator's own score. Larger is better.
        cv: number of folds, a splitter, or a list of (train, test) rows; None: 5.
        refit: whether to fit the best configuration on all the data afterwards.
        stop: a stop rule, such as ``luthier.stop.Median(min_steps=2)``.
        workers: how many configurations at once, each in a process of its own.
        timeout: seconds in all.
        limits: hard limits for each configuration.
        store: where the study is kept, so that a fit that was interrupted goes on; None: memory.
        name: the study's name. A fit goes on with the study of that name that the store has, whatever its data were:
            leave it out where several fits are made, as in nested cross-validation.
        seed: of every random stream.
        progress: whether to show a live display.

    Attributes:
        best_params_: the best configuration.
        best_score_: its mean score.
        best_index_: its row in ``cv_results_``.
        best_estimator_: fitted on all the data, if ``refit``.
        cv_results_: a dict of arrays as in scikit-learn; one row per trial, NaN where it failed or was stopped.
        study_: the study, with everything else.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.neighbors import KNeighborsClassifier
        >>> import luthier as lt
        >>> X, y = load_iris(return_X_y=True)
        >>> search = SearchCV(KNeighborsClassifier(), lt.Space(n_neighbors=lt.Int(1, 30)), trials=8, algorithm="random")
        >>> search.fit(X, y).best_score_ > 0.95
        True

    Source:
        the conventions are those of ``sklearn.model_selection.GridSearchCV``.
    """

    def __init__(
        self,
        estimator: Any,
        space: Space,
        *,
        trials: int | None = None,
        algorithm: str | Algorithm = "auto",
        scoring: Any = None,
        cv: Any = None,
        refit: bool = True,
        stop: str | StopRule | None = None,
        workers: int = 1,
        timeout: float | None = None,
        limits: Limits | None = None,
        store: Any = None,
        name: str | None = None,
        seed: int = 0,
        progress: bool = False,
    ) -> None:
        self.estimator = estimator
        self.space = space
        self.trials = trials
        self.algorithm = algorithm
        self.scoring = scoring
        self.cv = cv
        self.refit = refit
        self.stop = stop
        self.workers = workers
        self.timeout = timeout
        self.limits = limits
        self.store = store
        self.name = name
        self.seed = seed
        self.progress = progress

    def fit(self, X: Any, y: Any = None, *, groups: Any = None, **fit_params: Any) -> SearchCV:
        """Runs the search, then fits the best configuration on all the data.

        Args:
            X: shape (n_samples, n_features).
            y: labels, shape (n_samples,); None: unsupervised.
            groups: handed to the splitter, as ``GroupKFold`` wants it, shape (n_samples,).
            fit_params: handed to the estimator's ``fit``; those with one value per sample are split like X.

        Raises:
            UsageError: no configuration could be scored, or several scorers at once.
        """
        if isinstance(self.scoring, Mapping | list | tuple | set):
            raise UsageError(
                "SearchCV: 'scoring' is several scorers",
                expected='one: a name such as "accuracy", or a callable',
                got=repr(self.scoring),
                fix="lt.tune(..., objectives={...}) for several at once",
            )
        if y is None and get_tags(self.estimator).target_tags.required:
            raise UsageError(
                "the estimator requires y to be passed, but the target y is None",
                expected="fit(X, y)",
                got="fit(X)",
            )
        X, y, groups = indexable(X, y, groups)
        splits = list(check_cv(self.cv, y, classifier=is_classifier(self.estimator)).split(X, y, groups))
        self.scorer_ = check_scoring(self.estimator, self.scoring)
        self.n_splits_ = len(splits)
        self.study_ = tune(
            _Folds(self.estimator, X, y, splits, self.scorer_, fit_params),
            self.space,
            maximize="score",
            algorithm=self.algorithm,
            stop=self.stop,
            trials=self.trials,
            timeout=self.timeout,
            limits=self.limits,
            workers=self.workers,
            store=self.store,
            name=self.name,
            seed=self.seed,
            progress=self.progress,
        )
        best = self._best(self.study_)
        self.best_index_, self.best_params_ = best.number, dict(best.params)
        self.best_score_ = best.metrics["score"]
        self.cv_results_ = _results(self.study_, self.n_splits_)
        if self.refit:
            self.best_estimator_ = _made(self.estimator, best.params)
            _fit(self.best_estimator_, X, y, fit_params, slice(None))
            for seen in ("n_features_in_", "feature_names_in_"):
                if hasattr(self.best_estimator_, seen):
                    setattr(self, seen, getattr(self.best_estimator_, seen))
        return self

    def _best(self, study: Study) -> Trial:
        try:
            return study.best_measured  # as scikit-learn's searches do
        except UsageError as error:
            raise UsageError("no configuration could be scored", **error.details) from None

    def _refits(self, name: str) -> None:
        if not self.refit:
            raise AttributeError(f"{name!r} needs SearchCV(..., refit=True): there is no fitted estimator")

    def _fitted(self) -> Any:
        check_is_fitted(self, "study_")
        return self.best_estimator_

    @property
    def classes_(self) -> Any:
        """Labels that the best estimator knows."""
        self._refits("classes_")
        return self._fitted().classes_

    @available_if(_best_has("predict"))  # type: ignore[untyped-decorator]
    def predict(self, X: Any) -> Any:
        """The best estimator's predictions."""
        return self._fitted().predict(X)

    @available_if(_best_has("predict_proba"))  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> Any:
        """The best estimator's probabilities."""
        return self._fitted().predict_proba(X)

    @available_if(_best_has("decision_function"))  # type: ignore[untyped-decorator]
    def decision_function(self, X: Any) -> Any:
        """The best estimator's decision values."""
        return self._fitted().decision_function(X)

    @available_if(_best_has("transform"))  # type: ignore[untyped-decorator]
    def transform(self, X: Any) -> Any:
        """The best estimator's transformation."""
        return self._fitted().transform(X)

    @available_if(_best_has("inverse_transform"))  # type: ignore[untyped-decorator]
    def inverse_transform(self, X: Any) -> Any:
        """What the best estimator's transformation came from."""
        return self._fitted().inverse_transform(X)

    @available_if(_best_has("predict_log_proba"))  # type: ignore[untyped-decorator]
    def predict_log_proba(self, X: Any) -> Any:
        """Logarithms of the best estimator's probabilities."""
        return self._fitted().predict_log_proba(X)

    @available_if(_best_has("score_samples"))  # type: ignore[untyped-decorator]
    def score_samples(self, X: Any) -> Any:
        """The best estimator's score of each sample."""
        return self._fitted().score_samples(X)

    def score(self, X: Any, y: Any = None) -> float:
        """The score of the best estimator, by ``scoring``."""
        self._refits("score")
        model = self._fitted()
        return float(self.scorer_(model, X) if y is None else self.scorer_(model, X, y))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.estimator_type = inner.estimator_type
        tags.classifier_tags = inner.classifier_tags
        tags.regressor_tags = inner.regressor_tags
        tags.target_tags = inner.target_tags
        tags.input_tags.pairwise = inner.input_tags.pairwise
        tags.input_tags.sparse = inner.input_tags.sparse
        return tags


def _results(study: Study, folds: int) -> dict[str, Any]:
    """The trials as scikit-learn lays them out; shape (trials,) each."""
    scores = np.array([_scores(t, folds) for t in study.trials])  # (trials, folds)
    mean = scores.mean(1)
    out: dict[str, Any] = {"params": [dict(t.params) for t in study.trials]}
    for name in study.space.names:
        active = [name in t.params for t in study.trials]
        values: Any = np.ma.array(np.full(len(active), None, dtype=object), mask=True)
        for i, t in enumerate(study.trials):
            if active[i]:
                values[i] = t.params[name]
        out[f"param_{name}"] = values
    out |= {f"split{k}_test_score": scores[:, k] for k in range(folds)}
    order = np.where(np.isnan(mean), -np.inf, mean)
    rank = 1 + (order[None, :] > order[:, None]).sum(1)
    out |= {"mean_test_score": mean, "std_test_score": scores.std(1), "rank_test_score": rank.astype(np.int32)}
    out["mean_fit_time"] = np.array([(t.seconds or 0.0) / folds for t in study.trials])
    return out


def _scores(trial: Trial, folds: int) -> Array:
    out = np.full(folds, np.nan)
    if trial.status is Status.COMPLETE:
        for report in trial.reports:
            out[report.step - 1] = report.metrics["fold"]
    return out
