"""Reinforcement learning: Atari games one after another, Stable-Baselines3's PPO with the same methods attached."""
