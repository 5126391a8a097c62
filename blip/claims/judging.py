"""PASS, FAIL or NOT RUN: each claim, with what was measured, from how many, and how sure that is."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from blip.claims.claim import Claim, Needs
from blip.claims.library_checks import CHECKS
from blip.claims.measures import MEASURES, NotThereError, PerRun
from blip.results.loading import load_runs
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
    """Of runs the mean (or largest) over seeds; of a comparison the mean difference, the claim's runs minus the others;
    in `unit`."""
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
        self.runs = load_runs(paths) if paths else None
        records = self.runs.records if self.runs else {}
        self.configs = {key: record.config for key, record in records.items() if not record.stand_in}
        self.measured = cache(self._measured)

    def _measured(self, measure: str, experiment: str) -> PerRun:
        assert self.runs is not None
        return MEASURES[measure].of(self.runs.of(experiment)).dropna()

    def values(self, measure: str, needs: Needs) -> "dict[int, float]":
        """The measure by seed, of the runs that a claim needs, as far as they are there and as it wants them."""
        seeds = [
            seed
            for (experiment, method, seed), config in self.configs.items()
            if (experiment, method) == (needs.experiment, needs.method) and _has(config, needs.settings)
        ]
        if not seeds:
            return {}
        of_runs = self.measured(measure, needs.experiment).to_dict()
        keys = {seed: (needs.experiment, needs.method, seed) for seed in sorted(seeds)}
        return {seed: float(of_runs[key]) for seed, key in keys.items() if key in of_runs}


def _has(config: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether a run's configuration has these values at these dotted keys."""
    for key, expected in settings.items():
        value: Any = config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value != expected:
            return False
    return True


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
            return Verdict(claim, NOT_RUN, n=len(ours), note=_missing(claim.runs, len(ours)))
        value = _over_seeds(list(ours.values()), MEASURES[claim.measure].over_seeds)
        interval = bootstrap_interval(list(ours.values())) if MEASURES[claim.measure].over_seeds == "mean" else NONE
        return Verdict(claim, _as_expected(claim, value, interval), value, unit, len(ours), interval)
    unit = "points" if unit == "%" else unit  # a difference
    changed = {"method": claim.other.method, "experiment": claim.other.experiment or claim.runs.experiment}
    theirs = evidence.values(claim.measure, claim.runs.model_copy(update=changed))
    found = paired([ours[seed] - theirs[seed] for seed in ours if seed in theirs])
    least = SEEDS_OF_SIGN_FLIP if claim.other.test == "sign flip" else SEEDS_OF_INTERVAL
    if found.n < max(needed, least):
        beside = f" beside those of {claim.other.method}"
        note = _missing(claim.runs, found.n, beside, max(needed, least))
        return Verdict(claim, NOT_RUN, found.mean, unit, found.n, note=note)
    p = found.p_sign_flip if claim.other.test == "sign flip" else found.p_t
    return Verdict(claim, FAIL, found.mean, unit, found.n, found.interval, p)


def _missing(needs: Needs, found: int, beside: str = "", least: int = 0) -> str:
    wanted = f" with {', '.join(f'{k}={v}' for k, v in needs.settings.items())}" if needs.settings else ""
    what = f"runs of {needs.method} on {needs.experiment}{wanted}{beside}"
    return f"needs {max(needs.seeds, least)} {what}, found {found}"


def _over_seeds(values: Sequence[float], how: str) -> float:
    return max(values) if how == "max" else math.fsum(values) / len(values)


def _as_expected(claim: Claim, value: float, interval: Interval) -> str:
    """Whether a number is the expected one, and all of its interval where it has one; what is no number never is."""
    low, high = (value if math.isnan(end) else end for end in interval)
    least, most = claim.at_least, claim.at_most
    if claim.equals is not None:
        least, most = claim.equals.value - claim.equals.within, claim.equals.value + claim.equals.within
    kept = (least is None or min(low, value) >= least) and (most is None or max(high, value) <= most)
    return PASS if kept else FAIL


def _compared(verdict: Verdict) -> Verdict:
    """The verdict of a comparison whose corrected p is known."""
    right_way = verdict.measured < 0 if verdict.claim.less_than else verdict.measured > 0
    return replace(verdict, verdict=PASS if right_way and verdict.p < LEVEL else FAIL)
