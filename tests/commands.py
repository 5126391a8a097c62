"""What a page shows, checked without being run: commands by their own parsers, files by the program that reads them."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from conftest import ROOT
from page_suite import write_suite
from run_folders import write_run
from snakemake.cli import get_argument_parser

from blip.claims import load_claims
from blip.cli import main, program
from blip.cli.arguments import experiment
from blip.cli.completion import SHELLS
from blip.config import KINDS, Suite, load_experiment
from blip.json_schemas import SCHEMAS
from blip.plan import Plan
from blip.schema import parse_yaml, read_yaml, validate

FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^ *```", re.S | re.M)
OWN = ("my.yaml", "mine.yaml")
"""Files of the reader's."""
SHORT_GAMES = [
    'games=["SpaceInvaders", "Boxing"]',
    'network={"channels": [8, 16, 16], "hidden": 16}',
    'ppo={"steps": 128, "environments": 2, "rollout": 32}',
    'evaluation={"episodes": 2, "every_updates": 1, "max_frames": 100}',
]
"""Settings with which games are played for seconds."""


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of a page in these languages."""
    found = [(indent, code) for indent, name, code in FENCE.findall(page.read_text()) if name in languages]
    return ["".join(line.removeprefix(indent) for line in code.splitlines(True)) for indent, code in found]


def languages(page: Path) -> set[str]:
    """Of the fenced blocks of a page."""
    return {name for _, name, _ in FENCE.findall(page.read_text())}


def commands(block: str) -> Iterator[list[str]]:
    """The commands of a block of shell, as words, without what is set for each."""
    subprocess.run(["bash", "-n", "-c", block], check=True)
    for line in re.sub(r"source <\((.*?)\)", r"\1", block.replace("\\\n", " ")).splitlines():
        words = shlex.split(line, comments=True)
        for part in " \0 ".join(words).replace("\0 && \0", "\n").replace("\0 | \0", "\n").split("\n"):
            found = [word.strip(" ") for word in part.split("\0")]
            found = found[: found.index(">")] if ">" in found else found
            while found and re.match(r"\w+=", found[0]):
                found = found[1:]
            if found and found[0]:
                yield found


def check_command(words: list[str]) -> None:
    """AssertionError, SystemExit or BlipError where a command would not be taken."""
    name = "python" if words[0] == "$PYTHON" else Path(words[0]).name
    assert name in PROGRAMS or words[0] == ".", f"nobody checks {words[0]}"
    PROGRAMS.get(name, _sourced)(words[1:])


def _blip(words: list[str]) -> None:
    if words[0] == "--print-completion":
        assert words[1] in SHELLS, words
        return
    if words == ["--version"]:
        return
    options = program._parser().parse_args(words)
    named = [options.experiment] if hasattr(options, "experiment") else getattr(options, "experiments", [])
    for file in named:
        if file.name not in OWN:
            _check_methods(_asked(options, file), options)
    for runs in getattr(options, "runs", []):
        assert runs.exists() or not runs.is_relative_to("results/recorded"), runs


def _check_methods(asked: Any, options: Namespace) -> None:
    methods = getattr(options, "method", [])
    for method in [methods] if isinstance(methods, str) else methods:
        asked.run_config(method, 0)
    for text in getattr(options, "grid", None) or []:
        key = text.partition("=")[0]
        part = asked.training if key.startswith("training.") else asked.methods[options.method]
        assert key.removeprefix("training.") in type(part).model_fields, text


def settings(words: list[str]) -> dict[str, Any] | None:
    """The workflow's settings in a command of Snakemake; None where it starts no workflow."""
    options = get_argument_parser().parse_args(words)
    for profile in options.profile or []:
        assert Path(profile, "config.yaml").exists(), profile
    given = dict(text.split("=", 1) for text in options.config or [])
    return read_yaml(Path("config/config.yaml")) | given


def _snakemake(words: list[str]) -> None:
    Plan(settings(words))


