"""The server as an ASGI app."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

from atlas.errors import AtlasError
from atlas.inference.backends.loaded_model import OpenedModel
from atlas.inference.batch import Beyond
from atlas.tools.serve.api import routes
from atlas.tools.serve.engine import Engine
from atlas.tools.serve.errors import answer_errors
from atlas.tools.serve.guard import Guard
from atlas.tools.serve.limits import Limits
from atlas.tools.serve.metrics import Metrics
from atlas.tools.serve.run_curves import curves_of
from atlas.tools.serve.served import Served

FRESH = {"Cache-Control": "no-cache"}  # asked for again after an upgrade
PAGE = Path(__file__).parent / "page"
POLICY = {  # nothing from elsewhere, and no page may frame this one
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}


class PageFiles(StaticFiles):
    """The files of the page."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """A file, or that it has not changed."""
        response = super().file_response(*args, **kwargs)
        response.headers.update(FRESH)
        return response


def create_app(
    opened: OpenedModel,
    limits: Limits,
    *,
    key: str | None = None,
    hosts: list[str] | None = None,
    metrics_folder: Path | None = None,
    beyond: Beyond = "slide",
) -> FastAPI:
    """A server of one model.

    Args:
        opened: the model.
        limits: of requests.
        key: that clients must have; None for no key.
        hosts: names by which it may be called, so that no web page elsewhere can make a browser
            ask it; None for any.
        metrics_folder: of the project that trained the model, for its curves.
        beyond: what happens where the context ends.
    """
    metrics = Metrics()
    engine = Engine(opened.batch(limits.slots, beyond), limits, metrics)
    served = Served(opened, engine, limits, metrics, started=int(time.time()))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with suppress(AtlasError):  # a model that answers questions alone
            engine.warm_up(opened.encode("a"))
        engine.start()
        try:
            yield
        finally:
            engine.stop()

    app = FastAPI(
        title="Atlas",
        description="A small language model behind the API of OpenAI's clients.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.engine = engine
    answer_errors(app)
    app.include_router(routes(served))

    @app.get("/atlas/model")
    def about() -> dict[str, Any]:
        """What the page shows of the model."""
        return {
            "name": opened.name,
            "form": opened.form,
            "context_length": opened.context_length,
            "vocab_size": opened.vocab_size,
            "tells_attention": opened.tells_attention,
            "most_tokens": limits.tokens,
            "curves": curves_of(metrics_folder),
        }

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers=FRESH | POLICY)

    app.mount("/page", PageFiles(directory=PAGE))
    schema = app.openapi()
    for asked in ("CompletionRequest", "ChatRequest"):
        schema["components"]["schemas"][asked]["properties"]["model"]["enum"] = [opened.name]
    paths = [*schema["paths"], "/"]
    app.add_middleware(Guard, limits=limits, metrics=metrics, key=key, hosts=hosts, paths=paths)
    return app
