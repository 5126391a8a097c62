"""Commands that prepare data."""

import argparse

from blip.cli.arguments import (
    Commands,
    add_command,
    add_data_folders,
    add_experiment,
    add_folder,
    add_seeds,
    add_variation,
    count,
    experiment,
    path,
)
from blip.errors import BlipError


def add_data(commands: Commands) -> None:
    parser = add_command(commands, "data", _data, "prepare data sets and the splits of an experiment")
    add_experiment(parser)
    add_variation(parser)
    add_data_folders(parser)
    add_seeds(parser, "one split for each")
    parser.add_argument("--source", help="make this data set alone, anew, and no split")
    parser.add_argument("--croissant", action="store_true", help="describe each data set in Croissant, beside its file")


def _data(options: argparse.Namespace) -> None:
    from blip.data import dataset_path, prepare_dataset, prepare_experiment
    from blip.data.croissant import write_croissant

    asked = experiment(options, options.experiment)
    if not asked.sources:
        raise BlipError(f"{options.experiment}: it needs no data")
    sources = {source.name: source for source in asked.sources}
    if options.source is None:
        for seed in options.seeds or [0]:
            print(prepare_experiment(asked.split_name, asked.data, seed, options.raw, options.data))
    elif options.source not in sources:
        raise BlipError(f"--source {options.source}: {options.experiment} has {', '.join(sources)}")
    else:
        sources = {options.source: sources[options.source]}
        print(prepare_dataset(sources[options.source], options.raw, options.data))
    for source in sources.values() if options.croissant else ():
        print(write_croissant(dataset_path(options.data, source)))


def add_miniimagenet(commands: Commands) -> None:
    parser = add_command(
        commands, "miniimagenet", _miniimagenet, "MI_raw.zip or MI_raw/<class>/<image> to train.pkl and test.pkl"
    )
    add_folder(parser, "--raw", "data/raw", "folder of MI_raw")
    add_folder(parser, "--out", "data/prepared/miniimagenet", "folder to write to")
    parser.add_argument("--classes", type=count, default=100, help="that there must be (default: %(default)s)")
    parser.add_argument("--images", type=count, default=600, help="that a class must have (default: %(default)s)")


def _miniimagenet(options: argparse.Namespace) -> None:
    from blip.data.miniimagenet import build_pickles

    paths = build_pickles(options.raw, options.out, classes=options.classes, images_per_class=options.images)
    print(*paths, sep="\n")


def add_stand_in(commands: Commands) -> None:
    parser = add_command(commands, "stand-in", _stand_in, "generate small images that stand in for the raw data sets")
    parser.add_argument("raw", type=path, help="folder to write them to; give it as --raw afterwards")


def _stand_in(options: argparse.Namespace) -> None:
    from blip.data import write_stand_ins

    print(*write_stand_ins(options.raw), sep="\n")


COMMANDS = (add_data, add_miniimagenet, add_stand_in)
