"""What the documentation shows is what works."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import commands
import numpy as np
import pytest
from conftest import ROOT, TINY
from PIL import Image

from blip.cli import main
from blip.errors import BlipError
from blip.methods import METHODS

sys.path.append(str(ROOT / "docs"))
import assemble

PAGES = list(assemble.pages())
CHECKED = {"sh", "python", "yaml"}


def with_blocks(*languages: str) -> list[Path]:
    return [page for page in PAGES if commands.blocks(page, *languages)]


def of_blip(page: Path) -> list[list[str]]:
    """What the commands of a page give to `blip`."""
    found = (commands.of_blip(words) for block in commands.blocks(page, "sh") for words in commands.commands(block))
    return [given for given in found if given]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", with_blocks("python"), ids=name)
def test_python_in_the_pages_runs(page: Path) -> None:
    for block in commands.blocks(page, "python"):
        exec(compile(block, str(page), "exec"), {})


@pytest.mark.parametrize("page", with_blocks("sh"), ids=name)
def test_commands_in_the_pages_are_taken(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = [words for block in commands.blocks(page, "sh") for words in commands.commands(block)]
    assert found
    for words in found:
        commands.check_command(words)


@pytest.mark.parametrize("page", with_blocks("yaml"), ids=name)
def test_yaml_in_the_pages_is_valid(page: Path, tmp_path: Path) -> None:
    for block in commands.blocks(page, "yaml"):
        commands.check_yaml(block, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_nothing_in_the_pages_is_unchecked(page: Path) -> None:
    assert commands.languages(page) <= CHECKED | {""}, "nobody checks a block in another language"
    for block in commands.blocks(page, ""):
        assert not re.search(r"^(\$ )?(blip|make|snakemake) ", block, re.M), "a command in a block that nobody checks"
    known = commands.known_names()
    for program, command in commands.names_in_text(page):
        assert command in known[program], f"{program} {command}"


@pytest.mark.parametrize(
    "wrong",
    [
        "blip trian mnist5 --method blip",
        "blip train mnist5 --method blipp",
        "blip train mnist5 --method blip --sed 1",
        "blip train config/experiments/mnist55.yaml --method blip",
        "blip train mnist5 --method blip --set training.epoch=3",
        "snakemake --cores 2 --config suite=config/papers.yaml",
        "snakemake --cores 2 --config siute=config/paper.yaml",
        "snakemake --profile workflow/profiles/slum",
        "make dmeo",
        "pip install '.[workflows]'",
        "docker run image blip docter",
        "curl example.org",
    ],
)
def test_a_command_that_would_not_be_taken_is_seen(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = next(commands.commands(wrong))
    with pytest.raises((AssertionError, SystemExit, BlipError)):
        commands.check_command(words)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("prepared")
    commands.prepare(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", with_blocks("sh"), ids=name)
def test_commands_in_the_pages_run(page: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of `blip`, also where a container would run them; training is short, on generated images."""
    monkeypatch.chdir(ROOT)
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    for given in of_blip(page):
        if not commands.not_run(given):
            commands.run_shortly(given, tmp_path)


def test_commands_that_are_left_out_are_few_and_there() -> None:
    found = [commands.not_run(given) for page in with_blocks("sh") for given in of_blip(page)]
    assert set(found) == {"", *commands.NOT_RUN}
    assert found.count("") > 0.8 * len(found) > 30


def test_a_command_on_a_folder_that_is_not_there_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(AssertionError):
        commands.run_shortly(["results", str(tmp_path / "nothing")], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("page", with_blocks("sh"), ids=name)
def test_snakemake_plans_what_the_pages_ask_for(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for block in commands.blocks(page, "sh"):
        for words in commands.commands(block):
            if Path(words[0]).name == "snakemake":
                commands.dry_run(words[1:], tmp_path)


def test_a_method_of_ones_own_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ROOT / "docs" / "examples" / "imm_mean.py"
    assert len(source.read_text().splitlines()) <= 60
    monkeypatch.setattr("blip.methods.base.METHODS", METHODS)
    spec = importlib.util.spec_from_file_location("blip.methods.imm_mean", source)
    assert spec
    assert spec.loader
    try:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
        config = tmp_path / "tiny.yaml"
        config.write_text(TINY + "  imm-mean: {strength: 0.5}\n")
        folders = ["--data", tmp_path / "data", "--out", tmp_path / "runs", "--checkpoints", tmp_path / "c"]
        assert main(["train", str(config), "--method", "imm-mean", *map(str, folders)]) == 0
    finally:
        METHODS.pop("imm-mean", None)
    assert (tmp_path / "runs" / "tiny" / "imm-mean" / "seed0" / "accuracy.csv").exists()


def test_a_data_set_of_ones_own_is_a_config_entry(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 4)):
        for label, name in enumerate(("aster", "bellis", "cirsium", "dahlia")):
            folder = tmp_path / "flowers" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 60, (20, 24, 3), dtype=np.uint8)
                pixels[..., label % 3] += 60 * (1 + label // 3)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    folders = ["--raw", tmp_path, "--data", tmp_path / "d", "--out", tmp_path / "runs", "--checkpoints", tmp_path / "c"]
    config = ROOT / "docs" / "examples" / "images.yaml"
    assert main(["train", str(config), "--method", "blip", *map(str, folders)]) == 0
    lines = (tmp_path / "runs" / "flowers" / "blip" / "seed0" / "accuracy.csv").read_text().splitlines()
    assert len(lines) == 1 + 3, "two tasks: the first tested twice, the second once"


def test_every_link_of_the_site_leads_somewhere(tmp_path: Path) -> None:
    """Pages, files, and the very lines of code that pages quote."""
    site = assemble.Site(tmp_path)
    site.write()
    assert (tmp_path / "index.md").exists()
    assert len(list(tmp_path.rglob("*.md"))) > len(PAGES), "and pages with the code that is linked"


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r'"([\w/.-]+\.md)"', (ROOT / "zensical.toml").read_text())
    assert set(map(str, assemble.pages().values())) == set(listed)
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_pages_name_are_there(page: Path) -> None:
    folders = "blip|benchmarks|config|docs|envs|tests|workflow"
    for path in re.findall(rf"`((?:{folders})/[\w./*-]+)`", page.read_text()):
        assert list(ROOT.glob(path)) or path == "blip/methods/imm_mean.py", path


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("[x](nowhere.md)", "nowhere.md: no such file"),
        ("[x](../blip/core/formulas.py#nothing)", "formulas.py has no nothing"),
        ("[`k + 17`](../blip/core/formulas.py#grow_bits)", "grow_bits has no line with k + 17"),
        ("[x](../../outside.md)", "no such file"),
    ],
)
def test_a_link_that_leads_nowhere_is_seen(link: str, said: str, tmp_path: Path) -> None:
    site, page = assemble.Site(tmp_path), ROOT / "docs" / "method.md"
    with pytest.raises(ValueError, match=re.escape(said)):
        site._link(page, Path("method.md"), *re.fullmatch(r"\[(.*)\]\((.*)\)", link).groups())  # type: ignore[union-attr]


