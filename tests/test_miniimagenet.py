"""mini-ImageNet: MI_raw to pickles to a data set; what is refused, and what a killed build leaves."""

import hashlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from test_data import one_line
from test_sources import Malicious

from blip.data import DataConfig, SourceConfig, load_sequence, prepare_dataset, prepare_experiment, storage
from blip.data import miniimagenet as mini
from blip.data.folders import MARKER, stands_in
from blip.data.raw import raw_identity, read_source
from blip.errors import BlipError
from blip.files import sha256

REAL = ROOT.parent / "shared" / "data"
CLASSES, IMAGES = 5, 12
COUNTS = {"classes": CLASSES, "images_per_class": IMAGES}
SOURCE = SourceConfig(name="miniimagenet", classes_per_task=1, raw_classes=CLASSES, raw_images_per_class=IMAGES)
random = np.random.default_rng(0)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A raw folder with five classes of twelve images, each image of one colour: its class, its number, 7."""
    for label in range(CLASSES):
        folder = tmp_path / "raw" / "MI_raw" / f"n{label}"
        folder.mkdir(parents=True)
        for i in reversed(range(IMAGES)):
            Image.new("RGB", (84, 84), (40 * label, 20 * i, 7)).save(folder / f"{i:02}.png")
    return tmp_path / "raw"


def build(raw: Path, out: Path) -> dict[str, Any]:
    paths = mini.build_pickles(raw, out, **COUNTS)
    return {path.stem: pickle.loads(path.read_bytes()) for path in paths}


def zipped(raw: Path, prefix: str = "MI_raw/") -> Path:
    """The same images as a zip, in another folder."""
    folder = raw.parent / "zipped"
    folder.mkdir()
    with zipfile.ZipFile(folder / "MI_raw.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((raw / "MI_raw").glob("*/*"), reverse=True):
            archive.write(path, f"{prefix}{path.parent.name}/{path.name}")
    return folder


def hashes(out: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in sorted(out.iterdir())}


def test_the_pickles_are_what_the_published_loader_reads(raw: Path, tmp_path: Path) -> None:
    parts = build(raw, tmp_path / "out")
    assert {part: len(content["images"]) for part, content in parts.items()} == {"train": 50, "test": 10}
    seen = set()
    for content in parts.values():
        assert set(content) == {"images", "labels"}
        assert all(type(label) is int for label in content["labels"])
        # As the published loader takes them: all images of some classes as one array, one image through PIL.
        array = np.array([x for x, y in zip(content["images"], content["labels"], strict=True) if y in (1, 3)])
        assert (array.dtype, array.shape[1:]) == (np.uint8, (84, 84, 3))
        Image.fromarray(array[0])
        for image, label in zip(content["images"], content["labels"], strict=True):
            assert tuple(image[5, 5]) == (40 * label, image[0, 0, 1], 7), "RGB, not BGR"
            seen.add((label, int(image[0, 0, 1])))
    assert len(seen) == CLASSES * IMAGES, "every image once"


def test_the_split_is_numpys_published_one_over_sorted_names(raw: Path, tmp_path: Path) -> None:
    parts = build(raw, tmp_path / "out")
    np.random.seed(1234)  # the published script's, in its global form
    for label in range(CLASSES):
        numbers = list(range(IMAGES))
        np.random.shuffle(numbers)
        for part, expected in (("train", numbers[:10]), ("test", numbers[10:])):
            content = parts[part]
            images = [x for x, y in zip(content["images"], content["labels"], strict=True) if y == label]
            assert [int(x[0, 0, 1]) // 20 for x in images] == expected


def test_the_manifest_says_which_image_went_where(raw: Path, tmp_path: Path) -> None:
    parts = build(raw, tmp_path / "out")
    lines = (tmp_path / "out" / "manifest.csv").read_text().splitlines()
    assert lines[0] == "part,position,label,class,file"
    assert len(lines) == 1 + CLASSES * IMAGES
    for line in lines[1:]:
        part, position, label, name, file = line.split(",")
        image = parts[part]["images"][int(position)]
        assert parts[part]["labels"][int(position)] == int(label)
        assert tuple(image[0, 0]) == (40 * int(name[1:]), 20 * int(file[:2]), 7)


def test_checksums_are_those_of_the_files(raw: Path, tmp_path: Path) -> None:
    build(raw, tmp_path / "out")
    sums = dict(reversed(line.split("  ")) for line in (tmp_path / "out" / "SHA256SUMS").read_text().splitlines())
    assert set(sums) == {"train.pkl", "test.pkl", "manifest.csv"}
    for name, checksum in sums.items():
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == checksum


@pytest.mark.parametrize("prefix", ["MI_raw/", "", "some/where/"])
def test_folder_and_zip_give_the_same_bytes_in_whatever_order_they_list_their_files(
    prefix: str, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(raw, tmp_path / "a")
    build(zipped(raw, prefix), tmp_path / "b")
    iterdir = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: iter(sorted(iterdir(path), reverse=True)))
    build(raw, tmp_path / "c")
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b") == hashes(tmp_path / "c")


def test_other_files_are_passed_over(raw: Path, tmp_path: Path) -> None:
    build(raw, tmp_path / "a")
    for name in ("README.txt", "n0/Thumbs.db", "n1/._00.png", "n2/labels.csv", ".DS_Store"):
        (raw / "MI_raw" / name).write_bytes(b"no image")
    build(raw, tmp_path / "b")
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
    archive = zipped(raw) / "MI_raw.zip"
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("__MACOSX/MI_raw/n0/00.png", b"no image")
    build(archive.parent, tmp_path / "c")
    assert hashes(tmp_path / "a") == hashes(tmp_path / "c")


def test_images_of_every_kind_and_size_become_colour_and_84_pixels(raw: Path, tmp_path: Path) -> None:
    folder = raw / "MI_raw" / "n0"
    odd = [
        Image.new("L", (30, 100), 90),
        Image.new("RGBA", (84, 84), (90, 90, 90, 255)),
        Image.new("RGB", (200, 10), (90, 90, 90)).quantize(4),
        Image.new("LA", (84, 85), (90, 255)),
    ]
    for i, image in enumerate(odd):
        image.save(folder / f"{i:02}.png")
    parts = build(raw, tmp_path / "out")
    shapes = {image.shape for content in parts.values() for image in content["images"]}
    assert (100, 30, 3) in shapes, "in the pickles as they are"
    data = mini.read_pickles(tmp_path / "out")
    assert data.train_images.shape == (50, 3, 84, 84)
    grey = [image for images in (data.train_images, data.test_images) for image in images if (image == 90).all()]
    assert len(grey) == len(odd)


def change_zip(raw: Path, change: Callable[[zipfile.ZipFile], object]) -> None:
    """Put a zip in place of the folder, changed."""
    archive = zipped(raw) / "MI_raw.zip"
    with zipfile.ZipFile(archive, "a") as file:
        change(file)
    for path in sorted((raw / "MI_raw").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (raw / "MI_raw").rmdir()
    archive.rename(raw / "MI_raw.zip")


def cut(path: Path, share: float = 0.5) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda r: cut(r / "MI_raw/n3/05.png"), "n3/05.png: not a readable image"),
        (lambda r: (r / "MI_raw/n3/05.png").write_bytes(b""), "n3/05.png: not a readable image"),
        (lambda r: (r / "MI_raw/n3/05.png").unlink(), "class n3: expected 12 images, found 11"),
        (lambda r: [p.unlink() for p in (r / "MI_raw/n1").glob("[!3]*")], "expected 5 classes, found 4"),
        (lambda r: [p.unlink() for p in (r / "MI_raw/n1").glob("0[!3]*")], "class n1: expected 12 images, found 3"),
        (lambda r: (r / "MI_raw/n0/99.jpg").write_bytes(b""), "class n0: expected 12 images, found 13"),
        (lambda r: (r / "MI_raw").rename(r / "other"), "mini-ImageNet is not there"),
        (lambda r: change_zip(r, lambda z: z.writestr("../evil.png", b"")), "it holds the path '../evil.png'"),
        (lambda r: change_zip(r, lambda z: z.writestr("MI_raw/../../n0/x.png", b"")), "which leads out of it"),
        (lambda r: change_zip(r, lambda z: z.writestr("/etc/n0/evil.png", b"")), "which leads out of it"),
        (lambda r: change_zip(r, lambda z: z.writestr("C:/n0/evil.png", b"")), "which leads out of it"),
        (lambda r: change_zip(r, lambda z: z.writestr("two/n0/x.png", b"")), "in one folder, found MI_raw, two"),
        (lambda r: change_zip(r, lambda z: z.writestr("./", b"") or z.writestr("two/n0/x.png", b"")), "in one folder"),
        (lambda r: change_zip(r, lambda z: None) or cut(r / "MI_raw.zip", 0.9), "damaged zip file"),
        (lambda r: change_zip(r, lambda z: None) or spoil(r / "MI_raw.zip"), "cannot be read: "),
    ],
)
def test_bad_raw_images_are_named_in_one_line_and_nothing_is_left(
    change: Callable[[Path], object], expected: str, raw: Path, tmp_path: Path
) -> None:
    change(raw)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(BlipError) as error:
        build(raw, tmp_path / "out")
    assert expected in one_line(error)
    assert str(raw) in str(error.value)
    assert not [path for path in set(tmp_path.rglob("*")) - before if path.is_file()]


def spoil(archive: Path) -> None:
    """Flip a byte in the middle of the first file's content."""
    content = bytearray(archive.read_bytes())
    content[80] ^= 0xFF
    archive.write_bytes(content)


