"""Claims: that each can pass, and that each fails when the numbers are others."""

import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import ROOT
from run_folders import forgetting_matrix, sign, write_game_run, write_run
from shell import Shell, refused

from blip import BLIP, diagonal_fisher
from blip.claims import judge, library_checks, load_claims, report
from blip.claims.claim import Claim
from blip.claims.judging import FAIL, NOT_RUN, PASS, Verdict
from blip.claims.library_checks import CHECKS, GOLDEN, Measured
from blip.claims.measures import MEASURES, over_chance
from blip.claims.timing import paired_ratios
from blip.config import load_experiment, published
from blip.core import formulas
from blip.errors import BlipError
from blip.record import read_record
from blip.results import load_runs
from blip.results.loading import find_runs

FILE = ROOT / "config" / "claims.yaml"
PROJECT = load_claims(FILE)
ALL = sorted((ROOT / "results/recorded").glob("*/runs"))
RECORDED = [path for path in ALL if not re.match("ablations_|inherited_digits", path.parent.name)]  # as make claims


def claim(**values: Any) -> Claim:
    """A claim on forgetting of blip on mnist5, unless changed."""
    about = {"id": "a", "sentence": "It is so.", "source": "ours", "cost": {"core_minutes": 1}}
    if "check" not in values:
        about |= {"runs": {"experiment": "mnist5", "method": "blip"}, "measure": "forgetting"}
    return Claim.model_validate(about | values)


def of_runs(folder: Path, *claims: Claim) -> list[tuple[str, int]]:
    """Verdict and n of each."""
    return [(verdict.verdict, verdict.n) for verdict in judge(claims, [folder])]


def write_seeds(root: Path, method: str, drop: float, seeds: int = 6) -> None:
    for seed in range(seeds):
        write_run(root, method=method, seed=seed, R=forgetting_matrix(3, 0.95, drop, seed * 7 + len(method)))


# The project's own claims


def test_there_are_claims_on_all_parts_of_the_project() -> None:
    assert len(PROJECT) >= 20
    assert {claim.check for claim in PROJECT if claim.check} == set(CHECKS), "a check that nobody claims is of no use"
    assert {claim.source for claim in PROJECT} == {"paper", "published code", "docs/verified.md", "ours"}
    assert sum(claim.other is not None for claim in PROJECT) >= 5


def runs_of_suite(name: str) -> dict[tuple[str, str], int]:
    """How many seeds a suite has of each experiment and method."""
    suite = yaml.safe_load((ROOT / "config" / name).read_text())
    seeds = {}
    for entry in suite["experiments"]:
        experiment = load_experiment(ROOT / "config" / entry["config"], entry.get("set"))
        for method in entry.get("methods", experiment.methods):
            seeds[experiment.name, method] = len(entry.get("seeds", suite["seeds"]))
    return seeds


def test_claims_ask_for_what_the_suite_or_the_recorded_runs_have() -> None:
    trained, recorded = runs_of_suite("evidence.yaml"), runs_of_suite("recorded.yaml")
    asked: set[tuple[str, str]] = set()
    for wanted in (claim for claim in PROJECT if claim.runs):
        needs = wanted.runs
        methods = [needs.method, *([wanted.other.method] if wanted.other else [])]
        methods += ["single-task"] if wanted.measure == "plasticity" else []
        for method in methods:
            assert needs.seeds <= (recorded | trained)[needs.experiment, method], wanted.id
            asked.add((needs.experiment, method))
    assert not trained.keys() - asked, "nothing is trained that no claim needs"


def test_recorded_runs_of_the_published_settings_agree_with_the_published_code() -> None:
    wanted = [claim for claim in PROJECT if claim.id in ("mnist5-accuracy", "mnist5-backward-transfer")]
    assert [verdict.verdict for verdict in judge(wanted, RECORDED)] == [PASS, PASS]


def test_the_page_of_claims_says_what_the_recorded_runs_give() -> None:
    page = (ROOT / "docs/claims.md").read_text()
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines()]
    shown = {tuple(line[:4]) for line in lines if len(line) == 7}
    judged = [claim for claim in PROJECT if claim.runs and claim.measure != "wrong replays"]  # to play takes a minute
    verdicts = [verdict for verdict in judge(judged, RECORDED) if verdict.n]
    assert len(verdicts) > 15
    for verdict in verdicts:
        sentence = verdict.claim.sentence.rstrip(".")
        assert (verdict.verdict, sentence, report.measured(verdict), str(verdict.n)) in shown
    assert f"{len(PROJECT)} PASS, 0 FAIL, 0 NOT RUN" in page


