"""The ledger's answers against their definitions, for trials that end in any order."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.parameters import Float
from luthier.space import Space
from luthier.store import Header, View
from luthier.study.exchange import read, write
from luthier.study.ledger import Ledger
from luthier.trial import Leg, Report, Status, Trial

ENDINGS = st.sampled_from([Status.COMPLETE, Status.FAILED, Status.STOPPED])


@st.composite
def lives(draw) -> list[Trial]:
    """Trials as they begin and end: at most four at once, in any order."""
    out: list[Trial] = []
    running: list[int] = []
    begun = 0
    for _ in range(draw(st.integers(1, 40))):
        if running and (len(running) == 4 or draw(st.booleans())):
            number = running.pop(draw(st.integers(0, len(running) - 1)))
            out.append(Trial(number, {"x": number}).ending(draw(ENDINGS), 1.0, {"loss": 0.5}))
        else:
            out.append(Trial(begun, {"x": begun}))
            running.append(begun)
            begun += 1
    return out


@given(lives(), st.one_of(st.none(), st.integers(1, 9)))
@settings(max_examples=150, deadline=None)
def test_the_ledger_answers_by_definition(events, lag):
    ledger = Ledger()
    state: dict[int, Trial] = {}
    for trial in events:
        ledger.put(trial)
        state[trial.number] = trial
        done = sorted(n for n, t in state.items() if t.finished)
        open_ones = sorted(n for n, t in state.items() if not t.finished)
        number = len(state)
        hidden = ledger.hidden(number, lag, open_ones)
        history, pending = ledger.seen(number, hidden)
        assert [t.number for t in history] == [n for n in done if lag is None or n <= number - lag]
        assert all(not t.finished for t in pending)
        assert [t.number for t in ledger.unfinished] == open_ones
        assert ledger.complete_below == min([*open_ones, number])
        assert ledger.trials == [state[n] for n in sorted(state)]
        assert (ledger.turns, ledger.idle, ledger.paused) == (number, len(done), [])
        if lag is None or ledger.complete_below > number - lag:  # nobody is missed or doubled
            assert sorted(t.number for t in [*history, *pending]) == list(range(number))
    again = Ledger(state.values())
    assert (again.trials, again.complete_below) == (ledger.trials, ledger.complete_below)


@st.composite
def pausing_lives(draw) -> list[Trial]:
    """Trials that begin, pause at rising steps, go on and end, each leg with the next turn; at most four at once."""
    out: list[Trial] = []
    state: dict[int, Trial] = {}
    turn = 0
    for _ in range(draw(st.integers(1, 40))):
        running = [n for n, t in state.items() if t.status is Status.RUNNING]
        resting = [n for n, t in state.items() if t.resting]
        act = draw(st.sampled_from(["new", "end", "pause", "go on"]))
        if act in ("end", "pause") and running:
            trial = state[draw(st.sampled_from(running))]
            step = len(trial.reports) + 1
            trial = trial.with_report(Report(step, {"loss": float(step)}))
            if act == "pause":
                legs = (*trial.legs[:-1], Leg(trial.legs[-1].turn, step))
                trial = replace(trial, legs=legs).ending(Status.PAUSED, 1.0, cause="waits")
            else:
                trial = trial.ending(draw(ENDINGS), 1.0, {"loss": -1.0})
        elif len(running) == 4:
            continue
        elif act == "go on" and resting:
            trial = state[draw(st.sampled_from(resting))]
            trial = replace(trial, status=Status.RUNNING, legs=(*trial.legs, Leg(turn)))
            turn += 1
        else:
            trial = Trial(len(state), {"x": len(state)}, legs=(Leg(turn),))
            turn += 1
        state[trial.number] = trial
        out.append(trial)
    return out


@given(pausing_lives())
@settings(max_examples=150, deadline=None)
def test_what_a_proposal_saw_can_be_told_from_the_end(events):
    """The views of a live ledger, rebuilt from the last state of every trial."""
    ledger = Ledger()
    views = []
    state: dict[int, Trial] = {}
    for trial in events:
        ledger.put(trial)
        state[trial.number] = trial
        running = [n for n, t in state.items() if t.status is Status.RUNNING]
        hidden = ledger.hidden(ledger.turns, None, running)
        views.append((ledger.turns, hidden, ledger.seen(ledger.turns, hidden)))
        assert ledger.turns == 1 + max(leg.turn for t in state.values() for leg in t.legs)
        assert [t.number for t in ledger.paused] == sorted(n for n, t in state.items() if t.status is Status.PAUSED)
        ready = {t.number for t in ledger.standing(None) if t.status is Status.PAUSED}
        assert ready == {n for n, t in state.items() if t.resting}
    last = Ledger(state.values())
    assert last.complete_below == ledger.complete_below
    for turn, hidden, seen in views:
        assert last.seen(turn, hidden) == seen
        history, pending = seen
        assert not {t.number for t in history} & {t.number for t in pending}
        for t in history:
            known = [leg for leg in last[t.number].legs if leg.turn < turn and leg.turn not in hidden]
            assert t.reports == tuple(
                r for r in last[t.number].reports if known[-1].step is None or r.step <= known[-1].step
            )


NUMBERS = st.floats(allow_nan=False)
VALUES = st.one_of(st.none(), st.booleans(), st.integers(), NUMBERS, st.text())
METRICS = st.dictionaries(st.text(min_size=1), NUMBERS, max_size=3)


@given(
    st.text(min_size=1).filter(lambda name: name.strip() and "\x00" not in name and name.isprintable()),
    st.lists(
        st.tuples(st.dictionaries(st.text(), VALUES, max_size=3), METRICS, st.lists(METRICS, max_size=3), st.text()),
        max_size=4,
    ),
)
@settings(max_examples=60, deadline=None)
def test_a_study_written_to_a_file_is_the_same_study(tmp_path_factory, name, rows):
    wanted = {"directions": {"loss": "min"}, "constraints": {}}
    header = Header(name, Space(x=Float(0, 1)).to_json(), wanted, {"seed": 0, "algorithm": "Random"}, 1.5)
    entries = []
    for number, (params, metrics, curve, cause) in enumerate(rows):
        reports = tuple(Report(step, row) for step, row in enumerate(curve))
        trial = Trial(number, params, Status.FAILED, metrics, reports, cause, 0.1, 0.2)
        trial = replace(trial, legs=tuple(Leg(step, step) for step in range(number)))
        entries.append((trial, View("user", tuple(range(number)), number)))
    path = tmp_path_factory.mktemp("files") / "study.jsonl"
    write(path, header, entries)
    assert read(path) == (header, entries)
