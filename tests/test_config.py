"""Experiment and suite files: the published values are in them, and mistakes are told in one line."""

from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from blip.config import fingerprint, load_experiment, load_suite, parse_override
from blip.errors import BlipError
from blip.experiment import Experiment
from blip.images.image_experiment import ImageExperiment
from blip.methods import METHODS

EXPERIMENTS = ROOT / "config" / "experiments"


def refused(path: Path, overrides: dict[str, Any] | None = None) -> str:
    """The message that refuses an experiment file: one line that begins with the file's name."""
    with pytest.raises(BlipError) as error:
        load_experiment(path, overrides)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


def settings_of(experiment: Experiment, method: str) -> dict[str, Any]:
    return experiment.methods[method].model_dump()


# The files of this project


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_experiment_of_the_project_is_valid_and_named_like_its_file(path: Path) -> None:
    experiment = load_experiment(path)
    assert experiment.name == path.stem
    assert experiment.about
    assert experiment.methods


@pytest.mark.parametrize("suite", ["demo", "paper", "ablations", "ablations_mnist5"])
def test_every_suite_of_the_project_is_valid(suite: str, tmp_path: Path) -> None:
    name, experiments = load_suite(ROOT / "config" / f"{suite}.yaml", tmp_path)
    assert name == suite
    assert experiments


