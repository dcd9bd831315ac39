"""An audit without a Prometheus: the pages of pods, read through the API server."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web
from tests.support.api_server import ApiServer, api_server
from tests.support.audit_cluster import pod

from energylens.audit.served import served_models
from energylens.cli.inputs.audit import Audited, telemetry_of_pods
from energylens.cli.inputs.live import ClusterAccess
from energylens.cluster.connecting import connect
from energylens.cluster.errors import ForbiddenError, TransientError

ENGINE = pod("chat-5d9f-a", {"image": "vllm/vllm-openai:v0.24.0", "args": ["--model=Qwen/Qwen3-8B", "--port=9000"]})
MUTE = pod("mute-7c-a", {"image": "vllm/vllm-openai:v0.24.0", "args": ["--model=Qwen/Qwen3-8B"]}, owner=("Job", "mute"))
EXPORTER = pod("dcgm", {"image": "dcgm-exporter"}, gpus=0, labels={"app": "nvidia-dcgm-exporter"}, namespace="gpu")
ENGINE_PAGE = """vllm:generation_tokens_total{model_name="m"} 100
vllm:request_success_total{model_name="m"} 3
vllm:prompt_tokens_total{model_name="m"} 50
"""
GPU_PAGE = """DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{gpu="0",UUID="GPU-0",namespace="team",pod="chat-5d9f-a"} 5000
"""
PROXY = "/api/v1/namespaces/{}/pods/{}:{}/proxy/metrics"


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, bytes]]:
    """Answers by path: status and body."""
    given = {
        PROXY.format("team", "chat-5d9f-a", 9000): (200, ENGINE_PAGE.encode()),
        PROXY.format("team", "mute-7c-a", 8000): (503, b'{"message": "dial tcp: connection refused"}'),
        PROXY.format("gpu", "dcgm", 9400): (200, GPU_PAGE.encode()),
    }

    async def answer(self: ApiServer, request: web.Request) -> web.StreamResponse:
        status, body = given.get(request.path, (404, b'{"message": "no such pod"}'))
        return web.Response(status=status, body=body, content_type="text/plain")

    monkeypatch.setattr(ApiServer, "answer", answer)
    return given


class Steps:
    """A clock on which each look takes 30 ms, however busy the machine is."""

    def __init__(self) -> None:
        self.looks = 0

    def now(self) -> datetime:
        self.looks += 1
        return datetime.fromtimestamp(1_764_200_000 + 0.03 * self.looks, UTC)

    def monotonic(self) -> float:
        return 0.0


def test_counters_come_from_the_pages_of_pods(pages: dict[str, tuple[int, bytes]], tmp_path: Path) -> None:
    pods = [ENGINE, MUTE, EXPORTER]
    models = served_models(pods, {}, {})
    with api_server() as server:
        access = ClusterAccess(server.kubeconfig(tmp_path))
        found = telemetry_of_pods(access, Audited([], pods), models, seconds=0.9, clock=Steps(), pause=0.0)
    assert found.failures == (
        "team/mute-7c-a: GET /api/v1/namespaces/team/pods/mute-7c-a:8000/proxy/metrics: 503 "
        "dial tcp: connection refused",
    )
    chat, _ = models
    window = found.window(chat)
    assert window.output_tokens == 0.0, "the counters stand still"
    assert "of energy so far" in window.message, "its GPU was seen, for a moment"


def test_a_page_of_something_else_is_told(pages: dict[str, tuple[int, bytes]], tmp_path: Path) -> None:
    pages[PROXY.format("team", "chat-5d9f-a", 9000)] = (200, b"go_goroutines 7\n")
    models = served_models([ENGINE], {}, {})
    with api_server() as server:
        access = ClusterAccess(server.kubeconfig(tmp_path))
        found = telemetry_of_pods(access, Audited([], [ENGINE]), models, seconds=0.01, pause=0.01)
    assert found.failures == ("team/chat-5d9f-a: its page has no metric of vLLM or SGLang",)


@pytest.mark.parametrize(
    ("status", "body", "error", "message"),
    [
        (403, b'{"message": "may not get pods/proxy"}', ForbiddenError, "403 may not get pods/proxy"),
        (200, b"\xff\xfe", TransientError, "the answer is not UTF-8 text"),
    ],
)
async def test_pages_that_cannot_be_read(
    status: int,
    body: bytes,
    error: type[Exception],
    message: str,
    pages: dict[str, tuple[int, bytes]],
    tmp_path: Path,
) -> None:
    pages[PROXY.format("team", "chat-5d9f-a", 9000)] = (status, body)
    with api_server() as server:
        async with await connect(server.kubeconfig(tmp_path)) as client:
            with pytest.raises(error, match=message):
                await client.pod_page("team", "chat-5d9f-a", 9000, "metrics")
