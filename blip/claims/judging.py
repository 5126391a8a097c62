"""PASS, FAIL or NOT RUN: each claim, with what was measured, from how many, and how sure that is."""

import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from blip.claims.claim import Claim, Needs
from blip.claims.library_checks import CHECKS
from blip.claims.measures import MEASURES, NotThereError, PerRun
from blip.config import load_experiment, published
from blip.errors import BlipError
from blip.record import read_record
from blip.results.loading import find_runs, load_runs
from blip.results.scenario import leaves, within
from blip.results.statistics import (
    LEVEL,
    NONE,
    SEEDS_OF_INTERVAL,
    SEEDS_OF_SIGN_FLIP,
    Interval,
    bootstrap_interval,
    holm,
    paired,
)

PASS, FAIL, NOT_RUN = "PASS", "FAIL", "NOT RUN"


@dataclass(frozen=True)
class Verdict:
    """What became of a claim."""

    claim: Claim
    verdict: str
    measured: float = math.nan
    """Of runs the mean (or largest, or least) over seeds; of a comparison the mean difference, the claim's runs minus
    the others; in `unit`."""
    unit: str = ""
    n: int = 0
    """Seeds, or pairs of runs with one seed; of a check what it counts."""
    interval: Interval = NONE
    """95 %: of a difference Student's t, otherwise by resampling; nan where there are too few."""
    p: float = math.nan
    """Of a comparison: of the claim's test, two-sided, Holm-corrected over all comparisons that were measured."""
    note: str = ""


class Evidence:
    """Run folders, and the configuration of each run. Without paths, none."""

    def __init__(self, paths: Sequence[Path]) -> None:
        folders = find_runs(paths)
        real = [folder for folder in folders if not read_record(folder).stand_in]  # others are no reference either
        self.runs = load_runs(real or folders or paths) if paths else None
        records = self.runs.records if self.runs else {}
        self.records = {key: record for key, record in records.items() if not record.stand_in}
        self.measured = cache(self._measured)

    def _measured(self, measure: str, experiment: str, departing: frozenset[tuple[str, str, int]]) -> PerRun:
        assert self.runs is not None
        return MEASURES[measure].of(self.runs.without(departing).of(experiment)).dropna()

    def values(self, measure: str, needs: Needs) -> "dict[int, float]":
        """The measure by seed, of the runs that a claim needs, as far as they are there and as it wants them."""
        seeds = sorted(seed for seed, departures in self.departures(needs).items() if not departures)
        if not seeds:
            return {}
        methods = {method for experiment, method, _ in self.records if experiment == needs.experiment}
        departing = frozenset(  # of other methods too, to which a measure may refer
            (needs.experiment, method, seed)
            for method in methods
            for seed, departures in self.departures(needs.model_copy(update={"method": method})).items()
            if departures
        )
        of_runs = self.measured(measure, needs.experiment, departing).to_dict()
        keys = {seed: (needs.experiment, needs.method, seed) for seed in seeds}
        return {seed: float(of_runs[key]) for seed, key in keys.items() if key in of_runs}

    def departures(self, needs: Needs) -> dict[int, list[str]]:
        """In which settings each run, by seed, of the method on the experiment is not as the claim wants it, or where
        that says nothing of them as the published experiment has them."""
        as_published = _as_published(needs.experiment, needs.method)
        return {
            seed: [
                *(key for key, expected in needs.settings.items() if not _has(record.config, key, expected)),
                *_unlike(dict(leaves(record.config)), as_published, needs.settings),
            ]
            for (experiment, method, seed), record in self.records.items()
            if (experiment, method) == (needs.experiment, needs.method)
        }

    def on_other_data(self, needs: Needs, other: Needs, seed: int) -> bool:
        """Whether two methods' runs on one experiment, with one seed, did not see the same."""
        ours, theirs = (self.records[of.experiment, of.method, seed].data for of in (needs, other))
        return needs.experiment == other.experiment and bool(ours and theirs) and ours != theirs


NO_SETTING = re.compile("^(name|seed|stand_in)$|version$")
"""What of a run's configuration is none of the experiment's, but of the run or the code."""


def _unlike(recorded: Mapping[str, str], published: Mapping[str, str], named: Iterable[str]) -> list[str]:
    """Keys of recorded settings that are not as published, but for those that a claim has `named`; none where nothing
    is published."""
    return [
        key
        for key, value in recorded.items()
        if published and published.get(key) != value and not NO_SETTING.search(key)
        if not any(within(key, other) for other in named)
    ]


@cache
def _as_published(experiment: str, method: str) -> dict[str, str]:
    """The settings of a method on an experiment that comes with the package; none where it is another's, or cannot be
    read for want of a package."""
    try:
        loaded = load_experiment(published()[experiment])
        return dict(leaves(loaded.run_config(method, 0)))
    except (KeyError, ImportError, BlipError):
        return {}