PUBLISHED = {
    # experiment: sources, hidden units, lr, batch, epochs, F_prior
    "mnist5": ({"name": "mnist", "classes_per_task": 2}, [1200], 0.01, 64, 200, 1e-15),
    "mnist2": ({"name": "mnist", "classes_per_task": 5}, [1200], 0.01, 64, 200, 1e-15),
    "pmnist": ({"name": "mnist", "permutations": 10}, [1200], 0.01, 64, 200, 1e-15),
}
PUBLISHED_METHODS = {
    # method: settings, largest norm of the gradient
    "blip": ({"fisher_batch_size": 100, "fisher_batches": 80, "max_bits": 20, "weight_range": 6.0}, None),
    "sgd": ({}, None),
    "sgd-frozen": ({}, None),
    "ewc": ({"strength": 5000.0, "fisher_batch_size": 64}, 100.0),
    "lwf": ({"strength": 2.0, "temperature": 1.0}, 100.0),
    "imm-mode": ({"strength": 0.01, "fisher_batch_size": 64}, 1000.0),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_experiments_have_the_published_values(name: str) -> None:
    source, hidden, lr, batch, epochs, f_prior = PUBLISHED[name]
    experiment = load_experiment(EXPERIMENTS / f"{name}.yaml")
    assert [s.model_dump(exclude_unset=True) for s in experiment.data.sources] == [source]
    assert not experiment.stand_in
    assert experiment.data.validation == 0, "validation on the training set"
    assert not experiment.data.shuffle_tasks
    assert not experiment.data.shuffle_classes
    assert experiment.network.hidden == hidden
    assert experiment.training.model_dump() == {
        "lr": lr,
        "batch_size": batch,
        "epochs": epochs,
        "lr_patience": 5,
        "lr_factor": 3,
        "lr_min": 1e-4,
        "keep": "best",
        "precision": "float32",
    }
    assert set(PUBLISHED_METHODS) <= set(experiment.methods)
    for method, (values, clip_norm) in PUBLISHED_METHODS.items():
        assert settings_of(experiment, method).items() >= values.items(), method
        assert METHODS[method].clip_norm == clip_norm, method
    blip = settings_of(experiment, "blip")
    assert blip["f_prior"] == f_prior
    assert blip["initialisation"] == "normal"


# Mistakes


@pytest.mark.parametrize(
    ("old", "new", "key", "expected"),
    [
        ("epochs: 3", "epochs: 3, epoks: 4", "training.epoks", "unknown key (known: batch_size, epochs, "),
        ("name: tiny", "name: tiny\ntrainning: {}", "trainning", "unknown key (known: about, data"),
        ("f_prior: 1e-13", "fprior: 1e-13", "methods.blip.fprior", "unknown key (known: f_prior, "),
        ("sgd: {}", "sgd: {strength: 1}", "methods.sgd.strength", "unknown key"),
        ("f_prior: 1e-13, ", "", "methods.blip.f_prior", "this key is missing"),
        ("lr: 0.1, ", "", "training.lr", "this key is missing"),
        ("name: tiny\n", "", "name", "this key is missing"),
        ("lr: 0.1", "lr: fast", "training.lr", "(found 'fast')"),
        ("lr: 0.1", "lr: -1", "training.lr", "greater than 0 (found -1)"),
        ("lr: 0.1", "lr: .nan", "training.lr", "finite"),
        ("lr: 0.1", "lr: [1]", "training.lr", "number"),
        ("epochs: 3", "epochs: 2.5", "training.epochs", "integer"),
        ("epochs: 3", "epochs: 0", "training.epochs", "greater than 0"),
        ("hidden: [8]", "hidden: 8", "network.hidden", "list"),
        ("hidden: [8]", "hidden: [8, 0]", "network.hidden.1", "greater than 0"),
        ("name: mlp", "name: transformer", "network", "'transformer'"),
        ("name: mlp", "name: transformer", "network", "name: expected one of 'mlp', 'alexnet', 'resnet18' (found 'tra"),
        ("name: mlp, ", "", "network", "name: this key is missing"),
        ("hidden: [8]", "hiden: [8]", "network.hiden", "unknown key (known: bias, hidden, name)"),
        ("mlp, hidden: [8]", "alexnet, hidden: [8]", "network.hidden.1", "this key is missing"),
        ("name: tiny", "name: ../up", "name", "(found '../up')"),
        ("name: digits", "name: imagenet", "data.sources.0", "built-in source (digits, mnist, fashion-mnist"),
        ("name: digits", "name: mine, folder: here", "data.sources.0", "needs side"),
        ("classes_per_task: 5", "classes_per_task: 5, permutations: 2", "data.sources.0", "not both"),
        ("classes_per_task: 5", "channels: 2", "data.sources.0.channels", "1 or 3 (found 2)"),
        ("classes_per_task: 5", "side: 9", "data.sources.0", "pad_to makes"),
        (
            "classes_per_task: 5",
            "mean: [0.1, 0.2]",
            "data.sources.0",
            "mean: expected one number, or one for each of 1",
        ),
        ("classes_per_task: 5", "mean: [1.5]", "data.sources.0.mean.0", "less than or equal to 1"),
        ("classes_per_task: 5", "raw_classes: 5", "data.sources.0", "for miniimagenet alone"),
        ("name: digits", "name: svhn, channels: 1", "data.sources.0", "svhn is in colour"),
        ("[{name: digits, classes_per_task: 5}]", "[]", "data.sources", "at least 1"),
        ("[{name: digits, classes_per_task: 5}]", "digits", "data.sources", "list (found 'digits')"),
        ("sources:", "validation: 1\n  sources:", "data.validation", "less than 1"),
        ("fisher_batches: 20", "max_bits: 30", "methods.blip.max_bits", "24 (found 30)"),
        ("sgd: {}", "sdg: {}", "methods.sdg", "unknown method (known: blip"),
        ("sgd: {}", "sgd:", "methods.sgd", "dictionary"),
        ("sgd: {}", "1: {}", "methods.1", "unknown method"),
        *(
            ("name: tiny\n", f"name: tiny\n{part}_changes: {{sgd: {change}}}\n", key, expected)
            for part, change, key, expected in [
                ("training", "{lrr: 1}", "training_changes.sgd.lrr: ", "unknown key"),
                ("training", "{lr: 0}", "training_changes.sgd.lr: ", "greater than 0 (found 0)"),
                ("training", "{lr: 1.0e-5}", "training_changes.sgd: ", "lr: expected at least lr_min"),
                ("network", "{hidden: [8, 0]}", "network_changes.sgd.hidden.1: ", "greater than 0 (found 0)"),
                ("network", "{name: mlpp}", "network_changes.sgd: ", "'mlpp'"),
                ("network", "{dropout: [0.5]}", "network_changes.sgd.dropout: ", "unknown key"),
            ]
        ),
    ],
)
def test_mistakes_are_named_by_file_and_key(old: str, new: str, key: str, expected: str, tiny: Path) -> None:
    text = tiny.read_text()
    tiny.write_text(text.replace(old, new, 1))
    message = refused(tiny)
    assert f"{tiny}: {key}" in message
    assert expected in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"name: [tiny", "line 1: not valid YAML"),
        (b"name: tiny\n\tdata: 1", "line 2: not valid YAML"),
        (b"name: a\x01b", "not valid YAML"),
        (b"name: 2024-13-45", "not valid YAML"),
        (b"name: tiny\ntraining: {lr: 1,\n lr: 2}", "line 3: not valid YAML: the key lr is there twice"),
        (b"? [1, 2]\n: 3", "not valid YAML"),
        (b"- name", "expected keys and values, found list"),
        (b"name", "expected keys and values, found str"),
        (b"", "expected keys and values, found NoneType"),
        (b"\xff\xfe\x00", "cannot be read: not a text file"),
    ],
)
def test_files_that_are_no_mapping_are_refused(content: bytes, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    assert expected in refused(path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refused(tmp_path / "nowhere.yaml")
    assert "cannot be read: Is a directory" in refused(tmp_path)


def test_a_method_that_cannot_learn_games_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "games.yaml"
    path.write_text((EXPERIMENTS / "atari2_tiny.yaml").read_text().replace("single-task: {}", "joint: {}"))
    assert refused(path) == f"{path}: methods.joint: is for labelled examples, which games do not have"


# Overrides


def test_overrides_change_nested_keys_and_nothing_else(tiny: Path) -> None:
    plain = load_experiment(tiny).model_dump()
    changed = load_experiment(
        tiny, {"training.epochs": 7, "methods.blip.max_bits": 9, "network.hidden": [3, 4]}
    ).model_dump()
    assert changed["training"] == plain["training"] | {"epochs": 7}
    assert changed["network"]["hidden"] == [3, 4]
    assert changed["methods"] == plain["methods"] | {"blip": plain["methods"]["blip"] | {"max_bits": 9}}
    assert changed["data"] == plain["data"]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("training.epoks", 1, "training.epoks: unknown key"),
        ("training.epochs.more", 1, "epochs holds no keys"),
        ("data.sources.0", 1, "data.sources.0: "),
        ("data.sources.first.name", 1, "expected a number below 1 in place of first"),
        ("training.epochs", "many", "(found 'many')"),
        ("methods.new.f", 1, "unknown method"),
        ("", 1, "unknown key"),
    ],
)
def test_bad_overrides_are_refused(key: str, value: Any, expected: str, tiny: Path) -> None:
    assert expected in refused(tiny, {key: value})