# Judging


def test_runs_are_compared_with_a_number(tmp_path: Path) -> None:
    write_run(tmp_path, R=[[0.9], [0.8, 0.9]])  # forgetting of 10 points
    near, far = {"value": 9.5, "within": 0.6}, {"value": 9.5, "within": 0.4}
    claims = [
        claim(equals=near),
        claim(equals=far),
        claim(at_most=10.1),
        claim(at_most=9.9),
        claim(at_least=9.9),
        claim(at_least=10.1),
    ]
    assert of_runs(tmp_path, *claims) == [(PASS, 1), (FAIL, 1)] * 3
    (verdict,) = judge([claim(at_most=11)], [tmp_path])
    assert verdict.measured == pytest.approx(10)
    assert verdict.unit == "points"


@pytest.mark.parametrize(("spread", "verdict"), [(0.01, PASS), (0.05, FAIL)])
def test_all_of_an_interval_must_be_as_expected(spread: float, verdict: str, tmp_path: Path) -> None:
    """The mean accuracy is 85 % both times."""
    for seed in range(6):
        last = 0.8 + spread * (-1) ** seed
        write_run(tmp_path, seed=seed, R=[[0.9], [last, 0.9]])
    for expected in ({"at_least": 84}, {"at_most": 86}, {"equals": {"value": 85, "within": 1}}):
        assert of_runs(tmp_path, claim(measure="accuracy", **expected)) == [(verdict, 6)]


@pytest.mark.parametrize("test", ["t", "sign flip"])
def test_methods_are_compared_seed_by_seed(test: str, tmp_path: Path) -> None:
    write_seeds(tmp_path, "blip", 0.02)
    write_seeds(tmp_path, "sgd", 0.1)
    less, more = ({key: {"method": "sgd", "test": test}} for key in ("less_than", "more_than"))
    assert of_runs(tmp_path, claim(**less)) == [(PASS, 6)]
    assert of_runs(tmp_path, claim(**more)) == [(FAIL, 6)], "it is the other way round"
    (verdict,) = judge([claim(**less)], [tmp_path])
    assert verdict.measured < -5
    assert verdict.unit == "points"
    assert judge([claim(measure="accuracy", more_than={"method": "sgd", "test": test})], [tmp_path])[0].unit == "points"
    assert verdict.p == (2 / 2**6 if test == "sign flip" else pytest.approx(0, abs=0.001))
    assert verdict.interval.low < verdict.measured < verdict.interval.high


def test_what_chance_explains_is_a_fail(tmp_path: Path) -> None:
    write_seeds(tmp_path, "blip", 0.05)
    write_seeds(tmp_path, "ewc", 0.05)
    assert [verdict for verdict, _ in of_runs(tmp_path, claim(less_than={"method": "ewc"}))] == [FAIL]


def test_comparisons_are_corrected_together(tmp_path: Path) -> None:
    write_seeds(tmp_path, "blip", 0.02)
    write_seeds(tmp_path, "sgd", 0.1)
    less = {"less_than": {"method": "sgd", "test": "sign flip"}}
    assert of_runs(tmp_path, claim(**less)) == [(PASS, 6)], "p = 2 / 2⁶ = 3 %"
    assert of_runs(tmp_path, claim(**less), claim(id="b", **less)) == [(FAIL, 6), (FAIL, 6)], "twice that"


