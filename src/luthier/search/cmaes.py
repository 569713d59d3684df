"""Covariance matrix adaptation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from luthier.keys import Key
from luthier.objectives import Objectives
from luthier.pareto import Array
from luthier.search import _checks, _fresh, _memory
from luthier.space import Choice, Params, Space
from luthier.trial import Trial

_TOP = 1.0 - 2.0**-53


@dataclass(frozen=True)
class Strategy:
    """The constants of CMA-ES for a number of dimensions; letters are the tutorial's.

    Attributes:
        n: dimensions.
        lam: trials of a generation.
        weights: of the mu best, falling, sum 1, shape (mu,).

    Source:
        Hansen, "The CMA evolution strategy: a tutorial", arXiv 1604.00772, table 1 (without negative weights).
    """

    n: int
    lam: int
    weights: Array

    @classmethod
    def of(cls, n: int, lam: int | None = None) -> Strategy:
        """The tutorial's defaults."""
        size = lam or 4 + int(3 * math.log(max(n, 1)))
        raw = math.log((size + 1) / 2) - np.log(np.arange(1, size // 2 + 1))
        return cls(n, size, raw / raw.sum())

    @property
    def mu_eff(self) -> float:
        """Variance-effective number of parents."""
        return float(1.0 / (self.weights**2).sum())

    @property
    def c_sigma(self) -> float:
        """Learning rate of the step-size path, equation 55."""
        return (self.mu_eff + 2.0) / (self.n + self.mu_eff + 5.0)

    @property
    def d_sigma(self) -> float:
        """Damping of the step size, equation 55."""
        return 1.0 + 2.0 * max(0.0, math.sqrt((self.mu_eff - 1.0) / (self.n + 1.0)) - 1.0) + self.c_sigma

    @property
    def c_c(self) -> float:
        """Learning rate of the covariance path, equation 56."""
        return (4.0 + self.mu_eff / self.n) / (self.n + 4.0 + 2.0 * self.mu_eff / self.n)

    @property
    def c_1(self) -> float:
        """Learning rate of the rank-one update, equation 57."""
        return 2.0 / ((self.n + 1.3) ** 2 + self.mu_eff)

    @property
    def c_mu(self) -> float:
        """Learning rate of the rank-mu update, equation 58."""
        wanted = 2.0 * (0.25 + self.mu_eff + 1.0 / self.mu_eff - 2.0) / ((self.n + 2.0) ** 2 + self.mu_eff)
        return min(1.0 - self.c_1, wanted)

    @property
    def chi(self) -> float:
        """Expected length of a standard normal vector."""
        return math.sqrt(self.n) * (1.0 - 1.0 / (4.0 * self.n) + 1.0 / (21.0 * self.n**2))


@dataclass(frozen=True)
class State:
    """The search distribution N(m, sigma^2 C) and its evolution paths.

    Attributes:
        m: mean, shape (n,).
        sigma: step size.
        C: covariance matrix, shape (n, n).
        p_sigma: path of the step size, shape (n,).
        p_c: path of the covariance matrix, shape (n,).
        g: generations so far.
    """

    m: Array
    sigma: float
    C: Array
    p_sigma: Array
    p_c: Array
    g: int = 0

    @classmethod
    def start(cls, m: Array, sigma: float) -> State:
        """An isotropic distribution."""
        n = len(m)
        return cls(m, sigma, np.eye(n), np.zeros(n), np.zeros(n))

    def roots(self) -> tuple[Array, Array]:
        """C^(1/2) and C^(-1/2)."""
        values, B = np.linalg.eigh(self.C)
        D = np.sqrt(np.maximum(values, 1e-20))
        return (B * D) @ B.T, (B / D) @ B.T


def update(s: State, x: Array, c: Strategy) -> State:
    """The next generation's distribution.

    Args:
        s: the present one.
        x: the generation's points from best to worst, shape (>= mu, n).
        c: constants.

    Source:
        Hansen's tutorial, equations 41 to 47.
    """
    y = (x[: len(c.weights)] - s.m) / s.sigma
    y_w = c.weights @ y
    _, inverse_root = s.roots()
    p_sigma = (1 - c.c_sigma) * s.p_sigma + math.sqrt(c.c_sigma * (2 - c.c_sigma) * c.mu_eff) * (inverse_root @ y_w)
    length = float(np.linalg.norm(p_sigma))
    usual = math.sqrt(1 - (1 - c.c_sigma) ** (2 * (s.g + 1)))
    h = 1.0 if length / usual < (1.4 + 2 / (c.n + 1)) * c.chi else 0.0
    p_c = (1 - c.c_c) * s.p_c + h * math.sqrt(c.c_c * (2 - c.c_c) * c.mu_eff) * y_w
    kept = 1 + c.c_1 * (1 - h) * c.c_c * (2 - c.c_c) - c.c_1 - c.c_mu
    C = kept * s.C + c.c_1 * np.outer(p_c, p_c) + c.c_mu * (y.T * c.weights) @ y
    step = math.exp(min(1.0, c.c_sigma / c.d_sigma * (length / c.chi - 1)))
    return State(s.m + s.sigma * y_w, s.sigma * step, (C + C.T) / 2, p_sigma, p_c, s.g + 1)


@dataclass(frozen=True)
class CMAES:
    """Covariance matrix adaptation for numbers, adapted probabilities for categories: many trials, little cost.

    The state is a function of the history alone: finished trials, in their order, make up the generations. Whole
    numbers keep a least probability to change; a category's probabilities move towards the better trials' values.
    Permutations and subsets by sorted keys, which is weak. It starts at other studies' best or the priors' modes, and
    afresh in the middle where a generation's results speak against them.

    When it helps: from some hundred trials on, numbers mostly, rugged or ill-conditioned functions.
    When it hurts: fewer than about 100 trials; permutations and subsets. Choices cost it trials, not the end result.
    Price: 0.3 to 0.6 ms a proposal, 1.3 ms for 50 parameters, 1 to 3 ms for permutations of 100 to 200 items.

    Formula:
        x ~ N(m, sigma^2 C) on the unit scale; after each generation, y_i = (x_i - m) / sigma of its mu best:
        m += sigma sum_i w_i y_i;  C = (1 - c_1 - c_mu) C + c_1 p_c p_c' + c_mu sum_i w_i y_i y_i';
        sigma *= exp(c_sigma / d_sigma (|p_sigma| / E|N(0, I)| - 1)); p_c, p_sigma: decaying sums of the steps of m;
        a choice's probabilities: q += 0.3 (sum_i w_i [x_i has the option] - q)

    Args:
        population: trials of a generation; None: 4 + 3 ln d.
        sigma: first step size, as a share of each parameter's range.

    Source:
        Hansen, "The CMA evolution strategy: a tutorial", 2016; margins after Hamano et al., "CMA-ES with margin", 2022;
        categories after Hamano et al., "CatCMA", 2024.
    """

    population: int | None = None
    sigma: float = 0.25
    _cache: list[_Run] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _checks.whole(self, 2, population=2 if self.population is None else self.population)
        _checks.real(self, 1e-10, 1.0, sigma=self.sigma)

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
        memory = _memory.recall(self._cache[0].memory if self._cache else None, space, objectives)
        run = self._advance(memory, list(history))
        self._cache[:] = [run]
        taken = memory.taken(history, pending)
        trials = len(history) + len(pending)

        def propose(i: int) -> Params | None:
            generator = key.for_trial(key.trial + i).generator("cmaes")
            unit = run.draw(generator)
            return (
                _fresh.suggested(memory.belief, trials + i, generator, taken)
                or _fresh.first(memory.encoding, unit, taken)
                or _fresh.draw(space, generator, taken, memory.belief.bend(trials + i))
            )

        return _fresh.several(n, propose, taken)

    def _advance(self, memory: _memory.Memory, trials: list[Trial]) -> _Run:
        """Folds complete generations of finished trials into the state."""
        run = self._cache[0] if self._cache else None
        known = run is not None and run.memory is memory and run.told == trials[: len(run.told)]
        if run is None or not known:
            run = _Run.start(memory, self.population, self.sigma)
        while len(run.told) + run.strategy.lam <= len(trials):
            until = len(run.told) + run.strategy.lam
            table = memory.table(trials[:until])  # as known then: later trials say more of those that were stopped
            run = run.after(table.take(slice(len(run.told), until)), trials[:until])
            if run.believes and memory.belief.denied(*_memory.first_places(table)):
                run = replace(_Run.start(memory, self.population, self.sigma, believes=False), told=run.told)
        return run


@dataclass(frozen=True)
class _Run:
    """Where CMA-ES stands after some trials.

    Attributes:
        memory: the space's.
        strategy: constants.
        numbers: columns of the numeric dimensions.
        state: distribution over them.
        shares: probabilities of each categorical dimension's values, by column.
        told: the trials that made it.
        believes: whether it began where priors or other studies said.
    """

    memory: _memory.Memory
    strategy: Strategy
    numbers: NDArray[np.int64]
    state: State
    shares: dict[int, Array]
    told: list[Trial]
    believes: bool

    @classmethod
    def start(cls, memory: _memory.Memory, population: int | None, sigma: float, believes: bool = True) -> _Run:
        encoding, space = memory.encoding, memory.space
        numbers = np.flatnonzero(~encoding.categorical | encoding.structured)
        sizes = {space.slices[n].start: int(p.size) for n, p in space.parameters.items() if isinstance(p, Choice)}
        shares = {j: np.full(size, 1.0 / size) for j, size in sizes.items()}
        strategy = Strategy.of(max(len(numbers), 1), population or 4 + int(3 * math.log(len(encoding))))
        middle, belief = np.full(len(encoding), 0.5), memory.belief
        believes = believes and not belief.silent
        guess = belief.guess(0, middle) if believes else None
        middle = middle if guess is None else guess
        for prior in belief.priors:
            if believes and prior.column in shares:
                shares[prior.column] = prior.shares(1.0)
        start = middle[numbers] if len(numbers) else middle[:1]
        return cls(memory, strategy, numbers, State.start(start, sigma), shares, [], believes)

    def draw(self, generator: np.random.Generator, n: int = 16) -> Array:
        """Unit rows, shape (n, d): the first that is allowed and new is taken."""
        encoding, s = self.memory.encoding, self.state
        unit = np.empty((n, len(encoding)))
        root, _ = s.roots()
        x = s.m + s.sigma * generator.normal(size=(n, len(s.m))) @ root
        unit[:, self.numbers] = self._margin(x, generator)[:, : len(self.numbers)]
        for j, share in self.shares.items():
            unit[:, j] = (generator.choice(len(share), n, p=share) + 0.5) / len(share)
        return np.clip(unit, 0.0, _TOP)

    def _margin(self, x: Array, generator: np.random.Generator) -> Array:
        """Moves some whole numbers to a neighbour where the distribution alone would hardly ever change them."""
        alpha = 1.0 / (self.strategy.n * self.strategy.lam)
        x = np.clip(x, 0.0, _TOP)
        for column, j in enumerate(self.numbers):
            centres = self.memory.encoding.dimensions[int(j)].centres
            if centres is None or len(centres) < 2:
                continue
            jumps = generator.random(len(x)) < 2.0 * alpha
            at = np.abs(x[:, column, None] - centres).argmin(1) + np.where(generator.random(len(x)) < 0.5, 1, -1)
            x[:, column] = np.where(jumps, centres[np.clip(at, 0, len(centres) - 1)], x[:, column])
        return x

    def after(self, generation: _memory.Table, told: list[Trial]) -> _Run:
        """One generation further."""
        order = _ranking(generation)
        rows, active = self.memory.encoding.snap(generation.rows)
        unit = generation.rows.copy()
        mean = np.full(len(self.memory.encoding), 0.5)
        mean[self.numbers] = self.state.m[: len(self.numbers)]
        unit = np.where(active, unit, mean)[order]
        state = self.state
        if len(self.numbers):
            state = update(state, unit[:, self.numbers], self.strategy)
            spread = np.sqrt(np.diag(state.C).max())
            state = replace(
                state, sigma=float(np.clip(state.sigma, 1e-10 / spread, 1.0 / spread)), m=np.clip(state.m, 0, 1)
            )
        shares = {j: self._learn(j, share, rows[order, j], active[order, j]) for j, share in self.shares.items()}
        return replace(self, state=state, shares=shares, told=told)

    def _learn(self, j: int, share: Array, column: Array, active: Array) -> Array:
        """Probabilities moved towards the better trials' values, none below a margin."""
        k, mu = len(share), len(self.strategy.weights)
        chosen = np.zeros(k)
        for x, on, w in zip(column[:mu], active[:mu], self.strategy.weights, strict=False):
            if on:
                chosen[int(x * k)] += w
            else:
                chosen += w * share
        moved = share + 0.3 * (chosen - share)
        least = min(0.5 / k, 1.0 / (self.strategy.lam * k))
        floored = np.maximum(moved, least)
        return np.asarray(floored / floored.sum())


def _ranking(table: _memory.Table) -> Array:
    """Indices from best to worst; trials without a result last."""
    ran = np.flatnonzero(table.ran)
    inner = _memory.ranking(table.losses[ran], table.lack[ran]) if len(ran) else ran
    return np.concatenate([ran[inner], np.flatnonzero(~table.ran)])


METHOD = CMAES
