"""Built-in sources: published files, class folders, downloads that cannot happen, and pickles that are not plain."""

import gzip
import hashlib
import io
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from http.client import IncompleteRead
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from test_data import idx_bytes, one_line
from torchvision import datasets
from torchvision.datasets import utils

from blip.data import SOURCES, DataConfig, SourceConfig, is_present, load_sequence, prepare_experiment
from blip.data.dataset import Dataset
from blip.data.idx import FASHION_MNIST
from blip.data.pickles import dump_images, load_plain
from blip.data.raw import read_source
from blip.data.sources import CIFAR_FILES
from blip.errors import BlipError

REAL = ROOT.parent / "shared" / "data"
random = np.random.default_rng(0)


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def read(name: str, raw: Path) -> Dataset:
    return read_source(SourceConfig(name=name), raw, raw / "prepared")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise URLError("no network\nhere")

    monkeypatch.setattr(utils, "_urlretrieve", fail)
    monkeypatch.setattr("urllib.request.urlopen", fail)
    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, **_: url)


# Published files: small ones of the same form, whose checksums are expected instead


def write_cifar(raw: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    dataset, fine = getattr(datasets, kind), kind == "CIFAR100"
    folder = raw / dataset.base_folder
    folder.mkdir(parents=True)
    classes, labels = (100, "fine_labels") if fine else (10, "labels")
    written, lists = {}, {"train_list": [], "test_list": []}
    for which, names in (("train_list", ["a", "b"]), ("test_list", ["c"])):
        for name in names:
            pixels = random.integers(0, 256, (classes, 3072), dtype=np.uint8)
            content = pickle.dumps({"data": pixels, labels: list(range(classes))})
            (folder / name).write_bytes(content)
            lists[which].append([name, md5(content)])
            written.setdefault(which, []).append(pixels)
    names = [f"class {i}" for i in range(classes)]
    content = pickle.dumps({dataset.meta["key"]: names})
    (folder / dataset.meta["filename"]).write_bytes(content)
    monkeypatch.setattr(dataset, "meta", dataset.meta | {"md5": md5(content)})
    for which, entries in lists.items():
        monkeypatch.setattr(dataset, which, entries)
    return {which: np.concatenate(parts).reshape(-1, 3, 32, 32) for which, parts in written.items()}


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar_is_read_from_its_batches(
    name: str, classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_present(SourceConfig(name=name), tmp_path)
    (tmp_path / CIFAR_FILES[name][1]).mkdir()
    assert not is_present(SourceConfig(name=name), tmp_path), "an empty folder is none"
    (tmp_path / CIFAR_FILES[name][1]).rmdir()
    written = write_cifar(tmp_path, name.upper(), monkeypatch)
    data = read(name, tmp_path)
    np.testing.assert_array_equal(data.train_images, written["train_list"])
    np.testing.assert_array_equal(data.test_images, written["test_list"])
    assert data.train_labels.tolist() == [*range(classes)] * 2
    assert data.classes[3] == "class 3"
    assert data.mean == pytest.approx([0.4914, 0.4824, 0.4467], abs=1e-4)
    assert data.std == pytest.approx([0.2471, 0.2435, 0.2616], abs=1e-4)
    assert is_present(SourceConfig(name=name), tmp_path)


def test_a_changed_cifar_batch_is_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(tmp_path, "CIFAR10", monkeypatch)
    path = tmp_path / datasets.CIFAR10.base_folder / "a"
    path.write_bytes(pickle.dumps(Malicious(tmp_path / "ran")))
    with pytest.raises(BlipError) as error:
        read("cifar10", tmp_path)
    assert "CIFAR10 is not there or is damaged" in one_line(error)
    assert not (tmp_path / "ran").exists()


def test_svhn_is_read_from_its_matlab_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import scipy.io

    lists, images = {}, {}
    for part, url in (("train", "…/train_32x32.mat"), ("test", "…/test_32x32.mat")):
        images[part] = random.integers(0, 256, (32, 32, 3, 10), dtype=np.uint8)
        path = tmp_path / f"{part}_32x32.mat"
        scipy.io.savemat(path, {"X": images[part], "y": np.arange(1, 11)[:, None]})
        lists[part] = [url, path.name, md5(path.read_bytes())]
    monkeypatch.setattr(datasets.SVHN, "split_list", lists)
    assert is_present(SourceConfig(name="svhn"), tmp_path)
    data = read("svhn", tmp_path)
    np.testing.assert_array_equal(data.train_images, images["train"].transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(data.test_images, images["test"].transpose(3, 2, 0, 1))
    assert data.test_labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0], "the digit 0 is published as 10"


def write_fashion(raw: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    for part, n in (("train", 20), ("t10k", 10)):
        arrays[f"{part}-images-idx3-ubyte"] = random.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = (np.arange(n) % 10).astype(np.uint8)
    folder = raw / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        content = gzip.compress(idx_bytes(array))
        (folder / f"{name}.gz").write_bytes(content)
        (folder / name).write_bytes(b"what torchvision unpacked is not read")
        monkeypatch.setitem(FASHION_MNIST.checksums, name, md5(content))
    return arrays


def test_fashion_mnist_is_read_from_its_gzipped_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = write_fashion(tmp_path, monkeypatch)
    assert is_present(SourceConfig(name="fashion-mnist"), tmp_path)
    assert not is_present(SourceConfig(name="mnist"), tmp_path), "whose files have the same names"
    data = read("fashion-mnist", tmp_path)
    np.testing.assert_array_equal(data.train_images[:, 0], arrays["train-images-idx3-ubyte"])
    assert data.test_labels.tolist() == [*range(10)]
    assert data.classes[9] == "ankle boot"
    path = tmp_path / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(b"other"))
    with pytest.raises(BlipError, match="checksum of the file"):
        read("fashion-mnist", tmp_path)


@pytest.mark.parametrize("side", [28, 32])
@pytest.mark.parametrize("packed", ["zip", "zip in notmnist", "unpacked"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_notmnist_is_read_from_its_pickles(side: int, packed: str, protocol: int, tmp_path: Path) -> None:
    images = random.integers(0, 256, (20, 1, side, side)).astype(float)
    content = pickle.dumps({"features": images, "labels": np.arange(20) % 10}, protocol)
    write_notmnist(tmp_path, packed, content)
    assert is_present(SourceConfig(name="notmnist"), tmp_path)
    data = read("notmnist", tmp_path)
    np.testing.assert_array_equal(data.train_images, images)
    assert data.test_labels.tolist() == [*range(10)] * 2
    assert data.classes == tuple("ABCDEFGHIJ")


def write_notmnist(raw: Path, packed: str, content: bytes) -> None:
    (raw / "notmnist").mkdir(exist_ok=True)
    names = ("notmnist_train.pkl", "notmnist_test.pkl")
    if packed == "unpacked":
        for name in names:
            (raw / "notmnist" / name).write_bytes(content)
        return
    with zipfile.ZipFile(raw / ("notmnist.zip" if packed == "zip" else "notmnist/notmnist.zip"), "w") as archive:
        for name in names:
            archive.writestr(f"inner/{name}", content)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "damaged"),
        (pickle.dumps({"features": np.zeros((2, 1, 4, 4))})[:-40], "truncated"),
        (pickle.dumps([1, 2]), "expected a dict of features and labels"),
        (pickle.dumps({"features": np.zeros((2, 4, 4)), "labels": [0, 1]}), "expected features of shape (n, 1, side"),
        (pickle.dumps({"features": np.full((2, 1, 4, 4), 256), "labels": [0, 1]}), "from 0 to 255"),
        (pickle.dumps({"features": np.full((2, 1, 4, 4), np.nan), "labels": [0, 1]}), "from 0 to 255"),
        (pickle.dumps({"features": np.full((2, 1, 4, 4), 0.5), "labels": [0, 1]}), "whole numbers from 0 to 255"),
        (pickle.dumps({"features": np.full((2, 1, 4, 4), None), "labels": [0, 1]}), "an array of Python objects"),
        (pickle.dumps({"features": np.zeros((2, 1, 4, 4)), "labels": [0, 10]}), "label 10 is out of range"),
        (pickle.dumps({"features": np.zeros((2, 1, 4, 4)), "labels": [0]}), "2 train images but 1 labels"),
    ],
)
def test_bad_notmnist_pickles_are_named_in_one_line(content: bytes, expected: str, tmp_path: Path) -> None:
    write_notmnist(tmp_path, "zip", content)
    with pytest.raises(BlipError) as error:
        read("notmnist", tmp_path)
    assert expected in one_line(error)


def test_a_damaged_notmnist_zip_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "notmnist.zip").write_bytes(b"no zip")
    with pytest.raises(BlipError) as error:
        read("notmnist", tmp_path)
    assert one_line(error).startswith(f"{tmp_path / 'notmnist.zip'}: ")
    assert "delete it, and it is fetched again" in str(error.value)
    with zipfile.ZipFile(tmp_path / "notmnist.zip", "w") as archive:
        archive.writestr("other", b"")
    with pytest.raises(BlipError, match=r"notmnist_train\.pkl: missing"):
        read("notmnist", tmp_path)