def test_a_comparison_may_be_with_another_experiment(tmp_path: Path) -> None:
    write_seeds(tmp_path, "blip", 0.02)
    for seed in range(6):
        write_run(tmp_path, "other", "blip", seed, forgetting_matrix(3, 0.95, 0.1, seed))
    assert of_runs(tmp_path, claim(less_than={"method": "blip", "experiment": "other"})) == [(PASS, 6)]


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"at_most": 50, "runs": {"experiment": "mnist5", "method": "ewc"}}, "needs 1 runs of ewc on mnist5, found 0"),
        ({"at_most": 50, "runs": {"experiment": "mnist5", "method": "blip", "seeds": 3}}, "found 2"),
        ({"at_most": 50, "runs": {"experiment": "no", "method": "blip"}}, "runs of blip on no, found 0"),
        (
            {"at_most": 50, "runs": {"experiment": "mnist5", "method": "blip", "settings": {"training.epochs": 9}}},
            "with training.epochs=9, found 0",
        ),
        ({"less_than": {"method": "sgd"}}, "needs 5 runs of blip on mnist5 beside those of sgd, found 2"),
        ({"less_than": {"method": "sgd", "test": "sign flip"}}, "needs 6 runs"),
        ({"at_most": 1, "measure": "plasticity"}, "found 0"),
        ({"at_most": 1, "measure": "lost bits"}, "found 0"),
        ({"at_most": 1, "measure": "over chance"}, "found 0"),
        ({"at_most": 1, "measure": "wrong replays"}, "found 0"),
    ],
)
def test_what_cannot_be_measured_is_not_run_and_says_why(changes: dict[str, Any], note: str, tmp_path: Path) -> None:
    write_seeds(tmp_path, "blip", 0.02, seeds=2)
    write_seeds(tmp_path, "sgd", 0.1, seeds=2)
    (verdict,) = judge([claim(**changes)], [tmp_path])
    assert verdict.verdict == NOT_RUN
    assert note in verdict.note


def test_without_any_run_no_claim_about_runs_passes() -> None:
    verdicts = judge(PROJECT, [], checks=False)
    assert {verdict.verdict for verdict in verdicts} == {NOT_RUN}


def test_only_runs_with_the_wanted_settings_count(tmp_path: Path) -> None:
    for seed, epochs in enumerate((200, 3)):
        write_run(tmp_path, seed=seed, config={"training": {"epochs": epochs}})
    needs = {"experiment": "mnist5", "method": "blip", "settings": {"training.epochs": 200}}
    assert of_runs(tmp_path, claim(runs=needs, at_least=0)) == [(PASS, 1)]


