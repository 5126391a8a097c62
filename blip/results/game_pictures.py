"""What each method's agent plays like after learning each game, as moving pictures."""

from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from blip.errors import BlipError
from blip.files import atomic_write
from blip.games.replay import replay
from blip.results.loading import Runs
from blip.results.replays import picture_path, replay_rows

SHOWN_STEPS = 600
"""Of each game, from its start: 40 seconds of play."""
STEPS_PER_PICTURE = 2
MILLISECONDS = 130
"""Of a picture. A step is four frames of a screen with 60 a second; GIFs count time in 10 ms."""


def write_game_pictures(runs: Runs, out_dir: Path) -> list[Path]:
    """Write what `picture_path` says for the first seed of each method; the paths written.

    Raises BlipError where there is no game, or where this emulator's game is not the one that was recorded.
    """
    files: dict[Path, bytes] = {}
    for selected in map(runs.of, runs.experiments()):
        for method in selected.methods() if "replays" in selected.tables else []:
            for place, row in replay_rows(selected, method).items():
                picture = moving_picture(selected.tasks[place[1]], row)
                files[out_dir / picture_path(str(row["experiment"]), method, *place)] = picture
    if not files:
        raise BlipError(f"{', '.join(runs.experiments())}: no games, expected runs on games")
    for path, picture in files.items():  # all or nothing
        atomic_write(path, picture)
    return list(files)


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
