"""What runs were asked to do, in words: what is known in testing, and settings that are not a method's defaults."""

from typing import Any

from blip.results.loading import Runs

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