def configured(method: str, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """The configuration of a run on digits5, with changes."""
    config: dict[str, Any] = load_experiment(published()["digits5"], changes).run_config(method, 0)
    return config


def test_runs_of_a_published_experiment_must_be_as_it_is(tmp_path: Path) -> None:
    for seed, epochs in enumerate((20, 3)):
        write_run(
            tmp_path, "digits5", seed=seed, config=configured("blip", {"training.epochs": epochs}) | {"seed": seed}
        )
    for epochs, settings in ((20, {}), (3, {"training.epochs": 3}), (None, {"training.epochs": True})):
        needs = {"experiment": "digits5", "method": "blip", "settings": settings}
        assert of_runs(tmp_path, claim(runs=needs, at_least=0)) == [(PASS, 1) if epochs else (NOT_RUN, 0)]
    training = configured("blip", {"training.epochs": 3})["training"]
    whole = {"experiment": "digits5", "method": "blip", "settings": {"training": training}}
    assert of_runs(tmp_path, claim(runs=whole, at_least=0)) == [(PASS, 1)], "all of a mapping at once"
    needs = {"experiment": "digits5", "method": "blip", "seeds": 2}
    (verdict,) = judge([claim(runs=needs, at_least=0)], [tmp_path])
    assert verdict.note == "needs 2 runs of blip on digits5, found 1; others differ in training.epochs"


def test_settings_that_the_published_experiment_leaves_out_are_seen(tmp_path: Path) -> None:
    """Such as the order of tasks, which is in a run's configuration where it is not the plain one alone."""
    needs = {"experiment": "digits5", "method": "blip"}
    for changes, verdict in (({"data.task_order": [1, 0, 2, 3, 4]}, (NOT_RUN, 0)), (None, (PASS, 1))):
        write_run(tmp_path, "digits5", config=configured("blip", changes))
        assert of_runs(tmp_path, claim(runs=needs, at_least=0)) == [verdict]


def test_a_reference_must_be_as_published_too(tmp_path: Path) -> None:
    wanted = claim(runs={"experiment": "digits5", "method": "blip"}, measure="plasticity", at_least=-100)
    for epochs, verdict in ((1, (NOT_RUN, 0)), (20, (PASS, 1))):
        write_run(tmp_path, "digits5", "blip", config=configured("blip"))
        write_run(tmp_path, "digits5", "single-task", config=configured("single-task", {"training.epochs": epochs}))
        assert of_runs(tmp_path, wanted) == [verdict]


def test_what_the_other_method_lacks_is_said(tmp_path: Path) -> None:
    for seed in range(5):
        write_run(tmp_path, "digits5", "blip", seed, config=configured("blip"))
        write_run(tmp_path, "digits5", "sgd", seed, config=configured("sgd", {"training.epochs": 3}))
    (verdict,) = judge(
        [claim(runs={"experiment": "digits5", "method": "blip"}, less_than={"method": "sgd"})], [tmp_path]
    )
    assert verdict.note.endswith("found 0; others differ in training.epochs")


def test_runs_that_learned_other_data_are_no_pair(tmp_path: Path) -> None:
    for seed in range(6):
        write_run(tmp_path, method="blip", seed=seed, data=f"data {seed}")
        write_run(tmp_path, method="sgd", seed=seed, data=f"data {seed}" if seed else "others", R=[[0.9], [0.1, 0.9]])
    (verdict,) = judge([claim(less_than={"method": "sgd"})], [tmp_path])
    assert (verdict.verdict, verdict.n) == (PASS, 5)


def test_stand_in_data_show_nothing(tmp_path: Path) -> None:
    write_run(tmp_path, stand_in=True)
    assert of_runs(tmp_path, claim(at_least=0)) == [(NOT_RUN, 0)]
    write_run(tmp_path, method="single-task", seed=1, stand_in=True)
    write_run(tmp_path, seed=1)
    assert of_runs(tmp_path, claim(measure="plasticity", at_least=-100)) == [(NOT_RUN, 0)], "nor as a reference"


# Measures of runs


def rewrite(folder: Path, table: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    change(pd.read_csv(folder / f"{table}.csv")).to_csv(folder / f"{table}.csv", index=False)
    sign(folder)


def value(measure: str, root: Path) -> float:
    """Of the only run below `root`."""
    (found,) = MEASURES[measure].of(load_runs([root]))
    return float(found)


def test_measures_of_accuracies_worked_out_by_hand(tmp_path: Path) -> None:
    write_run(tmp_path, R=[[0.9], [0.95, 0.8], [0.7, 0.85, 0.6]])
    assert value("accuracy", tmp_path) == pytest.approx(100 * (0.7 + 0.85 + 0.6) / 3)
    assert value("backward transfer", tmp_path) == pytest.approx(100 * (-0.2 + 0.05) / 2)
    assert value("forgetting", tmp_path) == pytest.approx(100 * (0.25 - 0.05) / 2)
    assert value("largest change", tmp_path) == pytest.approx(20)
    assert 0 < value("capacity", tmp_path) < 100


def test_measures_of_memory_and_moves(shell: Shell) -> None:
    shell.train("blip", "--set", "training.epochs=2")
    folder = shell.runs / "tiny" / "blip" / "seed0"
    assert value("memory growth", shell.runs) == pytest.approx(1)
    rewrite(folder, "memory", lambda t: t.assign(bytes=[100, 250]))
    assert value("memory growth", shell.runs) == 2.5
    assert value("largest move", shell.runs) <= 1
    rewrite(folder, "moves", lambda t: t.assign(largest_move=1.5, lost_bits=3))
    assert value("largest move", shell.runs) == 1.5
    assert value("lost bits", shell.runs) == 3 * len(pd.read_csv(folder / "moves.csv"))
    broken = claim(runs={"experiment": "tiny", "method": "blip"}, measure="largest move", at_most=1)
    assert of_runs(shell.runs, broken) == [(FAIL, 1)]
    whole = (folder / "moves.csv").read_text()
    for damage in (
        lambda t: t.assign(largest_move=[0.5, *[None] * (len(t) - 1)]),
        lambda t: t[:1].assign(largest_move=0.5),
    ):
        (folder / "moves.csv").write_text(whole)
        rewrite(folder, "moves", damage)
        assert value("largest move", shell.runs) == math.inf
        assert of_runs(shell.runs, broken) == [(FAIL, 1)]
    rewrite(folder, "memory", lambda t: t.assign(bytes=[0, 250]))
    growing = claim(runs={"experiment": "tiny", "method": "blip"}, measure="memory growth", at_least=1)
    assert of_runs(shell.runs, growing) == [(FAIL, 1)]


def test_measures_of_games(tmp_path: Path) -> None:
    write_game_run(tmp_path, R=[[50.0], [20.0, 90.0]], random=[10.0, 30.0])
    assert value("over chance", tmp_path) == 3
    write_game_run(tmp_path / "more", seed=1, R=[[50.0], [20.0, 20.0]], random=[10.0, 30.0])
    needs = claim(runs={"experiment": "atari", "method": "blip", "seeds": 2}, measure="over chance", at_least=1)
    (verdict,) = judge([needs], [tmp_path])
    assert (verdict.verdict, verdict.measured) == (FAIL, pytest.approx(2 / 3)), "with each seed"
    shutil.rmtree(tmp_path / "more")
    # Three steps of a game, which end at 0, and say of themselves that they ended at R.
    assert value("wrong replays", tmp_path) == 3
    rewrite(tmp_path / "atari" / "blip" / "seed0", "replays", lambda t: t.assign(**{"return": [0.0, 5.0, 0.0]}))
    assert value("wrong replays", tmp_path) == 1


def test_variants_of_games_are_on_the_scale_of_the_experiment_as_it_is(tmp_path: Path) -> None:
    write_game_run(tmp_path / "whole", R=[[101.0], [101.0, 52.0]], random=[1.0, 2.0])
    changed = {"config": {"variant": {"of": "atari", "settings": {"methods.blip.f_prior": 1}}}}
    changed |= {"experiment": "atari.f_prior-1"}
    write_game_run(tmp_path / "variant", R=[[11.0], [11.0, 7.0]], random=[1.0, 2.0], **changed)
    for settings in ({}, {"variant.of": "atari"}):
        needs = {"experiment": "atari.f_prior-1", "method": "blip", "settings": settings}
        (verdict,) = judge([claim(runs=needs, measure="accuracy", at_most=11)], [tmp_path])
        assert verdict.measured == pytest.approx(10), "of the way from chance to the best of all runs"


def test_games_are_not_replayed_without_the_emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "blip.games.replay", None)
    write_game_run(tmp_path, R=[[50.0], [20.0, 90.0]], random=[10.0, 30.0])
    wanted = claim(runs={"experiment": "atari", "method": "blip"}, measure="wrong replays", at_most=0)
    (verdict,) = judge([wanted], [tmp_path])
    assert (verdict.verdict, verdict.note) == (NOT_RUN, "needs the emulator: pip install 'blip-continual[rl]'")


# Checks of the library


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks of memory and time with a network of a few units."""
    monkeypatch.setattr(library_checks, "PIXELS", 8)
    monkeypatch.setattr(library_checks, "UNITS", 4)


def of_check(name: str) -> Verdict:
    """The verdict on the project's own claim of a check."""
    (wanted,) = (claim for claim in PROJECT if claim.check == name)
    (verdict,) = judge([wanted], [])
    return verdict


QUICK = (
    *("formulas by hand", "fisher against autograd", "fisher of sampled labels", "move under any optimizer"),
    *("bytes per parameter", "bytes after 100 tasks"),
)


@pytest.mark.parametrize("name", QUICK)
def test_quick_checks_hold(name: str, small: None) -> None:
    verdict = of_check(name)
    assert verdict.verdict == PASS, verdict
    assert verdict.n > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKS)
