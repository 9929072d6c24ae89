"""Whole runs through DVC, with the commands a user types."""

import shutil
import time
from pathlib import Path

import pytest
import yaml

from tests.pipeline.checkout import STAGES, stages_run
from tests.pipeline.reruns import RERUNS
from tests.small import write_jsonl

AFTER_TRAIN = ["train", "evaluate", "export"]


def test_the_run_ends_with_a_model_that_llama_cpp_agrees_with(finished):
    export = finished.json("metrics/export.json")
    assert export["token_mismatches"] == export["greedy_mismatches"] == 0
    assert export["logit_difference"] <= 1e-4
    assert finished.json("metrics/evaluate.json")["val_perplexity"] < 50
    names = {path.name for path in (finished.root / "models/export").iterdir()}
    assert names == {"atlas-f32.gguf", "atlas-q8_0.gguf", "Modelfile", "README.md", "source.json"}
    for stage in STAGES:
        assert finished.json(f"metrics/timing/{stage}.json")["seconds"] >= 0


def test_nothing_is_left_over(finished):
    assert not list(finished.root.rglob("*.partial"))
    assert not list((finished.root / ".ckpt").rglob("*/*"))
    assert finished.git("status", "--short") == ""


@pytest.mark.very_slow
def test_sanity_checks_are_commands(finished):
    assert "memorized in" in finished.run("atlas", "overfit-batch")
    assert "memorized in" in finished.run("atlas", "overfit-examples", "3")
    assert "every weight has a sound gradient" in finished.run("atlas", "gradients")
    printed = finished.run("atlas", "overfit-examples", "3", "--steps", "2", check=False)
    assert "after 2 steps the loss is still" in printed


def test_training_writes_curves_samples_and_timing(finished):
    (events,) = (finished.root / "metrics/tensorboard").glob("workspace-*")
    assert list(events.glob("events.out.tfevents.*"))
    samples = (finished.root / "metrics/train_samples.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in samples[2:]] == ["0", "40", "80", "120"]
    timing = finished.json("metrics/timing/train.json")
    assert timing["peak_memory_mb"] > 50
    assert timing["processes"] == 1
    assert timing["flop_utilisation"] > 0


def test_a_second_run_does_nothing(finished):
    assert stages_run(finished.dvc("repro")) == []


@pytest.mark.slow
def test_running_everything_again_gives_the_same_hashes(checkout):
    before = checkout.hashes()
    assert stages_run(checkout.dvc("repro", "--force", "--no-run-cache")) == list(STAGES)
    assert checkout.hashes() == before
    assert {"models/model", "models/export", "metrics/train.csv"} <= set(before)


@pytest.mark.slow
def test_an_experiment_runs_what_its_param_affects(checkout):
    printed = checkout.dvc("exp", "run", "-S", "train.lr=3e-4")
    assert stages_run(printed) == AFTER_TRAIN
    difference = checkout.dvc("metrics", "diff")
    assert "val_perplexity" in difference
    assert "# peak learning rate" in (checkout.root / "params.yaml").read_text()
    assert "HEAD" in checkout.dvc("params", "diff")


@pytest.mark.very_slow
@pytest.mark.parametrize("param", RERUNS)
def test_each_row_of_the_table_of_reruns(checkout, param):
    value, reruns = RERUNS[param]
    write_jsonl(checkout.root / "data/other/made-up.jsonl", documents=150)
    checkout.set(**{param: value})
    assert stages_run(checkout.dvc("repro", "--no-run-cache")) == list(reruns)


@pytest.mark.very_slow
def test_two_threads_give_the_same_hashes_twice(checkout):
    def run():
        checkout.dvc("repro", "--force", "--no-run-cache", OMP_NUM_THREADS="2")
        return checkout.hashes()

    assert run() == run()


@pytest.mark.slow
def test_plots_are_drawn(finished):
    for arguments in (["plots", "show", "--json"], ["plots", "diff", "--json"]):
        printed = finished.dvc(*arguments)
        for name in ("loss", "metrics/train.csv", "metrics/val.csv", "tokens_per_second"):
            assert f'"{name}"' in printed
    assert_plots_without_warnings(finished)


def assert_plots_without_warnings(checkout):
    printed = checkout.dvc("plots", "show")
    assert "WARNING" not in printed
    assert "failed" not in printed


@pytest.mark.very_slow
def test_a_queued_experiment_runs_the_code_of_its_own_copy(checkout):
    code = checkout.root / "src/atlas/evaluation/evaluator.py"
    original = code.read_text()
    # Files that git does not track are not copied, so a queued run needs an absolute path.
    checkout.set(**{"corpus.files.path": str(checkout.root / "data/own")})
    code.write_text(original.replace('"tokens": len(scores)', '"tokens": len(scores) + 1_000_000'))
    checkout.dvc("exp", "run", "--queue", "-S", "train.lr=3e-4", "--name", "queued")
    code.write_text(original)
    checkout.dvc("queue", "start")
    deadline = time.monotonic() + 120
    while "Success" not in (status := checkout.dvc("queue", "status")):
        assert "Failed" not in status, checkout.dvc("queue", "logs", "queued")
        assert time.monotonic() < deadline, status
        time.sleep(1)
    before = checkout.json("metrics/timing/train.json")
    assert checkout.json("metrics/evaluate.json")["val_tokens"] < 1_000_000
    checkout.dvc("exp", "apply", "queued")
    assert checkout.json("metrics/evaluate.json")["val_tokens"] > 1_000_000
    assert checkout.json("metrics/timing/train.json") != before


@pytest.mark.very_slow
def test_shakespeare_from_a_mirror_without_a_network(checkout, corpora):
    flags = checkout.run("atlas", "preset", "shakespeare").split()
    printed = checkout.dvc("exp", "run", *flags, ATLAS_MIRROR=str(corpora))
    assert stages_run(printed) == list(STAGES)
    assert checkout.json("metrics/fetch.json")["bytes"] == 1_115_394


@pytest.mark.slow
def test_without_network_and_mirror_fetch_says_what_to_do(finished, tmp_path):
    checkout = finished.copy(tmp_path / "project")
    flags = checkout.run("atlas", "preset", "shakespeare").split()
    nowhere = "http://127.0.0.1:1"
    printed = checkout.dvc(
        "exp", "run", *flags, check=False, HTTPS_PROXY=nowhere, HTTP_PROXY=nowhere
    )
    errors = [line for line in printed.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "ATLAS_MIRROR" in errors[0]
    assert "Traceback" not in printed
    checkout.git("checkout", "params.yaml")
    assert stages_run(checkout.dvc("repro")) == []  # everything is in the cache
    assert checkout.dvc("status") == "Data and pipelines are up to date.\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("trian: {}", "params.yaml: trian is not a known key: did you mean train?"),
        ("export: {formats: ['gguf:f31']}", "params.yaml: export.formats.0 is 'gguf:f31'"),
    ],
)
def test_wrong_params_are_one_line(checkout, content, expected):
    path = checkout.root / "params.yaml"
    changed = yaml.safe_load(path.read_text())
    for key, value in yaml.safe_load(content).items():
        changed[key] = changed.get(key, {}) | value
    path.write_text(yaml.safe_dump(changed))
    printed = checkout.run("python", "-m", "stages.fetch", check=False)
    assert printed.startswith(f"error: {expected}")
    assert printed.count("\n") == 1
    assert "Traceback" in checkout.run("python", "-m", "stages.fetch", check=False, ATLAS_DEBUG="1")


