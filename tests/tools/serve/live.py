"""A server that listens, in a thread of the test's own process."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import torch
import uvicorn

from atlas.inference.backends.atlas_model import AtlasModel
from atlas.model.decoder import Decoder
from atlas.model.initialize import initialise
from atlas.tools.serve.app import create_app
from atlas.tools.serve.limits import Limits
from tests.small import small_config


def opened_model(tokenizer, **options) -> AtlasModel:
    """A small model that was not trained and never ends a text, with a real vocabulary."""
    shape = {"vocab_size": tokenizer.vocab_size, "eos": tokenizer.eos}
    model = Decoder(small_config(**shape, tokenizer_sha256=tokenizer.sha256, **options)).eval()
    initialise(model, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
        model.embedding.weight[tokenizer.eos] = 0  # tied: it is never likely
    return AtlasModel(model, tokenizer, "small")


@contextmanager
def running(opened, limits: Limits | None = None, **options) -> Iterator[str]:
    """The address of a server of a model, which ends with the block."""
    app = create_app(opened, limits or Limits(), **options)
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=1)
    )
    thread = Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
        assert thread.is_alive(), "the server did not start"
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
