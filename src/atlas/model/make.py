"""A model of the kind that its config names."""

from atlas.model.baselines import Bigram, TwoLayerNetwork
from atlas.model.config import ModelConfig
from atlas.model.decoder import Decoder
from atlas.model.encoder_decoder import EncoderDecoder
from atlas.model.language_model import LanguageModel

KINDS: dict[str, type[LanguageModel]] = {
    "decoder": Decoder,
    "encoder_decoder": EncoderDecoder,
    "two_layer": TwoLayerNetwork,
    "bigram": Bigram,
}


def make_model(config: ModelConfig) -> LanguageModel:
    """A model without weights worth having; ``initialise`` or a file gives them."""
    return KINDS[config.kind](config)
