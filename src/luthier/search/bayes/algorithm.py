"""The algorithm: a short initial design, then the most promising point under a Gaussian process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from luthier.errors import UsageError
from luthier.keys import Key
from luthier.objectives import Objectives
from luthier.pareto import Array
from luthier.search import _checks, _fresh, _memory
from luthier.search._encode import Encoding
from luthier.search._threads import OneThread
from luthier.search.bayes import design, model, plateau
from luthier.search.bayes.belief import Inward, extra, weigh
from luthier.search.bayes.maximise import Acquisition, Effort, maximise
from luthier.space import Params, Space
from luthier.trial import Trial


class Bayes:
    """A Gaussian process with log expected improvement: the fewest trials for a good result.

    With one objective it looks at the trials in two ways in turn: every second proposal, from 12 results on, takes them
    as exact and asks for a clear improvement, so that a rough function does not hold it in one place (not where the
    results are clearly noisy). A power transform takes skew out of the results; where all parameters are numbers, in
    every second proposal only. The very edges of ranges, of which a Gaussian process knows least, are proposed only
    where they promise clearly more: a Beta(1.2, 1.2) prior of where the best lies. In spaces of choices where trials
    end alike it looks elsewhere.
    Two objectives by the exact expected gain in hypervolume, more by random weights; constraints and failures by their
    modelled probability; stopped trials count as no better than the median; pending ones give what is expected.
    Permutations are compared by discordant pairs (as in the Mallows kernel), by places and by neighbours around the
    circle, subsets by membership and by size, each with a length scale of its own; moves refine them. Priors add
    (10 / n) log prior, from n = 10 on (10 / n)^2, to the log acquisition, times how far the trials bear them out; where
    they do not, more first trials, from the middle of the space on; studies that warm it up add what they expect,
    times how far their ranks agree with the results.

    When it helps: trials that cost seconds or more, up to some hundred of them, any kind of space.
    When it hurts: trials that are cheaper than its own thinking.
    Price: 10 to 35 ms a proposal, 80 to 210 ms for 50 parameters. Permutations grow dear, as every pair of items is
    compared: after 20 and 100 results 30 and 150 ms with 20 items, 0.13 and 1.2 s with 50, 0.7 and 4 s with 100, 4 s
    and more with 200. Subsets of 200 items 60 and 140 ms.

    Formula:
        x = argmax log EI(x) + b log p(x) + e(x); EI = s (z Phi(z) + phi(z)), z = (y* - m) / s, y* the best modelled
        trial (less 0.03 in every second proposal), m and s^2 the process's mean and variance at x;
        k(x, x') = (1 - w) (1 + r + r^2 / 3) exp(-r) + w mean_j 1 / (1 + r_j^2 / 2), r^2 = 5 sum_j r_j^2, r_j = |x_j -
        x'_j| / l_j, for options r_j = [they differ] / l_j; l_j, w and both variances at the maximum of their posterior;
        p: priors, b = 10 / n, from n = 10 on (10 / n)^2; e(x) = 0.2 sum_j log(4 x_j (1 - x_j) + 0.001);
        two objectives: EHVI = sum_i [EI_1(b_i) - EI_1(a_i)] EI_2(h_i), strips (a_i, b_i) below h_i of the front

    Args:
        initial: how many trials come before the model; None: by the number of parameters and options.
        effort: how hard to look for the best proposal.

    Source:
        Jones, Schonlau and Welch, "Efficient global optimization of expensive black-box functions", 1998;
        Ament et al., "Unexpected improvements to expected improvement for Bayesian optimization", 2023; Jiao and Vert,
        "The Kendall and Mallows kernels for permutations", 2015; Hvarfner et al., "piBO", 2022; Feurer, Letham and
        Bakshy, "Scalable meta-learning for Bayesian optimization", 2018; kernels: Rasmussen and Williams, "Gaussian
        processes for machine learning", 2006; EHVI: Emmerich et al., "Hypervolume-based expected improvement", 2011.
    """

    def __init__(self, initial: int | None = None, effort: Effort | None = None) -> None:
        _checks.whole(self, 0, initial=0 if initial is None else initial)
        if not isinstance(effort, Effort | None):
            raise UsageError(
                "Bayes: 'effort' cannot be used", expected="a luthier.search.bayes.Effort, or None", got=repr(effort)
            )
        self.initial = initial
        self.effort = effort or Effort()
        self._memory: _memory.Memory | None = None
        self._fitted: model.Models | None = None
        self._one_thread = OneThread()

    def ask(
        self,
        space: Space,
        objectives: Objectives,
        history: Sequence[Trial],
        pending: Sequence[Trial],
        n: int,
        key: Key,
    ) -> list[Params]:
        """See :class:`luthier.search.Algorithm`."""
        self._memory = _memory.recall(self._memory, space, objectives)
        waiting, found = list(pending), list[Params]()
        with self._one_thread():
            for i in range(n):
                params = self._propose(self._memory, history, waiting, key.for_trial(key.trial + i))
                if params is None:
                    break
                found.append(params)
                waiting.append(Trial(key.trial + i, params))
        return found

    def _propose(
        self, memory: _memory.Memory, history: Sequence[Trial], pending: Sequence[Trial], key: Key
    ) -> Params | None:
        generator = key.generator("bayes")
        encoding, seen = memory.encoding, [*history, *pending]
        learned = model.learn(memory, history)
        first = self.initial if self.initial is not None else design.size(encoding)
        places = np.argsort(_memory.ranking(learned.losses, learned.table.lack[learned.ran])).astype(float)
        more = extra(memory.belief, encoding, first, learned.rows, places) if len(seen) >= first else 0
        if len(learned.losses) < 2 or len(seen) < first + more:
            known = np.vstack([learned.table.rows, memory.rows(pending)])
            ranked = design.rows(memory.belief, encoding, first, known, key, bent=more == 0)
        else:
            waiting = encoding.features(memory.rows(pending))
            bold = key.trial % 2 == 1
            wanted: Acquisition = model.acquisition(self._models(encoding), learned, waiting, generator, bold)
            if len(memory.objectives.names) == 1:  # the ends of a front do lie at edges
                wanted = Inward(wanted, encoding)
            wanted = weigh(wanted, memory.belief, encoding, learned.rows, places)
            if bold and plateau.reached(encoding, learned.losses):
                ranked = plateau.elsewhere(encoding, wanted, generator)
            else:
                ranked = maximise(encoding, wanted, _leaders(learned), generator, self.effort.after(len(seen)))
        taken = memory.taken(history, pending)
        return _fresh.first(encoding, ranked, taken) or _fresh.draw(memory.space, generator, taken)

    def _models(self, encoding: Encoding) -> model.Models:
        if self._fitted is None or self._fitted.encoding is not encoding:
            self._fitted = model.Models(encoding, self.effort.refits)
        return self._fitted


def _leaders(learned: model.Learned, most: int = 5) -> Array:
    """Unit rows of the best trials, best first."""
    order = _memory.ranking(learned.losses, learned.table.lack[learned.ran])
    return np.asarray(learned.rows[order[:most]])
