"""The workflow plans, runs, and reruns what it should; nothing more."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, TINY
from PIL import Image
from snakemake.cli import main as snakemake_main

from blip.methods import METHODS

SUITE = """\
name: small
seeds: [0]
experiments:
  - config: tiny.yaml
    methods: [blip, ewc]
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone holds of the workflow, with a small suite beside the project's own."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("workflow", "config", "envs"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "Snakefile", folder)
    (folder / "profiles").symlink_to("workflow/profiles")
    (folder / "tiny.yaml").write_text(TINY)
    (folder / "small.yaml").write_text(SUITE)
    return folder


def snakemake(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit status and output of a snakemake call in `folder`.

    In a fork, which has imported everything already: a start from nothing takes longer than most of these tests.
    """
    output = folder / "output.txt"
    child = os.fork()
    if child == 0:  # pragma: no cover
        os.chdir(folder)
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        sys.stdout = sys.stderr = output.open("w")
        for stream in (1, 2):  # of the jobs
            os.dup2(sys.stdout.fileno(), stream)
        status = 99
        try:
            snakemake_main(["--cores", "2", *arguments])
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        finally:
            sys.stdout.flush()
            os._exit(status)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), output.read_text()


def planned(output: str) -> dict[str, int]:
    """Jobs that a dry run plans, by rule."""
    return {rule: int(n) for rule, n in re.findall(r"^(\w+) +(\d+)$", output, re.M) if rule != "total"}


DEPLOYED = """\
configfile: "config/config.yaml"


module blip:
    snakefile:
        "%s"
    config:
        config


use rule * from blip
"""


def test_the_workflow_is_a_module_of_anothers(tmp_path: Path) -> None:
    """As snakedeploy lays it out: a folder with the configuration, and a Snakefile that names the workflow."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "workflow").mkdir()
    (tmp_path / "workflow/Snakefile").write_text(DEPLOYED % (ROOT / "workflow/Snakefile"))
    status, output = snakemake(tmp_path, "-n", "all")
    assert status == 0, output
    jobs = planned(output)
    assert jobs["train_digits5"] == 6
    assert jobs["page"] == jobs["tables"] == 1
    assert not (tmp_path / "results").exists()


def test_the_demo_plans_every_run(clone: Path) -> None:
    status, output = snakemake(clone, "-n", "-p")
    jobs = planned(output)
    assert status == 0
    training = {rule: n for rule, n in jobs.items() if rule.startswith("train_")}
    assert training == {"train_digits5": 6, "train_pdigits": 3}, "a job for each seed; MNIST only where it is"
    few = ("blip", "sgd", "sgd-frozen", "ewc", "single-task")
    for experiment, methods in (("digits5", METHODS), ("pdigits", few)):
        asked = re.search(rf"blip train \S*{experiment}.yaml --method (.*?) --seed 2 ", output)
        assert asked
        assert sorted(asked[1].split()) == sorted(methods)
    assert "split" not in jobs, "short runs make theirs themselves"
    lines = [line for line in snakemake(clone, "-n")[1].splitlines() if not line.startswith("  ")]
    assert "progress in results/demo/logs/train/digits5-seed2.log" in "".join(lines)
    assert max(map(len, lines)) < 200, "a job's line is to be read, not a list of its files"
    assert jobs["dataset"] == jobs["tables"] == 1
    assert jobs["figures"] == 2


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["suite=typo.yaml"], r"typo\.yaml: experiments\.0\.methds: unknown key"),
        (["suite=absent.yaml"], r"absent\.yaml: cannot be read"),
        (["sweet=small.yaml"], r"unknown key sweet \(known: .*suite"),
        (["suite=small.yaml", "threads=none"], r"threads: expected a number"),
        (["suite=small.yaml", "jobs_per_gpu=0"], r"jobs_per_gpu: expected a number of jobs, found 0"),
        (
            ["suite=small.yaml", "device=gpu"],
            r"config: device: expected auto, cpu, cuda or one such as cuda:1, found 'gpu'",
        ),
    ],
)
def test_bad_configuration_stops_before_any_job(clone: Path, settings: list[str], expected: str) -> None:
    (clone / "typo.yaml").write_text(SUITE.replace("methods", "methds"))
    status, output = snakemake(clone, "--config", *settings)
    assert status == 1
    assert re.search(expected, output)
    assert "Traceback" not in output
    assert not (clone / "results").exists()


