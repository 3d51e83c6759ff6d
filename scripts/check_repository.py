"""What no linter knows: the layers of the code, and whether the documentation agrees with it.

``python scripts/check_repository.py`` prints one line a fault and exits with 1 if there is any. It reads the sources;
only the options of the commands and the stages are taken from the program itself.
"""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any

# From the bottom up: a module imports from its own folder and from those to the left of it.
LAYERS = (
    "errors",
    "compiled",
    "model",
    "backends",
    "operators",
    "masks",
    "solver",
    "render",
    "evaluation",
    "simulation",
    "io",
    "report",
    "workflows",
    "cli",
)
NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "misc", "common"}

# What a reader of the repository sees; tables of numbers are too long to be worth reading.
TEXT_SUFFIXES = {
    ".py",
    ".c",
    ".h",
    ".md",
    ".toml",
    ".yml",
    ".yaml",
    ".txt",
    ".cff",
    ".cfg",
    ".json",
    ".html",
    ".sh",
    "",
}
# A path that begins at the root of somebody's disk, but not /dev or what follows a name, a variable or a scheme.
MACHINE_PATH = re.compile(r"(?<![\w.~}:/-])/(?:home|root|tmp|opt|work|Users|mnt|data|scratch)/")
PICTURES = ("*.png", "*.svg", "*.jpg", "*.gif")


