"""Bad inputs by the thousand: each is refused in one line with status 2, and leaves no file behind.

A case gets a copy of a small project (experiment, raw images, prepared data, a checkpoint, a finished run), breaks it,
and runs a command in a forked process, so that a crash or a hang is the case's alone. `NAMED` must be refused; what
`generated` makes is broken at random and may turn out to be harmless.
"""

import contextlib
import ctypes
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from run_folders import write_game_run, write_run

import blip.results.game_pictures
import blip.runs.train
import blip.training.loop
from blip.cli import main

CONFIG = """\
name: tiny
data:
  sources: [{name: zoo, folder: zoo, side: 4, channels: 1, classes_per_task: 2}]
network: {name: mlp, hidden: [4]}
training: {lr: 0.1, batch_size: 4, epochs: 2}
methods: {sgd: {}, blip: {f_prior: 1e-13, fisher_batch_size: 2}}
"""
SUITE = "{name: suite, seeds: [0, 1], experiments: [{config: tiny.yaml}]}\n"
CPU_SECONDS, SECONDS, MEMORY = 60, 300, 8 * 2**30
GENERATED = 1000
FOLDERS = ["--raw", "raw", "--data", "data", "--checkpoints", "checkpoints"]
TRAIN = ["train", "tiny.yaml", "--method", "sgd", *FOLDERS, "--out", "new"]
DATA = ["data", "tiny.yaml", "--raw", "raw", "--data", "fresh"]
MINI = ["miniimagenet", "--raw", "raw", "--out", "out", "--classes", "2", "--images", "2"]
TABLES = ["tables", "runs", "--out", "out/deep/tables"]
FIGURES = ["figures", "runs", "--out", "out/deep/figures"]
GAMES = ["games", "games", "--out", "out/deep/games"]
SCREEN, AUDIT = ["results", "runs"], ["audit", "runs"]
PAGE, VARIANTS = ["page", "runs", "--out", "out/page.html"], ["variants", "runs", "--out", "out/deep/variants"]
CLAIMS = ["claims", "runs", "--claims", "claims.yaml", "--no-checks", "--out", "out/deep/claims"]
EXPORT = ["export", "trained/tiny/blip/seed0", "--out", "out/small.bits"]
IMPORT = ["import", "run.bits", "--out", "out/weights.safetensors"]
READERS = [TABLES, SCREEN, AUDIT, PAGE, VARIANTS, CLAIMS]
"""Commands that read run folders in seconds."""
CLAIMED = """\
claims:
  - {id: learned, sentence: A tiny network learns., source: ours, check: formulas by hand,
     equals: {value: 0, within: 0}, cost: {core_minutes: 0.1}}
"""

Break = Callable[[], object]


class Case:
    """What is broken, the command that meets it, and within what limits of the process."""

    def __init__(
        self,
        name: str,
        arguments: list[str],
        broken: Break = lambda: None,
        *,
        limits: Break = lambda: None,
        sure: bool = True,
    ) -> None:
        self.name, self.arguments, self.broken, self.limits, self.sure = name, arguments, broken, limits, sure


# Breaking things, in the project's folder


def write(path: str, content: str | bytes) -> None:
    Path(path).unlink(missing_ok=True)
    Path(path).write_bytes(content.encode() if isinstance(content, str) else content)


def fifo(path: str) -> None:
    Path(path).unlink(missing_ok=True)
    os.mkfifo(path)


def folder(path: str) -> None:
    Path(path).unlink(missing_ok=True)
    Path(path).mkdir()


def locked(path: str, mode: int = 0) -> None:
    """Take a file or folder (made where it is not there) away from everybody, root too."""
    without_privileges()
    if not Path(path).exists():
        Path(path).mkdir()
    Path(path).chmod(mode)