def test_every_check_holds(name: str) -> None:
    assert of_check(name).verdict in ((PASS, NOT_RUN) if name.startswith("published") else (PASS,))


def scaled(factor: float, **when: object) -> Callable[..., dict[str, torch.Tensor]]:
    """The Fisher information, wrong by a factor where it is asked for with these arguments."""

    def fisher(*arguments: Any, **options: Any) -> dict[str, torch.Tensor]:
        right = diagonal_fisher(*arguments, **options)
        wrong = all(options.get(key) == expected for key, expected in when.items())
        return {name: value * (factor if wrong else 1) for name, value in right.items()}

    return fisher


def reversed_where_sampled(*arguments: Any, **options: Any) -> dict[str, torch.Tensor]:
    """The right numbers in the wrong places."""
    right = diagonal_fisher(*arguments, **options)
    return {
        name: value.flatten().flip(0).view_as(value) if "generator" in options else value
        for name, value in right.items()
    }


def wide_range(anchor: torch.Tensor, bits: torch.Tensor, bound: float, max_bits: int) -> tuple[torch.Tensor, ...]:
    """A range that gives every parameter a bit too many."""
    return allowed_range(anchor, (bits.int() - 1).clamp(0).to(torch.uint8), bound, max_bits)


def growing_state(blip: BLIP) -> dict[str, Any]:
    return {"bits": dict(blip.bits), "of each task": [torch.zeros(100)] * blip.tasks}