@dataclass
class Module:
    """A source file and what it imports, at the top or inside a function."""

    name: str
    path: Path
    tree: ast.Module

    @cached_property
    def imports(self) -> list[tuple[int, str]]:
        """Line, and the full name of everything that is imported."""
        found = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found += [(node.lineno, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                found += [(node.lineno, f"{'.' * node.level}{node.module or ''}.{alias.name}") for alias in node.names]
        return found

    @cached_property
    def definitions(self) -> dict[str, ast.AST | None]:
        """Names at the top of the module; a class or a function with its body."""
        found: dict[str, ast.AST | None] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                found.update({alias.asname or alias.name: None for alias in node.names})
        found.update(_definitions(self.tree))
        return found


def _definitions(node: ast.Module | ast.ClassDef) -> dict[str, ast.AST | None]:
    found: dict[str, ast.AST | None] = {}
    for child in node.body:
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found[child.name] = child
        elif isinstance(child, ast.Assign | ast.AnnAssign | ast.AugAssign):
            for target in child.targets if isinstance(child, ast.Assign) else [child.target]:
                found.update({name.id: None for name in ast.walk(target) if isinstance(name, ast.Name)})
    return found


@dataclass
class Repository:
    """The repository under `root`, read once."""

    root: Path
    package: str = "gsvr"
    layers: tuple[str, ...] = LAYERS
    modules: dict[str, Module] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for folder, name in (
            (self.root / "src" / self.package, self.package),
            (self.root / "benchmarks", "benchmarks"),
        ):
            for path in sorted(folder.rglob("*.py")):
                parts = (name, *path.relative_to(folder).with_suffix("").parts)
                dotted = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
                self.modules[dotted] = Module(dotted, path, ast.parse(path.read_text(encoding="utf-8"), str(path)))

    @cached_property
    def pages(self) -> dict[Path, str]:
        """The documentation: what is in Markdown."""
        paths = [*self.root.glob("*.md"), *(self.root / "docs").rglob("*.md"), *self.root.glob("benchmarks/*.md")]
        return {path: path.read_text(encoding="utf-8") for path in sorted(paths)}

    @cached_property
    def public_names(self) -> list[str]:
        """``__all__`` of the package."""
        for node in self.modules[self.package].tree.body:
            if isinstance(node, ast.Assign) and any(getattr(t, "id", "") == "__all__" for t in node.targets):
                return list(ast.literal_eval(node.value))
        return []

    def of_package(self) -> Iterator[tuple[Module, str]]:
        """The modules of the package with the layer of each; the package itself shows names of every layer."""
        for name, module in self.modules.items():
            if name.startswith(f"{self.package}."):
                yield module, name.split(".")[1]

    def module_of(self, name: str) -> str | None:
        """The longest part of a dotted name that is a module."""
        while name and name not in self.modules:
            name = name.rpartition(".")[0]
        return name or None

    def exists(self, name: str) -> bool:
        """Whether a dotted name leads to a module, something defined in one, or a member of a class."""
        home = self.module_of(name)
        if home is None:
            return False
        rest = name[len(home) + 1 :].split(".") if name != home else []
        if not rest or (home == self.package and rest[0] in self.public_names):
            return True
        definitions = self.modules[home].definitions
        if rest[0] not in definitions:
            return False
        definition = definitions[rest[0]]
        return len(rest) == 1 or not isinstance(definition, ast.ClassDef) or rest[1] in _definitions(definition)

    def place(self, path: Path, line: int | None = None) -> str:
        """How a fault names its file."""
        return f"{path.relative_to(self.root)}{'' if line is None else f':{line}'}"


def layers(repository: Repository) -> Iterator[str]:
    """Every module has a layer, and imports only from its own and from lower ones."""
    height = {name: number for number, name in enumerate(repository.layers)}
    for module, layer in repository.of_package():
        if layer not in height and layer != "__main__":
            yield f"{repository.place(module.path)}: {layer} is none of the layers"
            continue
        for line, name in module.imports:
            if name.startswith("."):
                yield f"{repository.place(module.path, line)}: relative import"
                continue
            parts = name.split(".")
            if parts[0] == repository.package and height.get(parts[1] if len(parts) > 1 else "", -1) > height.get(
                layer, len(height)
            ):
                yield f"{repository.place(module.path, line)}: {layer} imports {name} from above"


def circles(repository: Repository) -> Iterator[str]:
    """No module leads back to itself, imports inside functions included."""
    graph: dict[str, set[str]] = {}
    for name, module in repository.modules.items():
        targets = {repository.module_of(imported) for _, imported in module.imports}
        graph[name] = {target for target in targets if target not in (None, repository.package, name)}
    done: set[str] = set()
    for start in graph:
        path: list[str] = []
        yield from _walk(graph, start, path, done)


def _walk(graph: dict[str, set[str]], name: str, path: list[str], done: set[str]) -> Iterator[str]:
    if name in path:
        yield f"circle of imports: {' -> '.join([*path[path.index(name) :], name])}"
    elif name not in done:
        path.append(name)
        for target in sorted(graph[name]):
            yield from _walk(graph, target, path, done)
        path.pop()
        done.add(name)


def names(repository: Repository) -> Iterator[str]:
    """No file is named after nothing."""
    for module in repository.modules.values():
        if module.path.stem in NAMES_THAT_SAY_NOTHING:
            yield f"{repository.place(module.path)}: the name says nothing about what is inside"


def machine_paths(repository: Repository) -> Iterator[str]:
    """No path of one machine in a file of the repository."""
    for path in _files(repository.root):
        if path.suffix in TEXT_SUFFIXES:
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if MACHINE_PATH.search(line):
                    yield f"{repository.place(path, number)}: a path of one machine"


def _files(root: Path) -> list[Path]:
    """Files that git knows or would take up."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    return [root / name for name in listed if name and (root / name).is_file()]


def references(repository: Repository) -> Iterator[str]:
    """What docstrings, comments and pages name by its full name, in backticks, is there."""
    sources = [path for path in _files(repository.root) if path.suffix == ".py"]
    texts = {path: path.read_text(encoding="utf-8") for path in sources if "tests" not in path.parts}
    for path, text in {**texts, **repository.pages}.items():
        if path.name == "CHANGELOG.md":  # tells of names that were
            continue
        for number, line in enumerate(text.splitlines(), 1):
            for name in re.findall(rf"`({repository.package}\.[A-Za-z_][\w.]*\w)(?:\([^`]*\))?`", line):
                if not repository.exists(name) and not name.endswith(".__all__"):
                    yield f"{repository.place(path, number)}: there is no {name}"


def links(repository: Repository) -> Iterator[str]:
    """Links in the documentation lead to a file, and to a heading of it."""
    for page, text in repository.pages.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            name, _, part = target.partition("#")
            if name.startswith(("http:", "https:", "mailto:")):
                continue
            path = page.parent / name if name else page
            if not path.exists():
                yield f"{repository.place(page)}: {target} leads nowhere"
            elif part and part not in map(_anchor, re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)):
                yield f"{repository.place(page)}: {target}: no such heading"


def _anchor(heading: str) -> str:
    """Make a heading's anchor as GitHub does."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def pictures(repository: Repository) -> Iterator[str]:
    """Every picture of the documentation is shown."""
    shown = "".join(repository.pages.values())
    for path in sorted(path for pattern in PICTURES for path in (repository.root / "docs").rglob(pattern)):
        if path.name not in shown:
            yield f"{repository.place(path)}: no page shows this picture"


def options(repository: Repository) -> Iterator[str]:
    """Every option is explained on the page of usage, and commands in the documentation have the options they use."""
    import typer.main

    commands = typer.main.get_command(importlib.import_module(f"{repository.package}.cli").app).commands  # pyright: ignore[reportAttributeAccessIssue]
    usage = repository.root / "docs" / "usage.md"
    sections = re.split(rf"^### {repository.package} (\w+)$", repository.pages[usage], flags=re.M)
    explained = {
        name: re.split(r"^##", text, flags=re.M)[0] for name, text in zip(sections[1::2], sections[2::2], strict=True)
    }
    for name, command in commands.items():
        if name not in explained:
            yield f"{repository.place(usage)}: there is no section about {repository.package} {name}"
            continue
        for option in sorted(_options(command) - {"--help", "-h"}):
            if f"`{option}`" not in explained[name]:
                yield f"{repository.place(usage)}: {repository.package} {name}: {option} is not explained"
    for page, text in repository.pages.items():
        for line in "".join(_blocks(text, "sh")).replace("\\\n", " ").splitlines():
            found = re.match(rf"(?:\$ )?{repository.package} (\w+) ", line.strip())
            if found and found[1] not in commands:
                yield f"{repository.place(page)}: there is no command {repository.package} {found[1]}"
            elif found:
                used = set(re.findall(r" (--?[a-z][\w-]*)", line.partition(" #")[0]))
                for option in sorted(used - _options(commands[found[1]])):
                    yield f"{repository.place(page)}: {repository.package} {found[1]} has no option {option}"


def _options(command: Any) -> set[str]:
    given = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return {name for name in given if name.startswith("-")} | {"--help", "-h"}


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def python_in_pages(repository: Repository) -> Iterator[str]:
    """Python in the documentation is Python, and the names that it takes from the package exist."""
    for page, text in repository.pages.items():
        for block in _blocks(text, "python"):
            try:
                tree = ast.parse(block)
            except SyntaxError as error:
                yield f"{repository.place(page)}: {error.msg}: {(error.text or '').strip()}"
                continue
            used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
            used |= {name for _, name in Module("", page, tree).imports}
            for name in sorted(used):
                if re.fullmatch(rf"{repository.package}(\.\w+)+", name) and not repository.exists(name):
                    yield f"{repository.place(page)}: there is no {name}"


def public_names(repository: Repository) -> Iterator[str]:
    """Every public name is on the page of usage."""
    usage = repository.root / "docs" / "usage.md"
    section = repository.pages[usage].partition("\n## Python\n")[2]
    for name in repository.public_names:
        if not re.search(rf"`(?:\w+\.)*{name}\b", section):
            yield f"{repository.place(usage)}: the public name {name} is not mentioned under Python"


def stages(repository: Repository) -> Iterator[str]:
    """The table of the default stages is the schedule."""
    page = repository.root / "docs" / "method.md"
    table = _table_after(repository.pages.get(page, ""), "schedule")
    actual = importlib.import_module(repository.package).default_stages() if table else []
    expected = [
        [
            *(stage.name, f"{stage.spacing:g}", f"{stage.sigma_ratio:g}", f"{stage.binning} x {stage.binning}"),
            *(f"{stage.outer_iterations}", f"{stage.inner_iterations}"),
            *("nothing" if stage.motion == "none" else stage.motion, "yes" if stage.consensus_mask else "no"),
        ]
        for stage in actual
    ]
    for told, stage in zip_longest(table, expected, fillvalue=[]):
        if told != stage:
            yield f"{repository.place(page)}: the stage is {' | '.join(stage)}, not {' | '.join(told)}"


def defaults(repository: Repository) -> Iterator[str]:
    """The table of default values holds the defaults."""
    page = repository.root / "docs" / "method.md"
    classes = {n.name: n for m in repository.modules.values() for n in m.tree.body if isinstance(n, ast.ClassDef)}
    for _, option, value in _table_after(repository.pages.get(page, ""), "defaults"):
        name, _, attribute = option.strip("`").partition(".")
        if attribute:
            nodes = [_inherited(classes, name)[attribute]] if attribute in _inherited(classes, name) else []
        else:  # a constant: modules may have one of the same name
            nodes = [found[name] for m in repository.modules.values() if name in (found := _values(m.tree))]
        if not nodes:
            yield f"{repository.place(page)}: there is no {option}"
        elif value not in [f"{ast.literal_eval(node):g}" for node in nodes]:
            yield f"{repository.place(page)}: {option} is {ast.unparse(nodes[0])}, not {value}"


def _inherited(classes: dict[str, ast.ClassDef], name: str) -> dict[str, ast.AST]:
    """Values of a class and of those that it inherits from."""
    if name not in classes:
        return {}
    bases = [_inherited(classes, base.id) for base in classes[name].bases if isinstance(base, ast.Name)]
    return {key: value for values in [*reversed(bases), _values(classes[name])] for key, value in values.items()}


def _values(node: ast.Module | ast.ClassDef) -> dict[str, ast.AST]:
    """What is assigned in a module or a class."""
    found: dict[str, ast.AST] = {}
    for child in node.body:
        if isinstance(child, ast.AnnAssign) and child.value is not None and isinstance(child.target, ast.Name):
            found[child.target.id] = child.value
        elif isinstance(child, ast.Assign) and isinstance(child.targets[0], ast.Name):
            found[child.targets[0].id] = child.value
    return found


def _table_after(text: str, comment: str) -> list[list[str]]:
    """Cells of the table that follows a comment, without its header."""
    after = text.partition(f"<!-- {comment}")[2].split("\n\n", 2)
    return [row.split(" | ") for row in re.findall(r"^\| (.*) \|$", after[1], re.M)[1:]] if len(after) > 1 else []


def concepts(repository: Repository) -> Iterator[str]:
    """The files that the page of the architecture names exist."""
    page = repository.root / "docs" / "architecture.md"
    section = repository.pages.get(page, "").partition("\n## Where to find it")[2].partition("\n## ")[0]
    for row in re.findall(r"^\| .* \| (`.*`) \|$", section, re.M):
        folder = Path()
        for name in re.findall(r"`([\w/.]+)`", row):
            # the first file of a row is named with its folder, those after it may do without
            folder = Path(name).parent if "/" in name else folder
            path = repository.root / "src" / repository.package / folder / Path(name).name
            if not path.exists():
                yield f"{repository.place(page)}: there is no {folder / Path(name).name}"


CHECKS = (
    *(layers, circles, names, machine_paths, references, links, pictures, options, python_in_pages, public_names),
    *(stages, defaults, concepts),
)


def main(root: Path) -> int:
    """Print the faults of the repository under `root`; 1 if there is any."""
    repository = Repository(root)
    faults = [fault for check in CHECKS for fault in check(repository)]
    print(*faults, sep="\n", end="\n" if faults else "")
    return min(len(faults), 1)


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parents[1]))