def test_half_a_download_of_notmnist_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Response(io.BytesIO):
        def __init__(self, content: bytes, length: int | None) -> None:
            super().__init__(content)
            self.length = length

    class Broken(Response):
        def read(self, size: int | None = -1) -> bytes:
            if content := super().read(10):
                return content
            raise IncompleteRead(b"half of it")

    for broken, said in ((Broken(b"x" * 20, None), "IncompleteRead"), (Response(b"x" * 20, 40), "20 of 40 bytes came")):
        monkeypatch.setattr("urllib.request.urlopen", lambda *_, answer=broken, **__: answer)
        with pytest.raises(BlipError, match=rf"cannot be downloaded \({said}"):
            read("notmnist", tmp_path)
        assert not list(tmp_path.iterdir())
    images, labels = np.zeros((10, 1, 28, 28), np.uint8), np.arange(10)
    write_notmnist(tmp_path, "zip", pickle.dumps({"features": images, "labels": labels}))
    content = (tmp_path / "notmnist.zip").read_bytes()
    shutil.rmtree(tmp_path / "notmnist")
    (tmp_path / "notmnist.zip").unlink()
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: Response(content, len(content)))
    assert len(read("notmnist", tmp_path).train_labels) == 10
    assert [path.name for path in tmp_path.iterdir()] == ["notmnist.zip"]


