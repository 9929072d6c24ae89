"""The page of a study: a person's words around the table and the picture, which are kept new."""

from pathlib import Path

from atlas.errors import AtlasError
from atlas.pipeline.files import write_text
from atlas.tools.studies.plan import SEED, file_of
from atlas.tools.studies.plot import draw
from atlas.tools.studies.results import Result
from atlas.tools.studies.study import Study, text_of
from atlas.tools.studies.table import as_csv, as_markdown

FOLDER = Path("docs/studies")
BEGIN, END = "<!-- results -->", "<!-- end of results -->"


def write_page(root: Path, study: Study, results: list[Result]) -> Path:
    """Writes the table, the picture, and both into the page; what else stands there is kept.

    Returns:
        The page, as a path from the root of the project.

    Raises:
        AtlasError: the page has no place for results.
    """
    page = FOLDER / f"{study.name}.md"
    text = (root / page).read_text(encoding="utf-8") if (root / page).is_file() else new_page(study)
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise AtlasError(f"{page}: no lines {BEGIN} and {END}, between which results would stand")
    write_text(root / FOLDER / f"{study.name}.csv", as_csv(study, results))
    drawn = any(study.plan.measures[0] in result.measures for result in results)
    if drawn:
        write_text(root / FOLDER / f"{study.name}.svg", draw(study, results))
    block = _block(study, results, drawn)
    write_text(root / page, f"{before}{BEGIN}\n{block}\n{END}{after}")
    return page


def new_page(study: Study) -> str:
    """A page to begin with: the question and the command."""
    title = study.name.replace("-", " ").capitalize()
    return (
        f"# {title}\n\n{study.plan.question.strip()}\n\n"
        f"```sh\natlas study {study.name}\n```\n\n{BEGIN}\n{END}\n"
    )


def _block(study: Study, results: list[Result], drawn: bool) -> str:
    """What stands between the two marks."""
    plan, name = study.plan, study.name
    done = sum(result.state == "done" for result in results)
    seeds = ", ".join(map(str, plan.seeds))
    presets = f"presets {', '.join(plan.presets)}; " if plan.presets else ""
    values = "; ".join(f"`{key}={text_of(study.value(0, key))}`" for key in plan.set)
    lines = [
        f"{done} of {len(results)} runs of [{file_of(name)}](../../{file_of(name)}): {presets}"
        f"{values or 'params.yaml as it is'}; {SEED} {seeds}."
        + (" A mean over seeds, with the lowest and the highest." if len(plan.seeds) > 1 else ""),
        "",
        as_markdown(study, results),
        "",
    ]
    if drawn:
        measure, keys = plan.measures[0], ", ".join(plan.keys)
        lines += [f"![{measure} over {keys}]({name}.svg)", ""]
    return "\n".join([*lines, f"Each run: [{name}.csv]({name}.csv)."])