def _make(words: list[str]) -> None:
    run = subprocess.run(["make", "-n", *words], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def _python(words: list[str]) -> None:
    if words[0] == "-m":
        assert words[1] in ("blip.cli", "venv", "pytest"), words
        if words[1] == "blip.cli":
            _blip(words[2:])
    else:
        assert Path(words[0]).exists(), words[0]


def _pytest(words: list[str]) -> None:
    assert all(Path(word).exists() for word in words if word.startswith("tests/")), words


def _pip(words: list[str]) -> None:
    extras = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.findall(r"\[(.*?)\]", " ".join(words))
    assert all(extra in extras for text in named for extra in text.split(",")), words
    assert all(Path(word).exists() for word in words if word.startswith("envs/")), words


def _container(words: list[str]) -> None:
    if words[0] == "build":
        assert "docker-daemon://blip:0.1.0" in words or Path("Dockerfile").exists()
        return
    start = next(i for i, word in enumerate(words) if word in ("blip", "python"))
    check_command(words[start:])


def _sourced(words: list[str]) -> None:
    assert Path(words[0]).exists() or Path("envs/bundle", words[0]).exists(), words


def _nothing(words: list[str]) -> None:
    """A word of the shell, or a program that changes nothing of the project."""


PROGRAMS: dict[str, Callable[[list[str]], None]] = {
    "blip": _blip,
    "snakemake": _snakemake,
    "make": _make,
    "python": _python,
    "python3": _python,
    "pytest": _pytest,
    "pip": _pip,
    "docker": _container,
    "apptainer": _container,
    "source": _nothing,
    **dict.fromkeys(("export", "cd", "git", "mkdir", "uv"), _nothing),
}


def check_yaml(text: str, folder: Path) -> None:
    """A block of YAML: a suite, claims or an experiment, as its keys say."""
    values = parse_yaml(text)
    path = folder / "block.yaml"
    path.write_text(text)
    if "experiments" in values:
        validate(Suite, values, "block")
    elif "claims" in values:
        load_claims(path)
    elif any(kind.key in values for kind in KINDS):
        load_experiment(path)
        problems = jsonschema.Draft202012Validator(SCHEMAS["experiment"]()).iter_errors(yaml.safe_load(text))
        assert not [p for p in problems if "is not of type 'number'" not in p.message]  # 1e-15 is a text in YAML 1.1
    else:
        raise AssertionError(f"nobody checks a block with {', '.join(values)}")


def names_in_text(page: Path) -> Iterator[tuple[str, str]]:
    """Commands that are named within lines: `blip train …`, `make demo`, as program and what follows."""
    text = FENCE.sub("", page.read_text())
    for code in re.findall(r"`([^`\n]+)`", text):
        if match := re.match(r"(?:PATH=\S+ |\.venv/bin/)?(blip|make) ([a-z][a-z-]*)\b(?!\.)", code):
            yield match[1], match[2]


def known_names() -> dict[str, set[str]]:
    """Commands of blip and targets of make."""
    subparsers = next(a for a in program._parser()._actions if isinstance(a.choices, dict))
    makefile = (ROOT / "Makefile").read_text()
    return {"blip": set(subparsers.choices), "make": set(re.findall(r"^([a-z-]+):", makefile, re.M))}


def dry_run(words: list[str], folder: Path) -> None:
    """`snakemake -n` of a command that a page shows, on nothing: what it plans must be plannable."""
    replaced = {"raw": folder / "raw", "results": folder / "results", "data": folder / "data"}
    given = [f"{key}={value}" for key, value in (settings(words) or {}).items() if key not in replaced and value]
    config = ["--config", *given, *(f"{key}={value}" for key, value in replaced.items())]
    bin = Path(sys.executable).parent
    command = [
        os.fspath(bin / "snakemake"),
        "--cores",
        "2",
        "-n",
        "--quiet",
        "all",
        "--directory",
        os.fspath(ROOT),
        *config,
    ]
    environment = os.environ | {"PATH": f"{bin}:{os.environ['PATH']}"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def of_blip(words: list[str]) -> list[str]:
    """What a command gives to `blip`, also within a container; empty where it does not start it."""
    name, places = Path(words[0]).name, [i for i, word in enumerate(words) if Path(word).name == "blip"]
    if name not in ("blip", "docker", "apptainer") or not places or words[1] == "build":
        return []
    return words[places[0] + 1 :]


NOT_RUN = {
    r"--print-completion": "a script for a shell, which tests/test_information.py sources in one",
    r"--version": "ends the process, as tests/test_information.py sees",
    r"miniimagenet": "60,000 images; tests/test_miniimagenet.py makes them of a few",
    r"train .*images\.yaml": "images of the reader's; tests/test_docs.py trains on such folders",
}
"""Commands of pages that `run_shortly` leaves out, and who runs them."""


def not_run(words: list[str]) -> str:
    """The pattern in `NOT_RUN` by which a command of `blip` is left out; empty where it is run."""
    return next((pattern for pattern in NOT_RUN if re.match(pattern, " ".join(words))), "")


def prepare(folder: Path) -> None:
    """What commands of pages read below a folder: raw data, a suite's results, variants, and a file of the reader's."""
    assert main(["stand-in", str(folder / "raw")]) == 0
    write_suite(folder / "suite")
    for variant in (None, {"of": "mnist5", "settings": {"methods.ewc.fisher": "exact"}}):
        config = {"config": {"variant": variant}} if variant else {}
        for seed in range(5):
            write_run(folder / "varied", "mnist5.fisher-exact" if variant else "mnist5", "ewc", seed, **config)
    for name in OWN:
        (folder / name).write_text((ROOT / "config/experiments/mnist5.yaml").read_text())


def run_shortly(words: list[str], folder: Path) -> None:
    """Run a command of `blip` for real, on generated images and for one epoch, or for a few steps of its games, where
    it trains, below a folder that `prepare` filled. `results/runs` is what commands before trained; other results are
    those of the prepared suite, and files those that are there or that commands before wrote."""
    words = [_in_place_of(word, folder) for word in words]
    options = program._parser().parse_args(words)
    trains = options.run.__name__ in ("train", "tune")
    if trains:
        asked = _asked(options, options.experiment)
        short = ["stand_in=true", *_small(asked.name)] if asked.sources else SHORT_GAMES
        instead = {word.partition("=")[0]: word for word in short}  # a key is given once
        own = {word.partition("=")[0] for word in words}
        words = [instead.get(word.partition("=")[0], word) for word in words]
        words += ["--set", *(word for key, word in instead.items() if key not in own)]
    out = "trained" if trains else getattr(options, "out", "")
    places = {"out": out, "raw": "raw", "data": "data", "checkpoints": "checkpoints"}
    if options.run.__name__ == "stand_in":
        places.pop("raw")
    for option in filter(options.__contains__, places):
        words = [*words, f"--{option}", str(folder / places[option])]
    judges = options.run.__name__ == "claims"  # what is prepared need not be as claimed
    assert main([*words, *["--no-checks"] * judges]) in ((0, 1) if judges else (0,)), words


def _in_place_of(word: str, folder: Path) -> str:
    """A path below the folder for one of a page that is not there."""
    trained = folder / "trained"
    if word.startswith("results/runs"):
        return word.replace("results/runs", str(trained if trained.exists() else folder / "suite/runs"), 1)
    if word == "results/inherited/runs":
        return str(folder / "varied")
    if (match := re.fullmatch(r"results/[\w*-]+(/runs)?", word)) and not Path(word).exists():
        return f"{folder}/suite{match[1] or ''}"
    return str(folder / word) if (folder / word).is_file() else word


def _asked(options: Namespace, file: Path) -> Any:
    options.vary = getattr(options, "vary", [])  # not of every command
    return experiment(options, file)


def _small(name: str) -> list[str]:
    """What makes an experiment short: what the stand-in suite says, or one epoch."""
    entries = read_yaml(Path("config/stand-in.yaml"))["experiments"]
    changes = next((entry["set"] for entry in entries if Path(entry["config"]).stem == name), {"training.epochs": 1})
    return [f"{key}={json.dumps(value)}" for key, value in changes.items() if key != "stand_in"]
