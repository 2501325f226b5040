"""Ray, as far as Gridlaw uses it. Nothing outside this package and the tuning imports it."""

from orchestrator.cluster.connection import connected, is_own
from orchestrator.cluster.pool import RayPool

__all__ = ["RayPool", "connected", "is_own"]
