"""Continuous batching, simulated a step at a time.

Written from what vLLM documents of its scheduler (V1), and from nothing of the predictor, so that either can show the
other wrong. A step computes at most so many tokens. Requests that run come first: one token each, or the next chunk of
a prompt that is not computed yet; then requests that wait, first come first served, while tokens, slots and blocks of
the KV cache are left. Where a running request finds no block, the one that was admitted last gives its own back and
waits at the head of the queue; it computes its prompt, and what it had generated, anew.

The time of a step is the caller's: the simulator knows no hardware.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Request:
    """What one user asks for."""

    arrival: float
    """Seconds."""
    prompt: int
    output: int


@dataclass(frozen=True)
class Limits:
    """What the engine is told."""

    slots: int
    """``max_num_seqs``."""
    step_tokens: int
    """``max_num_batched_tokens``."""
    blocks: int
    """Of the KV cache."""
    block_tokens: int = 16
    scheduled_ahead: bool = False
    """The next step is composed while one runs: who arrives meanwhile is in the one after the next."""


@dataclass(frozen=True)
class Step:
    """What one step computes."""

    decodes: int
    """Sequences that generate one token each."""
    prompts: int
    """Prompts of which a chunk is computed."""
    prompt_tokens: int
    context_tokens: int
    """In the KV cache of the sequences that decode."""


@dataclass(eq=False)
class Trace:
    """What became of one request; times in seconds."""

    request: Request
    tokens: list[float] = field(default_factory=list)
    """When each output token was there."""
    preemptions: int = 0

    @property
    def ttft(self) -> float:
        """From arrival to the first token."""
        return self.tokens[0] - self.request.arrival

    @property
    def gaps(self) -> list[float]:
        """Between one token and the next."""
        return [after - before for before, after in zip(self.tokens, self.tokens[1:], strict=False)]


@dataclass(eq=False)
class _Sequence:
    trace: Trace
    computed: int = 0
    """Tokens in the KV cache."""
    blocks: int = 0

    @property
    def known(self) -> int:
        """Tokens that exist: the prompt and what was generated."""
        return self.trace.request.prompt + len(self.trace.tokens)

    @property
    def decodes(self) -> bool:
        return bool(self.trace.tokens) and self.known - self.computed == 1

    @property
    def done(self) -> bool:
        return len(self.trace.tokens) >= self.trace.request.output


class Engine:
    """One replica; :meth:`step` composes, runs and finishes one step."""

    def __init__(self, limits: Limits, seconds: Callable[[Step], float]) -> None:
        self.limits, self.seconds = limits, seconds
        self.free = limits.blocks
        self.running: list[_Sequence] = []
        self.waiting: deque[_Sequence] = deque()

    def add(self, trace: Trace) -> None:
        """Queue a request.

        Raises:
            ValueError: It would not fit alone.
        """
        longest = trace.request.prompt + trace.request.output
        if self._blocks_of(longest) > self.limits.blocks:
            raise ValueError(f"a request of {longest} tokens needs more than the {self.limits.blocks} blocks")
        self.waiting.append(_Sequence(trace))

    def step(self, now: float) -> float | None:
        """Run one step that starts at ``now``; return when it ends, None where there is nothing to do."""
        chunks = self._schedule()
        if not chunks:
            return None
        decoding = [sequence for sequence, _ in chunks if sequence.decodes]
        prompts = [tokens for sequence, tokens in chunks if not sequence.decodes]
        end = now + self.seconds(
            Step(
                len(decoding),
                len(prompts),
                sum(prompts),
                sum(sequence.computed for sequence in decoding),
            )
        )
        for sequence, tokens in chunks:
            sequence.computed += tokens
            if sequence.computed == sequence.known:
                sequence.trace.tokens.append(end)
            if sequence.done:
                self.running.remove(sequence)
                self.free += sequence.blocks
        return end

    def _schedule(self) -> list[tuple[_Sequence, int]]:
        budget, chunks, preempted = self.limits.step_tokens, [], False
        place = 0
        while place < len(self.running) and budget > 0:
            sequence = self.running[place]
            tokens = min(sequence.known - sequence.computed, budget)
            while not self._reserve(sequence, tokens):
                last = self.running.pop()
                self._preempt(last)
                preempted = True
                if last is sequence:
                    break
            else:
                chunks.append((sequence, tokens))
                budget -= tokens
                place += 1
        while not preempted and self.waiting and budget > 0 and len(self.running) < self.limits.slots:
            sequence = self.waiting[0]
            tokens = min(sequence.known - sequence.computed, budget)
            if not self._reserve(sequence, tokens):
                break
            self.running.append(self.waiting.popleft())
            chunks.append((sequence, tokens))
            budget -= tokens
        return chunks

    def _reserve(self, sequence: _Sequence, tokens: int) -> bool:
        more = self._blocks_of(sequence.computed + tokens) - sequence.blocks
        if more > self.free:
            return False
        self.free -= more
        sequence.blocks += more
        return True

    def _preempt(self, sequence: _Sequence) -> None:
        self.free += sequence.blocks
        sequence.blocks = sequence.computed = 0
        sequence.trace.preemptions += 1
        self.waiting.appendleft(sequence)

    def _blocks_of(self, tokens: int) -> int:
        return -(-tokens // self.limits.block_tokens)


def simulate(requests: Sequence[Request], limits: Limits, seconds: Callable[[Step], float]) -> list[Trace]:
    """Serve requests in the order of their arrival until all have ended.

    Args:
        requests: Sorted by arrival.
        limits: Of the engine.
        seconds: Time of a step.
    """
    traces = [Trace(request) for request in requests]
    engine, now, before, following = Engine(limits, seconds), 0.0, 0.0, 0
    while True:
        idle = not engine.running and not engine.waiting
        if idle:
            if following == len(traces):
                return traces
            now = before = max(now, traces[following].request.arrival)
        seen = before if limits.scheduled_ahead else now
        while following < len(traces) and traces[following].request.arrival <= seen:
            engine.add(traces[following])
            following += 1
        end = engine.step(now)
        before, now = now, now if end is None else end
