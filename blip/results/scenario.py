"""What runs were asked to do, in words: what is known in testing, settings that are not a method's defaults, and those
that the runs of one experiment do not share."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from blip.results.loading import Runs, method_order

HEADS = {
    "separate": "A head for each task, which is known in testing",
    "shared": "One head for all tasks, which are not told apart in testing",
}


def scenario(runs: Runs) -> list[str]:
    """A sentence on the heads where runs say, and one on settings, of the runs of one experiment."""
    records = {method: record for (_, method, _), record in runs.records.items()}
    heads = {HEADS[name] for r in records.values() if (name := r.config.get("heads")) in HEADS}
    changed = {m: changes(records[m].config.get("method", {}), records[m].defaults) for m in runs.methods()}
    listed = "; ".join(f"{method} {', '.join(texts)}" for method, texts in changed.items() if texts)
    return [*sorted(heads), *([f"Settings that are not a method's defaults (in brackets): {listed}"] if listed else [])]


def changes(settings: dict[str, Any], defaults: dict[str, Any]) -> list[str]:
    """`strength 100 (5000)` of each setting that differs from its default."""
    return [
        f"{name} {_text(settings[name])} ({_text(default)})"
        for name, default in defaults.items()
        if name in settings and settings[name] != default
    ]


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " / ".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def mixed_settings(runs: Runs) -> list[str]:
    """One warning per setting of which the runs of one method, which tables average, have several values.

    A setting that only some of the records have is no difference: other versions of the package have other ones.
    """
    return [
        f"{method} of {experiment} mixes {len(values)} values of {key}: {', '.join(sorted(values))}"
        for (experiment, method, key), values in _settings(runs).groupby(["experiment", "method", "key"])["value"]
        if len(values) > 1
    ]


def mixed_variants(runs: Runs, group: str) -> list[str]:
    """One warning per setting that is not varied, but of which a method has several values among a group of variants
    and the experiment as it is: what is seen is then not the varied settings' doing alone."""
    names = runs.grouped_variants()[group]
    variant = runs.variants[names[0]]
    settings = _settings(runs.of(*names, variant.of))
    varied = [*map(_as_recorded, variant.settings), "name"]
    beside = [key for key in settings["key"].unique() if not any(within(key, other) for other in varied)]
    return [
        f"{method} of {group} mixes {len(values)} values of {key}: {', '.join(sorted(values))}"
        for (method, key), rows in settings[settings["key"].isin(beside)].groupby(["method", "key"])
        if len(values := set(rows["value"])) > 1
    ]


def _as_recorded(key: str) -> str:
    """An experiment's dotted key as the configuration of a run, which is of one method, has it."""
    first, *rest = key.split(".")
    own = {"methods": "method", "network_changes": "network", "training_changes": "training"}
    return ".".join([own[first], *rest[1:]] if first in own else [first, *rest])


def within(key: str, other: str) -> bool:
    """Whether one of two dotted keys is the other or below it."""
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


def settings_by_method(runs: Runs) -> list[str]:
    """One note per setting of data, network or training that is not the same for all methods."""
    settings = _settings(runs)
    shared = settings[~settings["key"].str.startswith("method.")]
    notes = []
    for key, rows in shared.groupby("key"):
        of = [f"{value} for {', '.join(method_order(group['method']))}" for value, group in rows.groupby("value")]
        if len(of) > 1:
            notes.append(f"{key} is {'; '.join(of)}")
    return notes


def _settings(runs: Runs) -> pd.DataFrame:
    """Columns experiment, method, key, value: each once, without those that make a run one of several."""
    rows = [(r.experiment, r.method, *leaf) for r in runs.records.values() for leaf in leaves(r.config)]
    settings = pd.DataFrame(rows, columns=["experiment", "method", "key", "value"]).drop_duplicates()
    return settings[(settings["key"] != "seed") & ~settings["key"].str.startswith("variant.")]


def leaves(values: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys of nested mappings and lists of them, and the values there as text."""
    if isinstance(values, list) and any(isinstance(value, dict) for value in values):
        values = dict(enumerate(values))
    if isinstance(values, dict):
        for part, value in values.items():
            yield from leaves(value, f"{key}.{part}" if key else str(part))
    else:
        yield key, str(values)