def test_a_suite_runs_and_reruns_exactly_what_a_change_touches(clone: Path) -> None:
    small = ("--config", "suite=small.yaml")
    status, output = snakemake(clone, *small)
    assert status == 0, output
    out = clone / "results" / "small"
    assert "| blip" in (out / "tables" / "tables.md").read_text()
    assert 'href="figures/tiny/matrix.pdf"' in (out / "index.html").read_text()
    for figure in ("matrix", "average", "forgetting", "bit_string", "history"):
        for ending in ("pdf", "png"):
            assert (out / "figures" / "tiny" / f"{figure}.{ending}").stat().st_size > 1000
    assert (out / "logs" / "train" / "tiny-blip-seed0.log").read_text()
    assert (out / "benchmarks" / "train" / "tiny-blip-seed0.tsv").read_text()
    assert not any((out / "checkpoints").iterdir())

    status, output = snakemake(clone, *small, "--report", "report.html")
    assert status == 0, output
    report = (clone / "report.html").read_text()
    assert "Tables" in report
    assert "bit_string" in report

    tiny = clone / "tiny.yaml"
    tiny.write_text("# a comment\n" + TINY)
    assert planned(snakemake(clone, *small, "-n")[1]) == {}

    tiny.write_text(TINY.replace("ewc: {", "ewc: {strength: 7, "))
    jobs = planned(snakemake(clone, *small, "-n")[1])
    touched = {"default": 1, "train_tiny_ewc": 1, "tables": 1, "figures": 1, "page": 1}
    assert jobs == touched

    tiny.write_text(TINY)
    (clone / "small.yaml").write_text(SUITE + "    set: {methods.ewc.strength: 9}\n")
    assert planned(snakemake(clone, *small, "-n")[1]) == touched, "and no data, which are the same"
    (clone / "small.yaml").write_text(SUITE)

    tiny.write_text(TINY.replace("lr: 0.1", "lr: 0.2"))
    jobs = planned(snakemake(clone, *small, "-n")[1])
    assert jobs["train_tiny_ewc"] == jobs["train_tiny_blip"] == 1


def test_pickles_outlive_the_raw_images_that_they_are_made_of(clone: Path) -> None:
    """Gigabytes, of hours of work: neither a mistyped raw folder nor one of other images may take them."""
    for raw, classes in (("raw", 2), ("other", 3)):
        for name in range(classes):
            (clone / raw / "MI_raw" / f"n{name}").mkdir(parents=True)
            for image in range(6):
                Image.new("RGB", (84, 84), (image, 0, 0)).save(clone / raw / "MI_raw" / f"n{name}" / f"{image}.png")
    source = "{name: miniimagenet, classes_per_task: 1, raw_classes: 2, raw_images_per_class: 6}"
    (clone / "mini.yaml").write_text(TINY.replace("{name: digits, classes_per_task: 5}", source))
    (clone / "minis.yaml").write_text(SUITE.replace("tiny.yaml", "mini.yaml"))
    target = clone / "prepared" / "miniimagenet.safetensors"

    def prepare(raw: str, *more: str) -> tuple[int, str]:
        return snakemake(
            clone, *more, str(target), "--config", "suite=minis.yaml", f"raw={raw}", f"data={target.parent}"
        )

    assert prepare("raw")[0] == 0
    pickles = target.parent / "miniimagenet" / "train.pkl"
    made = pickles.read_bytes()
    assert planned(prepare("raw", "-n")[1]) == {}
    (clone / "raw" / "MI_raw").touch()  # newer than what was made of it
    assert prepare("raw")[0] == 0
    assert planned(prepare("raw", "-n")[1]) == {}, "made again, so newer"
    assert planned(prepare("nowhere", "-n")[1]) == {}, "nothing is wanted of it"
    status, output = prepare("other")
    assert status == 1
    assert "expected 2 classes, found 3" in output
    assert pickles.read_bytes() == made
    assert target.exists()