def test_overrides_are_read_from_key_and_value() -> None:
    assert parse_override("training.epochs=5") == ("training.epochs", 5)
    assert parse_override("network.hidden=[1, 2]") == ("network.hidden", [1, 2])
    assert parse_override("about=a=b") == ("about", "a=b")
    for text in ("training.epochs", "=5", "a=[", ""):
        with pytest.raises(BlipError, match="--set"):
            parse_override(text)


# Suites


def write_suite(folder: Path, experiments: str, seeds: str = "[0, 1]") -> Path:
    path = folder / "suite.yaml"
    path.write_text(f"name: mine\nseeds: {seeds}\nexperiments:\n{experiments}")
    return path


def test_suites_resolve_methods_seeds_and_overrides(tiny: Path) -> None:
    entries = [
        "  - {config: tiny.yaml}",
        "  - {config: tiny.yaml, methods: [sgd], seeds: [5], set: {name: other, training.epochs: 9}}",
    ]
    name, planned = load_suite(write_suite(tiny.parent, "\n".join(entries)), tiny.parent)
    assert name == "mine"
    assert list(planned) == ["tiny", "other"]
    assert planned["tiny"].methods == list(load_experiment(tiny).methods)
    assert planned["tiny"].seeds == [0, 1]
    other = planned["other"]
    assert (other.path, other.methods, other.seeds) == (tiny, ["sgd"], [5])
    assert other.overrides == {"name": "other", "training.epochs": 9}
    assert other.experiment.training.epochs == 9


def test_a_suite_may_leave_weights_out_of_its_run_folders(tiny: Path) -> None:
    suite = write_suite(tiny.parent, "  - {config: tiny.yaml}")
    assert load_suite(suite, tiny.parent)[1]["tiny"].weights
    suite.write_text(f"weights: false\n{suite.read_text()}")
    assert not load_suite(suite, tiny.parent)[1]["tiny"].weights


