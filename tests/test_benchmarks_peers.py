"""Other libraries under the same rules."""

from __future__ import annotations

import pytest
from benchmark_tables import grid, tiny

from benchmarks.contestants import Contestant
from benchmarks.peers import PEERS, answer
from benchmarks.race import race
from benchmarks.tables import table_problem
from search.errors import NasliteError
from strategies.space import candidate_key

FAST = [f"peer:{name}" for name in PEERS if name != "optuna-gp"]
ORDERED = {"width*": {"neutral": 40}}


class Recorder:
    """A player that keeps what another one asks."""

    def __init__(self, inner):
        self.inner = inner
        self.asked = []

    @property
    def seconds(self):
        return self.inner.seconds

    def ask(self):
        self.asked.append(self.inner.ask())
        return self.asked[-1]

    def tell(self, candidate, outcome):
        self.inner.tell(candidate, outcome)


def played(name, problem, *, budget=60, seed=1):
    player = Recorder(Contestant.parse(name).player(problem, budget=budget, seed=seed))
    return race(problem, player, budget, seed), player.asked


@pytest.mark.parametrize("name", FAST)
def test_a_peer_begins_with_the_baseline_and_is_a_function_of_its_seed(tmp_path, name):
    problem = table_problem(grid(tmp_path), None, noisy=True)
    run, asked = played(name, problem)
    assert asked[0] == problem.space.baseline()
    assert all(problem.space.contains(candidate) for candidate in asked)
    assert run.evaluations == len(asked) == 60
    assert run.repeats == 60 - len({candidate_key(candidate) for candidate in asked})
    assert run.final > 0.8
    assert run.seconds > 0
    assert played(name, problem)[1] == asked
    still = table_problem(grid(tmp_path), None)
    assert played(name, still, seed=2)[1] != played(name, still, seed=3)[1]


@pytest.mark.parametrize("name", FAST)
def test_limits_are_constraints_of_a_peer(tmp_path, name):
    rows = [f"{x},{y},{100 - 3 * x - y},{x + y}" for x in range(16) for y in range(16)]
    path = tiny(
        tmp_path,
        knobs={"x": {"neutral": 15}, "y": {"neutral": 15}},
        objectives={"err": {"goal": "min", "reference": 100}, "size": "min"},
        limits=["err <= 60"],  # three tenths of the candidates
    )
    (tmp_path / "tiny.csv").write_text("\n".join(["x,y,err,size", *rows]))
    problem = table_problem(path, None)
    run, asked = played(name, problem, budget=80)
    assert run.final > 0.8
    if name != "peer:optuna-random":
        late = [problem.exact(candidate).is_feasible for candidate in asked[40:]]
        assert sum(late) > 20


@pytest.mark.parametrize("name", ["peer:optuna-tpe", "peer:pymoo-nsga2"])
def test_refusals_are_heeded_by_a_peer(tmp_path, name):
    rows = [f"{x},{y},{30 - x - y},{x + y}" for x in range(8) for y in range(16)]
    path = tiny(tmp_path, knobs={"x": {"neutral": 0, "levels": list(range(16))}, "y": 15})
    (tmp_path / "tiny.csv").write_text("\n".join(["x,y,err,size", *rows]))
    run, _ = played(name, table_problem(path, None), budget=80)
    assert 0 < run.refused < 30  # half of the space is refused


def test_what_a_peer_is_told_of_a_refusal(tmp_path):
    path = tiny(
        tmp_path,
        knobs={"x": {"neutral": 0, "levels": [0, 1, 2, 3, 4]}},
        limits=["err <= 16"],
    )
    problem = table_problem(path, None)
    assert answer(problem, problem.exact({"x": 4})) == ([40, 10], [1, 0])
    assert answer(problem, problem.exact({"x": 1})) == ([12, 4], [0, 0])
    assert answer(problem, problem.exact({"x": 2})) == ([20, 2], [0, pytest.approx(0.25)])
    complete = table_problem(tiny(tmp_path), None)
    assert answer(complete, complete.exact({"x": 1})) == ([12, 4], [])


def test_optunas_genetic_search_may_breed_from_the_baseline(tmp_path):
    problem = table_problem(grid(tmp_path), None)
    plain, bred = "peer:optuna-nsgaii", "{name: 'peer:optuna-nsgaii', breed_baseline: true}"
    for name, generation in ((plain, None), (bred, 0)):
        player = Contestant.parse(name).player(problem, budget=50, seed=0)
        asked = Recorder(player)
        race(problem, asked, 50, 0)
        assert asked.asked[0] == problem.space.baseline()
        first, *others = player.study.trials
        assert first.system_attrs.get("NSGAIISampler:generation") == generation
        generations = [trial.system_attrs["NSGAIISampler:generation"] for trial in others]
        assert generations == sorted(generations)
        assert generations.count(0) == 20 - (generation == 0)
        assert player.resumed().study.trials == player.study.trials


@pytest.mark.parametrize("knobs", [ORDERED, None], ids=["integers", "mixed"])
def test_pymoo_takes_integers_and_categories(tmp_path, knobs):
    if knobs is None:
        path = grid(tmp_path)
    else:
        path = grid(tmp_path, knobs=knobs, where={"kind": "plain"})
    problem = table_problem(path, None)
    run, asked = played("{name: 'peer:pymoo-nsga2', population: 6}", problem, budget=24)
    assert run.evaluations == 24
    assert len({candidate_key(candidate) for candidate in asked[:6]}) == 6


def test_pymoo_ends_when_it_finds_nothing_new(tmp_path):
    problem = table_problem(tiny(tmp_path), None)
    run, _ = played("peer:pymoo-nsga2", problem)
    assert run.evaluations == 4
    assert run.final == pytest.approx(1.0)


def test_peers_are_asked_one_at_a_time(tmp_path):
    problem = table_problem(tiny(tmp_path), None)
    peer = Contestant.parse("peer:optuna-random")
    with pytest.raises(NasliteError, match="peers are asked one at a time; leave --lag at 1"):
        peer.player(problem, budget=9, seed=0, lag=2)


def test_options_of_a_peer(tmp_path):
    problem = table_problem(tiny(tmp_path), None)
    few = Contestant.parse("{name: 'peer:optuna-nsgaii', population_size: 1}")
    with pytest.raises(NasliteError, match=r"population_size=1\): `population_size` must be"):
        few.problems(problem)


@pytest.mark.slow
def test_optunas_gaussian_processes(tmp_path):
    problem = table_problem(grid(tmp_path), None)
    run, asked = played("peer:optuna-gp", problem, budget=16)
    assert asked[0] == problem.space.baseline()
    assert run.final > 0.8