@pytest.mark.slow
def test_a_failed_stage_leaves_nothing_half_written(finished, tmp_path):
    checkout = finished.copy(tmp_path / "project")
    checkout.set(**{"tokenizer.vocab_size": 30_000})
    printed = checkout.dvc("repro", check=False)
    assert "error: tokenizer.vocab_size is 30000" in printed
    assert "Traceback" not in printed
    assert "the former outputs are back" in printed
    model = "models/tokenizer/tokenizer.model"
    assert (checkout.root / model).read_bytes() == (finished.root / model).read_bytes()
    assert not list(Path(checkout.root).rglob("*.partial"))
    checkout.git("checkout", "params.yaml")
    assert stages_run(checkout.dvc("repro")) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        "train.lr=-1",
        "~train.lr",
        *(
            pytest.param(each, marks=pytest.mark.very_slow)
            for each in ("+train.lrr=1", "train.lr=abc")
        ),
    ],
)
def test_a_refused_param_costs_nothing(finished, tmp_path, change):
    checkout = finished.copy(tmp_path / "project")
    printed = checkout.dvc("exp", "run", "-S", change, check=False)
    (error,) = (line for line in printed.splitlines() if line.startswith("error:"))
    assert error.startswith("error: params.yaml: train.lr")
    assert error.endswith("; the former outputs are back")
    assert "Traceback" not in printed
    assert checkout.git("status", "--short") == " M params.yaml\n"
    checkout.git("checkout", "params.yaml")
    assert checkout.dvc("status") == "Data and pipelines are up to date.\n"


@pytest.mark.slow
def test_a_stage_that_cannot_be_imported_costs_nothing(finished, tmp_path):
    checkout = finished.copy(tmp_path / "project")
    (checkout.root / "src/atlas/model/layers.py").write_text("def broken(:")
    printed = checkout.dvc("repro", "train", check=False)
    assert "SyntaxError" in printed
    assert "the former outputs are back" in printed
    checkout.git("checkout", "src")
    assert checkout.git("status", "--short") == ""
    assert checkout.dvc("status") == "Data and pipelines are up to date.\n"