allowed_range, floor = formulas.allowed_range, torch.floor
FISHER, RATIOS = "blip.claims.library_checks.diagonal_fisher", "blip.claims.library_checks.paired_ratios"
BREAKS: list[tuple[str, str, object]] = [
    ("formulas by hand", "blip.core.formulas.quantise", lambda v, k, b: floor(v / b * 2.0**k) / 2.0**k * b),
    ("formulas by hand", "blip.core.formulas.range_limit", lambda bound, max_bits: bound),
    ("fisher against autograd", FISHER, scaled(1.0001)),
    ("fisher against autograd", FISHER, scaled(100, loss_batch_size=100)),
    ("fisher of sampled labels", FISHER, scaled(1.1, labels="exact")),
    ("fisher of sampled labels", FISHER, reversed_where_sampled),
    ("move under any optimizer", "blip.core.formulas.allowed_range", wide_range),
    ("bytes per parameter", "blip.core.freezing.BLIP.state_dict", growing_state),
    ("bytes after 100 tasks", "blip.core.freezing.BLIP.state_dict", growing_state),
    ("cost of a step", RATIOS, lambda *_, **__: [1.1, 1.3, 1.4]),
    ("cost of a step after 100 tasks", RATIOS, lambda *_, **__: [1.1, 1.3, 1.4]),
    ("cost of a tasks end after 100 tasks", RATIOS, lambda *_, **__: [1.1, 1.3, 1.4]),
    ("cost of the fisher", RATIOS, lambda *_, **__: [2.0, 3.1, 3.2]),
]


@pytest.mark.parametrize(("name", "place", "broken"), BREAKS)
def test_a_check_sees_what_it_is_for(
    name: str, place: str, broken: object, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, broken)
    verdict = of_check(name)
    assert verdict.verdict == FAIL
    assert not math.isnan(verdict.measured), f"by what it measured, and not by {verdict.note}"


def write_golden(path: Path, **changes: Any) -> None:
    """A file of numbers such as the published implementation's, of one layer and task, computed here."""
    layer = torch.nn.Linear(3, 2)
    blip = BLIP(layer, 1.0, max_bits=20, weight_range=6.0)
    numbers = {f"initial_{name}": p.detach().clone() for name, p in layer.named_parameters()}
    numbers |= {f"t0_proposed_{name}": p.detach().clone() for name, p in layer.named_parameters()}
    fisher = {name: torch.full_like(p, 1e5) for name, p in layer.named_parameters()}
    blip.consolidate(fisher)
    for kind in fisher:
        values = {"fisher": fisher[kind], "bits": blip.bits[kind], "quantised": blip.parameters[kind].detach()}
        numbers |= {f"t0_{name}_{kind}": value for name, value in values.items()}
    about = {"bound": torch.tensor(6 / 3**0.5), "prior": torch.tensor(3.0), "max_bits": torch.tensor(20)}
    numbers |= about
    numbers |= {name: numbers[name] + change for name, change in changes.items()}
    np.savez(path, **{f"case/{name}": value.numpy() for name, value in numbers.items()})


def test_published_numbers_are_compared_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = ("published bits", "published weights")
    monkeypatch.delenv(GOLDEN, raising=False)
    assert [of_check(name).verdict for name in both] == [NOT_RUN, NOT_RUN]
    assert "name the file in BLIP_GOLDEN" in of_check(both[0]).note
    monkeypatch.setenv(GOLDEN, str(tmp_path / "golden.npz"))
    write_golden(tmp_path / "golden.npz")
    assert [(of_check(name).verdict, of_check(name).n) for name in both] == [(PASS, 8), (PASS, 8)]
    np.savez(tmp_path / "empty.npz", x=np.zeros(1))
    with monkeypatch.context() as context:
        context.setenv(GOLDEN, str(tmp_path / "empty.npz"))
        assert [of_check(name).verdict for name in both] == [FAIL, FAIL], "nothing was compared"
    write_golden(tmp_path / "golden.npz", t0_bits_weight=torch.tensor([[1, 0, 0], [0, 0, 0]]))
    assert [of_check(name).measured for name in both] == [1, 0]
    write_golden(tmp_path / "golden.npz", t0_quantised_bias=torch.tensor([0.0, 1e-3]))
    assert [of_check(name).verdict for name in both] == [PASS, FAIL]