@pytest.mark.parametrize(
    ("name", "fetch"),
    [
        ("cifar10", "put cifar-10-python.tar.gz into"),
        ("cifar100", "put cifar-100-python.tar.gz into"),
        ("svhn", "put train_32x32.mat and test_32x32.mat into"),
        ("fashion-mnist", "put train-images-idx3-ubyte.gz, "),
        ("mnist", "put train-images-idx3-ubyte.gz, "),
        ("notmnist", "put notmnist.zip into"),
        ("miniimagenet", "put MI_raw.zip, or MI_raw/<class>/<image>, there"),
    ],
)
def test_what_cannot_be_downloaded_is_said_in_one_line(name: str, fetch: str, tmp_path: Path) -> None:
    with pytest.raises(BlipError) as error:
        read(name, tmp_path / "mistyped" / "raw")
    assert fetch in one_line(error)
    assert str(tmp_path / "mistyped" / "raw") in str(error.value)
    assert not list(tmp_path.iterdir())


# Class folders instead


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "digits"])
def test_every_source_is_read_from_class_folders_with_its_published_normalisation(name: str, tmp_path: Path) -> None:
    config, source = SourceConfig(name=name), SOURCES[name]
    if name == "miniimagenet":
        config = SourceConfig(name=name, raw_images_per_class=2)
    for part in ("train", "test"):
        for label in range(source.classes):
            folder = tmp_path / name / part / f"{label:02}"
            folder.mkdir(parents=True)
            Image.new("RGB", (50, 40), (200, 200, 200)).save(folder / "1.png")
    assert is_present(config, tmp_path)
    data = read_source(config, tmp_path, tmp_path / "prepared")
    assert data.train_images.shape == (source.classes, source.channels, source.side, source.side)
    assert (data.mean, data.std) == (source.mean, source.std)
    assert data.classes == tuple(f"{label:02}" for label in range(source.classes))
    for part in ("train", "test"):
        (tmp_path / name / part / "01" / "1.png").unlink()
        (tmp_path / name / part / "01").rmdir()
    with pytest.raises(BlipError, match=f"expected the {source.classes} classes of {name}, found {source.classes - 1}"):
        read_source(config, tmp_path, tmp_path / "prepared")


