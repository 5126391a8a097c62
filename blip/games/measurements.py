"""What runs on games measure."""

from blip.record import COUNT, INDEX, NUMBER, TEXT, Column, Table

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