@pytest.mark.parametrize(
    ("experiments", "seeds", "expected"),
    [
        ("  - {config: tiny.yaml}\n  - {config: tiny.yaml}", "[0]", "experiments: tiny is there twice"),
        ("  - {config: tiny.yaml, methods: [sgd, magic]}", "[0]", "methods: magic is not among those of"),
        ("  - {config: tiny.yaml, metods: [sgd]}", "[0]", "experiments.0.metods: unknown key (known: config, methods"),
        ("  - {methods: [sgd]}", "[0]", "experiments.0.config: this key is missing"),
        ("  - {config: tiny.yaml}", "[]", "seeds: "),
        ("  - {config: tiny.yaml}", "[-1]", "seeds.0: "),
        ("  []", "[0]", "experiments: "),
    ],
)
def test_bad_suites_are_named_by_file_and_key(experiments: str, seeds: str, expected: str, tiny: Path) -> None:
    path = write_suite(tiny.parent, experiments, seeds)
    with pytest.raises(BlipError) as error:
        load_suite(path, tiny.parent)
    message = str(error.value)
    assert message.startswith(f"{path}: {expected}")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("config", "expected"),
    [("nowhere.yaml", "nowhere.yaml: cannot be read"), ("tiny.yaml, set: {training.lr: 0}", "training.lr: ")],
)
def test_bad_experiments_of_a_suite_are_named_by_their_own_file(config: str, expected: str, tiny: Path) -> None:
    with pytest.raises(BlipError) as error:
        load_suite(write_suite(tiny.parent, f"  - {{config: {config}}}"), tiny.parent)
    assert expected in str(error.value)


@pytest.mark.parametrize(("present", "expected"), [(False, ["tiny"]), (True, ["tiny", "pictures"])])
def test_experiments_whose_data_are_absent_may_be_left_out(present: bool, expected: list[str], tiny: Path) -> None:
    if present:
        (tiny.parent / "raw" / "pictures").mkdir(parents=True)
    source = "data.sources: [{name: pictures, folder: pictures, side: 8}]"
    entries = [
        "  - {config: tiny.yaml, only_if_present: true}",
        f"  - {{config: tiny.yaml, only_if_present: true, set: {{name: pictures, {source}}}}}",
    ]
    _, planned = load_suite(write_suite(tiny.parent, "\n".join(entries)), tiny.parent / "raw")
    assert list(planned) == expected


def test_a_suite_may_have_games_which_need_no_data(tmp_path: Path) -> None:
    config = ROOT / "config" / "experiments" / "atari6.yaml"
    _, planned = load_suite(write_suite(tmp_path, f"  - {{config: {config}, only_if_present: true}}"), tmp_path)
    assert planned["atari6"].methods == ["blip", "sgd", "sgd-frozen", "ewc", "single-task"]


# Varied settings


def test_each_value_becomes_an_experiment_of_its_own(tiny: Path) -> None:
    vary = "vary: {methods.blip.f_prior: [1e-9, 2.5e+3]}"
    suite = write_suite(tiny.parent, f"  - {{config: tiny.yaml, methods: [blip], seeds: [4], {vary}}}")
    _, planned = load_suite(suite, tiny.parent)
    assert list(planned) == ["tiny.f_prior-1e-9", "tiny.f_prior-2500.0"]
    plan = planned["tiny.f_prior-1e-9"]
    assert (plan.path, plan.methods, plan.seeds) == (tiny, ["blip"], [4])
    assert plan.experiment.methods["blip"].f_prior == 1e-9
    config = plan.experiment.run_config("blip", 0)
    assert config["variant"] == {"of": "tiny", "settings": {"methods.blip.f_prior": 1e-9}}, "a number, no text of YAML"
    assert plan.experiment.group == plan.experiment.split_name == "tiny.f_prior"
    assert "variant" not in load_experiment(tiny).run_config("blip", 0), "runs of earlier versions stay what they are"
    assert load_experiment(tiny, plan.overrides, plan.varied) == plan.experiment