def without_privileges() -> None:
    """Let this process read and write only what its user may, even if that is root (Linux: capset)."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable capabilities, twice 32 of them
    assert libc.capget(header, sets) == 0
    sets[0] &= ~0b110  # to override permissions, to read and search everything
    assert libc.capset(header, sets) == 0


def full_disk(size: int) -> None:
    """Let no file grow beyond so many bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def little_memory(mib: int) -> None:
    """Let this process have so much more memory than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + mib * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def configure(**changes: Any) -> None:
    """Set dotted keys (with __ for the points) of the experiment."""
    values = yaml.safe_load(CONFIG)
    for key, value in changes.items():
        *parents, last = key.split("__")
        inner = values
        for parent in parents:
            inner = inner[parent]
        inner[last] = value
    write("tiny.yaml", json.dumps(values))


def source(**changes: Any) -> None:
    configure(data__sources=[yaml.safe_load(CONFIG)["data"]["sources"][0] | changes])


def record(where: str = "runs", **changes: Any) -> None:
    """Set dotted keys of the first run.json below a folder."""
    path = min(Path(where).rglob("run.json"))
    values = json.loads(path.read_text())
    for key, value in changes.items():
        *parents, last = key.split("__")
        inner = values
        for parent in parents:
            inner = inner[int(parent)] if isinstance(inner, list) else inner[parent]
        inner[last] = value
    path.write_text(json.dumps(values))


def replays(**changes: str) -> None:
    path = min(Path("games").rglob("replays.csv"))
    header, *rows = path.read_text().splitlines()
    cells = dict(zip(header.split(","), rows[0].split(","), strict=True)) | changes
    path.write_text("\n".join([header, ",".join(cells.values()), *rows[1:]]) + "\n")


def archive(names: dict[str, bytes]) -> None:
    shutil.rmtree("raw/MI_raw", ignore_errors=True)
    with zipfile.ZipFile("raw/MI_raw.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in names.items():
            file.writestr(name, content)


def broken_member() -> None:
    archive({f"{c}/{i}.png": os.urandom(500) for c in "ab" for i in range(2)})
    content = bytearray(Path("raw/MI_raw.zip").read_bytes())
    content[60:200] = b"\0" * 140
    write("raw/MI_raw.zip", bytes(content))


def notmnist(features: str, labels: str) -> None:
    import pickle

    Path("raw/notmnist").mkdir()
    for part in ("train", "test"):
        content = pickle.dumps({"features": eval(features), "labels": eval(labels)})
        write(f"raw/notmnist/notmnist_{part}.pkl", content)
    configure(data__sources=[{"name": "notmnist"}])


def bomb() -> None:
    lines = ["a0: &a0 {k0: 1}"]
    lines += [f"a{i}: &a{i} {{k{i}: 1, <<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 12)]
    write("tiny.yaml", "\n".join(lines))


def other_shapes() -> None:
    configure(
        data__sources=[
            {"name": f"zoo{side}", "folder": "zoo", "side": side, "channels": 1, "classes_per_task": 2}
            for side in (4, 5)
        ]
    )


RUN, GAME, WEIGHTED = "runs/tiny/sgd/seed0", "games/atari/blip/seed0", "trained/tiny/blip/seed0"
CHECK, SUM = ["check", "tiny.yaml"], "checkpoints/{key}/checkpoint.pt"
NAMED = [
    *(Case(f"name {name!r}", TABLES, lambda name=name: record(experiment=name)) for name in ("../../x", "/x", "a/b")),
    *(Case(f"method {name!r}", FIGURES, lambda name=name: record(method=name)) for name in ("../../x", "/x", "")),
    Case("game's method", GAMES, lambda: record("games", method="../../x")),
    Case("score's name", TABLES, lambda: record("games", score__name="../../x") or Path("games").rename("runs/games")),
    Case("table's name", TABLES, lambda: record(tables__0__name="../../x")),
    Case("record a list", TABLES, lambda: write(f"{RUN}/run.json", "[]")),
    Case("record a number", TABLES, lambda: write(f"{RUN}/run.json", "3")),
    Case("record without tasks", TABLES, lambda: record(tasks=[])),
    Case("record without cost", TABLES, lambda: record(tables=[])),
    Case("record a pipe", TABLES, lambda: fifo(f"{RUN}/run.json")),
    Case("record a folder", TABLES, lambda: folder(f"{RUN}/run.json")),
    Case("record deep", TABLES, lambda: write(f"{RUN}/run.json", "[" * 100_000)),
    Case("table a pipe", TABLES, lambda: fifo(f"{RUN}/cost.csv")),
    Case("table without rows", TABLES, lambda: write(f"{RUN}/cost.csv", "task,phase,seconds\n")),
    Case("accuracies", TABLES, lambda: write(f"{RUN}/accuracy.csv", "task_learned,task,accuracy,loss,n\n0,0,7,1,9\n")),
    *(Case(f"actions {a!r}", GAMES, lambda a=a: replays(actions=a)) for a in ("zzz", "a1", "", "é", "w")),
    *(Case(f"seed {s}", GAMES, lambda s=s: replays(environment_seed=s)) for s in ("4294967296", "-1", "2147483648")),
    Case("replayed twice", GAMES, lambda: replays(task_learned="1", task="1")),
    Case("merge bomb", CHECK, bomb),
    Case("aliases in a ring", CHECK, lambda: write("tiny.yaml", "a: &a [*a]")),
    Case("deep", CHECK, lambda: write("tiny.yaml", "[" * 20_000)),
    Case("large", CHECK, lambda: write("tiny.yaml", "a: " + "x" * 2**21)),
    *(
        Case(f"yaml {text}", CHECK, lambda text=text: write("tiny.yaml", f"name: {text}\n"))
        for text in (
            "!!timestamp x",
            "!!float x",
            "!!int ''",
            "!!bool maybe",
            "!!python/object:os.system x",
            "2024-13-45",
        )
    ),
    Case("yaml in --set", [*CHECK, "--set", "name=!!timestamp x"]),
    Case("config a pipe", CHECK, lambda: fifo("tiny.yaml")),
    Case("config a folder", CHECK, lambda: folder("tiny.yaml")),
    Case("config's path has a NUL", ["check", "a\0b"]),
    Case("config's path is long", ["check", "x" * 5000]),
    Case("out is long", [*TRAIN[:-1], "x" * 5000]),
    Case("out has a NUL", [*TRAIN[:-1], "a\0b"]),
    Case("raw has a NUL", [*DATA[:-3], "a\0b", "--data", "fresh"]),
    Case("tables of a long path", ["tables", "x" * 5000, "--out", "out"]),
    Case("tables of a NUL", ["tables", "a\0b", "--out", "out"]),
    *(Case(f"device {name}", [*TRAIN, "--device", name]) for name in ("meta", "xla", "hpu", "cpu:9999999999", "", "é")),
    *(Case(f"threads {n}", [*TRAIN, "--threads", n]) for n in ("100000", "-1", "99999999999999999999", "1e3")),
    Case("a long seed", [*TRAIN, "--seed", "9" * 5000]),
    *(
        Case(f"{key}={value}", TRAIN, lambda key=key, value=value: configure(**{key: value}))
        for key, value in [
            ("network__hidden", []),
            ("network__hidden", [10**30]),
            ("network__hidden", [2**40]),
            ("network__hidden", [10**6, 10**6]),
            ("network", {"name": "resnet18", "mul": 1e300}),
            ("network", {"name": "resnet18", "mul": 1e-9}),
            ("network", {"name": "alexnet", "mul": 1e-9}),
            ("network", {"name": "alexnet", "dropout": [2, 0, 0, 0, 0]}),
            ("network", {"name": "alexnet"}),
            ("training__lr", 1e300),
            ("training__lr", 1e-300),
            ("training__batch_size", 10**30),
            ("training__epochs", 10**30),
            ("methods__blip__f_prior", 1e300),
            ("methods__blip__f_prior", 1e-300),
            ("methods__blip__f_prior", True),
            ("training__epochs", True),
            ("network__hidden", [True]),
            ("stand_in", 1),
            ("name", "x" * 300),
            ("name", "a\nb"),
            ("data__validation", 0.001),
        ]
    ),
    *(
        Case(f"source {changes}", DATA, lambda changes=changes: source(**changes))
        for changes in [
            {"side": 10**9},
            {"pad_to": 10**9},
            {"pad_to": 3},
            {"permutations": 10**9, "classes_per_task": None},
            {"classes_per_task": 3},
            {"mean": [0.1, 0.2, 0.3]},
            {"std": [0]},
            {"std": [1e-300]},
            {"folder": "nowhere"},
            {"folder": "a\0b"},
            {"folder": "x" * 5000},
            {"name": "../x"},
        ]
    ),
    Case("two shapes", DATA, other_shapes),
    Case("ragged", DATA, lambda: notmnist("[[1], [1, 2]]", "[0, 1]")),
    Case("ragged labels", DATA, lambda: notmnist("np.ones((2, 1, 4, 4))", "[[0], [1, 2]]")),
    Case("fractional labels", DATA, lambda: notmnist("np.ones((10, 1, 4, 4))", "[i + 0.5 for i in range(10)]")),
    Case("labels of text", DATA, lambda: notmnist("np.ones((2, 1, 4, 4))", "['a', 'b']")),
    Case("an image a pipe", DATA, lambda: fifo("raw/zoo/train/class0/0.png")),
    Case("an image a folder", DATA, lambda: folder("raw/zoo/train/class0/0.png")),
    Case("an image cut", DATA, lambda: write("raw/zoo/train/class0/0.png", b"\x89PNG\r\n")),
    Case("broken member", MINI, broken_member),
    Case("out is a file", [*MINI[:4], "tiny.yaml", *MINI[5:]]),
    Case("raw pickles", DATA, lambda: mini_pickles(b"cos\nsystem\n(S'touch pwned'\ntR.")),
    Case("a manifest not ours", DATA, lambda: mini_pickles(b"")),
    Case("a checkpoint a pipe", ["train", *TRAIN[1:]], lambda: each_checkpoint(lambda path: fifo(path))),
    Case("a checkpoint a folder", ["train", *TRAIN[1:]], lambda: each_checkpoint(lambda path: folder(path))),
    Case("a data set a pipe", TRAIN, lambda: fifo("data/zoo-4x4x1.safetensors")),
    Case("an experiment a pipe", ["experiments", "tiny.yaml"], lambda: fifo("tiny.yaml")),
    Case("an experiment no text", ["experiments", "tiny.yaml"], lambda: write("tiny.yaml", b"\xff\xfe")),
    Case("a class leads nowhere", DATA, lambda: Path("raw/zoo/train/more").symlink_to("gone")),
    Case("a class that is no text", DATA, lambda: Path("raw/zoo/train/\udcff").mkdir()),
    Case("out is no text", [*TRAIN[:-1], "o\udcff"]),
    Case("stand-ins beside data", ["stand-in", "raw"]),
    Case("a split a pipe", TRAIN, lambda: fifo("data/splits/tiny/seed0.safetensors")),
    *(
        Case(f"{path} is not to be read by {arguments[0]}", arguments, lambda path=path: locked(path))
        for arguments, paths in (
            (TABLES, ("runs", "runs/tiny", "runs/tiny/sgd", RUN, f"{RUN}/run.json", f"{RUN}/cost.csv")),
            (FIGURES, ("runs/tiny/blip", f"{RUN}/history.csv")),
            (GAMES, ("games", GAME, f"{GAME}/replays.csv")),
            (DATA, ("raw", "raw/zoo", "raw/zoo/train", "raw/zoo/train/class0", "raw/zoo/train/class0/0.png")),
            (MINI, ("raw/MI_raw.zip",)),
            (CHECK, ("tiny.yaml",)),
            (TRAIN, ("raw/zoo/train/class0", "data", "data/splits", "data/splits/tiny", "data/zoo-4x4x1.safetensors")),
            (TRAIN, ("checkpoints",)),
        )
        for path in paths
    ),
    *(
        Case(f"{path} is not to be written by {arguments[0]}", arguments, lambda path=path: locked(path, 0o500))
        for arguments, path in (
            *((TABLES, "out"), (FIGURES, "out"), (GAMES, "out"), (DATA, "fresh"), (MINI, "out"), (TRAIN, "new")),
            *(([*TRAIN, "--checkpoints", "others"], "others"), (["stand-in", "made"], "made")),
        )
    ),
    *(Case(f"{arguments[0]} of a list", arguments, lambda: write(f"{RUN}/run.json", "[]")) for arguments in READERS),
    *(
        Case(f"{arguments[0]} of {what}", arguments, broken)
        for arguments, what, broken in (
            *((arguments, "no runs", lambda: shutil.rmtree("runs")) for arguments in READERS),
            *((arguments, "runs out of reach", lambda: locked("runs/tiny")) for arguments in READERS),
            (CLAIMS, "a list", lambda: write("claims.yaml", "[]")),
            (CLAIMS, "a pipe", lambda: fifo("claims.yaml")),
            (CLAIMS, "an unknown check", lambda: write("claims.yaml", CLAIMED.replace("by hand", "by heart"))),
            (CLAIMS, "an unknown key", lambda: write("claims.yaml", CLAIMED.replace("sentence", "sentense"))),
            (CLAIMS, "no number", lambda: write("claims.yaml", CLAIMED.replace("within: 0", "within: .nan"))),
            (EXPORT, "changed weights", lambda: spoil_file(f"{WEIGHTED}/weights.safetensors", random.Random(1))),
            (EXPORT, "no weights", lambda: Path(WEIGHTED, "weights.safetensors").unlink()),
            (IMPORT, "text", lambda: write("run.bits", "text")),
            (IMPORT, "half a file", lambda: write("run.bits", Path("run.bits").read_bytes()[:200])),
            (IMPORT, "a pipe", lambda: fifo("run.bits")),
            (IMPORT, "a folder", lambda: folder("run.bits")),
            (["experiments", "../x"], "a path", lambda: None),
            ([*PAGE[:3], "runs"], "a folder to write", lambda: None),
        )
    ),
    Case("a checkpoint not to be read", TRAIN, lambda: each_checkpoint(locked)),
    Case("a full disk for data", DATA, limits=lambda: full_disk(200)),
    Case("a full disk for a run", TRAIN, limits=lambda: full_disk(600)),
    Case("a full disk for tables", TABLES, limits=lambda: full_disk(50)),
    Case("a full disk for figures", FIGURES, limits=lambda: full_disk(2000)),
    Case("a full disk for pickles", MINI, limits=lambda: full_disk(100)),
    Case("a full disk for stand-ins", ["stand-in", "made"], limits=lambda: full_disk(20)),
    Case(
        "little memory", TRAIN, lambda: configure(network__hidden=[10_000, 10_000]), limits=lambda: little_memory(200)
    ),
    Case("seeds twice", [*CHECK[:1], "suite.yaml"], lambda: write("suite.yaml", SUITE.replace("[0, 1]", "[0, 0]"))),
]


def mini_pickles(content: bytes) -> None:
    Path("raw/miniimagenet").mkdir()
    for name in ("train.pkl", "test.pkl"):
        write(f"raw/miniimagenet/{name}", content)
    write("raw/miniimagenet/manifest.csv", "a,b\n1,2\n")
    configure(data__sources=[{"name": "miniimagenet"}])


def each_checkpoint(broken: Callable[[str], None]) -> None:
    for path in Path("checkpoints").glob("*/checkpoint.pt"):
        broken(str(path))


# At random

VALUES = [
    *(None, True, -1, 0, 1.5, 10**30, -(10**30), 1e300, 1e-300, float("nan"), float("inf"), "", "x", "../x", "/x"),
    *("a\nb", "é\ud800".encode(errors="replace").decode(), [], [None], [[]], {}, {"x": 1}, "1e5", "=cmd", "<script>"),
]
WORDS = [
    "",
    "-",
    "--",
    "x" * 5000,
    "\0",
    "../..",
    "/dev/null",
    "-1",
    "1e9",
    "é",
    "{}",
    "tiny.yaml",
    "raw",
    "=",
    "a=b",
    "[",
    "*",
]


def spoil(content: bytes, rng: random.Random) -> bytes:
    """Cut, flipped, doubled, emptied, or with something put in."""
    at = rng.randrange(len(content) + 1)
    kind = rng.randrange(5)
    if kind == 0:
        return content[:at]
    if kind == 1 and at < len(content):
        return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]
    if kind == 2:
        return content[:at] + rng.randbytes(rng.randrange(1, 9)) + content[at:]
    if kind == 3:
        return content[:at] + content[at + rng.randrange(1, 9) :]
    return content[:at] + rng.choice([b"\n", b",", b"{", b"]", b"-", b"9" * 30, b'"', b"\xff"]) + content[at:]


def leaves(values: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    yield place
    for key, value in items:
        yield from leaves(value, (*place, key))


def replaced(values: Any, rng: random.Random) -> Any:
    """Plain values, one of which is another one."""
    place = rng.choice(list(leaves(values))[1:])
    inner = values
    for key in place[:-1]:
        inner = inner[key]
    if rng.random() < 0.1 and isinstance(inner, dict):
        inner[str(rng.choice(WORDS))] = inner.pop(place[-1])
    else:
        inner[place[-1]] = rng.choice(VALUES)
    return values


def spoil_file(pattern: str, rng: random.Random) -> None:
    paths = sorted(path for path in Path().glob(pattern) if path.is_file())
    path = rng.choice(paths)
    write(str(path), spoil(path.read_bytes(), rng))


def replace_in(pattern: str, rng: random.Random) -> None:
    path = rng.choice(sorted(Path().glob(pattern)))
    write(str(path), json.dumps(replaced(json.loads(path.read_text()), rng)))


def spoil_config(rng: random.Random) -> None:
    if rng.random() < 0.6:
        write("tiny.yaml", json.dumps(replaced(yaml.safe_load(CONFIG), rng)))
    else:
        write("tiny.yaml", spoil(CONFIG.encode(), rng))


def spoil_claims(rng: random.Random) -> None:
    if rng.random() < 0.6:
        write("claims.yaml", json.dumps(replaced(yaml.safe_load(CLAIMED), rng)))
    else:
        write("claims.yaml", spoil(CLAIMED.encode(), rng))


def some_arguments(rng: random.Random) -> list[str]:
    command = list(rng.choice([TRAIN, DATA, MINI, TABLES, CHECK, EXPORT, IMPORT, *READERS[1:]]))
    for _ in range(rng.randrange(1, 3)):
        at = rng.randrange(1, len(command) + 1)
        if rng.random() < 0.5:
            command[at:at] = [rng.choice([*WORDS, "--set", "--seed", "--out", "--threads", "--device", "--source"])]
        elif at < len(command):
            command[at] = rng.choice(WORDS)
    return command


def generated(seed: int) -> Iterator[Case]:
    kinds: list[tuple[int, Callable[[random.Random], Case]]] = [
        (22, lambda rng: Case("config", CHECK, lambda: spoil_config(rng), sure=False)),
        (8, lambda rng: Case("config trained", TRAIN, lambda: spoil_config(rng), sure=False)),
        (20, lambda rng: Case("arguments", some_arguments(rng), sure=False)),
        (8, lambda rng: Case("raw image", DATA, lambda: spoil_file("raw/zoo/*/*/*.png", rng), sure=False)),
        (6, lambda rng: Case("raw zip", MINI, lambda: spoil_file("raw/MI_raw.zip", rng), sure=False)),
        (8, lambda rng: Case("prepared", TRAIN, lambda: spoil_file("data/**/*.safetensors", rng), sure=False)),
        (8, lambda rng: Case("checkpoint", TRAIN, lambda: spoil_file("checkpoints/*/checkpoint.pt", rng), sure=False)),
        (8, lambda rng: Case("record", TABLES, lambda: replace_in("runs/**/run.json", rng), sure=False)),
        (6, lambda rng: Case("record's bytes", TABLES, lambda: spoil_file("runs/**/run.json", rng), sure=False)),
        (4, lambda rng: Case("table", TABLES, lambda: spoil_file("runs/**/*.csv", rng), sure=False)),
        (4, lambda rng: Case("read", rng.choice(READERS[1:]), lambda: spoil_file("runs/**/*.*", rng), sure=False)),
        (4, lambda rng: Case("claims", CLAIMS, lambda: spoil_claims(rng), sure=False)),
        (4, lambda rng: Case("exported", IMPORT, lambda: spoil_file("run.bits", rng), sure=False)),
        (2, lambda rng: Case("to export", EXPORT, lambda: spoil_file(f"{WEIGHTED}/*", rng), sure=False)),
        (1, lambda rng: Case("figures", FIGURES, lambda: spoil_file("runs/**/*.csv", rng), sure=False)),
        (1, lambda rng: Case("games", GAMES, lambda: spoil_file("games/**/*.*", rng), sure=False)),
    ]
    choose = random.Random(seed)
    for number in range(GENERATED):
        ((_, kind),) = choose.choices(kinds, [weight for weight, _ in kinds])
        case = kind(random.Random(f"{seed} {number}"))
        case.name = f"{case.name} {number}"
        yield case


# Running


def forked(work: Callable[[], int], err: Path) -> int:
    """Status of what a forked process does, with its errors in a file: negative where a signal ended it."""
    pid = os.fork()
    if pid == 0:
        status = 99
        with contextlib.suppress(BaseException):
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            signal.alarm(SECONDS)
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
            sys.stderr = err.open("w")
            try:
                status = work()
            except SystemExit as error:
                status = int(str(error.code))
            except BaseException:
                traceback.print_exc()
            sys.stderr.flush()
        os._exit(status)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project with one of everything that can be broken."""
    root = tmp_path_factory.mktemp("project")
    (root / "tiny.yaml").write_text(CONFIG)
    (root / "suite.yaml").write_text(SUITE)
    (root / "claims.yaml").write_text(CLAIMED)
    for part, count in (("train", 6), ("test", 2)):
        for label in range(4):
            for i in range(count):
                path = root / "raw/zoo" / part / f"class{label}" / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.random.default_rng(i).integers(0, 256, (4, 4), np.uint8)).save(path)
    with zipfile.ZipFile(root / "raw/MI_raw.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name in ("a/0.png", "a/1.png", "b/0.png", "b/1.png"):
            file.writestr(name, (root / "raw/zoo/train/class0" / name[2:]).read_bytes())
    write_run(root / "runs", "tiny", "sgd")
    write_run(root / "runs", "tiny", "blip")
    write_game_run(root / "games", R=[[2.0], [1.0, 3.0]], random=[0.0, 0.5])

    def train() -> int:
        os.chdir(root)
        blip.training.loop.SECONDS_BETWEEN_CHECKPOINTS = 0.0
        remove, blip.runs.train.Checkpoint.remove = blip.runs.train.Checkpoint.remove, lambda self: None
        status = main(TRAIN)
        blip.runs.train.Checkpoint.remove = remove
        trained = main(["train", "tiny.yaml", "--method", "blip", *FOLDERS, "--out", "trained"])
        return status or trained or main([*EXPORT[:3], "run.bits"])

    assert forked(train, root / "err") == 0, (root / "err").read_text()
    shutil.rmtree(root / "new")
    (root / "err").unlink()
    return root


def everything(root: Path) -> set[str]:
    found = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_fifo() or path.is_file()}
    whole = re.compile(
        r"/lock$|/checkpoint\.damaged$|/fresh/[^/]*\.safetensors$"
    )  # a data set of which no split is made
    return {path for path in found if not whole.search(path)}