@pytest.mark.parametrize("part", ["train", "test"])
def test_class_folders_without_the_other_part_are_named(part: str, tmp_path: Path) -> None:
    (tmp_path / "svhn" / part / "0").mkdir(parents=True)
    other = {"train": "test", "test": "train"}[part]
    with pytest.raises(BlipError, match=f"svhn: expected train/<class>/ and test/<class>/ .* there is no {other}/$"):
        read("svhn", tmp_path)


@pytest.mark.skipif(not (REAL / "cifar100-0.tar.gz").is_file(), reason="CIFAR-100 is not in ../shared/data")
def test_the_real_cifar100_in_class_folders(tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(REAL / "cifar100-0.tar.gz") as archive:
        names = [name for name in archive.getnames() if "/apple/" in name or "/baby/" in name]
        archive.extractall(tmp_path, names, filter="data")
    two = SourceConfig(name="two", folder=Path("cifar100"), side=32)
    data = read_source(two, tmp_path, tmp_path / "prepared")
    assert data.train_images.shape == (1000, 3, 32, 32)
    assert data.test_images.shape == (200, 3, 32, 32)
    assert data.classes == ("apple", "baby")


# Different images in one sequence


def test_grey_and_small_images_are_padded_repeated_and_normalised(tmp_path: Path) -> None:
    for name, mode, side in (("cifar10", "RGB", 32), ("mnist", "L", 28)):
        for part, count in (("train", 3), ("test", 1)):
            for label in "abcdefghij":
                folder = tmp_path / name / part / label
                folder.mkdir(parents=True)
                for i in range(count):
                    shape = (side, side, 3) if mode == "RGB" else (side, side)
                    Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{i}.png")
    grey = SourceConfig(name="mnist", channels=3, pad_to=32, mean=[0.1], std=[0.2752])
    config = DataConfig(sources=[SourceConfig(name="cifar10"), grey])
    split = prepare_experiment("both", config, 0, tmp_path, tmp_path)
    sequence = load_sequence(split, tmp_path)
    assert sequence.image_shape == (3, 32, 32)
    x, _ = sequence.task(1).train.batch(torch.arange(30))
    assert x.shape == (30, 3, 32, 32)
    stored = torch.from_numpy(read("mnist", tmp_path).train_images).float()
    expected = (stored / 255 - 0.1) / 0.2752
    for channel in range(3):
        torch.testing.assert_close(x[:, channel, 2:30, 2:30], expected[:, 0])
    assert torch.allclose(x[:, :, :2], torch.tensor(-0.1 / 0.2752)), "the margin is black before normalisation"
    assert sequence.task(1).train.images.dtype == torch.uint8
    colour, _ = sequence.task(0).train.batch(torch.arange(30))
    pixels = torch.from_numpy(read("cifar10", tmp_path).train_images) / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (SOURCES["cifar10"].mean, SOURCES["cifar10"].std))
    torch.testing.assert_close(colour, (pixels - mean) / std, rtol=1e-4, atol=1e-5)


def test_views_that_cannot_be_are_refused(tmp_path: Path) -> None:
    config = DataConfig(sources=[SourceConfig(name="digits", pad_to=7)])
    with pytest.raises(BlipError) as error:
        prepare_experiment("x", config, 0, tmp_path, tmp_path)
    assert "pad_to: expected at least the images' 8, found 7" in one_line(error)


# Pickles


class Malicious:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.proof),)


