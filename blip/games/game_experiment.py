"""Reinforcement learning: Atari games to learn one after another, a network, PPO's settings, and the evaluation."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field, model_validator

from blip.experiment import Experiment
from blip.games.actor_critic import AtariNetworkConfig
from blip.games.settings import ENVIRONMENTS, EvaluationConfig, Game, PPOConfig
from blip.methods import METHODS
from blip.networks import largest_product
from blip.record import COUNT, INDEX, NUMBER, TEXT, Column, Score, Table
from blip.schema import wrong

if TYPE_CHECKING:
    from blip.games.game_trainer import GameTrainer
    from blip.training.checkpoint import Checkpoint

RETURN = Column(type="float64", unit="points of the game")
STEPS = Column(type="int64", unit="actions of one environment, four frames each")
MEAN_RETURNS = Table(
    name="mean_returns",
    about="Mean return of the games played for evaluation of each game so far, after learning one.",
    columns={"task_learned": INDEX, "task": INDEX, "return": RETURN, "n": COUNT},
)
RANDOM_RETURNS = Table(
    name="random_returns",
    about="Mean return of an agent that acts at random, measured before learning a game.",
    columns={"task": INDEX, "return": RETURN, "n": COUNT},
)
RETURNS = Table(
    name="returns",
    about="Every game played for evaluation, by the agent's likeliest (greedy) or by sampled actions, after so many "
    "steps of the run and updates of the game being learned; the last ones after the method's end of the task.",
    columns={
        "task_training": INDEX,
        "update": COUNT,
        "steps": STEPS,
        "task": INDEX,
        "agent": TEXT,
        "episode": INDEX,
        "return": RETURN,
        "length": STEPS,
    },
)
UPDATES = Table(
    name="updates",
    about="Means over each update, and over the games that ended in its rollout.",
    columns={
        "task": INDEX,
        "update": INDEX,
        "lr": NUMBER,
        "policy_loss": NUMBER,
        "value_loss": NUMBER,
        "entropy": Column(type="float64", unit="nats"),
        "kl": Column(type="float64", unit="nats"),
        "clipped": Column(type="float64", unit="share in [0, 1]"),
        "return": RETURN,
        "games": COUNT,
    },
)
REPLAYS = Table(
    name="replays",
    about="Of the games played at the end of each task the first one of each, with what it takes to see it again.",
    columns={"task_learned": INDEX, "task": INDEX, "environment_seed": COUNT, "return": RETURN, "actions": TEXT},
)


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
    def _methods_learn_games(self) -> "GameExperiment":
        for method in self.methods:
            if not METHODS[method].games:
                raise wrong("trains on images of earlier tasks, which games do not have", "methods", method)
        return self

    def run_config(self, method: str, seed: int) -> dict[str, Any]:
        return super().run_config(method, seed) | {"environments": ENVIRONMENTS}

    def largest_product(self, method: str, inputs: GameInputs) -> int:
        from blip.games.atari import SIDE, STACK

        return largest_product(self.network, (STACK, SIDE, SIDE), self.ppo.steps_per_update // self.ppo.mini_batches)

    def inputs(self, seed: int, raw: Path, prepared: Path, device: torch.device) -> GameInputs:
        from blip.games.atari import action_count  # here, since classification does without these packages

        return GameInputs(self.games, [action_count(game) for game in self.games])

    def trainer(
        self,
        method: str,
        seed: int,
        inputs: GameInputs,
        checkpoint: "Checkpoint",
        device: torch.device,
        cuda_graphs: bool = True,
    ) -> "GameTrainer":
        from blip.games.game_trainer import GameTrainer

        return GameTrainer(self, method, seed, inputs, checkpoint, device, cuda_graphs=cuda_graphs)