def _has(config: Mapping[str, Any], key: str, expected: Any) -> bool:
    """Whether a run's configuration has this value at this dotted key."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return bool(value == expected) and isinstance(value, bool) == isinstance(expected, bool)


def judge(claims: Iterable[Claim], paths: Sequence[Path], *, checks: bool = True) -> list[Verdict]:
    """Every claim with its verdict, from the run folders at or below `paths`, and by running the checks if asked for.

    NOT RUN is what cannot be measured here, and the note says why. Whatever else is wrong with a check, is a FAIL.
    """
    evidence = Evidence(paths)
    verdicts = [_uncorrected(claim, evidence, checks) for claim in claims]
    corrected = holm([verdict.p for verdict in verdicts])
    return [
        verdict if math.isnan(p) else _compared(replace(verdict, p=float(p)))
        for verdict, p in zip(verdicts, corrected, strict=True)
    ]


def _uncorrected(claim: Claim, evidence: Evidence, checks: bool) -> Verdict:
    """What is measured of one claim; a comparison still without its verdict, which depends on all others."""
    if claim.check and not checks:
        return Verdict(claim, NOT_RUN, note="checks were not asked for")
    try:
        return _checked(claim) if claim.check else _of_runs(claim, evidence)
    except NotThereError as missing:
        return Verdict(claim, NOT_RUN, note=f"needs {missing}")


def _checked(claim: Claim) -> Verdict:
    assert claim.check is not None
    try:
        found = CHECKS[claim.check]()
    except NotThereError:
        raise
    except Exception as error:  # a check that breaks has shown nothing
        return Verdict(claim, FAIL, note=" ".join(f"{type(error).__name__}: {error}".split()))
    if found.n == 0:
        return Verdict(claim, FAIL, found.value, found.unit, note="nothing was compared")
    verdict = _as_expected(claim, found.value, found.interval)
    return Verdict(claim, verdict, found.value, found.unit, found.n, found.interval)


def _of_runs(claim: Claim, evidence: Evidence) -> Verdict:
    assert claim.runs is not None
    assert claim.measure is not None
    unit = MEASURES[claim.measure].unit
    ours = evidence.values(claim.measure, claim.runs)
    needed = claim.runs.seeds
    if not claim.other:
        if len(ours) < needed:
            return Verdict(claim, NOT_RUN, n=len(ours), note=_missing(evidence, claim.runs, len(ours)))
        value = _over_seeds(list(ours.values()), MEASURES[claim.measure].over_seeds)
        interval = bootstrap_interval(list(ours.values())) if MEASURES[claim.measure].over_seeds == "mean" else NONE
        return Verdict(claim, _as_expected(claim, value, interval), value, unit, len(ours), interval)
    unit = "points" if unit == "%" else unit  # a difference
    changed = {"method": claim.other.method, "experiment": claim.other.experiment or claim.runs.experiment}
    other = claim.runs.model_copy(update=changed)
    theirs = evidence.values(claim.measure, other)
    pairs = [seed for seed in ours if seed in theirs and not evidence.on_other_data(claim.runs, other, seed)]
    found = paired([ours[seed] - theirs[seed] for seed in pairs])
    least = SEEDS_OF_SIGN_FLIP if claim.other.test == "sign flip" else SEEDS_OF_INTERVAL
    if found.n < max(needed, least):
        beside = f" beside those of {claim.other.method}"
        note = _missing(evidence, claim.runs, found.n, beside, max(needed, least), other)
        note += f"; {n} on other data" if (n := len(ours.keys() & theirs.keys()) - len(pairs)) else ""
        return Verdict(claim, NOT_RUN, found.mean, unit, found.n, note=note)
    p = found.p_sign_flip if claim.other.test == "sign flip" else found.p_t
    return Verdict(claim, FAIL, found.mean, unit, found.n, found.interval, p)


def _missing(
    evidence: Evidence, needs: Needs, found: int, beside: str = "", least: int = 0, other: Needs | None = None
) -> str:
    wanted = f" with {', '.join(f'{k}={v}' for k, v in needs.settings.items())}" if needs.settings else ""
    what = f"runs of {needs.method} on {needs.experiment}{wanted}{beside}"
    departing = [*evidence.departures(needs).values(), *(evidence.departures(other).values() if other else ())]
    others = sorted({key for departures in departing for key in departures})
    why = f"; others differ in {', '.join(others)}" if others else ""
    return f"needs {max(needs.seeds, least)} {what}, found {found}{why}"


def _over_seeds(values: Sequence[float], how: str) -> float:
    how_many: dict[str, Callable[[Sequence[float]], float]] = {"max": max, "min": min, "mean": statistics.fmean}
    return how_many[how](values)


def _as_expected(claim: Claim, value: float, interval: Interval) -> str:
    """Whether a number is the expected one, and all of its interval where it has one; what is no number never is."""
    low, high = (value if math.isnan(end) else end for end in interval)
    least, most = claim.at_least, claim.at_most
    if claim.equals is not None:
        least, most = claim.equals.value - claim.equals.within, claim.equals.value + claim.equals.within
    kept = (least is None or min(low, value) >= least) and (most is None or max(high, value) <= most)
    return PASS if kept and math.isfinite(value) else FAIL


def _compared(verdict: Verdict) -> Verdict:
    """The verdict of a comparison whose corrected p is known."""
    right_way = verdict.measured < 0 if verdict.claim.less_than else verdict.measured > 0
    return replace(verdict, verdict=PASS if right_way and verdict.p < LEVEL else FAIL)
