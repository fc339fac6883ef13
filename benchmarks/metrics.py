"""From samples to figures. The formulas are here and nowhere else; the definitions are those of vLLM's
benchmark (docs/benchmarking) and genai-perf, with latencies taken from the intended start.

    TTFT      first piece of text - intended start
    ITL       time between two neighbouring pieces of text, over all answers together
    TPOT      (E2E - TTFT) / (output tokens - 1), one value per answer
    E2E       end of the answer - intended start
    tokens/s  output tokens of done answers / (last end - first intended start) of the step
    user tokens/s   1 / TPOT: what one reader sees
    goodput   done answers with TTFT and TPOT within the target, per second

Percentiles interpolate linearly between neighbours. The interval of a mean is the middle 95 % of 2,000
bootstrap resamples, drawn with a fixed seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.samples import Sample

RESAMPLES = 2000
KNEE_GAIN = 1.10  # a step that adds less than a tenth to the tokens per second is past the knee


@dataclass(frozen=True)
class Target:
    """What a user is content with: seconds to the first token, and seconds per token after it."""

    ttft: float = 2.0
    tpot: float = 0.2

    def met(self, sample: Sample) -> bool:
        if sample.outcome != "done" or sample.ttft is None or sample.ttft > self.ttft:
            return False
        return sample.tpot is None or sample.tpot <= self.tpot


def distribution(values: Sequence[float]) -> dict[str, float]:
    """Count, mean with its interval, deviation, percentiles and maximum; only `n` when there are none."""
    if not values:
        return {"n": 0}
    array = np.asarray(values, np.float64)
    p50, p90, p95, p99 = np.percentile(array, (50, 90, 95, 99))
    low, high = mean_interval(array)
    return {
        "n": len(array),
        "mean": float(array.mean()),
        "mean_low": low,
        "mean_high": high,
        "sd": float(array.std(ddof=1)) if len(array) > 1 else 0.0,
        "p50": float(p50),
        "p90": float(p90),
        "p95": float(p95),
        "p99": float(p99),
        "max": float(array.max()),
    }


def mean_interval(array: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float]:
    """The 95 % interval of the mean by bootstrap."""
    random = np.random.default_rng(0)
    # a thousand values a resample are enough to see the spread of a long list
    size = min(len(array), 1000)
    scale = np.sqrt(size / len(array))
    means = random.choice(array, (RESAMPLES, size)).mean(axis=1)
    low, high = array.mean() + (np.percentile(means, (2.5, 97.5)) - array.mean()) * scale
    return float(low), float(high)


def summarise(samples: Sequence[Sample], target: Target) -> dict[str, Any]:
    """The figures of one step. Times in seconds, rates per second."""
    done = [sample for sample in samples if sample.outcome == "done"]
    sent = [sample for sample in samples if sample.outcome != "unsent"]
    counts = {
        outcome: sum(sample.outcome == outcome for sample in samples)
        for outcome in ("done", "refused", "failed", "cancelled", "unsent")
    }
    seconds = max((s.end for s in sent), default=0.0) - min((s.intended for s in sent), default=0.0)
    tokens = sum(sample.output_tokens for sample in done)
    per_second = 1 / seconds if seconds > 0 else 0.0
    tpots = [sample.tpot for sample in done if sample.tpot is not None]
    return {
        "offered": len(samples),
        **counts,
        "seconds": seconds,
        "requests_per_second": len(done) * per_second,
        "output_tokens": tokens,
        "output_tokens_each": distribution([float(sample.output_tokens) for sample in done]),
        "input_tokens_each": distribution([float(sample.input_tokens) for sample in done]),
        "cached_share": _share(
            sum(sample.cached_tokens for sample in done), sum(sample.input_tokens for sample in done)
        ),
        "tokens_per_second": tokens * per_second,
        "user_tokens_per_second": distribution([1 / tpot for tpot in tpots if tpot > 0]),
        "goodput": sum(map(target.met, done)) * per_second,
        "goodput_share": _share(sum(map(target.met, done)), len(samples)),
        "ttft": distribution([sample.ttft for sample in done if sample.ttft is not None]),
        "itl": distribution([gap for sample in done for gap in sample.gaps]),
        "tpot": distribution(tpots),
        "e2e": distribution([sample.e2e for sample in done]),
        "lateness": distribution([sample.sent - sample.intended for sample in sent]),
        "errors": _errors(samples),
    }


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _errors(samples: Sequence[Sample]) -> dict[str, int]:
    found: dict[str, int] = {}
    for sample in samples:
        if sample.error:
            found[sample.error] = found.get(sample.error, 0) + 1
    return found


def knee(throughputs: Sequence[float]) -> int:
    """Index of the step from which on more load adds less than a tenth to the throughput."""
    for at, (here, following) in enumerate(pairwise(throughputs)):
        if following < here * KNEE_GAIN:
            return at
    return len(throughputs) - 1