@pytest.mark.parametrize(("killed", "verdict"), [(b"same", PASS), (b"sane", FAIL)])
def test_bytes_of_resumed_runs_are_compared(killed: bytes, verdict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(folder: Path) -> "subprocess.Popen[bytes]":
        results = folder / "resume" / "blip" / "seed0"
        results.mkdir(parents=True, exist_ok=True)
        for name in ("accuracy.csv", "weights.safetensors"):
            (results / name).write_bytes(b"same")
        (results / "run.json").write_text(folder.name)
        if folder.name == "killed":
            (results / "weights.safetensors").write_bytes(killed)
        return subprocess.Popen([sys.executable, "-c", ""], stderr=subprocess.PIPE)

    monkeypatch.setattr(library_checks, "_start", start)
    monkeypatch.setattr(library_checks, "_kill_at_a_checkpoint", lambda *_: None)
    found = of_check("resumed run")
    assert (found.verdict, found.n) == (verdict, 2)


LOSING_BITS = """\
from blip.core.freezing import BLIP
load = BLIP.load_state_dict
BLIP.load_state_dict = lambda blip, state: load(blip, {**state, "bits": {n: 0 * k for n, k in state["bits"].items()}})
"""


def test_a_run_that_loses_its_frozen_bits_on_resuming_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library_checks, "WITH_CHECKPOINTS", LOSING_BITS + library_checks.WITH_CHECKPOINTS)
    found = of_check("resumed run")
    assert found.verdict == FAIL
    assert found.measured > 0, f"by what it measured, and not by {found.note}"


def test_a_run_that_ends_before_it_was_killed_has_shown_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = [sys.executable, "-c", ""]
    monkeypatch.setattr(library_checks, "_start", lambda _: subprocess.Popen(nothing, stderr=subprocess.PIPE))
    found = of_check("resumed run")
    assert (found.verdict, found.note) == (FAIL, "RuntimeError: the run ended before it could be killed")


def test_a_check_that_breaks_has_shown_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Measured:
        raise ValueError("no\nway")

    monkeypatch.setitem(CHECKS, "formulas by hand", broken)
    assert (of_check("formulas by hand").verdict, of_check("formulas by hand").note) == (FAIL, "ValueError: no way")
    monkeypatch.setitem(CHECKS, "formulas by hand", lambda: Measured(math.nan, 0, ""))
    assert of_check("formulas by hand").verdict == FAIL, "and neither has one that measures nothing"


@pytest.mark.parametrize("formula", ["information_gain", "update_running_fisher", "quantise"])
def test_no_formula_that_gives_nan_passes(monkeypatch: pytest.MonkeyPatch, formula: str) -> None:
    real = getattr(formulas, formula)
    monkeypatch.setattr(formulas, formula, lambda *arguments: real(*arguments) * math.nan)
    assert of_check("formulas by hand").verdict == FAIL


def test_no_fisher_information_that_is_nan_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_biases(*arguments: Any, **options: Any) -> dict[str, torch.Tensor]:
        found = diagonal_fisher(*arguments, **options)
        return {name: value * math.nan if name.endswith("bias") else value for name, value in found.items()}

    monkeypatch.setattr(library_checks, "diagonal_fisher", of_biases)
    assert of_check("fisher against autograd").verdict == FAIL


def test_a_tasks_end_is_timed_after_as_many_tasks_as_are_said() -> None:
    network, blip = library_checks._mlp(3)
    end, bits = library_checks._end_of_task(network, blip), blip.bits["0.weight"].clone()
    end()
    after = blip.bits["0.weight"].clone()
    assert blip.tasks == 4
    assert not after.equal(bits), "the call does freeze bits"
    end()
    assert blip.tasks == 4
    assert blip.bits["0.weight"].equal(after)


def test_returns_by_chance_that_are_not_above_0_have_no_ratio(tmp_path: Path) -> None:
    write_game_run(tmp_path, R=[[10], [10, -2]], random=[5, -1])
    write_game_run(tmp_path, "sgd", R=[[10], [10, 4]], random=[5, 1])
    found = over_chance(load_runs([tmp_path])).to_dict()
    assert math.isnan(found["atari", "blip", 0])
    assert found["atari", "sgd", 0] == pytest.approx(2)


