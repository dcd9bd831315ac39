"""The proxy for an API server by the environment."""

from __future__ import annotations

import pytest

from energylens.cluster.proxies import environment_proxy

VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("environ", "server", "proxy"),
    [
        ({}, "https://10.0.0.1:6443", None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "https://10.0.0.1:6443", "http://proxy:3128"),
        ({"https_proxy": "http://proxy:3128"}, "https://api.example.com", "http://proxy:3128"),
        ({"HTTPS_PROXY": "http://me:secret@proxy:3128"}, "https://api.example.com", "http://me:secret@proxy:3128"),
        ({"HTTP_PROXY": "http://proxy:3128"}, "https://10.0.0.1:6443", None),
        ({"HTTP_PROXY": "http://proxy:3128"}, "http://10.0.0.1:8001", "http://proxy:3128"),
        ({"HTTP_PROXY": "http://proxy:3128"}, "http://127.0.0.1:8001", None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "https://[::1]:6443", None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "https://localhost:6443", None),
        ({"HTTPS_PROXY": "proxy:3128"}, "https://10.0.0.1:6443", "http://proxy:3128"),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "10.0.0.1"}, "https://10.0.0.1:6443", None),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": ".example.com"}, "https://api.example.com:443", None),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": ".svc, 10.96.0.0/12"}, "https://10.96.0.1:443", None),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "fd00::/108,a"}, "https://[fd00::1]:443", None),
        (
            {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "10.96.0.0/12"},
            "https://10.0.0.1:6443",
            "http://proxy:3128",
        ),
        (
            {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "10.0.0.0/8"},
            "https://api.example.com",
            "http://proxy:3128",
        ),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "*"}, "https://api.example.com", None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "not a URL", None),
    ],
)
def test_the_environment_names_the_proxy_of_a_server(
    environ: dict[str, str], server: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert environment_proxy(server) == proxy