def trouble(case: Case, project: Path, folder: Path) -> tuple[int, str]:
    """The exit status, and what is wrong with how the case was met; empty where nothing is."""
    root = folder / "a/b/c"  # so that ../../x is still in the folder
    shutil.copytree(project, root)
    err = folder / "err"

    def work() -> int:
        os.chdir(root)
        before = everything(folder)
        case.broken()
        with (folder / "before").open("w") as file:
            json.dump(sorted(before | everything(folder)), file)
        case.limits()
        return main(case.arguments)

    status = forked(work, err)
    said = err.read_text(errors="replace")
    problems = []
    lines = [line for line in said.splitlines() if not line.startswith(("tiny sgd seed", "warning: "))]
    if status not in ((2,) if case.sure else (0, 2)):
        problems.append(f"status {status}")
    if "Traceback" in said:
        problems.append("a traceback")
    if status == 2:
        if len(lines) != 1 or not lines[0].startswith("blip") or "BLIP_TRACEBACK" in said:
            problems.append("not one clear line")
        new = everything(folder) - set(json.loads((folder / "before").read_text())) - {"err", "before"}
        if new:
            problems.append(f"new files: {sorted(new)[:3]}")
    shutil.rmtree(folder)
    return status, f"{case.name}: {', '.join(problems)}: {said[:300]} … {said[-600:]}" if problems else ""


@pytest.mark.slow
@pytest.mark.parametrize("case", NAMED, ids=lambda case: case.name)
def test_what_once_broke_is_refused(case: Case, project: Path, tmp_path: Path) -> None:
    pytest.importorskip("ale_py")
    assert not trouble(case, project, tmp_path / "case")[1]


@pytest.mark.slow
def test_random_damage_is_refused_in_one_line_or_harmless(project: Path, tmp_path: Path) -> None:
    pytest.importorskip("ale_py")
    met = [
        trouble(case, project, tmp_path / str(i))
        for i, case in enumerate(generated(int(os.environ.get("BLIP_BAD_INPUTS_SEED", "0"))))
    ]
    statuses = Counter(status for status, _ in met)
    print(f"{len(met)} cases: {statuses[2]} refused, {statuses[0]} harmless")
    problems = [problem for _, problem in met if problem]
    assert not problems, "\n".join([f"{len(problems)} of {len(met)}:", *problems])
    assert statuses[2] > GENERATED / 2