def test_short_runs_share_a_job_and_only_a_new_one_is_trained(clone: Path) -> None:
    (clone / "tiny.yaml").write_text(TINY + "resources: {minutes: 1}\n")
    suite, short = clone / "short.yaml", ("--config", "suite=short.yaml")
    (clone / "long.yaml").write_text(TINY.replace("tiny", "long"))
    entries = "  - {config: long.yaml, methods: [sgd], seeds: [0]}\n"
    suite.write_text("weights: false\n" + SUITE.replace("small", "short").replace("[0]", "[0, 1]") + entries)
    status, output = snakemake(clone, *short)
    assert status == 0, output
    out = clone / "results" / "short"
    before = {p: p.read_bytes() for p in (out / "runs").rglob("*") if p.is_file()}
    assert len(before) == 2 * (8 + 5) + 5, "no weights; three more tables of blip"
    assert sorted(log.name for log in (out / "logs" / "train").iterdir()) == [
        "long-sgd-seed0.log",
        "tiny-seed0.log",
        "tiny-seed1.log",
    ]
    assert not list((out / "checkpoints").iterdir())

    suite.write_text(suite.read_text().replace("[0, 1]", "[0, 1, 2]"))
    status, output = snakemake(clone, *short)
    assert status == 0, output
    assert {rule: n for rule, n in planned(output).items() if "train" in rule} == {"train_tiny": 1}
    assert {p: p.read_bytes() for p in before} == before, "with the times at which they were trained"
    for method in ("blip", "ewc"):
        assert (out / "runs" / "tiny" / method / "seed2" / "run.json").exists()

    suite.write_text(suite.read_text().replace("[blip, ewc]", "[blip, ewc, sgd]"))
    status, output = snakemake(clone, *short)
    assert status == 0, output
    assert {rule: n for rule, n in planned(output).items() if "train" in rule} == {"train_tiny": 3}
    assert {p: p.read_bytes() for p in before} == before
    for seed in range(3):
        log = (out / "logs" / "train" / f"tiny-seed{seed}.log").read_text()
        assert re.findall(r"(\w+)/seed\d: complete already", log) == ["blip", "ewc"]
        assert (out / "runs" / "tiny" / "sgd" / f"seed{seed}" / "run.json").exists()

    tiny = (clone / "tiny.yaml").read_text()
    (clone / "tiny.yaml").write_text(tiny.replace("ewc: {", "ewc: {strength: 7, "))
    assert planned(snakemake(clone, *short, "-n")[1])["train_tiny"] == 3
    (clone / "tiny.yaml").write_text(TINY)


def test_variants_are_trained_apart_and_drawn_together(clone: Path) -> None:
    (clone / "apart.yaml").write_text(TINY.replace("tiny", "apart") + "resources: {minutes: 1}\n")
    suite, varied = clone / "varied.yaml", ("--config", "suite=varied.yaml")
    entry = "  - {config: apart.yaml, methods: [blip], vary: {methods.blip.f_prior: [1e-14, 1e-11]}}\n"
    hidden = "  - {config: apart.yaml, methods: [sgd], vary: {network.hidden: [[8], [9]]}}\n"
    plain = "  - {config: apart.yaml, methods: [sgd]}\n"
    suite.write_text(f"name: varied\nseeds: [0, 1]\nexperiments:\n{plain}{entry}")
    status, output = snakemake(clone, *varied)
    assert status == 0, output
    jobs = planned(output)
    training = {rule for rule in jobs if "train" in rule}
    assert training == {"train_apart", "train_apart_f_prior_1e_14", "train_apart_f_prior_1e_11"}
    assert "split" not in jobs, "short runs make theirs themselves"
    assert jobs["figures"] == 2
    out = clone / "results" / "varied"
    assert {p.name for p in (out / "runs").iterdir()} == {"apart", "apart.f_prior-1e-11", "apart.f_prior-1e-14"}
    assert {p.name for p in (out / "figures").iterdir()} == {"apart", "apart.f_prior"}
    assert (out / "figures" / "apart.f_prior" / "ablation.png").stat().st_size > 1000
    assert "| f_prior   | method   | n" in (out / "tables" / "tables.md").read_text()
    (clone / "apart.yaml").write_text(TINY.replace("tiny", "apart"))
    jobs = planned(snakemake(clone, "-n", *varied, "data=elsewhere")[1])
    assert jobs["split"] == 2 * 2, "variants with the same data share a split"
    (clone / "apart.yaml").write_text(TINY.replace("tiny", "apart") + "resources: {minutes: 1}\n")
    suite.write_text(suite.read_text() + hidden)
    jobs = planned(snakemake(clone, *varied, "-n")[1])
    assert {rule for rule in jobs if "train" in rule} == {"train_apart_hidden_8", "train_apart_hidden_9"}


