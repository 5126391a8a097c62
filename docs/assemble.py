"""Pages of the repository as the source of a site: every link leads somewhere, to the very line where it names one.

    python docs/assemble.py build/docs

On a page a link to code names a file and what is in it, `[text](../blip/core/formulas.py#frozen_bits)`. Where its text
is code, the line is looked for in that function, class or constant, so that a page cannot quote what is no longer
there. In the site such a link leads to the line on a page with the file.
"""

import ast
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
    "config/README.md": "configuration.md",
    "results/README.md": "results.md",
    "benchmarks/README.md": "benchmarks.md",
}
"""Pages outside of docs/, and where they are in the site."""
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".smk": "python", ".sh": "sh"}
LINK = re.compile(r"(?<!\\)\[((?:[^][]|\[[^][]*\])*)\]\(([^()\s]+)\)")
FENCE = re.compile(r"^\s*```.*?^\s*```\s*?$|`[^`\n]+`", re.M | re.S)
"""Where brackets are no links: blocks of code, and code within a line."""
VERIFIED = re.compile(r"^.*<!-- verified: (\S+) -->$", re.M)
"""The line in whose place the rows of docs/verified.md on a method are put: elsewhere it leads there."""


def pages() -> dict[Path, Path]:
    """The place in the site of every page of the repository."""
    found = {ROOT / source: Path(place) for source, place in PLACES.items()}
    found |= {path: path.relative_to(ROOT / "docs") for path in sorted((ROOT / "docs").rglob("*.md"))}
    recorded = sorted((ROOT / "results" / "recorded").rglob("README.md"))
    return found | {path: Path("recorded", f"{path.parent.name}.md") for path in recorded}


def links(text: str) -> Iterator[re.Match[str]]:
    """The links of a page outside of code: groups 1 and 2 are text and target."""
    code = [match.span() for match in FENCE.finditer(text)]
    for match in LINK.finditer(text):
        if not any(start <= match.start() < end for start, end in code):
            yield match


def line_of(path: Path, name: str, text: str = "") -> int:
    """The line (from 1) of a Python file where `name`, dotted, begins; where `text` is other code: its line therein.

    Raises ValueError where there is no such thing.
    """
    source = path.read_text(encoding="utf-8")
    node: ast.AST = ast.parse(source)
    for part in name.split("."):
        inner = [child for child in ast.iter_child_nodes(node) if part in _names(child)]
        if not inner:
            raise ValueError(f"{path.relative_to(ROOT)} has no {name}")
        node = inner[0]
    first, last = node.lineno, node.end_lineno or 0  # type: ignore[attr-defined]
    if text and text not in (name, name.rpartition(".")[2]):
        lines = source.splitlines()[first - 1 : last]
        found = [i for i, line in enumerate(lines) if _spaceless(text) in _spaceless(line)]
        if not found:
            raise ValueError(f"{path.relative_to(ROOT)}: {name} has no line with {text}")
        first += found[0]
    return first


def _names(node: ast.AST) -> list[str]:
    """What a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]


def _spaceless(text: str) -> str:
    return re.sub(r"\s+", "", text)


def tables(text: str) -> Iterator[tuple[str, list[str]]]:
    """The tables of a page: the heading that each is under, and its lines."""
    heading = ""
    for part in re.split(r"\n\s*\n", text):
        lines = part.strip().splitlines()
        heading = lines[0].lstrip("# ") if lines and lines[0].startswith("#") else heading
        rows = [line for line in lines if line.startswith("|")]
        if len(rows) > 2:
            yield heading, rows


def rows_of(method: str, text: str) -> str:
    """Of the tables of a page that have a column `method`, the rows on this one."""
    found = []
    for heading, (head, rule, *rows) in tables(text):
        names = [_cells(line) for line in (head, *rows)]
        if "method" in names[0]:
            column = names[0].index("method")
            mine = [row for row, cells in zip(rows, names[1:], strict=True) if cells[column] == method]
            found += ["\n".join([f"{heading}\n", head, rule, *mine])] if mine else []
    return "\n\n".join(found) or f"No number of another paper has been compared with `{method}` yet."


def _numbers(method: str, page: Path) -> str:
    """The section of a page with what docs/verified.md says of a method; its links lead from there."""
    source = ROOT / "docs" / "verified.md"
    rows = rows_of(method, source.read_text(encoding="utf-8"))
    back = os.path.relpath(source.parent, page.parent)
    rows = LINK.sub(lambda m: m[0] if re.match(r"[a-z]+:|#", m[2]) else f"[{m[1]}]({back}/{m[2]})", rows)
    return f"## Verified: `{method}`\n\n{rows}"


def _cells(row: str) -> list[str]:
    return [cell.strip(" `*") for cell in row.strip().strip("|").split("|")]


class Site:
    """The folder that the site is made of; what pages link to is put into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pages = pages()

    def write(self) -> None:
        """All pages. Raises ValueError for a link that leads nowhere."""
        for path, place in self.pages.items():
            text = VERIFIED.sub(lambda mark, page=path: _numbers(mark[1], page), path.read_text(encoding="utf-8"))
            for match in reversed(list(links(text))):
                try:
                    new = self._link(path, place, match[1], match[2])
                except ValueError as error:
                    line = text[: match.start()].count("\n") + 1
                    raise ValueError(f"{path.relative_to(ROOT)}, line {line}: {error}") from None
                text = text[: match.start()] + new + text[match.end() :]
            self._put(place, text)

    def _link(self, page: Path, place: Path, text: str, target: str) -> str:
        file, _, anchor = target.partition("#")
        if not file or re.match(r"[a-z]+:", target):
            return f"[{text}]({target})"
        path = Path(os.path.normpath(page.parent / file))
        if path.is_dir() and (path / "README.md").exists():
            path /= "README.md"
        if not path.is_file() or not path.is_relative_to(ROOT):
            raise ValueError(f"{target}: no such file")
        if path in self.pages:
            return f"[{text}]({_relative(place, self.pages[path])}{'#' * bool(anchor)}{anchor})"
        if path.suffix in LANGUAGES:
            quoted = re.fullmatch(r"`(.+)`", text)
            line = line_of(path, anchor, quoted[1] if quoted else "") if anchor else 0
            return f"[{text}]({_relative(place, self._shown(path))}{f'#__codelineno-0-{line}' * bool(line)})"
        copy = Path("files", path.relative_to(ROOT))
        (self.folder / copy).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, self.folder / copy)
        return f"[{text}]({_relative(place, copy)})"

    def _shown(self, path: Path) -> Path:
        """The page with a file's content."""
        name = path.relative_to(ROOT)
        place = Path("source", f"{name}.md")
        if not (self.folder / place).exists():
            code = path.read_text(encoding="utf-8")
            self._put(place, f'# `{name}`\n\n````{LANGUAGES[path.suffix]} linenums="1"\n{code}````\n')
        return place

    def _put(self, place: Path, text: str) -> None:
        path = self.folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _relative(page: Path, place: Path) -> str:
    return os.path.relpath(place, page.parent)


if __name__ == "__main__":
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    try:
        Site(Path(sys.argv[1])).write()
    except ValueError as error:
        sys.exit(f"docs: {error}")
