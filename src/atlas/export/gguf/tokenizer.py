"""The tokenizer inside a GGUF file, with every flag that llama.cpp looks at."""

from gguf import GGUFValueType, GGUFWriter, Keys
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from atlas.tokens.tokenizer import Tokenizer


def add_tokenizer(writer: GGUFWriter, tokenizer: Tokenizer, *, add_bos_token: bool) -> None:
    """Adds the vocabulary of a sentencepiece model, and whether a text begins with bos.

    llama.cpp's ``llama`` tokenizer merges by score, as sentencepiece does; a character model
    is one without merges. Its ``t5`` tokenizer finds the best path, as unigram models do; a
    vocabulary of words is one whose words are the only pieces.
    """
    normalizer = tokenizer.normalizer
    pieces = ModelProto.FromString(tokenizer.model).pieces
    writer.add_tokenizer_model("llama" if tokenizer.kind in ("bpe", "char") else "t5")
    writer.add_tokenizer_pre("default")
    lists = (  # told its type, gguf-py need not look at each value
        (Keys.Tokenizer.LIST, [each.piece.encode() for each in pieces], GGUFValueType.STRING),
        (Keys.Tokenizer.SCORES, [each.score for each in pieces], GGUFValueType.FLOAT32),
        # The numbers of the types are sentencepiece's own.
        (Keys.Tokenizer.TOKEN_TYPE, [each.type for each in pieces], GGUFValueType.INT32),
    )
    for key, values, kind in lists:
        writer.add_key_value(key, values, GGUFValueType.ARRAY, kind)
    writer.add_bos_token_id(tokenizer.bos)
    writer.add_eos_token_id(tokenizer.eos)
    writer.add_unk_token_id(tokenizer.unk)
    writer.add_pad_token_id(tokenizer.pad)
    writer.add_add_bos_token(add_bos_token)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(normalizer.add_dummy_prefix)
    writer.add_remove_extra_whitespaces(normalizer.remove_extra_whitespaces)
    if normalizer.precompiled_charsmap:
        writer.add_precompiled_charsmap(normalizer.precompiled_charsmap)