def test_training_asks_for_a_gpu_and_claims_one_unless_it_is_for_the_cpu(clone: Path) -> None:
    (clone / "tiny.yaml").write_text(TINY)
    asked = {}
    for device in ("auto", "cuda:1", "cpu"):
        output = snakemake(
            clone, "-n", "-p", "--config", "suite=small.yaml", f"device={device}", "jobs_per_gpu=3", "results=elsewhere"
        )[1]
        command = re.search(r"^ *(.*blip train .*--method ewc .*)$", output, re.M)
        job = re.search(r"^Job \d+: train_tiny_blip, seed 0 \(\d+ min, \d+ MB, (\d) GPU\): ", output, re.M)
        assert command
        assert job
        asked[device] = job[1] == "1", "blip on-gpu --jobs-per-gpu 3 -- blip train " in command[1]
    assert asked == {"auto": (True, True), "cuda:1": (True, False), "cpu": (False, False)}


@pytest.mark.parametrize("name", ["slurm", "kubernetes"])
def test_a_profile_has_no_key_that_the_default_one_takes_back(name: str) -> None:
    default, other = (
        yaml.safe_load((ROOT / "workflow" / "profiles" / profile / "config.yaml").read_text())
        for profile in ("default", name)
    )
    assert other["executor"] == name
    assert other["retries"] == 2
    assert not default.keys() & other.keys(), "of two profiles the default one is read last"


def test_a_failed_job_keeps_its_log_and_the_others_go_on(clone: Path) -> None:
    (clone / "tiny.yaml").write_text(TINY)
    # Larger than the machine's memory, which only training looks at.
    (clone / "bad.yaml").write_text(
        SUITE.replace("small", "bad") + "    set: {network_changes.ewc.hidden: [100000000000]}\n"
    )
    status, output = snakemake(clone, "--config", "suite=bad.yaml")
    assert status == 1
    assert "parameters and their gradients take" in output
    out = clone / "results" / "bad"
    assert "parameters and their gradients take" in (out / "logs" / "train" / "tiny-ewc-seed0.log").read_text()
    assert not (out / "runs" / "tiny" / "ewc" / "seed0" / "accuracy.csv").exists()
    assert (out / "runs" / "tiny" / "blip" / "seed0" / "accuracy.csv").exists()


def test_a_run_does_not_pass_for_one_that_failed(clone: Path) -> None:
    """Snakemake puts back what was there before a job that fails, and takes that for what the job was to make."""
    (clone / "tiny.yaml").write_text(TINY)
    suite, config = clone / "again.yaml", ("--config", "suite=again.yaml")
    text = SUITE.replace("small", "again").replace("[blip, ewc]", "[ewc]")
    suite.write_text(text)
    assert snakemake(clone, *config)[0] == 0
    record = clone / "results/again/runs/tiny/ewc/seed0/run.json"
    before = record.read_bytes()
    suite.write_text(text + "    set: {network_changes.ewc.hidden: [100000000000]}\n")
    assert snakemake(clone, *config)[0] == 1
    assert record.read_bytes() == before, "nothing is lost"
    jobs = planned(snakemake(clone, *config, "-n")[1])
    assert jobs["train_tiny_ewc"] == jobs["tables"] == jobs["figures"] == jobs["page"] == 1
    suite.write_text(text)
    status, output = snakemake(clone, *config)
    assert status == 0, output
    assert record.read_bytes() == before, "complete already"
    assert planned(snakemake(clone, *config, "-n")[1]) == {}


