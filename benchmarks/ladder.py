"""A ladder of load: step after step on Locust's runner.

Handles users and samples; independent of the prompts and of the use of the figures.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gevent
from locust.env import Environment
from locust.html import get_html_report
from locust.stats import RequestStats, update_stats_history

from benchmarks.shared_load import prompt_step_name, step_name
from benchmarks.users import Arrivals, Caller, Plan

LOOK_EVERY = 0.02
HISTORY_EVERY = 2.0  # seconds between two points of the charts in Locust's report
SPAWN_RATE = 100.0  # users a second; Locust warns above it


@dataclass(frozen=True)
class Step:
    """So many callers at once (closed loop), or so many arrivals a second (open loop), and `quota`
    questions; with `prompt_tokens` one caller, who asks to see how fast prompts of that length are read.
    """

    quota: int
    users: int | None = None
    rate: float | None = None
    prompt_tokens: int | None = None

    @property
    def name(self) -> str:
        if self.rate is not None:
            return f"{self.rate:g}/s"
        if self.prompt_tokens is not None:
            return prompt_step_name(self.prompt_tokens)
        return step_name(self.users or 1)


class Ladder:
    """Runs steps, each to its end; Locust's statistics of all of them are gathered for its own report."""

    def __init__(self) -> None:
        self._stats = RequestStats()
        self._environment: Any = None

    def run(self, step: Step, plan: Plan, progress: Callable[[], None] = lambda: None) -> float:
        """Run one step; returns the share of a core that this generator took meanwhile."""
        environment: Any = Environment(user_classes=[Caller if step.rate is None else Arrivals])
        # a runner empties its statistics as it starts; these are to hold every step
        environment.events.test_start.add_listener(self._share_statistics)
        environment.plan = plan
        self._environment = environment
        runner = environment.create_local_runner()
        cpu, wall = time.process_time(), time.monotonic()
        users = step.users or 1
        runner.start(user_count=users, spawn_rate=min(users, SPAWN_RATE))
        try:
            runner.spawning_greenlet.join()
            history_at = 0.0
            while runner.user_count:
                gevent.sleep(LOOK_EVERY)
                progress()
                if time.monotonic() >= history_at:
                    history_at = time.monotonic() + HISTORY_EVERY
                    update_stats_history(runner)
        finally:
            runner.quit()
        return (time.process_time() - cpu) / (time.monotonic() - wall)

    def _share_statistics(self, environment: Any, **_: Any) -> None:
        if not self._stats.start_time:
            self._stats.reset_all()
        environment.stats = self._stats

    def report(self) -> str:
        """Locust's own HTML report of all steps so far."""
        page = get_html_report(self._environment, show_download_link=False)  # type: ignore[no-untyped-call]
        return str(page)