def test_a_varied_setting_is_told_where_it_is_the_default_too(tiny: Path) -> None:
    vary = "vary: {methods.imm-mode.merge: [true, false]}"
    _, planned = load_suite(write_suite(tiny.parent, f"  - {{config: tiny.yaml, methods: [imm-mode], {vary}}}"), tiny)
    assert [plan.experiment.variant.settings for plan in planned.values()] == [  # type: ignore[union-attr]
        {"methods.imm-mode.merge": True},
        {"methods.imm-mode.merge": False},
    ]


def test_several_varied_settings_give_all_combinations(tiny: Path) -> None:
    vary = "vary: {network.hidden: [[8], [8, 9]], data.sources.0.classes_per_task: [2, 5]}"
    _, planned = load_suite(write_suite(tiny.parent, f"  - {{config: tiny.yaml, {vary}}}"), tiny.parent)
    assert list(planned) == [f"tiny.hidden-{h}.classes_per_task-{c}" for h in ("8", "8_9") for c in (2, 5)]
    assert len({plan.experiment.split_name for plan in planned.values()}) == 4, "other data have other splits"
    assert len({plan.experiment.group for plan in planned.values()}) == 1
    assert planned["tiny.hidden-8_9.classes_per_task-2"].experiment.network.hidden == [8, 9]


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (["vary: {methods.blip.f_prior: [1e-15]}"], "vary.methods.blip.f_prior: changes nothing of sgd: expected"),
        (["vary: {training_changes.blip.lr: [1]}, methods: [blip, sgd]"], "changes nothing of sgd: expected its own"),
        (["vary: {methods.blip.f_prior: []}, methods: [blip]"], "vary.methods.blip.f_prior: expected values"),
        (["vary: {training.lr: [0.1, 0.1]}"], "vary.training.lr: expected values, each once"),
        (["vary: {training.lr: [0.1, 1.0e-1]}"], "vary.training.lr: expected values, each once"),
        (["vary: {training.lr: [0.1, '0.1']}"], "experiments: tiny.lr-0.1 is there twice"),
        (["vary: {training.lr: [0.1]}"] * 2, "experiments: tiny.lr is there twice"),
        (["set: {name: tiny.lr}", "vary: {training.lr: [0.1]}"], "experiments: tiny.lr is there twice"),
        (["vary: {training.lr: [0]}"], "training.lr: "),
        (["vary: {training.rate: [1]}"], "training.rate: unknown key"),
        (["vary: {data.sources.1.name: [digits]}"], "data.sources.1.name: expected a number below 1 in place of 1"),
        (["vary: {network.hidden: [[" + ", ".join(["8"] * 60) + "]]}"], "network.hidden: name: "),
        (["vary: {training.lr: [0.1]}, tune: {grids: {ewc: {strength: [1]}}}"], "vary: settings are either varied or"),
        (["set: {variant: {of: x, settings: {a: 1}}}"], "variant: unknown key"),
    ],
)
def test_bad_variations_are_named_by_file_and_key(entries: list[str], expected: str, tiny: Path) -> None:
    path = write_suite(tiny.parent, "\n".join(f"  - {{config: tiny.yaml, {entry}}}" for entry in entries))
    with pytest.raises(BlipError) as error:
        load_suite(path, tiny.parent)
    message = str(error.value)
    assert expected in message
    assert message.startswith(str(tiny.parent))
    assert "\n" not in message


@pytest.mark.parametrize(
    ("entry", "refused"),
    [
        ("methods: [sgd], set: {training.lr: 0.05}", True),
        ("methods: [blip, sgd], vary: {training.lr: [0.05]}", True),
        ("methods: [sgd], set: {training_changes.sgd.lr: 0.02}, vary: {training.lr: [0.05]}", True),
        ("methods: [blip], set: {training.lr: 0.05}", False),
        ("methods: [sgd], set: {training.epochs: 2}", False),
        ("methods: [sgd], set: {training.lr: 0.05, training_changes.sgd.lr: 0.02}", False),
    ],
)
def test_a_change_that_a_methods_own_training_would_undo_is_refused(entry: str, refused: bool, tiny: Path) -> None:
    tiny.write_text(tiny.read_text() + "training_changes: {sgd: {lr: 0.2}}\n")
    path = write_suite(tiny.parent, f"  - {{config: tiny.yaml, {entry}}}")
    if not refused:
        assert load_suite(path, tiny.parent)
        return
    with pytest.raises(BlipError, match=r"training\.lr: changes nothing of sgd: expected training_changes\.sgd\.lr$"):
        load_suite(path, tiny.parent)


