"""One folder with all that a machine without a network needs beside its Python: packages, tests, benchmarks, data.

    python envs/bundle/make.py build/gpu-bundle --python 3.12 --raw data/raw [--most 60]

The machine's Python has PyTorch, and with `--there` more: what those packages need is there too, and left out. The rest
goes into `wheels`, at the versions of envs/constraints.txt, for Linux on x86-64.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
GLIBC = (28, 27, 24, 17, 12, 5)
"""Minor versions of glibc 2 that wheels are built for; pip takes each by its name alone."""
ALWAYS = {"cloudpickle", "typing-extensions"}
"""Small, and of an old version where something else brought them."""
COPIED = ("tests", "benchmarks", "config", "docs", "pyproject.toml", "README.md", "LICENSE")
RECORDED = "results/recorded/mnist5"
"""What the check puts beside its own numbers."""


def resolved(*requirements: str, python: str) -> dict[str, str]:
    """The packages that `requirements` need, themselves included, by name: `name==version`."""
    with tempfile.NamedTemporaryFile("w", suffix=".in") as file:
        file.write("\n".join(requirements))
        file.flush()
        command = [
            *("uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python-version", python),
            *("--python-platform", "x86_64-manylinux_2_28", "--constraint", ROOT / "envs" / "constraints.txt"),
        ]
        lines = subprocess.run([*map(str, command), file.name], check=True, capture_output=True, text=True).stdout
    pins = [line.partition(" ;")[0] for line in lines.splitlines() if "==" in line]
    return {pin.partition("==")[0]: pin for pin in pins}


def download(pins: list[str], python: str, folder: Path) -> None:
    """Wheels of exactly these packages."""
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in GLIBC]
    platforms += ["--platform=manylinux2014_x86_64", "--platform=manylinux1_x86_64"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    target = [f"--python-version={python}", "--implementation=cp", *platforms, f"--dest={folder}"]
    subprocess.run([*command, *target, *pins], check=True)


def copy_mnist(raw: Path, folder: Path) -> str:
    """MNIST's four files where `raw` has them; says what was found."""
    for place in ("mnist", "MNIST/raw"):
        files = sorted((raw / place).glob("*-ubyte.gz")) or sorted((raw / place).glob("*-ubyte"))
        if len(files) >= 4:
            (folder / "raw" / "mnist").mkdir(parents=True)
            for file in files:
                shutil.copy(file, folder / "raw" / "mnist")
            return "with MNIST"
    return f"without MNIST, which is not in {raw}"


def expected(names: set[str]) -> str:
    """Of our dependencies those with these names, with their lowest versions, a line each."""
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return "".join(f"{line}\n" for line in needed if re.split("[<>=~!]", line)[0] in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="made anew")
    parser.add_argument("--python", default="3.12", help="of the machine (default: %(default)s)")
    parser.add_argument("--raw", type=Path, default=ROOT / "data" / "raw", help="raw data (default: %(default)s)")
    parser.add_argument("--there", nargs="*", default=[], help="packages that the machine has beside PyTorch")
    parser.add_argument("--most", type=float, help="MB that the folder may have")
    options = parser.parse_args()
    if not re.fullmatch(r"3\.\d+", options.python):
        sys.exit(f"--python {options.python}: expected a version such as 3.12")

    shutil.rmtree(options.folder, ignore_errors=True)
    (options.folder / "wheels").mkdir(parents=True)
    wanted = resolved(f"blip-continual[rl] @ file://{ROOT}", "pytest", "hypothesis", python=options.python)
    there = resolved("torch", *options.there, python=options.python)
    there = {name for name in there if name not in ALWAYS} | {"blip-continual"}
    download([pin for name, pin in wanted.items() if name not in there], options.python, options.folder / "wheels")
    shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)  # setuptools would pack what an older build left there
    subprocess.run(["uv", "build", "--quiet", "--wheel", "--out-dir", options.folder / "wheels", ROOT], check=True)
    (options.folder / "wheels" / ".gitignore").unlink(missing_ok=True)

    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in (*COPIED, RECORDED):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, options.folder / name, **({"ignore": ignore} if copy is shutil.copytree else {}))
    for name in ("setup.py", "env.sh", "run.sh"):
        shutil.copy(HERE / name, options.folder / name)
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=12"]
    commit = subprocess.run(git, check=False, capture_output=True, text=True).stdout.strip()
    (options.folder / "there.txt").write_text(expected({"torch", *options.there}))
    (options.folder / "commit.txt").write_text(f"{commit or 'unknown'}\n")
    data = copy_mnist(options.raw, options.folder)
    size = sum(path.stat().st_size for path in options.folder.rglob("*") if path.is_file()) / 1e6
    print(f"{options.folder}: {size:.0f} MB for Python {options.python}, {data}")
    if options.most and size > options.most:
        sys.exit(f"{options.folder}: {size:.0f} MB, expected at most {options.most:g}")


if __name__ == "__main__":
    main()
