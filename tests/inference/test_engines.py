"""Our models in llama.cpp: same texts as in PyTorch, and never from an outdated file."""

import shutil

import numpy as np
import pytest

from atlas.errors import AtlasError
from atlas.export.gguf.writer import write_gguf
from atlas.inference.backends.exported import record_source
from atlas.inference.backends.load import load_model
from atlas.inference.batch import TokenSequence
from atlas.inference.sampling import GREEDY, Sampling
from atlas.params.runtime_support import architecture_of
from tests.export.models import SHAPES, bundle_of, store, store_changed
from tests.small import small_config

ENGINES = {"auto": "llama.cpp", "llama.cpp": "llama.cpp", "torch": "PyTorch"}


PROMPTS = ["the lamp", "one stone holds", "", "é€😀"]


def architecture(shape):
    return architecture_of(small_config(**shape).model_dump())


EXACT = {name for name, shape in SHAPES.items() if architecture(shape).logit_tolerance <= 1e-4}


def write_project(root, tokenizer, shape):
    """A model, its tokenizer and its export, laid out as the pipeline does."""
    store(root / "model", shape, tokenizer)
    tokenizer.save(root / "tokenizer")
    (root / "export").mkdir()
    bundle = bundle_of(root / "model", tokenizer)
    write_gguf(root / "export/mine-f32.gguf", bundle, architecture(shape), "f32")
    record_source(root / "export", root / "model")


@pytest.fixture(scope="module")
def project(tmp_path_factory, tokenizer):
    root = tmp_path_factory.mktemp("project")
    write_project(root, tokenizer, SHAPES["llama"])
    return root


@pytest.fixture
def copy(project, tmp_path):
    return shutil.copytree(project, tmp_path / "copy")


def continuations(model, prompts, max_tokens, sampling, on_overflow="slide"):
    sequences = [TokenSequence(model.encode(each), max_tokens, sampling) for each in prompts]
    for _ in model.run(sequences, on_overflow):
        pass
    return [sequence.output_ids for sequence in sequences]


def test_the_engine_is_chosen(project):
    for engine, expected in ENGINES.items():
        model = load_model(project / "model", engine=engine)
        assert (model.engine, model.name, model.context_length) == (expected, "atlas", 96)


@pytest.mark.slow
@pytest.mark.parametrize("shape", sorted(EXACT))
def test_llama_cpp_and_pytorch_generate_the_same_text(tmp_path, tokenizer, shape):
    write_project(tmp_path, tokenizer, SHAPES[shape])
    ours, theirs = (load_model(tmp_path / "model", engine=each) for each in ("torch", "llama.cpp"))
    for sampling in (GREEDY, Sampling(seed=5), Sampling(seed=6, repetition_penalty=1.2, min_p=0.1)):
        expected = continuations(ours, PROMPTS, 120, sampling)  # more than the context
        assert continuations(theirs, PROMPTS, 120, sampling) == expected
    expected = continuations(ours, PROMPTS, 200, GREEDY, "stop")
    assert continuations(theirs, PROMPTS, 200, GREEDY, "stop") == expected


@pytest.mark.parametrize("shape", sorted(SHAPES.keys() - EXACT))
def test_texts_of_half_precision_gelu_part_only_at_a_tie(tmp_path, tokenizer, shape):
    write_project(tmp_path, tokenizer, SHAPES[shape])
    ours, theirs = (load_model(tmp_path / "model", engine=each) for each in ("torch", "llama.cpp"))
    pairs = (continuations(each, PROMPTS, 60, GREEDY, "stop") for each in (ours, theirs))
    for prompt, expected, written in zip(PROMPTS, *pairs, strict=True):
        if expected == written:
            continue
        step = next(i for i, (a, b) in enumerate(zip(expected, written, strict=False)) if a != b)
        logits = ours.backend(1).prefill({0: [*ours.encode(prompt), *expected[:step]]})[0]
        gap = logits[expected[step]] - logits[written[step]]
        assert gap <= 2 * architecture(SHAPES[shape]).logit_tolerance


def test_attention_comes_from_pytorch(project):
    ids = [5, 6, 7]
    ours, theirs = (load_model(project / "model", engine=each) for each in ("torch", "auto"))
    assert np.array_equal(ours.attention(ids), theirs.attention(ids))


def test_attention_of_a_changed_model_is_refused(copy, tokenizer):
    model = load_model(copy / "model")
    other = load_model(copy / "model", engine="torch").model
    (copy / "model/model.safetensors").unlink()
    store_changed(copy / "model", other)
    with pytest.raises(AtlasError, match="model: changed since it was loaded; restart to load it"):
        model.attention([5, 6])


def test_an_outdated_file_is_not_used(copy):
    config = copy / "model/config.json"
    config.write_text(config.read_text() + " ")
    assert load_model(copy / "model").engine == "PyTorch"
    with pytest.raises(AtlasError, match=r"not exported from the current .*/model; run `dvc repro"):
        load_model(copy / "model", engine="llama.cpp")


def test_other_weights_are_not_taken_for_the_model(copy):
    store_changed(copy / "model", load_model(copy / "model", engine="torch").model)
    assert load_model(copy / "model").engine == "PyTorch"


@pytest.mark.parametrize("missing", ["source.json", "mine-f32.gguf"])
def test_without_its_files_llama_cpp_is_refused(copy, missing):
    (copy / "export" / missing).unlink()
    assert load_model(copy / "model").engine == "PyTorch"
    with pytest.raises(AtlasError, match=r"^--engine llama\.cpp: .*or use --engine torch$"):
        load_model(copy / "model", engine="llama.cpp")


def test_a_missing_package_is_named(project, monkeypatch):
    monkeypatch.setattr("atlas.inference.backends.load.find_spec", lambda _: None)
    assert load_model(project / "model").engine == "PyTorch"
    with pytest.raises(AtlasError, match="pip install cyllama, or use --engine torch"):
        load_model(project / "model", engine="llama.cpp")
    with pytest.raises(AtlasError, match="pip install cyllama"):
        load_model(project / "export/mine-f32.gguf")


def test_an_engine_that_cannot_run_a_file_is_refused(project, tmp_path):
    with pytest.raises(AtlasError, match=r"^--engine torch: .*f32.gguf is a GGUF file"):
        load_model(project / "export/mine-f32.gguf", engine="torch")
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    with pytest.raises(AtlasError, match=r"^--engine llama.cpp: .* is a Hugging Face folder"):
        load_model(tmp_path, engine="llama.cpp")
