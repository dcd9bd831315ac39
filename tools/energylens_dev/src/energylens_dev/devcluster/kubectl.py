"""Runs kubectl against one cluster: the same program and the same answers that a user gets."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from energylens_dev.devcluster.errors import DevClusterError

Result = TypeVar("Result")


class KubectlError(DevClusterError):
    """kubectl ended with an error.

    Attributes:
        stderr: What it said.
    """

    def __init__(self, arguments: Sequence[str], stderr: str) -> None:
        """Take the arguments and what kubectl wrote to stderr."""
        super().__init__(f"kubectl {' '.join(arguments)}: {stderr.strip()}")
        self.stderr = stderr


class Kubectl:
    """kubectl with one kubeconfig."""

    def __init__(self, program: Path, kubeconfig: Path, cache: Path, namespace: str | None = None) -> None:
        """Use `program` with `kubeconfig`.

        Args:
            program: The kubectl executable.
            kubeconfig: The kubeconfig file.
            cache: Folder of its discovery cache, so that the user's own is left alone.
            namespace: The namespace of every command, or None for the kubeconfig's.
        """
        self.program = program
        self.kubeconfig = kubeconfig
        self.cache = cache
        self.namespace = namespace

    def within(self, namespace: str) -> Kubectl:
        """Return the same kubectl for another namespace."""
        return Kubectl(self.program, self.kubeconfig, self.cache, namespace)

    def as_user(self, kubeconfig: Path) -> Kubectl:
        """Return the same kubectl with another kubeconfig."""
        return Kubectl(self.program, kubeconfig, self.cache, self.namespace)

    def run(self, *arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
        """Run kubectl and return what it wrote to stdout.

        Args:
            arguments: Its arguments, without the kubeconfig and the namespace.
            stdin: What it reads.
            timeout: Seconds after which it is ended.

        Raises:
            KubectlError: When it fails or takes too long.
        """
        command = [str(self.program), f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self.cache}"]
        if self.namespace is not None:
            command.append(f"--namespace={self.namespace}")
        # KUBERC=off: a user's own defaults and aliases must not change what is run here.
        try:
            answer = subprocess.run(
                [*command, *arguments], input=stdin, capture_output=True, text=True, timeout=timeout, check=False,
                env={**os.environ, "KUBERC": "off"},
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise KubectlError(arguments, f"no answer within {timeout:g} s") from error
        if answer.returncode != 0:
            raise KubectlError(arguments, answer.stderr)
        return answer.stdout

    def json(self, *arguments: str) -> Any:
        """Run kubectl with `-o json` and return the parsed answer."""
        return json.loads(self.run(*arguments, "-o", "json"))

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return an object, or None when there is none of that name."""
        text = self.run("get", kind, name, "-o", "json", "--ignore-not-found")
        found: dict[str, Any] | None = json.loads(text) if text.strip() else None
        return found

    def list(self, kind: str, *arguments: str) -> list[dict[str, Any]]:
        """Return the objects of a kind; `arguments` may select some (`-l app=x`, `-A`)."""
        items: list[dict[str, Any]] = self.json("get", kind, *arguments)["items"]
        return items

    def apply(self, manifests: str | Mapping[str, Any] | Sequence[Mapping[str, Any]], *arguments: str) -> str:
        """Server-side apply manifests, given as YAML text, one object or several, and return kubectl's answer."""
        if isinstance(manifests, str):
            text = manifests
        else:
            documents = [manifests] if isinstance(manifests, Mapping) else list(manifests)
            text = yaml.safe_dump_all(documents, sort_keys=False)
        return self.run("apply", "--server-side", "--force-conflicts", "-f", "-", *arguments, stdin=text)


def eventually(check: Callable[[], Result], timeout: float = 120, *, interval: float = 0.1) -> Result:
    """Call `check` until it passes, and return what it returned.

    Args:
        check: Passes when it returns something true, and fails when it returns something false or raises
            AssertionError, KubectlError or LookupError (a field or an entry that is not there yet).
        timeout: Seconds until the last failure is raised.
        interval: Seconds between two calls.

    Raises:
        AssertionError: When it did not pass in time; the message says why the last call failed.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            result = check()
            failure: Exception | None = None
        except (AssertionError, KubectlError, LookupError) as error:
            failure = error
        else:
            if result:
                return result
        if time.monotonic() > deadline:
            why = repr(failure) if isinstance(failure, LookupError) else failure or f"last value: {result!r}"
            raise AssertionError(f"not so within {timeout:g} s: {why}") from failure
        time.sleep(interval)