def test_ratios_are_of_interleaved_times() -> None:
    now, done = [0.0], []

    def work(name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            now[0] += seconds
            done.append(name)

        return run

    ratios = paired_ratios(work("a", 3), work("b", 2), pairs=4, calls=2, clock=lambda: now[0])
    assert ratios == [1.5] * 4
    assert "".join(done[6:]) == "bbaa" + "aabb" + "bbaa" + "aabb"


# The file and the command


GOOD = {
    "claims": [
        {
            "id": "a",
            "sentence": "It | is.",
            "source": "ours",
            "runs": {"experiment": "mnist5", "method": "blip"},
            "measure": "accuracy",
            "at_least": 50,
            "cost": {"core_minutes": 1, "megabytes": 2},
        }
    ]
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"measure": None}, "expected either check, or runs and measure"),
        ({"check": "formulas by hand"}, "expected either check, or runs and measure"),
        ({"measure": "speed"}, "unknown measure speed (known: accuracy, "),
        ({"runs": None, "measure": None, "check": "all"}, "unknown check all (known: formulas by hand, "),
        ({"at_least": None}, "expected one of equals, at_most"),
        ({"at_most": 3}, "expected one of equals, at_most"),
        ({"source": "me"}, "source"),
        ({"equals": {"value": 1}}, "within: this key is missing"),
        ({"tolerance": 1}, "tolerance: unknown key"),
        ({"cost": None}, "cost"),
    ],
)
def test_a_claim_that_cannot_be_measured_is_refused(changes: dict[str, Any], expected: str, tmp_path: Path) -> None:
    file = tmp_path / "claims.yaml"
    values = {key: value for key, value in (GOOD["claims"][0] | changes).items() if value is not None}
    file.write_text(yaml.safe_dump({"claims": [values]}))
    with pytest.raises(BlipError, match=re.escape(expected)) as error:
        load_claims(file)
    assert str(error.value).startswith(str(file))


def test_a_check_is_not_compared_with_runs() -> None:
    with pytest.raises(ValueError, match="a check is compared with a number"):
        claim(check="formulas by hand", less_than={"method": "sgd"})


def test_an_id_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "claims.yaml"
    file.write_text(yaml.safe_dump({"claims": GOOD["claims"] * 2}))
    with pytest.raises(BlipError, match="the id a is there twice"):
        load_claims(file)


def test_the_command_prints_and_writes_the_verdicts(shell: Shell, tmp_path: Path) -> None:
    file, out = tmp_path / "claims.yaml", tmp_path / "out"
    missing = GOOD["claims"][0] | {"id": "b", "runs": {"experiment": "mnist5", "method": "ewc"}}
    file.write_text(yaml.safe_dump({"claims": [*GOOD["claims"], missing]}))
    write_run(tmp_path / "r", R=[[0.9], [0.8, 0.9]])
    arguments = ("claims", tmp_path / "r", "--claims", file, "--out", out)
    assert shell(*arguments) == (0, [])
    assert "PASS    a: It | is.\n        measured 85.00 %, n = 1; expected ≥ 50\n" in shell.out
    assert shell.out.endswith("1 PASS, 0 FAIL, 1 NOT RUN\n")
    table = pd.read_csv(out / "claims.csv").set_index("id")
    assert table.loc["a", ["verdict", "measured", "n", "unit", "expected", "core_minutes"]].tolist() == [
        *("PASS", pytest.approx(85), 1, "%", "≥ 50", 1.0)
    ]
    written = json.loads((out / "claims.json").read_text())
    assert written["counts"] == {"PASS": 1, "FAIL": 0, "NOT RUN": 1}
    assert written["claims"][1]["measured"] is None
    assert "needs 1 runs of ewc on mnist5, found 0" in written["claims"][1]["note"]
    assert "| PASS    | It \\| is. (a)" in (out / "claims.md").read_text()

    write_run(tmp_path / "r", R=[[0.4], [0.3, 0.4]])
    assert shell(*arguments)[0] == 1
    assert "FAIL    a: It | is." in shell.out
    assert shell.out.endswith("0 PASS, 1 FAIL, 1 NOT RUN\n")
    assert "nowhere.yaml: cannot be read" in refused(shell("claims", "--claims", "nowhere.yaml"))


def test_make_claims_judges_recorded_runs_that_the_evidence_does_not_have() -> None:
    listed = subprocess.run(["make", "-n", "claims"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    folders = sorted(set(re.findall(r"results/recorded/\S+", listed)))
    records = [read_record(folder) for folder in find_runs(ROOT / folder for folder in folders)]
    runs = [(record.experiment, record.method, record.seed) for record in records]
    suite = yaml.safe_load((ROOT / "config/evidence.yaml").read_text())
    evidence = {entry.get("set", {}).get("name", Path(entry["config"]).stem) for entry in suite["experiments"]}
    assert len(set(runs)) == len(runs) > 0
    assert not evidence & {experiment for experiment, _, _ in runs}
