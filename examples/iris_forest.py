"""A random forest on iris: accuracy over five folds, for every combination of three settings.

luthier tune examples/iris_forest.py                          # the whole grid
luthier tune examples/iris_forest.py --algorithm random
luthier tune examples/iris_forest.py --algorithm bayes
"""

from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score

import luthier as lt

space = lt.Space(
    n_estimators=lt.Ordinal([10, 50, 100, 200]),
    max_depth=lt.Choice([None, 10, 20, 30]),
    min_samples_split=lt.Ordinal([2, 5, 10]),
)
maximize = "accuracy"
algorithm = "grid"
trials = 20  # for the others; a grid is as large as it is

inputs, labels = load_iris(return_X_y=True)


def objective(trial):
    forest = RandomForestClassifier(**trial.params, random_state=0)
    return {"accuracy": cross_val_score(forest, inputs, labels, cv=5).mean()}


if __name__ == "__main__":
    print(lt.tune(objective, space, maximize=maximize, algorithm=algorithm).best)
