"""Reinforcement learning: Atari games to learn one after another, a network, PPO's settings, and the evaluation."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field, model_validator

from blip.experiment import Experiment
from blip.games.actor_critic import SHAPE, ActorCriticNetwork, AtariNetworkConfig
from blip.games.measurements import MEAN_RETURNS, RANDOM_RETURNS, REPLAYS, RETURNS, UPDATES
from blip.games.settings import ENVIRONMENTS, EvaluationConfig, Game, PPOConfig
from blip.methods import METHODS
from blip.networks import largest_product
from blip.record import Score, Table
from blip.schema import wrong
from blip.training.loop import Setup

if TYPE_CHECKING:
    from blip.games.game_trainer import GameTrainer  # its packages are not everyone's


@dataclass(frozen=True)
class GameInputs:
    """The games, and how many actions each has."""

    names: list[str]
    outputs: list[int]
    checksum: str = ""


class GameExperiment(Experiment):
    """Atari games, an actor and a critic head for each."""

    key: ClassVar[str] = "games"
    score: ClassVar[Score] = Score(
        name="return",
        table=MEAN_RETURNS.name,
        column="return",
        chance=RANDOM_RETURNS.name,
        task="game",
        trained_in="steps",
    )
    kind_tables: ClassVar[tuple[Table, ...]] = (MEAN_RETURNS, RANDOM_RETURNS, RETURNS, UPDATES, REPLAYS)
    packages: ClassVar[tuple[str, ...]] = (*Experiment.packages, "ale-py", "gymnasium", "stable-baselines3")
    playable: ClassVar[bool] = True

    games: list[Game] = Field(min_length=1)
    network: AtariNetworkConfig = AtariNetworkConfig()
    ppo: PPOConfig = PPOConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _games_differ(self) -> "GameExperiment":
        for game in self.games:
            if self.games.count(game) > 1:  # tables and figures know tasks by their games
                raise wrong(f"expected different games, found {game} more than once", "games")
        return self

    @model_validator(mode="after")
    def _methods_learn_games(self) -> "GameExperiment":
        for method in self.methods:
            if METHODS[method].supervised:
                raise wrong("is for labelled examples, which games do not have", "methods", method)
        return self

    def run_config(self, method: str, seed: int) -> dict[str, Any]:
        return super().run_config(method, seed) | {"environments": ENVIRONMENTS}

    def largest_product(self, method: str, inputs: GameInputs) -> int:
        return largest_product(self.network, SHAPE, self.ppo.steps_per_update // self.ppo.mini_batches)

    def inputs(self, seed: int, raw: Path, prepared: Path, device: torch.device) -> GameInputs:
        from blip.games.atari import action_count  # here, since classification does without these packages

        return GameInputs(self.games, [action_count(game) for game in self.games])

    def build_network(self, method: str, inputs: GameInputs) -> ActorCriticNetwork:
        return ActorCriticNetwork(*self.network.features(SHAPE), inputs.outputs)

    def build_trainer(self, inputs: GameInputs, setup: Setup) -> "GameTrainer":
        from blip.games.game_trainer import GameTrainer

        return GameTrainer(self.ppo, self.evaluation, setup)
