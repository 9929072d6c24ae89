"""Writes a model as a folder that transformers loads: weights, config, tokenizer."""

from pathlib import Path

from atlas.export.hugging_face.config import generation_settings, model_settings
from atlas.export.hugging_face.tensors import Translation
from atlas.export.hugging_face.tokenizer import fast_tokenizer, tokenizer_settings
from atlas.export.source import Source
from atlas.export.weights import StoredWeights
from atlas.model.storage import WEIGHTS, write_weights
from atlas.params.runtime_support import HuggingFaceClass
from atlas.pipeline.files import write_json
from atlas.tokens.tokenizer import MODEL_FILE

METADATA = {"format": "pt"}  # transformers reads no file without it


def write_hugging_face(folder: Path, source: Source, kind: HuggingFaceClass) -> None:
    """Fills a new folder.

    Args:
        folder: to be made.
        source: the model.
        kind: the class of transformers, to write it as.

    Raises:
        AtlasError: the disk does not take it.
    """
    folder.mkdir()
    tensors = Translation(source.config, kind, StoredWeights(source.folder)).tensors()
    write_weights(dict(tensors), folder / WEIGHTS, METADATA)
    write_json(folder / "config.json", model_settings(source.config, kind, source.tokenizer))
    write_json(folder / "generation_config.json", generation_settings(source.tokenizer))
    settings = tokenizer_settings(source.tokenizer, source.config.context_length)
    write_json(folder / "tokenizer_config.json", settings)
    fast = fast_tokenizer(source.tokenizer, add_bos_token=source.config.add_bos_token)
    (folder / "tokenizer.json").write_text(fast.to_str(pretty=True), encoding="utf-8", newline="\n")
    (folder / MODEL_FILE).write_bytes(source.tokenizer.model)
