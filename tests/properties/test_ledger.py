"""The ledger's answers against their definitions, for trials that end in any order."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.store import Header, View
from luthier.study.exchange import read, write
from luthier.study.ledger import Ledger
from luthier.trial import Report, Status, Trial

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
        seen = [n for n in done if lag is None or n <= number - lag]
        assert [t.number for t in ledger.history(number, lag)] == seen
        assert [t.number for t in ledger.unfinished] == open_ones
        assert ledger.complete_below == min([*open_ones, number])
        assert ledger.trials == [state[n] for n in sorted(state)]
        if lag is not None and ledger.complete_below > number - lag:
            pending = ledger.pending(number, lag, open_ones)
            assert sorted([*seen, *(t.number for t in pending)]) == list(range(number))  # nobody is missed or doubled
            assert all(not t.finished for t in pending)
    again = Ledger(state.values())
    assert (again.trials, again.complete_below) == (ledger.trials, ledger.complete_below)


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
    header = Header(name, {"parameters": {}, "where": 0}, {"directions": {"loss": "min"}}, {"seed": 0}, 1.5)
    entries = []
    for number, (params, metrics, curve, cause) in enumerate(rows):
        reports = tuple(Report(step, row) for step, row in enumerate(curve))
        trial = Trial(number, params, Status.FAILED, metrics, reports, cause, 0.1, 0.2)
        entries.append((trial, View("user", tuple(range(number)))))
    path = tmp_path_factory.mktemp("files") / "study.jsonl"
    write(path, header, entries)
    assert read(path) == (header, entries)
