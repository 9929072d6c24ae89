"""The corpus `files`: the user's own texts, a file or a folder of them."""

import shutil
from pathlib import Path

from atlas.errors import AtlasError

SUFFIXES = (".txt", ".jsonl", ".gz")


def copy_files(source: Path, folder: Path) -> tuple[dict[str, Path], int]:
    """Copies every text file below ``source`` into ``folder``, byte for byte.

    Hidden files, and those in hidden folders, do not count as part of the corpus.

    Returns:
        For each copy its name below ``folder`` and the file that it came from; and how many
        files were passed over for their suffix.

    Raises:
        AtlasError: there is no such path, or no text file in it.
    """
    if not source.exists():
        raise AtlasError(
            f"corpus.path: {source} does not exist; give a file or folder "
            "(an absolute path where experiments are queued)"
        )
    base = source if source.is_dir() else source.parent
    found = [source] if source.is_file() else sorted(source.rglob("*"))
    files = {
        path.relative_to(base).as_posix(): path
        for path in found
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(base).parts)
    }
    chosen = {name: path for name, path in files.items() if name.lower().endswith(SUFFIXES)}
    if not chosen:
        raise AtlasError(
            f"corpus.path: {source} holds no {', '.join(SUFFIXES)}; put your texts there, or "
            "choose another corpus.name (a queued experiment runs in a copy that has only what "
            "git knows: give it an absolute path)"
        )
    for name, path in chosen.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
    return chosen, len(files) - len(chosen)
