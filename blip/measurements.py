"""What a run measures: the one schema that training writes and results read."""

TABLES = {
    "accuracy": ("task_learned", "task", "accuracy", "loss", "n"),
    "history": ("task", "epoch", "lr", "train_loss", "valid_loss", "valid_accuracy"),
    "bits": ("task_learned", "layer", "frozen_bits", "parameters"),
    "trace": ("task_learned", "layer", "index", "value", "bound", "frozen_bits"),
    "cost": ("task", "phase", "seconds"),
}
"""Tables in long form, a row per measurement, and their columns. `bits` and `trace` are a method's to fill."""
