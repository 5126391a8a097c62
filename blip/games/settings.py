"""How an experiment with games is described."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from blip.errors import BlipError
from blip.games.names import game_name
from blip.schema import Schema


def _checked_name(name: str) -> str:
    try:
        return game_name(name)
    except BlipError as error:
        raise ValueError(str(error)) from None


Game = Annotated[str, AfterValidator(_checked_name)]
"""A plain name; `…NoFrameskip-v4` is taken too."""


ENVIRONMENTS = 3
"""Part of the configuration of every run on games: raise it when the same actions lead elsewhere, and the runs are
redone. 2: with what is pressed before each episode, in training and evaluation, and the penalty in PPO's loss. 3: Adam
in one pass over its state, and convolutions with channels last, round otherwise."""

MAX_FRAMES = 108_000
"""Half an hour of play, where a game that does not end is cut; the usual cap (published code: 400,000)."""


class PPOConfig(Schema):
    """PPO of the paper, the same for every game and method. A step is one action of one environment, four frames."""

    steps: PositiveInt = 10_000_000
    """For each game; what is left over after whole updates is left out."""
    environments: Annotated[int, Field(ge=1, le=10_000)] = 16
    rollout: PositiveInt = 125
    """Steps of each environment between updates."""
    epochs: PositiveInt = 4
    mini_batches: PositiveInt = 8
    lr: PositiveFloat = 2.5e-4
    """Of Adam in the first update of a game; it falls linearly, by the same amount with each update."""
    clip: PositiveFloat = 0.1
    """Of the ratio of probabilities, and of the change of values."""
    gamma: float = Field(default=0.99, gt=0, le=1)
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    entropy: NonNegativeFloat = 0.01
    value: NonNegativeFloat = 0.5
    """Coefficients in the loss."""
    clip_norm: PositiveFloat = 0.5
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the shared features while acting and training; weights, heads and Fisher information are float32 always."""
    restart_updates: PositiveInt = 50
    """After so many updates all environments start new games. Only there can a killed run go on, since the emulator's
    state cannot be saved; numbers depend on it, so it is a setting and not a matter of time."""

    @property
    def steps_per_update(self) -> int:
        return self.environments * self.rollout

    @property
    def updates(self) -> int:
        """For each game."""
        return self.steps // self.steps_per_update

    @model_validator(mode="after")
    def _fits(self) -> "PPOConfig":
        if not self.updates:
            raise ValueError(f"steps: expected at least one update of {self.steps_per_update}, found {self.steps}")
        if self.steps_per_update % self.mini_batches or self.steps_per_update == self.mini_batches:
            raise ValueError(
                f"mini_batches: expected whole ones of {self.environments} × {self.rollout} steps, "
                f"found {self.mini_batches}"
            )
        return self


class EvaluationConfig(Schema):
    """Games played to their ends, on every game learned so far."""

    episodes: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Of each game, each in an environment and with a seed of its own."""
    every_updates: PositiveInt = 100
    """Besides those before the first update of a game and after its last."""
    greedy: bool = True
    """Whether the likeliest action is taken, as published; otherwise actions are drawn as in training. An agent that
    has only begun to learn prefers one action everywhere, and its greedy games say nothing."""
    max_frames: PositiveInt = MAX_FRAMES
    """A game is cut after so many: half an hour of play."""
