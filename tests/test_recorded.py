"""What is written about the recorded runs is what they say."""

import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from blip.claims.claim import load_claims
from blip.results import Runs, find_runs, load_runs, run_metrics, summarise, write_tables
from blip.results.tables import COLUMNS

sys.path.append(str(ROOT / "docs"))
import assemble

FOLDERS = sorted(path.parent for path in (ROOT / "results/recorded").glob("*/runs"))
HEADINGS = {column.heading: column.name.removesuffix("_percent") for column in COLUMNS}
NUMBER = re.compile(r"([+-]?\d+(?:\.\d+)?)(?: ± (\d+\.\d+))?(?: \((\d+)\))?")
"""A mean, its standard deviation where there are several seeds, and n where it is said."""
METHOD = re.compile(r"`?([\w-]+)` " + NUMBER.pattern)  # the first sign of a cell is cut off

each_recorded = pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)


@cache
def runs_in(folder: Path) -> Runs:
    return load_runs(find_runs([folder / "runs"]))


@cache
def spread(folder: Path) -> pd.DataFrame:
    """Mean, std and n (columns) of each experiment, method and metric, shares in percent."""
    summary = summarise(run_metrics(runs_in(folder)))
    shares = ~summary["metric"].isin(["memory_mb", "minutes", "peak_memory_mb"])
    summary.loc[shares, ["mean", "std"]] *= 100
    return summary.set_index(["experiment", "method", "metric"])


def rows(text: str) -> Iterator[dict[str, str]]:
    """Of all Markdown tables in a text, each row's cells by their headings."""
    for _, lines in assemble.tables(text):
        heads, _, *body = (assemble._cells(line) for line in lines)
        for cells in body:
            yield dict(zip(heads, cells, strict=True))


def as_written(found: pd.Series, number: tuple[str, str, str]) -> bool:
    """Whether a text's number is what was found: to its decimals, with a deviation where there are several seeds."""
    mean, std, n = number
    decimals = len(mean.partition(".")[2])
    rounded = f"{found['mean']:.{decimals}f}"
    spread_out = found["n"] > 1 and found["std"] > 0
    same = float(mean) == float(rounded) and std == (f"{found['std']:.{decimals}f}" if spread_out else "")
    return same and (not n or int(n) == found["n"])


@each_recorded
def test_tables_beside_the_runs_are_theirs(folder: Path, tmp_path: Path) -> None:
    write_tables(runs_in(folder), tmp_path)
    kept = [path.relative_to(folder / "tables") for path in (folder / "tables").rglob("*") if path.is_file()]
    assert Path("tables.md") in kept
    for path in kept:
        beside, drawn = folder / "tables" / path, tmp_path / path
        if path.suffix == ".csv":  # elsewhere the last bit of a sum may be another
            pd.testing.assert_frame_equal(pd.read_csv(beside), pd.read_csv(drawn), rtol=1e-9)
        else:
            assert beside.read_text() == drawn.read_text(), path


@each_recorded
def test_the_readme_of_recorded_runs_says_what_they_say(folder: Path) -> None:
    for row in rows((folder / "README.md").read_text()):
        method = row.get("method", "")
        for heading in HEADINGS.keys() & row.keys():
            found = spread(folder).loc[folder.name, method, HEADINGS[heading]]
            if row[heading] == "–":
                assert found["n"] == 0, (method, heading)
                continue
            (number,) = NUMBER.findall(row[heading])
            assert as_written(found, number), (method, heading)
            assert int(row["n"]) == found["n"]


def test_the_list_of_recorded_runs_says_what_they_say() -> None:
    listed = list(rows((ROOT / "results/README.md").read_text()))
    recorded = {match[1]: row for row in listed if (match := re.search(r"\(recorded/(\w+)/", row.get("recorded", "")))}
    assert sorted(recorded) == [folder.name for folder in FOLDERS]
    for folder in FOLDERS:
        row = recorded[folder.name]
        methods, transfers = METHOD.findall(row["ACC %"]), NUMBER.findall(row["BWT %"])
        numbers = [int(n) for n in row["n"].split(", ")]  # one for all, or one for each
        seeds = numbers if len(numbers) > 1 else numbers * len(methods)
        assert len(seeds) == len(methods)
        for (method, *accuracy), transfer, n in zip(methods, transfers, seeds, strict=False):
            of_method = spread(folder).xs(method, level="method")  # of one of the experiments, where there are variants
            for metric, number in (("acc", tuple(accuracy)), ("bwt", transfer)):
                of_metric = [found for _, found in of_method.xs(metric, level="metric").iterrows()]
                assert any(as_written(found, number) for found in of_metric), (folder.name, method, metric)
                assert n in [found["n"] for found in of_metric], (folder.name, method)


@pytest.mark.parametrize("name", ["gpm_cifar100", "gpm_pmnist", "wsn_pmnist"])
def test_the_verified_numbers_are_those_of_the_recorded_runs(name: str) -> None:
    (section,) = (text for text in (ROOT / "docs/verified.md").read_text().split("\n## ") if f"/{name}.yaml`)" in text)
    written = [(row["method"], NUMBER.findall(row["ours (n)"])) for row in rows(section) if "ours (n)" in row]
    for method, found in spread(ROOT / "results/recorded" / name).xs((name, "acc"), level=(0, 2)).iterrows():
        of_method = [number for of, numbers in written if of == method for number in numbers]
        assert any(as_written(found, number) for number in of_method), method


def test_what_is_claimed_of_the_published_code_is_its_own_run() -> None:
    accuracy = 100 * np.loadtxt(ROOT / "results/recorded/mnist5/published/mnist5_blip_0.txt")
    last, learned = accuracy[-1], accuracy.diagonal()
    claims = {claim.id: claim for claim in load_claims(ROOT / "config/claims.yaml")}
    for name, found in (
        ("mnist5-accuracy", last.mean()),
        ("mnist5-backward-transfer", (last - learned)[:-1].mean()),
    ):
        claimed = claims[name].equals
        assert claimed is not None
        assert claimed.value == round(float(found), 2)
        assert f"({claimed.value:.2f} " in claims[name].sentence
