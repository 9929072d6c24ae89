"""The embedded corpus: Python's language reference and the docstrings of its standard library.

Every CPython includes both, about 2 MB of technical English, so the pipeline runs without a
network. Sources are parsed, never imported.
"""

import ast
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from pydoc_data import topics

from atlas.errors import AtlasError
from atlas.pipeline.files import write_records

URL = "https://docs.python.org/3/"
LICENCE = "PSF-2.0"
NOT_DOCUMENTATION = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def write_python_docs(folder: Path) -> list[str]:
    """Write topics.jsonl and docstrings.jsonl and return their names."""
    library = Path(sysconfig.get_path("stdlib"))
    documents: dict[str, Iterable[tuple[str, str]]] = {
        "topics.jsonl": sorted(topics.topics.items()),  # the language reference of help()
        "docstrings.jsonl": docstrings(library),
    }
    for name, texts in documents.items():
        records = ({"source": source, "text": text} for source, text in texts)
        if not write_records(folder / name, records):
            raise AtlasError(
                f"corpus.name: python-docs needs the sources of Python, and {library} has none; "
                "use the CPython of your system or of python.org, or another corpus"
            )
    return list(documents)


def docstrings(library: Path) -> Iterator[tuple[str, str]]:
    """Yield the docstrings of each module below a folder as (module, text)."""
    for path in sorted(library.rglob("*.py")):
        relative = path.relative_to(library)
        if NOT_DOCUMENTATION.intersection(relative.parts):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue  # templates and samples of old syntax
        module = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
        entries = list(_entries(tree, module))
        if entries:
            yield module, "\n\n\n".join(entries)


def _entries(node: Documented, name: str) -> Iterator[str]:
    """Yield signature and docstring of a definition, then of nested ones."""
    text = ast.get_docstring(node)
    if text:
        yield f"{_signature(node, name)}\n\n{text}"
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _entries(child, f"{name}.{child.name}")


def _signature(node: Documented, name: str) -> str:
    if isinstance(node, ast.Module | ast.ClassDef):
        return f"{'module' if isinstance(node, ast.Module) else 'class'} {name}"
    return f"{name}({ast.unparse(node.args)})"
