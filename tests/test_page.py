"""Run folders in, one page out: what it says, and what it does not ask for."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import ROOT
from matplotlib.colors import to_rgb
from page_suite import HOSTILE, TITLE, suite_runs, write_suite
from run_folders import sign, write_run

from blip.cli import main
from blip.errors import BlipError
from blip.record import TaskRecord
from blip.results import Runs, load_runs
from blip.results.charts import (
    MOST_EPOCHS,
    Palette,
    average_chart,
    bits_charts,
    loss_chart,
    matrix_charts,
    paired_charts,
)
from blip.results.comparison import compare
from blip.results.figures import _by_method, draw_history
from blip.results.loading import METHOD_ORDER
from blip.results.page import facts, read_claims, render, write_page
from blip.results.page_sections import Beside, duration
from blip.results.page_style import HEAT_STEPS, outline, page_colours
from blip.results.style import MARKERS, luminance, method_looks

pytest.importorskip("vl_convert", reason="the workflow's packages are not installed")


class Elements(HTMLParser):
    """All start tags of a page, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("suite")
    write_suite(root)
    return root


@pytest.fixture(scope="module")
def runs(folder: Path) -> Runs:
    return suite_runs(folder)


@pytest.fixture(scope="module")
def text(runs: Runs, folder: Path) -> str:
    return render(runs, TITLE, Beside(folder), read_claims(folder / "claims/claims.json"))


