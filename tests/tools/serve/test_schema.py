"""Requests made from the server's own schema, right ones and wrong ones, by schemathesis."""

import os
import subprocess
import sys

from atlas.tools.serve.limits import Limits
from tests.tools.serve.live import opened_model, running

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance"
)


def test_no_request_makes_the_server_fail(tokenizer, tmp_path):
    limits = Limits(slots=4, queue=100, tokens=50, texts=4, seconds=5)
    with running(opened_model(tokenizer), limits) as address:
        run = subprocess.run(
            [
                sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json",
                "--checks", CHECKS, "--max-examples", "40", "--seed", "1", "--no-color",
            ],
            cwd=tmp_path, env=os.environ, capture_output=True, text=True,
        )  # fmt: skip
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]
    assert "8 selected / 8 total" in run.stdout
