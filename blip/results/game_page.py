"""The page of games: what each method's agent plays like, after learning each game, as moving pictures in a grid."""

from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from blip.errors import BlipError
from blip.files import atomic_write
from blip.games.replay import replay
from blip.results.loading import Runs
from blip.results.metrics import reference_scores
from blip.results.replays import replay_rows

SHOWN_STEPS = 600
"""Of each game, from its start: 40 seconds of play."""
STEPS_PER_PICTURE = 2
MILLISECONDS = 130
"""Of a picture. A step is four frames of a screen with 60 a second; GIFs count time in 10 ms."""

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>Games</title>
<style>
  body {{ font-family: sans-serif; margin: 2em; }}
  table {{ border-collapse: collapse; }}
  th, td {{ padding: .4em .6em; text-align: center; vertical-align: top; font-size: .85em; }}
  th[scope=row] {{ text-align: right; vertical-align: middle; }}
  img {{ width: 120px; image-rendering: pixelated; display: block; margin: 0 auto .3em; }}
</style>
<h1>Games</h1>
<p>Row i, column j: the agent plays game j after learning the first i games. The picture is the start of one game of the
evaluation, played again; below it that game's return, and the mean return of all games of the evaluation.</p>
{sections}
</html>
"""


def write_game_page(runs: Runs, out_dir: Path) -> Path:
    """Write index.html and <experiment>/<method>/<i>-<j>.gif for the first seed of each method; the page's path.

    Raises BlipError where there is no game, or where this emulator's game is not the one that was recorded.
    """
    sections: list[str] = []
    files: dict[Path, bytes] = {}
    for name in runs.experiments():
        selected = runs.of(name)
        if "replays" in selected.tables:
            sections.append(f"<h2>{escape(name)}</h2>\n<p>{escape(_reference(selected))}</p>")
            for method in selected.methods():
                grid, pictures = _grid(selected, method)
                sections.append(grid)
                files |= {out_dir / path: picture for path, picture in pictures.items()}
    if not sections:
        raise BlipError(f"{', '.join(runs.experiments())}: no games, expected runs on games")
    for path, picture in files.items():  # all or nothing
        atomic_write(path, picture)
    page = out_dir / "index.html"
    atomic_write(page, PAGE.format(sections="\n".join(sections)))
    return page


def _reference(runs: Runs) -> str:
    returns = zip(runs.tasks, reference_scores(runs)["chance"], strict=True)
    return "Mean returns of the random agent: " + ", ".join(f"{game} {value:.1f}" for game, value in returns) + "."


def _grid(runs: Runs, method: str) -> tuple[str, dict[Path, bytes]]:
    """The table of one method, and its pictures."""
    games, seed = runs.tasks, runs.runs.loc[runs.runs["method"] == method, "seed"].min()
    cells, pictures = {}, {}
    for (i, j), row in replay_rows(runs, method).items():
        path = Path(str(row["experiment"]), method, f"{i + 1}-{j + 1}.gif")
        pictures[path] = moving_picture(games[j], row)
        text = f"{row['return']:g}<br>mean {row['score']:.1f} (n = {row['n']})"
        label = escape(f"{games[j]} after {i + 1} games, {method}")
        cells[i, j] = f'<img src="{escape(path.as_posix())}" loading="lazy" alt="{label}">{text}'
    head = "".join(f"<th>{escape(game)}</th>" for game in games)
    body = "\n".join(
        f'<tr><th scope="row">after {i + 1}: {escape(games[i])}</th>'
        + "".join(f"<td>{cells.get((i, j), '')}</td>" for j in range(len(games)))
        + "</tr>"
        for i in range(len(games))
    )
    return f"<h3>{escape(method)}, seed {seed}</h3>\n<table>\n<tr><th></th>{head}</tr>\n{body}\n</table>", pictures


def moving_picture(game: str, recorded: dict[str, Any]) -> bytes:
    """The GIF of a row of the table `replays`. The whole game is played again, so that its return is known to agree."""
    steps = replay(game, int(recorded["environment_seed"]), str(recorded["actions"]))
    pictures, result = [], 0.0
    for step, (screen, so_far) in enumerate(steps):
        result = so_far
        if step < SHOWN_STEPS and step % STEPS_PER_PICTURE == 0:
            pictures.append(Image.fromarray(screen).quantize(64, Image.Quantize.FASTOCTREE))
    if result != recorded["return"] or not pictures:
        raise BlipError(
            f"{game}: played again it returns {result:g}, expected {recorded['return']:g}: another version of ale-py?"
        )
    file = BytesIO()
    pictures[0].save(file, "gif", save_all=True, append_images=pictures[1:], duration=MILLISECONDS, loop=0)
    return file.getvalue()