def test_parts_of_a_list_have_names_of_their_own(tiny: Path) -> None:
    tiny.write_text(tiny.read_text().replace("hidden: [8]", "hidden: [8, 9]"))
    names = [load_experiment(tiny, varied={f"network.hidden.{i}": 7}).name for i in (0, 1)]
    assert names == ["tiny.hidden_0-7", "tiny.hidden_1-7"]


# Fingerprints

CHANGES: dict[str, Any] = {
    "name": "other",
    "stand_in": True,
    "data.sources": [{"name": "digits", "classes_per_task": 2}],
    "data.shuffle_tasks": True,
    "data.task_order": [1, 0],
    "data.shuffle_classes": True,
    "data.validation": 0.1,
    "network.hidden": [9],
    "network_changes.blip": {"hidden": [10]},
    "training_changes.blip": {"lr": 0.3},
    "training.lr": 0.2,
    "training.batch_size": 33,
    "training.epochs": 4,
    "training.lr_patience": 6,
    "training.lr_factor": 4,
    "training.lr_min": 1e-3,
    "training.precision": "bfloat16",
    "methods.blip.f_prior": 1e-12,
    "methods.blip.fisher_batch_size": 11,
    "methods.blip.fisher_batches": 21,
    "methods.blip.max_bits": 19,
    "methods.blip.weight_range": 7,
    "methods.blip.n": "max-fan-in-outputs",
    "methods.blip.initialisation": "zero-biases",
    "methods.blip.labels": "exact",
    "methods.blip.max_classes": 3,
}


UNRELATED = {"methods", "about", "variant", "network_changes", "training_changes", "resources"}
"""Keys of an experiment that no number of a run depends on, or that it has in another form."""


def test_every_hyper_parameter_changes_the_fingerprint(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = {None: load_experiment(tiny).run_config("blip", 0)}
    runs |= {key: load_experiment(tiny, {key: value}).run_config("blip", 0) for key, value in CHANGES.items()}
    runs["seed"] = load_experiment(tiny).run_config("blip", 1)
    runs["method"] = load_experiment(tiny).run_config("sgd", 0)
    monkeypatch.setattr(METHODS["blip"], "version", 99)
    runs["version"] = load_experiment(tiny).run_config("blip", 0)
    assert len({fingerprint(config) for config in runs.values()}) == len(runs)


LATER = [("imm-mode", "merge", True), ("joint", "mixed", False)]


@pytest.mark.parametrize("method", list(METHODS))
def test_no_setting_of_a_method_is_left_out_of_the_fingerprint(method: str, tiny: Path) -> None:
    experiment = load_experiment(tiny)
    config = experiment.run_config(method, 0)
    later = {key for _, key, _ in LATER}
    assert set(config["method"]) == {"name", "version", *METHODS[method].Settings.model_fields} - later
    assert set(config) == {"method", "seed", *ImageExperiment.model_fields} - UNRELATED


@pytest.mark.parametrize(("method", "key", "default"), LATER)
def test_a_setting_that_came_later_is_left_out_while_it_is_the_default(
    method: str, key: str, default: bool, tiny: Path
) -> None:
    changed = load_experiment(tiny, {f"methods.{method}.{key}": not default}).run_config(method, 0)
    assert changed["method"][key] is not default
    assert key not in load_experiment(tiny, {f"methods.{method}.{key}": default}).run_config(method, 0)["method"]


def test_comments_defaults_spelling_and_other_methods_do_not_change_the_fingerprint(tiny: Path) -> None:
    before = fingerprint(load_experiment(tiny).run_config("blip", 0))
    text = tiny.read_text().replace("f_prior: 1e-13", "max_bits: 20, f_prior: 0.0000000000001")
    text = text.replace("lwf: {}", "lwf: {strength: 3}").replace("epochs: 3", "epochs: 3.0, lr_factor: 3")
    text += "network_changes: {lwf: {hidden: [9]}}\ntraining_changes: {lwf: {lr: 0.3}}\nresources: {minutes: 3}\n"
    tiny.write_text(f"# a comment\nabout: other words\n{text}\n# another\n")
    assert fingerprint(load_experiment(tiny).run_config("blip", 0)) == before
