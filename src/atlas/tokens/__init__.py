"""Documents to ids: the tokenizer, its training, token shards, and windows of them."""
