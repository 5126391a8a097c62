"""A claim: a sentence, what it is measured by, and what must come out."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from blip.claims.library_checks import CHECKS
from blip.claims.measures import MEASURES
from blip.schema import NAME, Schema, read_yaml, validate, wrong


class Needs(Schema):
    """Finished runs, on real data, of one method on one experiment."""

    experiment: str = Field(pattern=NAME)
    method: str = Field(pattern=NAME)
    seeds: PositiveInt = 1
    """So many at least."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Dotted keys of a run's configuration and the values that they must have, such as training.epochs: 200."""


class Value(Schema):
    """A number, and how far from it the measured one may be."""

    value: float
    within: NonNegativeFloat


class Other(Schema):
    """The runs that those of the claim are compared with, seed by seed."""

    method: str = Field(pattern=NAME)
    experiment: str | None = Field(default=None, pattern=NAME)
    """That of the claim where left out."""
    test: Literal["t", "sign flip"] = "t"
    """Of the differences between runs with one seed: Student's, or the exact one that flips their signs."""


class Cost(Schema):
    """What it takes to measure a claim anew, on one machine's CPU."""

    core_minutes: NonNegativeFloat
    megabytes: NonNegativeFloat = 0
    """Of run folders."""


EXPECTED = ("equals", "at_most", "at_least", "less_than", "more_than")


class Claim(Schema):
    """One line of the claims file. It has `runs` and `measure`, or `check`; and one of the keys in `EXPECTED`."""

    id: str = Field(pattern=NAME)
    sentence: str = Field(min_length=1)
    source: Literal["paper", "published code", "docs/verified.md", "ours"]
    """Who says so, or whose number it is."""
    runs: Needs | None = None
    measure: str | None = None
    """Of each run, one of `blip.claims.measures.MEASURES`, in its unit."""
    check: str | None = None
    """Of the library, one of `blip.claims.library_checks.CHECKS`."""
    equals: Value | None = None
    at_most: float | None = None
    at_least: float | None = None
    less_than: Other | None = None
    """The runs' measure is lower than that of these, by more than chance explains at 5 %."""
    more_than: Other | None = None
    """As `less_than`, and higher."""
    cost: Cost

    @model_validator(mode="after")
    def _can_be_measured(self) -> "Claim":
        if (self.check is None) == (self.runs is None) or (self.runs is None) != (self.measure is None):
            raise wrong("expected either check, or runs and measure", self.id)
        if self.check not in (None, *CHECKS):
            raise wrong(f"unknown check {self.check} (known: {', '.join(CHECKS)})", "check")
        if self.measure not in (None, *MEASURES):
            raise wrong(f"unknown measure {self.measure} (known: {', '.join(MEASURES)})", "measure")
        if len([key for key in EXPECTED if getattr(self, key) is not None]) != 1:
            raise wrong(f"expected one of {', '.join(EXPECTED)}", self.id)
        if self.check and self.other:
            raise wrong("a check is compared with a number: expected equals, at_most or at_least", self.id)
        return self

    @property
    def other(self) -> Other | None:
        """What the claim's runs are compared with, if with runs."""
        return self.less_than or self.more_than


class Claims(Schema):
    """The claims file."""

    claims: list[Claim] = Field(min_length=1)

    @model_validator(mode="after")
    def _each_once(self) -> "Claims":
        ids = [claim.id for claim in self.claims]
        twice = next((name for name in ids if ids.count(name) > 1), None)
        if twice:
            raise wrong(f"the id {twice} is there twice", "claims")
        return self


def load_claims(path: Path) -> list[Claim]:
    """The claims in a file. Raises BlipError: one line that names the file, the key and what was expected."""
    return validate(Claims, read_yaml(path), str(path)).claims
