"""Follow the first-party imports of a module without running it."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Code that every stage runs but that cannot change an output.
SHAPES_NO_OUTPUT = {
    f"src/atlas/{name}.py"
    for name in (
        "errors",
        "params/schema",
        "params/settings",
        "pipeline/stage",
        "pipeline/processes",
        "pipeline/restore",
    )
}


def module_file(name: str) -> Path | None:
    """Return the file of a first-party module, or None."""
    parts = name.split(".")
    base = {"atlas": ROOT / "src", "stages": ROOT, "tests": ROOT}.get(parts[0])
    if base is None:
        return None
    path = base.joinpath(*parts)
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def imported_names(file: Path) -> set[str]:
    """Return every module that a file imports, at any level of nesting."""
    names = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)  # a module run by name, as with `python -m`
    return names


def code_of(module: str) -> set[str]:
    """Return the first-party files that a module needs, itself included, relative to ROOT."""
    found: set[Path] = set()
    waiting = [module_file(module)]
    while waiting:
        file = waiting.pop()
        if file is None or file in found:
            continue
        found.add(file)
        if file.relative_to(ROOT).as_posix() not in SHAPES_NO_OUTPUT:
            waiting += [module_file(name) for name in imported_names(file)]
    code = {file.relative_to(ROOT).as_posix() for file in found if file.name != "__init__.py"}
    return code - SHAPES_NO_OUTPUT


def declared_code(deps: list[str]) -> set[str]:
    """Return the first-party Python files in the deps of a stage, with folders expanded."""
    files: set[str] = set()
    for dep in deps:
        path = ROOT / dep
        if dep.endswith(".py"):
            files.add(dep)
        elif dep.startswith("src/") and path.is_dir():
            files |= {file.relative_to(ROOT).as_posix() for file in path.rglob("*.py")}
    return {name for name in files if not name.endswith("__init__.py")}
