"""Raw data to task sequences: what is read, how it is split, and what bad data are told."""

import gzip
import hashlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from pydantic import ValidationError

from blip.data import DataConfig, Examples, SourceConfig, is_present, load_sequence, prepare_dataset, prepare_experiment
from blip.data.dataset import Dataset
from blip.data.folders import read_image
from blip.data.idx import MNIST as MNIST_FILES
from blip.data.raw import read_source
from blip.data.sequences import together
from blip.data.sources import read_digits
from blip.data.splits import Split, make_split, split_path
from blip.data.storage import dataset_path
from blip.errors import BlipError
from blip.files import sha256

REAL = ROOT.parent / "shared" / "data"


def one_line(error: pytest.ExceptionInfo[BlipError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


# Digits


def test_digits_are_1797_images_of_which_every_fifth_of_a_class_is_a_test_image(tmp_path: Path) -> None:
    data = read_digits(tmp_path)
    assert data.train_images.shape == (1442, 1, 8, 8)
    assert data.test_images.shape == (355, 1, 8, 8)
    assert data.train_images.dtype == np.uint8
    assert (data.train_images.min(), data.train_images.max()) == (0, 255)
    train, test = (np.bincount(labels, minlength=10) for labels in (data.train_labels, data.test_labels))
    np.testing.assert_array_equal(test, (train + test) // 5)
    assert test.min() >= 34
    scaled = data.train_images / 255
    assert data.mean[0] == pytest.approx(scaled.mean(), abs=1e-4)
    assert data.std[0] == pytest.approx(scaled.std(), abs=1e-4)


# MNIST

IDX = {
    "train-images-idx3-ubyte": np.arange(20 * 16, dtype=np.uint8).reshape(20, 4, 4),
    "train-labels-idx1-ubyte": np.arange(20, dtype=np.uint8) % 10,
    "t10k-images-idx3-ubyte": np.arange(10 * 16, dtype=np.uint8).reshape(10, 4, 4)[::-1],
    "t10k-labels-idx1-ubyte": np.arange(10, dtype=np.uint8)[::-1],
}


def idx_bytes(array: np.ndarray[Any, Any]) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.fixture
def write_mnist(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, bool], None]:
    """Writes a MNIST of thirty 4×4 images into a folder, whose checksums are expected from then on."""
    for name, array in IDX.items():
        monkeypatch.setitem(MNIST_FILES.checksums, name, hashlib.sha256(idx_bytes(array)).hexdigest())

    def write(folder: Path, gzipped: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in IDX.items():
            content = idx_bytes(array)
            path = folder / (f"{name}.gz" if gzipped else name)
            path.write_bytes(gzip.compress(content) if gzipped else content)

    return write


def replace_download(monkeypatch: pytest.MonkeyPatch, mnist: Callable[..., None]) -> None:
    """Put `mnist` in the place of torchvision's, whose import alone takes seconds."""
    monkeypatch.setitem(sys.modules, "torchvision.datasets", SimpleNamespace(MNIST=mnist))  # type: ignore[misc]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: Any) -> None:
        raise URLError("Name or service\nnot known")

    replace_download(monkeypatch, fail)


MNIST = SourceConfig(name="mnist")


def read_mnist(raw: Path) -> Dataset:
    return read_source(MNIST, raw, raw)


@pytest.mark.parametrize("gzipped", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize("folder", ["mnist", "MNIST/raw", "."])
@pytest.mark.usefixtures("no_network")
def test_mnist_is_read_from_each_folder_plain_or_gzipped(
    folder: str, gzipped: bool, tmp_path: Path, write_mnist: Callable[[Path, bool], None]
) -> None:
    assert not is_present(MNIST, tmp_path)
    write_mnist(tmp_path / folder, gzipped)
    assert is_present(MNIST, tmp_path)
    data = read_mnist(tmp_path)
    for part, name in (("train", "train"), ("test", "t10k")):
        np.testing.assert_array_equal(getattr(data, f"{part}_images")[:, 0], IDX[f"{name}-images-idx3-ubyte"])
        np.testing.assert_array_equal(getattr(data, f"{part}_labels"), IDX[f"{name}-labels-idx1-ubyte"])
    assert data.train_images.flags.writeable
    assert (data.mean, data.std) == ((0.1307,), (0.3081,))


def truncate(content: bytes) -> bytes:
    return content[: len(content) // 2]


def other(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    ("gzipped", "damage", "expected"),
    [
        (True, truncate, "damaged"),
        (True, lambda _: b"", "checksum"),
        (True, lambda _: b"<html>not found</html>", "damaged"),
        (True, lambda c: gzip.compress(other(gzip.decompress(c))), "checksum"),
        (False, truncate, "checksum"),
        (False, lambda _: b"", "checksum"),
        (False, other, "checksum"),
    ],
    ids=["gz cut", "gz empty", "gz a web page", "gz other", "cut", "empty", "other"],
)
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_damaged_mnist_is_named_in_one_line(
    name: str,
    gzipped: bool,
    damage: Callable[[bytes], bytes],
    expected: str,
    tmp_path: Path,
    write_mnist: Callable[[Path, bool], None],
) -> None:
    write_mnist(tmp_path / "mnist", gzipped)
    path = tmp_path / "mnist" / (f"{name}.gz" if gzipped else name)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BlipError) as error:
        read_mnist(tmp_path)
    message = one_line(error)
    assert message.startswith(f"{path}: ")
    assert expected in message


@pytest.mark.usefixtures("no_network")
def test_missing_mnist_without_a_network_says_which_files_to_put_where(
    tmp_path: Path, write_mnist: Callable[[Path, bool], None]
) -> None:
    write_mnist(tmp_path / "mnist", True)
    (tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(BlipError) as error:
        read_mnist(tmp_path)
    message = one_line(error)
    assert "Name or service not known" in message
    assert str(tmp_path / "mnist") in message
    for name in MNIST_FILES.checksums:
        assert f"{name}.gz" in message


def test_missing_mnist_is_downloaded_into_the_raw_folder(
    tmp_path: Path, write_mnist: Callable[[Path, bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(root: Path, download: bool) -> None:
        assert download
        write_mnist(root / "MNIST" / "raw", False)

    replace_download(monkeypatch, download)
    assert len(read_mnist(tmp_path).train_images) == 20


@pytest.mark.skipif(not (REAL / "mnist").is_dir(), reason="MNIST is not in ../shared/data")
def test_the_real_mnist_is_the_published_one() -> None:
    data = read_mnist(REAL)
    assert data.train_images.shape == (60000, 1, 28, 28)
    assert data.test_images.shape == (10000, 1, 28, 28)
    assert data.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert np.bincount(data.test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert data.train_images.mean() / 255 == pytest.approx(data.mean[0], abs=1e-4)
    assert data.train_images.std() / 255 == pytest.approx(data.std[0], abs=1e-4)


# Folders of images

COLOURS = {"ape": (200, 0, 0), "bee": (0, 180, 20), "cat": (10, 20, 160)}


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """Three classes of one colour each, two training images and a test image, in <tmp>/zoo."""
    for name, colour in COLOURS.items():
        for part, count in (("train", 2), ("test", 1)):
            folder = tmp_path / "zoo" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (6, 4), colour).save(folder / f"{i}.png")
    return tmp_path / "zoo"


def read_zoo(zoo: Path, side: int = 4, channels: int = 3) -> Dataset:
    config = SourceConfig(name="zoo", folder=Path("zoo"), side=side, channels=channels)
    return read_source(config, zoo.parent, zoo.parent)


def test_class_folders_become_classes_in_the_order_of_their_names(zoo: Path) -> None:
    data = read_zoo(zoo)
    assert data.classes == ("ape", "bee", "cat")
    assert data.train_images.shape == (6, 3, 4, 4)
    assert data.train_labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.test_labels.tolist() == [0, 1, 2]
    for image, colour in zip(data.test_images, COLOURS.values(), strict=True):
        np.testing.assert_array_equal(image, np.broadcast_to(np.array(colour)[:, None, None], (3, 4, 4)))
    scaled = data.train_images / 255
    np.testing.assert_allclose(data.mean, scaled.mean((0, 2, 3)))
    np.testing.assert_allclose(data.std, scaled.std((0, 2, 3)))


@pytest.mark.parametrize(("side", "channels"), [(1, 3), (5, 1), (9, 3)])
def test_images_get_the_side_and_channels_asked_for(side: int, channels: int, zoo: Path) -> None:
    data = read_zoo(zoo, side, channels)
    assert data.train_images.shape == (6, channels, side, side)
    assert len(data.mean) == len(data.std) == channels
    config = SourceConfig(name="zoo", folder=Path("zoo"), side=side, channels=channels)
    assert prepare_dataset(config, zoo.parent, zoo.parent).name == f"zoo-{side}x{side}x{channels}.safetensors"


PICTURES = {
    "colour.png": (Image.new("RGB", (5, 5), (200, 100, 50)), (200, 100, 50)),
    "grey.png": (Image.new("L", (5, 5), 77), (77, 77, 77)),
    "grey and alpha.png": (Image.new("LA", (5, 5), (77, 255)), (77, 77, 77)),
    "bilevel.png": (Image.new("1", (5, 5), 1), (255, 255, 255)),
    "transparent.png": (Image.new("RGBA", (5, 5), (200, 100, 50, 255)), (200, 100, 50)),
    "palette.png": (Image.new("RGB", (5, 5), (200, 100, 50)).quantize(4), (200, 100, 50)),
    "lossy.jpg": (Image.new("RGB", (5, 5), (200, 100, 50)), (200, 100, 50)),
    "UPPER.JPEG": (Image.new("L", (5, 5), 77), (77, 77, 77)),
    "modern.webp": (Image.new("RGB", (5, 5), (200, 100, 50)), (200, 100, 50)),
}


@pytest.mark.parametrize("name", PICTURES)
def test_every_kind_of_image_is_converted(name: str, zoo: Path) -> None:
    picture, colour = PICTURES[name]
    path = zoo / "test" / "ape" / name
    picture.save(path)
    (zoo / "test" / "ape" / "0.png").unlink()
    image = read_zoo(zoo).test_images[0]
    np.testing.assert_allclose(image, np.broadcast_to(np.array(colour)[:, None, None], (3, 4, 4)), atol=3)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_16_bits_are_refused_which_would_be_black_and_white(channels: int, tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 144).astype(np.uint16).reshape(12, 12)
    path = tmp_path / "camera.png"
    Image.fromarray(ramp).save(path)
    with pytest.raises(BlipError, match=r"camera\.png: .*expected 8 bits a channel") as error:
        read_image(path, 12, channels)
    assert one_line(error)


def test_other_files_are_passed_over(zoo: Path) -> None:
    before = read_zoo(zoo)
    for path in ("README", "train/notes.txt", "train/ape/Thumbs.db", "test/bee/labels.csv"):
        (zoo / path).write_text("not an image")
    np.testing.assert_array_equal(read_zoo(zoo).train_images, before.train_images)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_images_cut_anywhere_are_read_or_named_in_one_line(ending: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    path = tmp_path / f"image.{ending}"
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    assert read_image(path, 12, 3).shape == (3, 12, 12)
    messages = []
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        try:
            read_image(path, 12, 3)
        except BlipError as error:
            messages.append(str(error))
    assert len(messages) > 5
    assert all(m.startswith(f"{path}: not a readable image") and "\n" not in m for m in messages)


def remove(path: Path) -> None:
    for inner in path.iterdir():
        inner.unlink() if inner.is_file() else remove(inner)
    path.rmdir()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda z: (z / "train/bee/1.png").write_text("no"), "train/bee/1.png: not a readable image"),
        (lambda z: remove(z / "test/bee"), "class bee is not in both"),
        (lambda z: (z / "test/dog").mkdir(), "class dog is not in both"),
        (lambda z: (z / "test/bee/0.png").unlink(), "class bee has no test image"),
        (
            lambda z: remove(z / "train"),
            "zoo: expected train/<class>/ and test/<class>/ with images, there is no train/",
        ),
        (lambda z: remove(z), "zoo: expected train/<class>/ and test/<class>/"),
        (lambda z: [remove(z / "train" / c) for c in COLOURS], "zoo/train: expected a folder of images"),
        (lambda z: [p.unlink() for p in z.glob("test/*/*")], "zoo/test: no image"),
    ],
)
def test_bad_folders_are_named_in_one_line(change: Callable[[Path], object], expected: str, zoo: Path) -> None:
    change(zoo)
    with pytest.raises(BlipError) as error:
        read_zoo(zoo)
    assert expected in one_line(error)


# Checks


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 1, 2], "train label 2 is out of range: expected 0 to 1"),
        ([0, 1, -1], "train label -1 is out of range"),
        ([0, 1], "3 train images but 2 labels"),
        ([1, 1, 1], "class a has no train image"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: list[int], expected: str) -> None:
    images = np.zeros((3, 1, 2, 2), np.uint8)
    test = np.array([0, 1, 1])
    data = Dataset(images, np.array(labels), images, test, ("a", "b"), (0.5,), (0.5,))
    with pytest.raises(BlipError) as error:
        data.check("mine")
    assert one_line(error).startswith("mine: ")
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("images", "labels", "expected"),
    [
        (np.zeros((2, 1, 2, 2), np.float32), np.array([0, 1]), "train images: expected uint8"),
        (np.zeros((2, 6, 6, 1), np.uint8), np.array([0, 1]), r"found uint8 of shape \(2, 6, 6, 1\)"),
        (np.zeros((2, 36), np.uint8), np.array([0, 1]), r"found uint8 of shape \(2, 36\)"),
        (
            np.zeros((2, 1, 2, 2), np.uint8),
            np.array([0, 1], np.uint8),
            r"train labels: expected int64 \(n,\), found uint8",
        ),
    ],
)
def test_images_and_labels_of_another_kind_are_refused(images: Any, labels: Any, expected: str) -> None:
    data = Dataset(images, labels, images, labels, ("a", "b"), (0.5,), (0.5,))
    with pytest.raises(BlipError, match=f"^mine: .*{expected}"):
        data.check("mine")


# Splits

RAW = Path("nothing is read from here")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the prepared digits; not to be written to."""
    folder = tmp_path_factory.mktemp("prepared")
    prepare_dataset(SourceConfig(name="digits"), RAW, folder)
    return folder


def config(**values: Any) -> DataConfig:
    source = {key: values.pop(key) for key in ("classes_per_task", "permutations") if key in values}
    return DataConfig(sources=[SourceConfig(name="digits", **source)], **values)


def sequence_of(digits: Path, tmp_path: Path, seed: int = 0, **values: Any) -> Any:
    return load_sequence(make_split(config(**values), seed, digits), digits)


def test_each_task_has_its_own_classes_with_labels_from_zero(digits: Path, tmp_path: Path) -> None:
    sequence = sequence_of(digits, tmp_path, classes_per_task=2)
    data = read_digits(RAW)
    assert len(sequence) == 5
    assert sequence.outputs == [2] * 5
    assert sequence.image_shape == (1, 8, 8)
    seen = []
    for t in range(5):
        task = sequence.task(t)
        assert task.classes == (str(2 * t), str(2 * t + 1))
        seen += task.classes
        for part in ("train", "test"):
            examples = sequence.test(t) if part == "test" else task.train
            labels = getattr(data, f"{part}_labels")
            chosen = np.isin(labels, [2 * t, 2 * t + 1])
            np.testing.assert_array_equal(examples.images, getattr(data, f"{part}_images")[chosen])
            np.testing.assert_array_equal(examples.labels, labels[chosen] - 2 * t)
        assert task.valid is task.train
    assert sorted(seen) == list("0123456789")
    assert sequence.names[1] == "digits 2, 3"


def test_classes_shuffled_by_seed_keep_their_names_and_images(digits: Path, tmp_path: Path) -> None:
    data = read_digits(RAW)
    orders = []
    for seed in (0, 0, 1):
        sequence = sequence_of(digits, tmp_path, seed, classes_per_task=5, shuffle_classes=True)
        tasks = [sequence.task(t) for t in range(2)]
        orders.append([name for task in tasks for name in task.classes])
        assert sorted(orders[-1]) == list("0123456789")
        for task in tasks:
            for label, name in enumerate(task.classes):
                expected = data.train_images[data.train_labels == int(name)]
                np.testing.assert_array_equal(task.train.images[task.train.labels == label], expected)
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != sorted(orders[0])


def test_tasks_shuffled_by_seed_are_the_same_tasks(digits: Path, tmp_path: Path) -> None:
    plain = sequence_of(digits, tmp_path, classes_per_task=1).names
    names = [sequence_of(digits, tmp_path, s, classes_per_task=1, shuffle_tasks=True).names for s in (0, 0, 1)]
    assert all(sorted(n) == plain for n in names)
    assert names[0] == names[1] != names[2]
    assert names[0] != plain


def permutation(plain: Examples, permuted: Examples) -> list[int]:
    """Where each pixel of the permuted images comes from, for the pixels that tell."""
    before, after = plain.images.flatten(1).long(), permuted.images.flatten(1).long()
    return [int((before == after[:, i : i + 1]).all(0).long().argmax()) for i in range(64)]


def test_permutations_differ_between_tasks_and_seeds_and_move_whole_pixels(digits: Path, tmp_path: Path) -> None:
    whole = sequence_of(digits, tmp_path)
    plain = whole.task(0)
    found = set()
    for seed in (0, 1):
        sequence = sequence_of(digits, tmp_path, seed, permutations=3)
        assert sequence.outputs == [10] * 3
        for t in range(3):
            task = sequence.task(t)
            order = permutation(plain.train, task.train)
            # The same permutation in both.
            for before, after in ((plain.train, task.train), (whole.test(0), sequence.test(t))):
                assert torch.equal(before.images.flatten(1)[:, order], after.images.flatten(1))
            assert torch.equal(task.train.labels, plain.train.labels)
            found.add(tuple(order))
    assert len(found) == 6


@pytest.mark.parametrize(
    "values",
    [
        {"classes_per_task": 2, "validation": 0.1},
        {"permutations": 3},
        {"classes_per_task": 5, "shuffle_classes": True, "shuffle_tasks": True},
    ],
)
def test_equal_seeds_give_equal_bytes_and_other_seeds_others(values: dict[str, Any], digits: Path) -> None:
    first, again, other = (make_split(config(**values), seed, digits).to_bytes() for seed in (3, 3, 4))
    assert first == again
    assert first != other


@pytest.mark.parametrize("share", [0.037, 0.15, 0.93])
def test_validation_images_are_held_out_of_the_training_images(share: float, digits: Path, tmp_path: Path) -> None:
    whole_sequence = sequence_of(digits, tmp_path, classes_per_task=5)
    sequence = sequence_of(digits, tmp_path, classes_per_task=5, validation=share)
    whole, task = whole_sequence.task(1), sequence.task(1)
    count = len(whole.train)
    assert len(task.valid) == int(share * count) != round(share * count), "rounded down, as published"
    assert len(task.train) + len(task.valid) == count
    # Every image once, in one of the two: the digits have no duplicates but a few, so compare as sorted rows.
    rows = sorted(map(bytes, torch.cat([task.train.images, task.valid.images]).flatten(1).numpy()))
    assert rows == sorted(map(bytes, whole.train.images.flatten(1).numpy()))
    assert torch.equal(sequence.test(1).images, whole_sequence.test(1).images)
    assert task.valid.labels.unique().tolist() == [0, 1, 2, 3, 4]


def test_batches_hold_every_example_once_normalised() -> None:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (11, 2, 3, 3), dtype=torch.uint8, generator=random)
    mean, std = torch.tensor([0.2, 0.5]).view(-1, 1, 1), torch.tensor([0.3, 0.1]).view(-1, 1, 1)
    examples = Examples(images, torch.arange(11), 1 / (255 * std), -mean / std)
    for shuffle in (None, random):
        x, labels = (torch.cat(parts) for parts in zip(*examples.batches(4, shuffle), strict=True))
        assert sorted(labels.tolist()) == list(range(11))
        assert (labels.tolist() == list(range(11))) == (shuffle is None)
        torch.testing.assert_close(x, (images[labels] / 255 - mean) / std)
    assert [len(labels) for _, labels in examples.batches(4)] == [4, 4, 3]


def test_tasks_together_are_normalised_and_labelled_each_as_alone(zoo: Path) -> None:
    """Grey and colour, with statistics of their own."""
    sources = [
        SourceConfig(name="digits", classes_per_task=5, channels=3),
        SourceConfig(name="zoo", folder=Path("zoo"), side=8),
    ]
    config = DataConfig(sources=sources, validation=0.2)
    sequence = load_sequence(prepare_experiment("both", config, 0, zoo.parent, zoo.parent), zoo.parent)
    for t in range(3):
        joint, alone = sequence.tasks_until(t), [sequence.task(i) for i in range(t + 1)]
        assert joint.classes == sum((task.classes for task in alone), ())
        for part in ("train", "valid"):
            examples, parts = getattr(joint, part), [getattr(task, part) for task in alone]
            assert examples.tasks.tolist() == [i for i, one in enumerate(parts) for _ in range(len(one))]
            batches = [one.batch(torch.arange(len(one))) for one in parts]
            x, labels = examples.batch(torch.arange(len(examples)))
            torch.testing.assert_close(x, torch.cat([x for x, _ in batches]), rtol=0, atol=0)
            assert labels.tolist() == torch.cat([labels for _, labels in batches]).tolist()


def test_a_sample_has_each_example_at_most_once() -> None:
    images, scale = torch.zeros(7, 1, 2, 2, dtype=torch.uint8), torch.ones(1, 1, 1)
    examples = Examples(images, torch.arange(7), scale, scale)
    drawn = examples.sample(4, torch.Generator().manual_seed(1))
    assert len(set(drawn.tolist())) == len(drawn) == 4
    assert sorted(examples.sample(100, torch.Generator().manual_seed(1)).tolist()) == list(range(7))
    assert not torch.equal(drawn, examples.sample(4, torch.Generator().manual_seed(2)))


@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_by_task_hold_one_task_each(shuffle: bool) -> None:
    parts = [
        Examples(torch.zeros(n, 1, 2, 2, dtype=torch.uint8), torch.arange(n), torch.ones(1, 1, 1), torch.zeros(1, 1, 1))
        for n in (6, 10, 3)
    ]
    examples = together(parts)
    assert examples.tasks is not None
    batches, again = (
        examples.indices(4, generator, batch_statistics=True)
        for generator in (torch.Generator().manual_seed(0) if shuffle else None for _ in range(2))
    )
    assert [batch.tolist() for batch in batches] == [batch.tolist() for batch in again]
    assert sorted(torch.cat(batches).tolist()) == list(range(19))
    tasks = [set(examples.tasks[batch].tolist()) for batch in batches]
    assert all(len(of_batch) == 1 for of_batch in tasks)
    assert sorted(len(batch) for batch in batches) == [2, 2, 3, 4, 4, 4]
    assert (torch.cat(batches).tolist() == list(range(19))) == (not shuffle)
    assert (sorted(tasks, key=min) == tasks) == (not shuffle), "the tasks' batches are mixed"
    mixed = replace(examples, mixed=True).indices(19, torch.Generator().manual_seed(0), batch_statistics=True)
    assert torch.equal(mixed[0], torch.randperm(19, generator=torch.Generator().manual_seed(0)))
    alone = parts[1].indices(4, torch.Generator().manual_seed(0), batch_statistics=True)
    expected = parts[1].indices(4, torch.Generator().manual_seed(0))
    assert [batch.tolist() for batch in alone] == [batch.tolist() for batch in expected], "one task is no different"


@pytest.mark.parametrize(("n", "sizes"), [(9, [4, 5]), (8, [4, 4]), (10, [4, 4, 2]), (5, [5]), (1, [1])])
def test_no_batch_is_of_one_example_where_it_is_normalised_by_its_own_statistics(n: int, sizes: list[int]) -> None:
    examples = Examples(torch.zeros(n, 1, 2, 2, dtype=torch.uint8), torch.zeros(n).long(), *torch.ones(2, 1, 1, 1))
    batches = examples.indices(4, torch.Generator().manual_seed(0), batch_statistics=True)
    assert [len(batch) for batch in batches] == sizes
    assert torch.equal(torch.cat(batches), examples.indices(n, torch.Generator().manual_seed(0))[0])
    several = together([examples, examples]).indices(4, torch.Generator().manual_seed(0), batch_statistics=True)
    assert sorted(len(batch) for batch in several) == sorted(2 * sizes)


def test_a_source_is_normalised_by_its_own_statistics(digits: Path, tmp_path: Path) -> None:
    task = sequence_of(digits, tmp_path).task(0)
    x, _ = task.train.batch(torch.arange(len(task.train)))
    assert x.mean().item() == pytest.approx(0, abs=1e-3)
    assert x.std().item() == pytest.approx(1, abs=1e-3)


def test_preparing_again_writes_nothing_that_is_the_same(tmp_path: Path) -> None:
    split = prepare_experiment("mine", config(classes_per_task=2), 0, RAW, tmp_path)
    files = [split_path(tmp_path, "mine", 0), dataset_path(tmp_path, SourceConfig(name="digits"))]
    before = [(path.stat().st_mtime_ns, path.read_bytes()) for path in files]
    assert split.to_bytes() == before[0][1]
    assert prepare_experiment("mine", config(classes_per_task=2), 0, RAW, tmp_path).to_bytes() == before[0][1]
    assert [(path.stat().st_mtime_ns, path.read_bytes()) for path in files] == before
    prepare_dataset(SourceConfig(name="digits"), RAW, tmp_path)
    assert files[1].read_bytes() == before[1][1]
    prepare_experiment("mine", config(classes_per_task=5), 0, RAW, tmp_path)
    assert files[0].read_bytes() != before[0][1]
    assert not list(tmp_path.rglob(".*")), "no temporary file is left"


def test_a_split_is_ones_own_whatever_another_process_writes(tmp_path: Path) -> None:
    own = prepare_experiment("mine", config(classes_per_task=5, validation=0.2), 0, RAW, tmp_path)
    other = prepare_experiment("mine", config(classes_per_task=5, validation=0.1), 0, RAW, tmp_path)
    first, second = (load_sequence(split, tmp_path) for split in (own, other))
    assert len(first.task(0).valid) == 2 * len(second.task(0).valid)
    assert first.checksum != second.checksum
    path = split_path(tmp_path, "mine", 0)
    assert second.checksum == sha256(path)
    path.write_bytes(b"damaged")
    assert prepare_experiment("mine", config(classes_per_task=5, validation=0.1), 0, RAW, tmp_path).to_bytes()
    assert second.checksum == sha256(path), "made anew"


def test_several_sources_follow_each_other(zoo: Path) -> None:
    sources = [
        SourceConfig(name="digits", classes_per_task=5),
        SourceConfig(name="zoo", folder=Path("zoo"), side=8, channels=1),
    ]
    split = prepare_experiment("both", DataConfig(sources=sources), 0, zoo.parent, zoo.parent)
    sequence = load_sequence(split, zoo.parent)
    assert sequence.names == ["digits 0, 1, 2, 3, 4", "digits 5, 6, 7, 8, 9", "zoo"]
    assert sequence.task(2).classes == ("ape", "bee", "cat")
    assert len(sequence.test(2)) == 3
    x, _ = sequence.task(2).train.batch(torch.arange(6))
    assert x.mean().item() == pytest.approx(0, abs=1e-5)


def test_sources_of_different_shapes_are_refused(zoo: Path) -> None:
    sources = [SourceConfig(name="digits"), SourceConfig(name="zoo", folder=Path("zoo"), side=8)]
    with pytest.raises(BlipError) as error:
        prepare_experiment("both", DataConfig(sources=sources), 0, zoo.parent, zoo.parent)
    assert "images of one shape" in one_line(error)
    assert "zoo-8x8x3" in str(error.value)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"classes_per_task": 3}, "10 classes do not make tasks of 3 each"),
        ({"classes_per_task": 1, "validation": 0.001}, "validation: 0.001 of 143 training images is not even one"),
    ],
)
def test_impossible_splits_are_refused(values: dict[str, Any], expected: str, digits: Path) -> None:
    with pytest.raises(BlipError) as error:
        make_split(config(**values), 0, digits)
    assert expected in one_line(error)


# Damage


@pytest.fixture
def prepared(tmp_path: Path) -> tuple[Split, Path]:
    """A split, and its data set to be damaged."""
    split = prepare_experiment("mine", config(classes_per_task=5), 0, RAW, tmp_path)
    return split, tmp_path / "digits.safetensors"


def test_a_data_set_that_changed_since_the_split_is_refused(prepared: tuple[Split, Path]) -> None:
    split, data = prepared
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    with pytest.raises(BlipError) as error:
        load_sequence(split, data.parent)
    assert one_line(error).startswith(f"{data}: damaged or altered")


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-5]), "damaged"),
        (lambda p: p.write_bytes(p.read_bytes()[:5]), "damaged"),
        (lambda p: p.write_bytes(b""), "damaged"),
        (lambda p: p.write_bytes(b"\xff" * 500), "damaged"),
        (lambda p: p.write_bytes(p.read_bytes().replace(b"about", b"other")), "damaged"),
        (lambda p: (p.unlink(), p.mkdir()), "damaged"),
        (lambda p: p.unlink(), "missing: prepare the data first"),
    ],
    ids=["cut", "cut to nothing", "empty", "garbage", "foreign", "a folder", "missing"],
)
def test_damaged_files_are_named_in_one_line(
    damage: Callable[[Path], object], expected: str, prepared: tuple[Split, Path]
) -> None:
    path = prepared[1]
    damage(path)
    with pytest.raises(BlipError) as error:
        load_sequence(prepared[0], prepared[1].parent)
    assert one_line(error).startswith(f"{path}: {expected}")


def test_a_split_is_made_anew_from_a_damaged_data_set_only_after_complaint(prepared: tuple[Split, Path]) -> None:
    data = prepared[1]
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(BlipError, match="delete it and prepare the data again"):
        prepare_experiment("mine", config(classes_per_task=5), 0, RAW, data.parent)
    data.unlink()
    prepare_experiment("mine", config(classes_per_task=5), 0, RAW, data.parent)
    assert len(load_sequence(prepared[0], data.parent)) == 2


def test_two_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        for part in ("train", "test"):
            for name in ("x", "y"):
                path = tmp_path / folder / part / name / "1.png"
                path.parent.mkdir(parents=True)
                Image.new("L", (4, 4)).save(path)
    (tmp_path / "a" / "train" / ".cache").mkdir()  # hidden folders are no classes
    sources = [SourceConfig(name="same", folder=Path(folder), side=4, channels=1) for folder in ("a", "b")]
    prepare_dataset(sources[0], tmp_path, tmp_path)
    assert len(make_split(DataConfig(sources=sources[:1]), 0, tmp_path).tasks) == 1
    with pytest.raises(BlipError, match="made from a, not b: give the sources two names"):
        make_split(DataConfig(sources=sources[1:]), 0, tmp_path)


def test_tasks_in_another_order(tmp_path: Path) -> None:
    base = {"sources": [{"name": "digits", "classes_per_task": 2}]}
    names = {}
    for order in (None, [4, 3, 2, 1, 0], [1, 0, 2, 4, 3]):
        config = DataConfig.model_validate(base | {"task_order": order})
        split = prepare_experiment(f"of {order}", config, 0, tmp_path, tmp_path)
        names[str(order)] = load_sequence(split, tmp_path).names
    assert names["[4, 3, 2, 1, 0]"] == names["None"][::-1]
    assert names["[1, 0, 2, 4, 3]"] == [names["None"][i] for i in (1, 0, 2, 4, 3)]
    short = DataConfig.model_validate(base | {"task_order": [1, 0]})
    with pytest.raises(BlipError, match="task_order: expected 5 numbers, one for each task, found"):
        prepare_experiment("short", short, 0, tmp_path, tmp_path)
    for wrong in ({"task_order": [0, 0, 1]}, {"task_order": [0, 1, 2, 3, 4], "shuffle_tasks": True}):
        with pytest.raises(ValidationError, match="task_order"):
            DataConfig.model_validate(base | wrong)


def test_keys_that_say_nothing_are_left_out_of_what_runs_depend_on() -> None:
    assert set(DataConfig(sources=[SourceConfig(name="digits")]).model_dump()) == {
        *("sources", "shuffle_tasks", "shuffle_classes", "validation")
    }
