"""The tokenizer inside a GGUF file, with every flag that llama.cpp looks at."""

from gguf import GGUFWriter, TokenType

from atlas.tokens.tokenizer import Tokenizer


def add_tokenizer(writer: GGUFWriter, tokenizer: Tokenizer) -> None:
    """Adds the vocabulary of a sentencepiece model.

    llama.cpp's ``llama`` tokenizer merges by score, as sentencepiece does; a character model
    is one without merges. Its ``t5`` tokenizer finds the best path, as unigram models do; a
    vocabulary of words is one whose words are the only pieces.
    """
    processor = tokenizer.processor
    normalizer = tokenizer.normalizer
    identities = range(tokenizer.vocab_size)
    writer.add_tokenizer_model("llama" if tokenizer.kind in ("bpe", "char") else "t5")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([tokenizer.piece(i).encode() for i in identities])
    writer.add_token_scores([processor.get_score(i) for i in identities])
    writer.add_token_types([_type(tokenizer, i) for i in identities])
    writer.add_bos_token_id(tokenizer.bos)
    writer.add_eos_token_id(tokenizer.eos)
    writer.add_unk_token_id(tokenizer.unk)
    writer.add_pad_token_id(tokenizer.pad)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(normalizer.add_dummy_prefix)
    writer.add_remove_extra_whitespaces(normalizer.remove_extra_whitespaces)
    if normalizer.precompiled_charsmap:
        writer.add_precompiled_charsmap(normalizer.precompiled_charsmap)


def _type(tokenizer: Tokenizer, identity: int) -> TokenType:
    processor = tokenizer.processor
    if processor.is_unknown(identity):
        return TokenType.UNKNOWN
    if processor.is_control(identity):
        return TokenType.CONTROL
    if processor.is_byte(identity):
        return TokenType.BYTE
    if processor.is_unused(identity):
        return TokenType.UNUSED
    if identity in tokenizer.user_defined:
        return TokenType.USER_DEFINED
    return TokenType.NORMAL
