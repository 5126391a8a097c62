"""The shared network and one game's heads as a policy of Stable-Baselines3."""

import warnings
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from blip.games.actor_critic import ActorCriticNetwork


class SharedFeatures(BaseFeaturesExtractor):
    """The features of a network, run in float32 or (`low_precision`) bfloat16; vectors are float32 either way."""

    def __init__(self, space: spaces.Box, features: nn.Module, width: int, low_precision: bool) -> None:
        super().__init__(space, width)
        self.features = features
        self.low_precision = low_precision

    def forward(self, observations: Tensor) -> Tensor:
        """(n, frames, height, width), scaled to [0, 1], to (n, width)."""
        if observations.device.type == "cpu":  # where oneDNN wants channels: a fifth less time
            observations = observations.contiguous(memory_format=torch.channels_last)
        with torch.autocast(observations.device.type, torch.bfloat16, enabled=self.low_precision):
            hidden: Tensor = self.features(observations)
        return hidden.float()


class GamePolicy(ActorCriticPolicy):
    """A policy for game `task`: nothing in it is new but the optimizer, whose parameters are those of this game.

    `network` keeps all its weights: Stable-Baselines3 would otherwise initialise the shared features again for each
    game. `low_precision`: see `SharedFeatures`.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        network: ActorCriticNetwork,
        task: int,
        low_precision: bool = False,
        optimizer_kwargs: dict[str, Any] | None = None,
        use_sde: bool = False,
    ) -> None:
        # In a tuple, since modules themselves cannot be assigned before the base class is initialised.
        self.heads: tuple[Any, Any] = (network.heads[task], network.critics[task])
        width = self.heads[0].in_features
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=[],
            use_sde=use_sde,
            ortho_init=False,
            features_extractor_class=SharedFeatures,
            features_extractor_kwargs={"features": network.features, "width": width, "low_precision": low_precision},
            optimizer_kwargs=optimizer_kwargs,
        )

    def _build(self, lr_schedule: Schedule) -> None:
        self._build_mlp_extractor()  # of no layer
        self.action_net, self.value_net = self.heads
        lr: float | Tensor = lr_schedule(1)
        if self.optimizer_kwargs.get("capturable"):  # a recorded step reads it from the device
            lr = torch.tensor(lr, device=self.heads[0].weight.device)
            # Adam advises against it wherever a step is not recorded, as in a run with --eager.
            warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr, **self.optimizer_kwargs)  # type: ignore[call-arg]