def test_what_is_complete_is_left_alone_and_what_is_damaged_is_made_again(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(raw, out)
    before, times = hashes(out), [path.stat().st_mtime_ns for path in out.iterdir()]
    build(raw, out)
    assert [path.stat().st_mtime_ns for path in out.iterdir()] == times
    for name in ("train.pkl", "manifest.csv", "SHA256SUMS"):
        cut(out / name)
        with pytest.raises(BlipError, match="does not have its checksum"):
            mini.read_pickles(out)
        build(raw, out)
        assert hashes(out) == before
    Image.new("RGB", (84, 84), (1, 2, 3)).save(raw / "MI_raw" / "n0" / "00.png")
    (raw / "MI_raw" / "n0" / "00.png").rename(raw / "MI_raw" / "n0" / "new.png")
    build(raw, out)
    assert hashes(out) != before


def test_a_build_killed_anywhere_and_run_again_gives_the_same_bytes(raw: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    build(raw, whole)
    # The child stops before every twentieth image until it is killed, so that it dies in the middle of the work.
    script = f"""
import sys, time
from pathlib import Path
from blip.data import miniimagenet as mini
decode, count = mini.decode_image, 0
def slowly(*arguments):
    global count
    count += 1
    if count == int(sys.argv[1]):
        print("now", flush=True)
        time.sleep(600)
    return decode(*arguments)
mini.decode_image = slowly
mini.build_pickles(Path({str(raw)!r}), Path({str(out)!r}), classes={CLASSES}, images_per_class={IMAGES})
"""
    for images in (3, 30, 58):
        child = subprocess.Popen([sys.executable, "-c", script, str(images)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"now\n"
        time.sleep(0.05)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert not (out / "SHA256SUMS").exists()
        assert not (out / "train.pkl").exists()
    build(raw, out)
    assert hashes(out) == hashes(whole)
    assert not list(out.glob(".*")), "what killed processes left is gone"


# Pickles to a data set


def test_pickles_of_the_published_script_are_read_too(tmp_path: Path) -> None:
    images = [random.integers(0, 256, (84, 84, 3), dtype=np.uint8) for _ in range(6)]
    folder = tmp_path / "miniimagenet"
    folder.mkdir()
    for name in ("train.pkl", "test.pkl"):
        (folder / name).write_bytes(pickle.dumps({"images": images, "labels": [0, 0, 1, 1, 2, 2]}, 3))
    source = SourceConfig(name="miniimagenet", raw_classes=3, raw_images_per_class=4)
    data = read_source(source, tmp_path, tmp_path / "prepared")
    np.testing.assert_array_equal(data.train_images.transpose(0, 2, 3, 1), images)
    assert data.classes == ("0", "1", "2")
    assert not (tmp_path / "prepared").exists()
    for wrong, said in (
        ({}, "100 classes of miniimagenet, found 3"),
        ({"raw_classes": 3}, "0: expected 600 images, .* 4"),
    ):
        with pytest.raises(BlipError, match=said):
            read_source(SourceConfig(name="miniimagenet", **wrong), tmp_path, tmp_path / "prepared")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "refused: damaged"),
        (pickle.dumps([]), "expected a dict of images and labels"),
        (pickle.dumps({"images": [], "labels": []}), "as many labels (int) as images"),
        (pickle.dumps({"images": 5, "labels": [0]}), "expected a list of images"),
        (pickle.dumps({"images": [1, 2], "labels": [[0], [1, 2]]}), "expected a list of images"),
        (pickle.dumps({"images": [np.zeros((2, 2, 3), np.uint8)], "labels": [0, 1]}), "as many labels"),
        (pickle.dumps({"images": [np.zeros((2, 2, 3), np.uint8)], "labels": ["a"]}), "as many labels"),
        (pickle.dumps({"images": [np.zeros((2, 2), np.uint8)], "labels": [0]}), "image 0: expected an array"),
        (pickle.dumps({"images": [np.zeros((2, 2, 3))], "labels": [0]}), "image 0: expected an array"),
        (pickle.dumps({"images": [None], "labels": [0]}), "image 0: expected an array"),
        (pickle.dumps({"images": [np.zeros((2, 2, 3), np.uint8)], "labels": [1]}), "class 0 has no train image"),
    ],
)
def test_bad_pickles_are_named_in_one_line(content: bytes, expected: str, tmp_path: Path) -> None:
    folder = tmp_path / "miniimagenet"
    folder.mkdir()
    for name in ("train.pkl", "test.pkl"):
        (folder / name).write_bytes(content)
    with pytest.raises(BlipError) as error:
        read_source(SourceConfig(name="miniimagenet"), tmp_path, tmp_path)
    assert expected in one_line(error)


def test_a_malicious_pickle_is_refused(tmp_path: Path) -> None:
    for name in ("train.pkl", "test.pkl"):
        (tmp_path / name).write_bytes(pickle.dumps({"images": [Malicious(tmp_path / "ran")], "labels": [0]}))
    with pytest.raises(BlipError, match=r"refused: it names \w+\.mkdir"):
        mini.read_pickles(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_sequence_is_made_of_raw_images_with_their_class_names(raw: Path, tmp_path: Path) -> None:
    config = DataConfig(sources=[SOURCE], shuffle_classes=True, validation=0.2)
    split = prepare_experiment("mini", config, 0, raw, tmp_path / "prepared")
    sequence = load_sequence(split, tmp_path / "prepared")
    assert sorted(sequence.names) == [f"miniimagenet n{label}" for label in range(CLASSES)]
    assert sequence.image_shape == (3, 84, 84)
    for t in range(CLASSES):
        task = sequence.task(t)
        assert (len(task.train), len(task.valid), len(sequence.test(t))) == (8, 2, 2)
        assert (task.train.images[:, 0] == 40 * int(task.classes[0][1:])).all()


def test_raw_images_are_not_needed_once_the_pickles_are_there(raw: Path, tmp_path: Path) -> None:
    _, first = storage.read_dataset(prepare_dataset(SOURCE, raw, tmp_path))
    (raw / "MI_raw").rename(raw / "gone")
    _, again = storage.read_dataset(prepare_dataset(SOURCE, raw, tmp_path))
    assert again.content == first.content


def test_pickles_of_generated_images_say_so_without_these(raw: Path, tmp_path: Path) -> None:
    (raw / MARKER).touch()
    prepare_dataset(SOURCE, raw, tmp_path / "prepared").unlink()
    other = tmp_path / "elsewhere"
    other.mkdir()
    _, record = storage.read_dataset(prepare_dataset(SOURCE, other, tmp_path / "prepared"))
    assert record.stand_in
    pickles = tmp_path / "prepared" / "miniimagenet"
    shutil.copytree(pickles, other / "miniimagenet")
    _, record = storage.read_dataset(prepare_dataset(SOURCE, other, tmp_path / "another"))
    assert record.stand_in, "and where they are the raw data"
    (pickles / MARKER).unlink()  # as those of earlier versions
    _, record = storage.read_dataset(prepare_dataset(SOURCE, raw, tmp_path / "prepared"))
    assert record.stand_in
    (raw / MARKER).unlink()
    (raw / "MI_raw" / "n0").rename(raw / "MI_raw" / "real")
    _, record = storage.read_dataset(prepare_dataset(SOURCE, raw, tmp_path / "prepared"))
    assert not record.stand_in


def test_a_mark_holds_for_what_is_in_the_folder_whatever_the_path(tmp_path: Path) -> None:
    (tmp_path / "stand-in" / "mnist").mkdir(parents=True)
    (tmp_path / "stand-in" / MARKER).touch()
    (tmp_path / "link").symlink_to(tmp_path / "stand-in" / "mnist")
    assert stands_in(tmp_path / "link")
    assert not stands_in(tmp_path / "stand-in" / ".." / "real")


def test_files_beside_the_images_make_no_other_raw_data(raw: Path) -> None:
    before = raw_identity(SOURCE, raw)
    (raw / "MI_raw" / "n0" / "Thumbs.db").touch()
    assert raw_identity(SOURCE, raw) == before
    (raw / "MI_raw" / "n0" / "12.png").touch()
    assert raw_identity(SOURCE, raw) != before


def test_loading_reads_each_file_once_however_many_tasks_there_are(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = prepare_experiment("mini", DataConfig(sources=[SOURCE]), 0, raw, tmp_path)
    opened: list[Path] = []
    read = storage.read_tensors
    monkeypatch.setattr(storage, "read_tensors", lambda path: opened.append(path) or read(path))
    sequence = load_sequence(split, tmp_path)
    for t in range(len(sequence)):
        sequence.task(t)
        sequence.test(t)
    assert opened == [tmp_path / "miniimagenet.safetensors"]


def test_a_data_set_of_other_numbers_is_not_taken_for_the_whole(raw: Path, tmp_path: Path) -> None:
    prepare_experiment("small", DataConfig(sources=[SOURCE]), 0, raw, tmp_path)
    whole = SourceConfig(name="miniimagenet", classes_per_task=5)
    with pytest.raises(BlipError, match=rf", {CLASSES} classes of {IMAGES}\) than those in"):
        prepare_experiment("whole", DataConfig(sources=[whole]), 0, raw, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not (REAL / "cifar100-0.tar.gz").is_file(), reason="CIFAR-100 is not in ../shared/data")
def test_cifar100_stands_in_for_a_hundred_classes_of_six_hundred_images(tmp_path: Path) -> None:
    import tarfile

    for part in range(3):
        with tarfile.open(REAL / f"cifar100-{part}.tar.gz") as archive:
            for member in archive.getmembers():
                if member.isfile() and is_class_image(member.name):
                    member.name = "/".join(["MI_raw", *member.name.split("/")[2:]])
                    archive.extract(member, tmp_path, filter="data")
    mini.build_pickles(tmp_path, tmp_path / "out")
    contents = [pickle.loads((tmp_path / "out" / name).read_bytes()) for name in mini.PICKLES]
    for content, count in zip(contents, (500, 100), strict=True):
        assert np.bincount(content["labels"]).tolist() == [count] * 100
        assert {image.shape for image in content["images"]} == {(32, 32, 3)}


def is_class_image(name: str) -> bool:
    return len(name.split("/")) == 4 and name.endswith(".webp")