@pytest.mark.slow
def test_a_damaged_shard_is_named(checkout):
    shard = checkout.root / "data/tokens/train-00000.bin"
    content = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(content[:-10])
    printed = checkout.run("python", "-m", "stages.train", check=False)
    assert "error: data/tokens/train-00000.bin:" in printed
    assert "cut short" in printed


def test_stages_refuse_the_code_of_another_checkout(checkout):
    shutil.rmtree(checkout.root / "src/atlas")
    printed = checkout.run("python", "-m", "stages.fetch", check=False)
    assert "would run the code of" in printed


@pytest.mark.slow
def test_generate_continues_a_prompt(finished):
    arguments = ("generate", "the lamp", "--tokens", "20", "--seed", "3")
    printed = finished.run("atlas", *arguments)
    assert printed.startswith("the lamp")
    assert printed == finished.run("atlas", *arguments)
    assert printed != finished.run("atlas", *arguments[:-1], "4")


def test_show_prints_metrics_and_samples(finished):
    printed = finished.run("atlas", "show")
    assert "perplexity, val" in printed
    assert "atlas chat" in printed
    assert "the lamp" in printed


@pytest.mark.very_slow
def test_without_a_test_split_the_cache_restores_everything(checkout):
    """DVC's cache has no empty folders, so data/clean/test must not be empty."""
    for share in (0.0, 0.1, 0.0):
        checkout.set(**{"clean.test": share})
        checkout.dvc("repro", "tokenize")
        assert (checkout.root / "data/clean/test").is_dir()
        assert (checkout.json("metrics/tokenize.json")["test_tokens"] > 0) == (share > 0)


@pytest.mark.very_slow
def test_other_kinds_of_model_run_through_the_pipeline(checkout):
    preset = checkout.run("atlas", "preset", "arithmetic").split()
    smaller = [
        "corpus.arithmetic.examples=400",
        "train.steps=60",
        "train.eval_every=30",
        "export.formats=[]",
    ]
    smaller = [part for each in smaller for part in ("-S", each)]
    losses = {}
    for kind in ("encoder_decoder", "bigram"):
        printed = checkout.dvc("exp", "run", *preset, *smaller, "-S", f"model.kind={kind}")
        assert stages_run(printed)[-3:] == AFTER_TRAIN
        measured = checkout.json("metrics/evaluate.json")
        assert "val_bits_per_byte" not in measured  # with questions, only the answers count
        losses[kind] = measured["val_loss"]
        samples = (checkout.root / "metrics/samples.md").read_text()
        assert samples.count(" = ") == 6  # questions of val with their answers
        assert_plots_without_warnings(checkout)
    assert all(0.5 < loss < 3 for loss in losses.values()), losses


@pytest.mark.very_slow
def test_a_mix_goes_through_the_pipeline(checkout):
    write_jsonl(checkout.root / "data/own/more/made-up.jsonl", documents=30)
    own = "{name:files,path:data/own/more,weight:%s}"
    stories = "{name:stories,weight:0.5}"
    flags = ("-S", "corpus.name=mix", "-S", "corpus.stories.examples=200", "-S")
    printed = checkout.dvc("exp", "run", *flags, f"corpus.mix=[{stories},{own % 2}]")
    assert stages_run(printed) == list(STAGES)
    train, tokens = (checkout.json(f"metrics/{name}.json") for name in ("train", "tokenize"))
    assert (train["weight.stories"], train["weight.more"]) == (0.5, 2)
    assert train["tokens_seen.stories"] + train["tokens_seen.more"] == train["tokens_seen"]
    ratio = tokens["train_tokens.stories"] * 0.5 / (tokens["train_tokens.more"] * 2)
    assert train["tokens_seen.stories"] / train["tokens_seen.more"] == pytest.approx(ratio, rel=0.1)
    assert {"val_loss.stories", "test_loss.more"} <= set(checkout.json("metrics/evaluate.json"))
    sources = (checkout.root / "metrics/tables/sources.csv").read_text().splitlines()
    assert {line.split(",")[0] for line in sources} == {"source", "stories", "more"}
    assert "stories + files" in (checkout.root / "models/export/README.md").read_text()

    printed = checkout.dvc("exp", "run", *flags, f"corpus.mix=[{stories},{own % 3}]")
    assert "clean" not in stages_run(printed)
    assert {"fetch", "train_tokenizer", "train"} <= set(stages_run(printed))
    printed = checkout.dvc("exp", "run", *flags, f"corpus.mix=[{stories},{own % 0}]", check=False)
    assert "corpus.mix.1.weight is 0: it must be greater than 0" in printed
