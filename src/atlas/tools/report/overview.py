"""The top of the page: what was run, what came out of it, and what changed."""

import shlex
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

from atlas.params.presets import override
from atlas.tools.report.blocks import Block, Facts, Folded, Grid, Mood, Section, Tile, Tiles, Words
from atlas.tools.report.curves import loss_chart
from atlas.tools.report.history import History
from atlas.tools.report.numbers import duration, exact, percent, rough, signed_percent
from atlas.tools.report.reading import is_number
from atlas.tools.report.results import Results
from atlas.tools.report.words import corpus_words, model_words, tokenizer_words, training_words

SUBJECT = 72  # characters of a commit's first line
LISTED = 12  # files or params named in a sentence


@dataclass(frozen=True)
class Main:
    """A metric worth a row: where it stands, its name, and whether more of it is better."""

    stage: str
    name: str
    label: str
    more_is_better: bool | None = False


MAIN = (
    Main("evaluate", "val_loss", "Val loss, nats a token"),
    Main("evaluate", "val_perplexity", "Val perplexity"),
    Main("evaluate", "val_bits_per_byte", "Val bits per byte"),
    Main("evaluate", "val_sliding_bits_per_byte", "Val bits per byte, windows that slide"),
    Main("evaluate", "val_accuracy", "Val accuracy", True),
    Main("evaluate", "test_loss", "Test loss, nats a token"),
    Main("evaluate", "test_perplexity", "Test perplexity"),
    Main("evaluate", "test_bits_per_byte", "Test bits per byte"),
    Main("evaluate", "test_accuracy", "Test accuracy", True),
    Main("evaluate", "val_calibration_error", "Val calibration error"),
    Main("evaluate", "edge_case_accuracy", "Edge cases right", True),
    Main("train", "best_val_loss", "Best val loss while training"),
    Main("train", "best_step", "Step of the best val loss", None),
    Main("train", "tokens_seen", "Tokens seen", None),
    Main("train", "parameters", "Parameters", None),
    Main("tokenizer", "val_bytes_per_token", "Bytes a token, val", True),
    Main("export", "token_mismatches", "Tokens that llama.cpp cuts otherwise"),
    Main("export", "greedy_mismatches", "Greedy tokens that llama.cpp picks otherwise"),
    Main("export", "logit_difference", "Largest difference of F32 logits", None),
    Main("timing/train", "seconds", "Training, seconds", None),
    Main("timing/train", "tokens_per_second", "Training, tokens a second", None),
)


def overview(results: Results, history: History) -> Section:
    """What was run, and the numbers to see first."""
    tiles = _tiles(results, history)
    chart = loss_chart(results)
    facts = _facts(results, history)
    blocks: list[Block] = [Tiles(tiles)] if tiles else []
    blocks += [chart] if chart else []
    blocks += [Facts(facts, wide=chart is None)] if facts else []
    if history.stale_params:
        named = _named(history.stale_params)
        told = f"params.yaml has been edited since this run: {named}. dvc repro runs it."
        blocks.append(Words(told, "bad"))
    blocks += [Words(f"Not shown: {problem}.", "bad") for problem in results.problems]
    return Section("overview", "What was run", blocks)


def lead(results: Results, history: History) -> str:
    """The run in a line below the title."""
    name = corpus_words(history.ran or history.params) or str(
        results.value("fetch", "corpus") or ""
    )
    parts = [name] if name else []
    for stage, key, word in (
        ("train", "parameters", "parameters"),
        ("train", "tokens_seen", "tokens learned from"),
    ):
        if (value := results.number(stage, key)) is not None:
            parts.append(f"{rough(value)} {word}")
    return " \u00b7 ".join(parts)


def _facts(results: Results, history: History) -> list[tuple[str, str]]:
    """The run in words."""
    params = history.ran or history.params

    def told(*parts: tuple[str, str, str]) -> str:
        found = [(results.value(stage, key), words) for stage, key, words in parts]
        return ", ".join(f"{exact(v)} {words}" for v, words in found if v is not None)

    kept = told(("clean", "documents_kept", "documents"), ("tokenize", "train_tokens", "tokens"))
    cut = told(
        ("tokenizer", "vocab_size", "pieces"), ("tokenizer", "val_bytes_per_token", "bytes a token")
    )
    seen = told(("train", "steps", "steps"), ("train", "tokens_seen", "tokens"))
    weights = told(("train", "parameters", "parameters"))
    commit = history.commit
    unchanged = "as committed" if commit and not history.changed_params else ""
    facts = [
        ("corpus", (corpus_words(params), kept)),
        ("tokenizer", (tokenizer_words(params), cut)),
        ("model", (model_words(params), weights)),
        ("training", (training_words(params), seen)),
        (
            "commit",
            (
                f"{commit.sha[:8]}: {shorten(commit.subject, SUBJECT, placeholder=' ...')}"
                if commit
                else "",
            ),
        ),
        ("params", (_named(history.changed_params), unchanged)),
    ]
    lines = [(term, "; ".join(part for part in parts if part)) for term, parts in facts]
    return [(term, line) for term, line in lines if line]


