"""Ports of a cluster: free, and from a range of its own where two clusters start at the same time."""

from __future__ import annotations

import socket

import pytest

from energylens_dev.devcluster import DevClusterError
from energylens_dev.devcluster.ports import LOOPBACK, VARIABLE, free_port, is_free, port_range


def test_clusters_that_start_together_choose_from_ranges_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert port_range({}) == range(20000, 30000)
    for first in (20000, 25000):
        monkeypatch.setenv(VARIABLE, f"{first}-{first + 99}")
        assert {free_port() // 100 for _ in range(20)} == {first // 100}


@pytest.mark.parametrize("text", ["", "20000", "20000-20098", "80-1200", "60000-65536", "30000-20000", "a-b"])
def test_a_range_that_is_none_is_refused_by_name(text: str) -> None:
    with pytest.raises(DevClusterError, match=rf"^{VARIABLE}='{text}' must be two ports from 1024 to 65535"):
        port_range({VARIABLE: text})


def test_a_port_with_a_server_or_taken_by_the_caller_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        assert not is_free(port)
        first = min(port, 65436)
        monkeypatch.setenv(VARIABLE, f"{first}-{first + 99}")
        others = set(range(first, first + 100)) - {port}
        with pytest.raises(DevClusterError, match=rf"no free port on {LOOPBACK} from {first} to {first + 99}"):
            free_port(taken=others)
