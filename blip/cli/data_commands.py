"""Commands that prepare data."""

import argparse

from blip.cli import arguments
from blip.cli.arguments import argument, command, count, experiment, folder, path
from blip.errors import BlipError


@command(
    "data",
    "prepare data sets and the splits of an experiment",
    *(arguments.EXPERIMENT, arguments.CHANGES, arguments.VARIATION, arguments.RAW_DATA, arguments.PREPARED_DATA),
    arguments.seeds("one split for each"),
    argument("--source", help="make this data set (or that of this file) alone, anew, and no split"),
    argument("--croissant", action="store_true", help="describe each data set in Croissant, beside its file"),
)
def data(options: argparse.Namespace) -> None:
    from blip.data import dataset_path, prepare_dataset, prepare_experiment, split_path
    from blip.data.croissant import write_croissant

    asked = experiment(options, options.experiment)
    if not asked.sources:
        raise BlipError(f"{options.experiment}: it needs no data")
    sources = {dataset_path(options.data, source): source for source in asked.sources}
    if options.source is None:
        for seed in options.seeds or [0]:
            prepare_experiment(asked.split_name, asked.data, seed, options.raw, options.data)
            print(split_path(options.data, asked.split_name, seed))
    else:
        sources = {path: s for path, s in sources.items() if options.source in (s.name, path.stem)}
        if not sources:
            named = ", ".join(source.name for source in asked.sources)
            raise BlipError(f"--source {options.source}: {options.experiment} has {named}")
        for source in sources.values():
            print(prepare_dataset(source, options.raw, options.data))
    for file in sources if options.croissant else ():
        print(write_croissant(file))


@command(
    "miniimagenet",
    "MI_raw.zip or MI_raw/<class>/<image> to train.pkl and test.pkl",
    folder("--raw", "data/raw", "folder of MI_raw"),
    folder("--out", "data/prepared/miniimagenet", "folder to write to"),
    argument("--classes", type=count, default=100, help="that there must be (default: %(default)s)"),
    argument("--images", type=count, default=600, help="that a class must have (default: %(default)s)"),
)
def miniimagenet(options: argparse.Namespace) -> None:
    from blip.data.miniimagenet import build_pickles

    paths = build_pickles(options.raw, options.out, classes=options.classes, images_per_class=options.images)
    print(*paths, sep="\n")


@command(
    "stand-in",
    "generate small images that stand in for the raw data sets",
    argument("raw", type=path, help="folder to write them to; give it as --raw afterwards"),
)
def stand_in(options: argparse.Namespace) -> None:
    from blip.data import write_stand_ins

    print(*write_stand_ins(options.raw), sep="\n")