def comparison(results: Results, history: History) -> Section | None:
    """The main metrics against the last commit; None where there is nothing to compare with."""
    if history.commit is None:
        return None
    rows, moods, same = [], [], []
    for main in MAIN:
        now, before = _both(results, history, main)
        if now is None and before is None:
            continue
        change, mood = _change(now, before, main.more_is_better)
        if change == "=":
            same.append(main.label[0].lower() + main.label[1:])
            continue
        rows.append((main.label, _shown(before), _shown(now), change))
        moods.append(mood)
    blocks: list[Block] = []
    if changed := history.changed_params:
        cells = [(key, override(before), override(now)) for key, before, now in changed]
        columns = ("param", "last commit", "this run")
        blocks.append(Grid("Params that differ", columns, cells, (False, True, True)))
    unchanged = f"As in the last commit: {'; '.join(same)}." if same else ""
    if rows:
        names = ("metric", "last commit", "this run", "change")
        numbers = (False, True, True, True)
        blocks.append(Grid("Metrics", names, rows, numbers, unchanged, moods=moods))
    elif same:
        blocks.append(Words(unchanged))
    if not blocks:
        return None
    told = f"Commit {history.commit.sha[:8]} of {history.commit.day}, as dvc metrics diff has it."
    return Section("changes", "Against the last commit", blocks, told)


def everything(results: Results, history: History) -> Section:
    """How to make it again, and every number."""
    blocks: list[Block] = []
    commit = history.commit
    if commit:
        edited = ", ".join(history.edited[:LISTED]) + (", ..." if history.edited[LISTED:] else "")
        blocks.append(
            Words(
                f"Commit {commit.sha[:12]} ({commit.day}): {commit.subject}"
                + (f". Not as committed: {edited}." if edited else ", nothing edited since.")
            )
        )
    flags = [
        f"-S {shlex.quote(f'{key}={override(now)}')}" for key, _, now in history.changed_params
    ]
    run = " ".join(["dvc exp run", *flags]) if flags else "dvc repro"
    steps = [f"git checkout {commit.sha[:12]}"] if commit else []
    blocks.append(Words("\n".join([*steps, run, "atlas report"]), code=True))
    rows = [
        (stage, name, exact(value))
        for stage, values in _all_metrics(results).items()
        for name, value in values.items()
    ]
    numbers = (False, False, True)
    blocks.append(Folded("Every metric", [Grid("", ("stage", "metric", "value"), rows, numbers)]))
    if params := history.ran or history.params:
        cells = [(key, override(value)) for key, value in params.items()]
        blocks.append(
            Folded("Every param of this run", [Grid("", ("param", "value"), cells, (False, True))])
        )
    return Section("again", "Make it again", blocks)


def _tiles(results: Results, history: History) -> list[Tile]:
    labels = {
        "val_perplexity": "val perplexity",
        "val_bits_per_byte": "val bits per byte",
        "val_accuracy": "val accuracy",
        "edge_case_accuracy": "edge cases right",
    }
    tiles = []
    for main in MAIN:
        value = results.number(main.stage, main.name)
        if main.name not in labels or value is None:
            continue
        other = main.name.replace("val_", "test_")
        test = results.number("evaluate", other) if other != main.name else None
        share = main.more_is_better
        shown = percent if share else exact
        change, mood = _change(*_both(results, history, main), main.more_is_better)
        note = f"test {shown(test)}" if test is not None else ""
        change = change if "%" in change else ""
        tiles.append(Tile(labels[main.name], shown(value), note, change, mood))
    mismatches = [
        value
        for name in ("token_mismatches", "greedy_mismatches")
        if (value := results.number("export", name)) is not None
    ]
    if mismatches:
        tokens = results.number("export", "tokens")
        note = f"of {exact(tokens)} tokens" if tokens is not None else ""
        verdict: Mood = "bad" if sum(mismatches) else "good"
        tiles.append(Tile("mismatches in llama.cpp", exact(sum(mismatches)), note, mood=verdict))
    seconds = results.timing.get("train", {}).get("seconds")
    speed = results.timing.get("train", {}).get("tokens_per_second")
    if isinstance(seconds, int | float):
        note = f"{exact(float(speed))} tokens/s" if isinstance(speed, int | float) else ""
        tiles.append(Tile("training", duration(seconds), note))
    return tiles


def _both(results: Results, history: History, main: Main) -> tuple[float | None, float | None]:
    """A metric now and in the last commit."""
    now = _all_metrics(results).get(main.stage, {}).get(main.name)
    metrics = history.commit.metrics if history.commit else {}
    return _number(now), _number(metrics.get(main.stage, {}).get(main.name))


def _number(value: Any) -> float | None:
    return value if is_number(value) else None


def _all_metrics(results: Results) -> dict[str, Any]:
    return {**results.metrics, **{f"timing/{name}": each for name, each in results.timing.items()}}


def _change(now: float | None, before: float | None, more: bool | None) -> tuple[str, Mood]:
    """What became of a number, in words, and whether that is good."""
    if now is None or before is None:
        return (
            "gone" if now is None and before is not None else "new" if before is None else ""
        ), ""
    if now == before:
        return "=", ""
    mood: Mood = "" if more is None else "good" if (now > before) == more else "bad"
    if before and abs(now / before - 1) < 10:
        return signed_percent(now / before - 1), mood
    return f"{'+' if now > before else ''}{exact(now - before)}", mood


def _shown(value: float | None) -> str:
    return "" if value is None else exact(value)


def _named(changed: list[tuple[str, Any, Any]]) -> str:
    named = [f"{key} ({override(before)}, now {override(now)})" for key, before, now in changed]
    return ", ".join(named[:LISTED]) + (", ..." if named[LISTED:] else "")
