"""Settings of ``agentd.toml`` that are seen only from outside: what the daemon does otherwise because of them."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.e2e.conftest import run_tool
from tests.e2e.daemon import refused_start, serving

MODELS = """
- {id: house/dear, input: 10, output: 10}
- {id: house/cheap, input: 1, output: 2}
"""


class _Endpoint(BaseHTTPRequestHandler):
    """Answers as OpenAI's protocol has it, without telling a price."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        choice = {"message": {"role": "assistant", "content": asked["model"]}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1000, "completion_tokens": 500}
        body = json.dumps({"model": asked["model"], "choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words: object) -> None:
        """Say nothing."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Endpoint) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


def test_a_file_of_models_decides_which_is_asked_and_what_it_costs(tmp_path: Path, endpoint: str) -> None:
    (tmp_path / "models.yaml").write_text(MODELS)
    settings = tmp_path / "agentd.toml"
    settings.write_text(f'[models]\nbase_url = "{endpoint}"\nregistry_file = "models.yaml"\n')
    with serving(tmp_path, AGENTD_CONFIG=str(settings)) as daemon:
        agent = daemon.spawn("asker", "tool.invoke:lm.complete", more="  model_policy: cheapest\n")
        told = daemon.ok("POST", f"/agents/{agent}/tools/lm.complete", {"prompt": "which one are you?"})
        assert told["output"]["text"] == told["output"]["model"] == "house/cheap"
        assert told["cost"] == pytest.approx((1000 * 1 + 500 * 2) / 1_000_000)


def test_a_file_of_models_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text("- {id: house/cheap}\n")
    settings = tmp_path / "agentd.toml"
    settings.write_text('[models]\nregistry_file = "models.yaml"\n')
    assert "models.yaml" in refused_start(tmp_path, AGENTD_CONFIG=str(settings))


def test_tokens_that_are_not_private_are_refused_with_both_ways_out(tmp_path: Path) -> None:
    tokens = tmp_path / "shared.db"
    tokens.touch()
    tokens.chmod(0o666)
    told = refused_start(tmp_path, AGENTD_API_TOKEN_DB=str(tokens))
    assert f"chmod 600 {tokens}" in told
    assert "AGENTD_API_TOKEN_DB" in told


def test_runs_and_a_shared_ledger_need_places_that_are_good(tmp_path: Path) -> None:
    town = tmp_path / "town"
    town.mkdir()
    run_tool("borough.cli.tt", "init", "--name", "town", cwd=town)
    both = {"BOROUGH_TOWN": str(town), "BOROUGH_FLEET": "http://127.0.0.1:9200"}
    assert "BOROUGH_FLEET is not set" in refused_start(tmp_path, BOROUGH_TOWN=str(town))
    assert "write tt-ctl's address" in refused_start(tmp_path, **both | {"BOROUGH_FLEET": "127.0.0.1:9200"})
    assert "keeps its store to itself" in refused_start(tmp_path, **both)
    # The town asks nobody who they are: that is good for this machine alone.
    shared = both | {"REDIS_URL": "redis://127.0.0.1:1"}
    assert "refusing to bind to 0.0.0.0" in refused_start(tmp_path, **shared, AGENTD_API_ADDR="0.0.0.0:0")
    assert "keeps its ledger in" in refused_start(tmp_path, BOROUGH_LEDGER=str(tmp_path / "elsewhere"))
