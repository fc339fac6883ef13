"""What every route that generates needs, in one value."""

from __future__ import annotations

from dataclasses import dataclass

from serve.settings import Settings

from .admission import Admission
from .drain import Drain
from .metrics import Metrics
from .model import ServedModel


@dataclass(frozen=True)
class Service:
    """One per process, shared by all its threads."""

    settings: Settings
    served: ServedModel
    admission: Admission
    drain: Drain
    metrics: Metrics
