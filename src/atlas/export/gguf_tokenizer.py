"""The tokenizer inside a GGUF file, with every flag that llama.cpp looks at."""

from gguf import GGUFWriter, TokenType

from atlas.tokens.tokenizer import Tokenizer


def add_tokenizer(writer: GGUFWriter, tokenizer: Tokenizer) -> None:
    """Adds the vocabulary of a sentencepiece BPE or character model.

    llama.cpp's ``llama`` tokenizer merges by score, as sentencepiece does; a character model
    is one without merges.
    """
    processor = tokenizer.processor
    identities = range(tokenizer.vocab_size)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([tokenizer.piece(i).encode() for i in identities])
    writer.add_token_scores([processor.get_score(i) for i in identities])
    writer.add_token_types([_type(tokenizer, i) for i in identities])
    writer.add_bos_token_id(tokenizer.end_of_text)
    writer.add_eos_token_id(tokenizer.end_of_text)
    writer.add_unk_token_id(processor.unk_id())
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_bool("tokenizer.ggml.remove_extra_whitespaces", False)


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
    if tokenizer.piece(identity) in ("\n", "\t"):  # sentencepiece tells no user-defined ones
        return TokenType.USER_DEFINED
    return TokenType.NORMAL