def test_the_page_asks_for_nothing_else(text: str, folder: Path) -> None:
    """Addresses are files beside it, places in it, or data; names are text; and a browser is told so."""
    elements = Elements(text).found
    addresses = [a[key] or "" for _, a in elements for key in ("src", "href", "action", "data", "srcset") if key in a]
    assert len(addresses) > 15
    for address in addresses:
        assert address.startswith(("#", "data:")) or (folder / address).is_file(), address
    assert not {key for _, attributes in elements for key in attributes if key.startswith("on")}
    assert [tag for tag, _ in elements].count("script") == 3
    assert "url(" not in text.split("<style>")[1].split("</style>")[0]
    assert "@import" not in text.split("<style>")[1].split("</style>")[0]
    policy = next(a["content"] for tag, a in elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "script-src 'sha256-" in policy
    assert "'unsafe-eval'" not in policy


def test_the_page_names_no_path_of_the_machine(text: str, folder: Path) -> None:
    assert str(folder) not in text
    assert "/tmp/" not in text
    assert f"{Path.home()}/" not in text


def test_hostile_names_are_text(text: str) -> None:
    assert HOSTILE not in text
    assert text.count("&lt;script&gt;document.title") > 5  # title, claim, experiment, task
    assert r"\u003cscript\u003edocument.title" in text  # the task in a chart


def test_the_same_runs_give_the_same_bytes(folder: Path) -> None:
    pages = [folder / name for name in ("first.html", "second.html")]
    write_page(load_runs([folder / "runs"]), pages[0], "A suite")
    command = [sys.executable, "-m", "blip.cli", "page", str(folder / "runs"), "--title", "A suite"]
    options = ["--claims", str(folder / "claims/claims.json"), "--out", str(pages[1])]
    subprocess.run([*command, *options], check=True, env={**os.environ, "PYTHONHASHSEED": "7"}, capture_output=True)
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_what_was_run(runs: Runs, tmp_path: Path) -> None:
    found = dict(facts(runs))
    assert found["Methods"] == ["blip", "ewc", "sgd", "joint", "my-way"]
    assert found["Seeds"] == ["0–4"]
    assert found["Runs"] == ["23"]
    assert found["Data"] == ["real data"]
    assert found["Hardware"] == ["a CPU, 1 CPU thread"]
    assert found["Commit"] == ["c0ffee"]
    assert found["Total time"] == ["1 h 49 min"]
    write_run(tmp_path, method="sgd", seed=7, gpu="a GPU", threads=2, stand_in=True)
    found = dict(facts(load_runs([tmp_path])))
    assert found["Hardware"] == ["a GPU, 2 CPU threads"]
    assert (found["Data"], found["Seeds"]) == (["stand-in data"], ["7"])


def test_the_table_and_its_order(text: str, folder: Path) -> None:
    """Cells as in the tables, and numbers to sort them by."""
    table = text.split('<table class="sortable">')[2]  # of mnist5; names are sorted
    table = table.split("</table>")[0]
    saved = pd.read_csv(folder / "tables/tables/mnist5.csv").set_index("method")
    for method in saved.index:
        row = table.split(f'<th scope="row">{method}</th>')[1].split("</tr>")[0]
        mean, std = (saved.loc[method, f"acc_percent_{name}"] for name in ("mean", "std"))
        assert f'<td data-key="{float(f"{mean:.9g}")}"' in row
        spread = "" if pd.isna(std) else f" ± {std:.2f}"
        assert f">{mean:.2f}{spread}{'<small>[' if saved.loc[method, 'n'] == 5 else '</td>'}" in row
    assert 'class="best"' in table
    assert "−" in table


def test_matrices(runs: Runs) -> None:
    selected = runs.of("mnist5")
    charts, ends = matrix_charts(selected)
    assert list(charts) == sorted(selected.methods())
    cells = {(cell["row"], cell["column"]): cell for cell in charts["sgd"]["data"]["values"]}
    assert sorted(cells) == [(i, j) for i in range(1, 6) for j in range(1, i + 1)]
    scores = selected.raw_scores()
    mine = scores[(scores["method"] == "sgd") & (scores["task_learned"] == 4) & (scores["task"] == 1)]["score"]
    assert cells[5, 2]["value"] == pytest.approx(100 * mine.mean(), rel=1e-5)
    assert cells[5, 2]["std"] == pytest.approx(100 * mine.std(), rel=1e-5)
    assert (cells[5, 2]["n"], cells[5, 2]["on"]) == (5, f"2: {HOSTILE}")
    assert ends[0] < min(cell["value"] for cell in cells.values()) <= ends[1] == 100


def test_tasks_whose_order_differs_have_no_names(tmp_path: Path) -> None:
    for seed, names in enumerate(("ab", "ba")):
        tasks = [TaskRecord(name=name, outputs=2, trained=1) for name in names]
        write_run(tmp_path, method="sgd", seed=seed, R=[[0.9], [0.8, 0.9]], tasks=tasks)
    charts, _ = matrix_charts(load_runs([tmp_path]))
    assert {cell["on"] for cell in charts["sgd"]["data"]["values"]} == {"1", "2"}


def test_bits_of_layers(runs: Runs) -> None:
    charts, most = bits_charts(runs.of("mnist5"))
    assert (list(charts), most) == (["blip"], 20)
    cells = charts["blip"]["data"]["values"]
    assert list(dict.fromkeys(cell["row"] for cell in cells)) == ["0.weight", "0.bias", "2.weight"], "as in the network"
    bits = runs.of("mnist5").tables["bits"]
    last = bits[(bits["task_learned"] == 4) & (bits["layer"] == "0.weight")]
    expected = (last["frozen_bits"] * last["parameters"]).sum() / last["parameters"].sum()
    assert next(c["value"] for c in cells if (c["column"], c["row"]) == (5, "0.weight")) == pytest.approx(expected)


def test_losses_of_epochs(tmp_path: Path) -> None:
    """Means over seeds, tasks side by side; of many epochs some are left out, of a task's never the last."""
    for seed in (0, 1):
        write_run(tmp_path, method="sgd", seed=seed)
        rows = [(t, e, 2.0**-e * (1 + seed)) for t in (0, 1) for e in range(3 if t else 700)]
        frame = pd.DataFrame(rows, columns=["task", "epoch", "valid_loss"])
        path = tmp_path / "mnist5/sgd" / f"seed{seed}" / "history.csv"
        frame.assign(lr=0.1, train_loss=1.0, valid_accuracy=0.5)[pd.read_csv(path).columns].to_csv(path, index=False)
        sign(path.parent)
    runs = load_runs([tmp_path])
    chart = loss_chart(runs, Palette(runs.methods()))
    assert chart is not None
    points = {(p["task"], p["epoch"]): p for p in chart["data"]["values"]}
    assert points[1, 1]["mean"] == 1.5
    assert points[1, 1]["n"] == 2
    assert (points[1, 700]["at"], points[2, 3]["at"]) == (1, pytest.approx(1 + 3 / 700, rel=1e-5))
    assert len(points) < MOST_EPOCHS


def test_epochs_of_which_there_is_one_are_no_curve(tmp_path: Path) -> None:
    write_run(tmp_path, method="sgd")
    path = tmp_path / "mnist5/sgd/seed0/history.csv"
    pd.read_csv(path).query("epoch == 0").to_csv(path, index=False)
    sign(path.parent)
    runs = load_runs([tmp_path])
    assert loss_chart(runs, Palette(runs.methods())) is None is draw_history(runs)


def test_bands_are_of_what_was_seen(tmp_path: Path) -> None:
    """From the lowest seed to the highest: an accuracy has no band above 100 %."""
    for seed, last in enumerate((0.9, 1.0)):
        write_run(tmp_path, method="sgd", seed=seed, R=[[1.0], [last, 1.0]])
    runs = load_runs([tmp_path])
    chart = average_chart(runs, Palette(runs.methods()))
    assert chart is not None
    last = chart["data"]["values"][-1]
    assert last["mean"] == 97.5
    assert (last["low"], last["high"]) == (95, 100)
    assert last["high"] < last["mean"] + last["std"]


def test_of_many_tasks_the_first_are_named(tmp_path: Path) -> None:
    R = [[0.9] * (i + 1) for i in range(13)]
    write_run(
        tmp_path, method="sgd", R=R, tasks=[TaskRecord(name=f"task {t}", outputs=2, trained=8) for t in range(13)]
    )
    about = render(load_runs([tmp_path]), "many", Beside(tmp_path)).split('<p class="about">')[1].split("</p>")[0]
    assert about.startswith("13 tasks: task 0, task 1,")
    assert about.split(" Data")[0].endswith("task 9, ….")


def test_differences_without_an_interval_have_no_line(tmp_path: Path) -> None:
    for method in ("blip", "sgd"):
        write_run(tmp_path, method=method)
    runs = load_runs([tmp_path])
    chart = paired_charts(compare(runs), Palette(runs.methods()))["acc"]
    (row,) = chart["data"]["values"]
    assert row["low"] is None
    assert row["from"] == row["to"] == row["difference"]


def specs_of(text: str) -> list[dict[str, Any]]:
    """The page's charts."""
    specs: list[dict[str, Any]] = json.loads(text.split('id="charts">')[1].split("</script>")[0])["specs"]
    return specs


def ranges(part: Any, channel: str) -> Iterator[dict[str, Any]]:
    """What a channel makes of each method, wherever it stands in a chart."""
    for key, value in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
        if key == channel and isinstance(value, dict) and value.get("field") == "method":
            yield dict(zip(value["scale"]["domain"], value["scale"]["range"], strict=True))
        yield from ranges(value, channel)


def test_a_method_is_drawn_alike_in_every_chart_in_the_figures_and_in_its_switch(runs: Runs, text: str) -> None:
    looks = method_looks(runs.methods())
    figures = _by_method(runs.methods(), looks)
    for i, method in enumerate(runs.methods()):
        look = looks[method]
        assert (figures["palette"][method], figures["markers"][method]) == (look.colour, look.marker)
        assert figures["dashes"][method] == (look.dashes or "")
        drawn = {"color": f"var(--m{i})", "shape": outline(look.marker), "strokeDash": [2 * x for x in look.dashes]}
        for channel, expected in drawn.items():
            found = [made[method] for spec in specs_of(text) for made in ranges(spec, channel) if method in made]
            assert len(found) > 1
            assert all(value == expected for value in found), (method, channel)
        switch = text.split(f'data-switch="{method}">')[1].split("</button>")[0]
        assert f'style="--colour: var(--m{i})"' in switch
        assert f'd="{outline(look.marker)}"' in switch
        assert f'stroke-dasharray="{" ".join(f"{2 * x}" for x in look.dashes)}"' in switch


def test_an_outline_is_that_of_the_marker() -> None:
    assert outline("s") == "M-1,1L1,1L1,-1L-1,-1Z"
    assert outline("o").count("C") == 8
    for marker in MARKERS:
        places = [float(x) for x in re.findall(r"-?[\d.]+", outline(marker))]
        assert 0.8 < max(map(abs, places)) < 1.5, marker


def test_colours_are_those_of_the_figures_in_either_scheme() -> None:
    methods = [*METHOD_ORDER, "another"]
    light, dark = page_colours(methods)
    for i, (method, look) in enumerate(method_looks(methods).items()):
        assert method == methods[i]
        assert (light[f"--m{i}"], dark[f"--m{i}"]) == (look.colour, look.on_dark)
    for scheme in (light, dark):
        for i in range(HEAT_STEPS):
            low, high = sorted(luminance(to_rgb(scheme[name])) for name in (f"--h{i}", f"--n{i}"))
            assert (high + 0.05) / (low + 0.05) >= 4.5, "numbers are read"


def test_claims_and_their_verdicts(text: str, tmp_path: Path) -> None:
    section = text.split('id="claims"')[1].split("</section>")[0]
    assert "−0.30 points" in section
    assert "[−0.40, −0.20]" in section
    assert '<span class="verdict not-run">NOT RUN</span>' in section
    assert "no numbers to compare with" in section
    for content in ("{", "[]", '{"claims": [{"id": "a"}]}'):
        (tmp_path / "claims.json").write_text(content)
        with pytest.raises(BlipError, match=r"claims.json: expected what `blip claims` writes") as error:
            read_claims(tmp_path / "claims.json")
        assert "\n" not in str(error.value)
    whole = {
        **{
            "id": "a",
            "sentence": "A.",
            "verdict": "PASS",
            "measured": 1.0,
            "unit": "%",
            "n": 2,
            "low": None,
            "high": None,
        },
        **{"p": None, "expected": "1", "source": "ours", "note": "", "core_minutes": 1},
    }
    (tmp_path / "claims.json").write_text(json.dumps({"claims": [whole]}))
    assert read_claims(tmp_path / "claims.json")[0].measured == 1
    for key, bad in (("measured", "abc"), ("n", "x"), ("sentence", None), ("verdict", "<b>"), ("p", float("inf"))):
        (tmp_path / "claims.json").write_text(json.dumps({"claims": [whole | {key: bad}]}))
        with pytest.raises(BlipError, match=rf"claims.json: expected what `blip claims` writes: {key}"):
            read_claims(tmp_path / "claims.json")
    with pytest.raises(BlipError, match="cannot be read"):
        read_claims(tmp_path / "none.json")


def test_only_what_lies_beside_the_page_is_linked(text: str, folder: Path, tmp_path: Path) -> None:
    links = [a["href"] for tag, a in Elements(text).found if tag == "a"]
    assert {"tables/tables/mnist5.tex", "tables/tables/mnist5.csv", "figures/mnist5/matrix.pdf"} <= set(links)
    alone = Elements(render(load_runs([folder / "runs"]), "alone", Beside(tmp_path))).found
    assert all((a["href"] or "").startswith("#") for tag, a in alone if tag == "a")
    assert "img" not in [tag for tag, _ in alone]


def test_what_lies_elsewhere_is_linked_from_there(folder: Path, tmp_path: Path) -> None:
    """As the pages of recorded results: made in one folder, of what lies in another."""
    out = tmp_path / "build/pages/suite.html"
    command = ["page", str(folder / "runs"), "--out", str(out), "--beside", str(folder)]
    assert main(command) == 0
    elements = Elements(out.read_text()).found
    links = [a["href"] or "" for tag, a in elements if tag == "a" and not (a["href"] or "").startswith("#")]
    assert len(links) > 5
    for link in links:
        assert link.startswith("../")
        assert (out.parent / link).is_file(), link
    assert [tag for tag, _ in elements].count("img") == 6
    assert "−0.30 points" in out.read_text(), "and its claims"
    assert main([*command[:-1], str(tmp_path / "nowhere")]) == 2
    pages = (ROOT / "Makefile").read_text().split("build/pages/%.html:")[1].split("\n\n")[0]
    assert "--beside results/recorded/$*" in pages


def test_captions_promise_what_is_there(text: str, tmp_path: Path) -> None:
    section = text.split('<section id="e2"')[1].split("</section>")[0]
    note = section.split('<p class="note">')[1].split("</p>")[0]
    assert note.startswith("Mean ± standard deviation over n seeds [95 % interval of the mean, by resampling")
    assert "band: from the lowest seed to the highest" in section
    assert "Mean difference and its 95 % interval" in section
    for method in ("blip", "sgd"):
        write_run(tmp_path, method=method)
    one = render(load_runs([tmp_path]), "one", Beside(tmp_path))
    assert '<p class="note">Of one seed. Seeds of every method: 0 (n = 1). Fewer than 5 seeds: too few' in one
    for promise in ("95 %", "bold:", "standard deviation", "band:"):
        assert promise not in one.split("<main")[1].split("<footer")[0], promise


def test_games_are_in_the_page(folder: Path) -> None:
    elements = Elements(render(load_runs([folder / "runs"]), "games", Beside(folder))).found
    pictures = [a for tag, a in elements if tag == "img"]
    assert [a["alt"] for a in pictures[:3]] == [
        "Boxing after learning 1, blip",
        "Boxing after learning 2, blip",
        "Krull after learning 2, blip",
    ]
    assert len(pictures) == 6
    assert all((a["src"] or "").startswith("data:image/gif;base64,R0lGOD") for a in pictures)


def test_variants_of_an_experiment_are_one_table(tmp_path: Path) -> None:
    for bits, last in ((4, 0.5), (20, 0.7)):
        config = {"variant": {"of": "mnist5", "settings": {"methods.blip.max_bits": bits}}}
        for seed in (0, 1):
            R = [[0.9], [last + seed / 100, 0.9]]
            write_run(tmp_path / "runs", f"mnist5.bits{bits}", "blip", seed, R, config=config)
    runs = load_runs([tmp_path / "runs"])
    assert dict(facts(runs))["Experiments"] == list(runs.groups())
    text = render(runs, "varied", Beside(tmp_path))
    assert text.count("<section") == 1
    assert "mnist5 with other values of max_bits." in text
    rows = text.split("<tbody>")[1].split("</tbody>")[0]
    assert [row.split("<")[0] for row in rows.split('<th scope="row">')[1:]] == ["4", "20"]
    assert ">70.25 ± 0.35</td>" in rows
    specs = specs_of(text)
    drawn = [(p["value"], p["mean"]) for p in specs[0]["data"]["values"]]
    assert drawn == [("4", pytest.approx(70.25)), ("20", pytest.approx(80.25))]
    assert specs[0]["data"]["values"][0]["high"] == pytest.approx(70.5)
    assert text.count('data-chart="') == len(specs) >= 2
    assert text.split('id="e1"')[1].count("<code>blip train</code>") == 4


def test_a_missing_package_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(BlipError, match=r"pip install 'blip-continual\[workflow\]'"):
        write_page(load_runs([folder / "runs"]), folder / "none.html", "none")
    assert not (folder / "none.html").exists()


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (3600, "1 h 0 min"), (4_000_000, "1,111 h 6 min")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