def test_a_page_of_a_method_quotes_its_verified_numbers() -> None:
    text = "## One\n\n| method | ours |\n|---|---|\n| `ewc` | 1 |\n| gpm | 2 |\n\n## Two\n\n| a |\n|---|\n| ewc |\n"
    assert assemble.rows_of("ewc", text) == "One\n\n| method | ours |\n|---|---|\n| `ewc` | 1 |"
    assert "has been compared" in assemble.rows_of("hat", text)
    for method in ("ewc", "gpm"):
        assert "\n|---" in assemble.rows_of(method, (ROOT / "docs" / "verified.md").read_text())


def test_the_readmes_numbers_are_those_of_the_page() -> None:
    tables = dict(assemble.tables((ROOT / "README.md").read_text()))
    (_, _, *shown), page = tables["Verified"], (ROOT / "docs" / "verified.md").read_text()
    rows = {(title, *assemble._cells(row)[:3]) for title, table in assemble.tables(page) for row in table}
    assert len(shown) > 10
    for row in shown:
        benchmark, *cells = assemble._cells(row)[:4]
        of_benchmark = [of[1:] for of in rows if of[0].casefold().startswith(benchmark.casefold())]
        assert tuple(cells) in of_benchmark, f"README.md: {row} is not in docs/verified.md"


def test_the_readmes_picture_is_of_the_recorded_runs(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "docs" / "picture.py", tmp_path / "picture.png"]
    subprocess.run(command, check=True)
    drawn, kept = (
        np.asarray(Image.open(path).convert("L")) for path in (tmp_path / "picture.png", ROOT / "docs" / "picture.png")
    )
    assert drawn.shape == kept.shape
    assert np.abs(drawn.astype(float) - kept).mean() < 1, "python docs/picture.py docs/picture.png"


def test_links_are_told_from_code() -> None:
    text = "[`a`](b.md), [`c`](d.md) and `[e](f.md)`\n\n```\n[g](h.md)\n```\n"
    assert [match[2] for match in assemble.links(text)] == ["b.md", "d.md"]


def test_a_link_to_code_leads_to_the_line() -> None:
    path = ROOT / "blip" / "methods" / "ewc.py"
    lines = path.read_text().splitlines()
    assert "def after_task" in lines[assemble.line_of(path, "EWC.after_task") - 1]
    assert "clip_norm = 100.0" in lines[assemble.line_of(path, "EWC", "clip_norm = 100.0") - 1]


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("[x](nowhere.md)", "page does not exist"),
        ("[x](index.md#nowhere)", "anchor does not exist"),
        ("[x][blip.core.nothing]", "unresolved autoref"),
        ("::: blip.core.nothing", "could not be found"),
    ],
)
def test_the_site_is_not_built_with_a_broken_link_or_an_unknown_name(page: str, said: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    pages = tmp_path / "build" / "docs"
    pages.mkdir(parents=True)
    settings = re.sub(r"^nav = \[.*?^\]\n", "", (ROOT / "zensical.toml").read_text(), flags=re.M | re.S)
    (tmp_path / "zensical.toml").write_text(settings)
    (tmp_path / "blip").symlink_to(ROOT / "blip")
    (pages / "index.md").write_text(f"# Page\n\n{page}\n")
    command = [Path(sys.executable).parent / "zensical", "build", "--strict"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode != 0
    assert said in run.stdout + run.stderr
