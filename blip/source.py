"""The source tree that the code runs from, as git knows it."""

import subprocess
from importlib import metadata
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
"""Of a clone; of an installed package the folder that it was installed into."""


def git(folder: Path, *words: str) -> str:
    """What git prints in `folder`; nothing where there is no git, or none of its repositories."""
    try:
        return subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def commit_of(folder: Path, *paths: str, untracked: bool) -> str:
    """The commit of `paths` in `folder`, with `+` where they differ from it, if only by files that are `untracked`.

    Empty where git keeps none of them, as where the package is installed within another project.
    """
    if not git(folder, "ls-files", "--", *paths):
        return ""
    if not (commit := git(folder, "rev-parse", "--short=12", "HEAD").strip()):
        return ""
    new_files = f"--untracked-files={'normal' if untracked else 'no'}"
    return commit + "+" * bool(git(folder, "status", "--porcelain", new_files, "--", *paths))


def present_commit() -> str:
    """The commit of this package's code, as `commit_of` says it; its version where git does not keep it."""
    return commit_of(REPOSITORY, "blip", untracked=True) or f"version {metadata.version('blip-continual')}"