GAMES = """\
name: two
games: [SpaceInvaders, KungFuMaster]
network: {channels: [4, 4, 4], hidden: 8}
ppo: {steps: 64, environments: 2, rollout: 16, mini_batches: 2, epochs: 1}
evaluation: {episodes: 1, max_frames: 400}
methods:
  blip: {f_prior: 1e-13, fisher_batch_size: 8, fisher_batches: 2, n: max-fan-in-outputs, initialisation: network}
"""


def test_games_are_trained_and_shown(clone: Path) -> None:
    (clone / "two.yaml").write_text(GAMES)
    (clone / "games.yaml").write_text("name: played\nseeds: [0]\nexperiments: [{config: two.yaml}]\n")
    status, output = snakemake(clone, "--config", "suite=games.yaml", "device=cpu")
    assert status == 0, output
    jobs = {"train_two_blip": 1, "tables": 1, "figures": 1, "games": 1, "page": 1, "default": 1}
    assert planned(output) == jobs, "and no data"
    results = clone / "results" / "played"
    pictures = {path.name for path in (results / "games").rglob("*.gif")}
    assert pictures == {"1-1.gif", "2-1.gif", "2-2.gif"}
    assert (results / "index.html").read_text().count('<img src="data:image/gif') == 3
    assert (results / "figures" / "two" / "returns.png").exists()


APPTAINER = """\
#!/bin/sh
test "$1" = --version && echo apptainer version 1.4.0 && exit
echo "$APPTAINER_BIND" >> "$BINDS"
while test "$1" != sh -a "$1" != bash; do shift; done
exec "$@"
"""


def test_every_figure_has_a_caption_in_the_report() -> None:
    captions = (ROOT / "workflow/report/figure.rst").read_text()
    drawn = {path.stem for path in (ROOT / "results/recorded").glob("*/figures/*/*.png")}
    assert len(drawn) > 8
    assert not [figure for figure in drawn if f'"{figure}": ' not in captions]


def test_finished_runs_alone_are_recorded(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/blip"  # draws a table and two pictures where it is told to
    program.write_text('#!/bin/sh\ntest "$3" = --out && mkdir -p "$4" && touch "$4/$1" "$4/a.pdf" "$4/a.png"\n')
    program.chmod(0o755)
    for run, finished in {
        "a/blip/seed0": True,
        "a/blip/seed1": False,
        "b/ewc/seed0": False,
        "c/ewc/seed0": True,
    }.items():
        (tmp_path / "out/runs" / run).mkdir(parents=True)
        (tmp_path / "out/runs" / run / "cost.csv").touch()
        if finished:
            (tmp_path / "out/runs" / run / "run.json").touch()
    make = ["make", "-o", ".venv/installed", "recorded", "FROM=out", "BIN=bin"]
    for _ in range(2):  # a second time it takes the same
        subprocess.run(make, cwd=tmp_path, check=True, capture_output=True)
        kept = sorted(str(p.relative_to(tmp_path / "results/recorded")) for p in tmp_path.glob("results/**/*.*"))
        files = [f"{e}/{file}" for e in "ac" for file in ("figures/a.png", "tables/a.pdf", "tables/a.png")]
        runs = [
            f"{run}/{file}"
            for run in ("a/runs/a/blip/seed0", "c/runs/c/ewc/seed0")
            for file in ("cost.csv", "run.json")
        ]
        assert kept == sorted(files + runs)


def test_folders_elsewhere_are_bound_for_apptainer(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    program, binds = tmp_path / "bin" / "apptainer", tmp_path / "binds.txt"
    program.write_text(APPTAINER)
    program.chmod(0o755)
    (tmp_path / "image").mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("BINDS", str(binds))
    monkeypatch.setenv("APPTAINER_BIND", "/mine")
    folders = (f"results={tmp_path / 'not' / 'yet'}", "data=bound/data", f"container={tmp_path / 'image'}")
    arguments = ("--sdm", "apptainer", "--until", "dataset", "--config", "suite=small.yaml", *folders)
    status, output = snakemake(clone, *arguments)
    assert status == 0, output
    assert set(binds.read_text().split()) == {f"/mine,{tmp_path}"}