def plain(value: Any, protocol: int = 4) -> Any:
    return load_plain(io.BytesIO(pickle.dumps(value, protocol)))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_are_read_in_every_protocol(protocol: int) -> None:
    image = random.integers(0, 256, (3, 4, 3), dtype=np.uint8)
    value = {
        "images": [image, np.asfortranarray(image)],
        "labels": [1, np.int64(2)],
        "more": (1.5, "text", b"bytes\xff", None, True, np.arange(3.0), np.array(["a"])),
    }
    found = plain(value, protocol)
    for i in range(2):
        np.testing.assert_array_equal(found["images"][i], image)
    assert found["labels"] == [1, 2]
    assert found["more"][:5] == value["more"][:5]
    assert found["more"][6].tolist() == ["a"]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "wrap", [lambda m: m, lambda m: {"images": [m]}, lambda m: np.array([m], dtype=object)], ids=["it", "in", "array"]
)
def test_a_malicious_pickle_is_refused_before_it_does_anything(
    wrap: Callable[[Any], Any], protocol: int, tmp_path: Path
) -> None:
    proof = tmp_path / "ran"
    content = pickle.dumps(wrap(Malicious(proof)), protocol)
    with pytest.raises(pickle.UnpicklingError):
        load_plain(io.BytesIO(content))
    assert not proof.exists()
    pickle.loads(content)
    assert proof.exists(), "it is a real one"


@pytest.mark.parametrize("value", [print, eval, os.system, torch.zeros(1), Path(), np.ufunc, np.load, slice(1)])
def test_anything_else_is_refused(value: Any) -> None:
    with pytest.raises(pickle.UnpicklingError, match="names"):
        plain([value])


@pytest.mark.parametrize(
    "state",
    [
        (3, "|", None, ("a",), {"a": (np.dtype("i8"), 0)}, 8, 1, 63),  # a field, and the flags of Python objects
        (3, "|", (np.dtype("O"), (2,)), None, None, 16, 1, 63),
    ],
    ids=["fields", "parts"],
)
def test_a_state_makes_no_other_type_of_a_type(state: tuple[Any, ...]) -> None:
    class Of8Bytes:
        def __reduce__(self) -> tuple[Any, ...]:
            return np.dtype, ("V8", False, True), state

    class Array:
        def __reduce__(self) -> tuple[Any, ...]:
            rebuild, arguments, _ = np.zeros(1).__reduce__()
            return rebuild, arguments, (1, (1,), Of8Bytes(), False, [(5,)])

    with pytest.raises(pickle.UnpicklingError):
        plain(Array())


def test_a_pickle_changes_nothing_that_reads_it() -> None:
    before = plain(np.zeros((2, 2)))
    with pytest.raises(pickle.UnpicklingError, match="sets attributes"):
        load_plain(io.BytesIO(b"\x80\x02cnumpy\nndarray\nN}(X\x04\x00\x00\x00makeK\x05u\x86b."))
    np.testing.assert_array_equal(plain(np.zeros((2, 2))), before)


def test_text_is_encoded_in_no_other_way() -> None:
    with pytest.raises(pickle.UnpicklingError, match="encoding"):
        load_plain(io.BytesIO(b"c_codecs\nencode\n(Vx\nVrot13\ntR."))


def test_images_are_pickled_one_by_one_in_a_form_that_every_loader_reads() -> None:
    images = [random.integers(0, 256, (3, 4 + i % 2, 3), dtype=np.uint8) for i in range(2500)]
    file, alive = io.BytesIO(), []

    def stream() -> Any:
        for image in images:
            alive.append(len(file.getvalue()))
            yield image.copy()

    dump_images(stream(), list(range(2500)), file)
    content = file.getvalue()
    assert b"numpy.core" not in content
    assert b"numpy._core" not in content
    assert alive[-1] > len(content) / 3, "written while images still come"
    for loaded in (pickle.loads(content), load_plain(io.BytesIO(content))):
        assert set(loaded) == {"images", "labels"}
        assert type(loaded["images"]) is list
        assert all(np.array_equal(a, b) and a.flags.writeable for a, b in zip(images, loaded["images"], strict=True))
        assert loaded["labels"] == list(range(2500))
