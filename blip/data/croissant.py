"""Data sets in Croissant (mlcommons.org/croissant, 1.0), which search engines and loaders of other people read."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from blip.data.storage import croissant_path, read_dataset
from blip.files import atomic_write, sha256

VERSION = "http://mlcommons.org/croissant/1.0"
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
} | {
    word: f"cr:{word}"
    for word in (
        *("citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet"),
        *("format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet"),
        *("references", "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform"),
    )
}
"""What Croissant 1.0 asks every description to begin with."""


def write_croissant(path: Path) -> Path:
    """Describe a prepared data set's file beside it: what is in it, its SHA-256, its classes.

    The same file gives the same bytes. Who made the images, and their licence, it does not say, since the file does
    not either. Raises BlipError where the file is missing or damaged.
    """
    tensors, record = read_dataset(path)
    text = json.dumps(_described(path, tensors, record.classes, record.stand_in), indent=1, ensure_ascii=False)
    atomic_write(croissant_path(path), text + "\n")
    return croissant_path(path)


def _described(path: Path, tensors: dict[str, Tensor], classes: tuple[str, ...], stand_in: bool) -> dict[str, Any]:
    arrays = "; ".join(f"{name} {_size(tensors[name])}" for name in sorted(tensors))
    kind = "Generated images that stand in for the real ones" if stand_in else "Images"
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": VERSION,
        "name": path.stem,
        "description": f"{kind} of {len(classes)} classes, as this project prepared them: {arrays}.",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": path.name,
                "name": path.name,
                "description": "Arrays by name, in the safetensors format.",
                "contentUrl": path.name,
                "contentSize": f"{path.stat().st_size} B",
                "encodingFormat": "application/octet-stream",
                "sha256": sha256(path),
            }
        ],
        "recordSet": [_classes(classes)],
    }


def _classes(names: tuple[str, ...]) -> dict[str, Any]:
    """The classes by their labels."""
    columns = {"label": ("sc:Integer", "The number in the arrays."), "name": ("sc:Text", "Of the class.")}
    return {
        "@type": "cr:RecordSet",
        "@id": "classes",
        "name": "classes",
        "description": "The classes of the images.",
        "dataType": "sc:Enumeration",
        "key": {"@id": "classes/label"},
        "field": [
            {"@type": "cr:Field", "@id": f"classes/{name}", "name": name, "description": about, "dataType": kind}
            for name, (kind, about) in columns.items()
        ],
        "data": [{"classes/label": label, "classes/name": name} for label, name in enumerate(names)],
    }


def _size(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} ({' × '.join(map(str, tensor.shape))})"
