"""Unpack the wheels beside this file into a folder, so that PYTHONPATH puts them beside the packages of this Python.

    python setup.py FOLDER

Needs neither pip nor a network, and installs nothing: a virtual environment is as good as any other Python. One line
and status 2 where this Python is another than the wheels are for, or lacks what there.txt says is to be there.
"""

import re
import sys
import zipfile
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent


def wrong(wheels):
    """What stands against these wheels in this Python, in one line, or None."""
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    built = {re.sub(r"cp3(\d+)-cp3\d+-.*", r"3.\1", w) for w in ("-".join(w.stem.split("-")[-3:]) for w in wheels)}
    versions = sorted(v for v in built if re.fullmatch(r"3\.\d+", v))
    if versions and own not in versions:
        return f"this bundle is for Python {versions[0]}, found {own}: make bundle GPU_PYTHON={own}"
    for line in (HERE / "there.txt").read_text().split():
        name, _, least = line.partition(">=")
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            return f"{sys.executable} has no {name}: name a Python that has: PYTHON=/path/of/python3"
        if numbers(found) < numbers(least):
            return f"{name} {found} is too old in {sys.executable}: expected at least {least}"
    return None


def numbers(version):
    """The first two of a version such as 2.6.0+cu124."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def main():
    folder, wheels = Path(sys.argv[1]), sorted((HERE / "wheels").glob("*.whl"))
    problem = wrong(wheels) if wheels else f"{HERE / 'wheels'}: no wheels"
    if problem:
        print(f"bundle: {problem}", file=sys.stderr)
        return 2
    done = folder / "unpacked"
    if done.exists() and done.read_text() == "\n".join(w.name for w in wheels):
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    done.write_text("\n".join(w.name for w in wheels))
    return 0


if __name__ == "__main__":
    sys.exit(main())
