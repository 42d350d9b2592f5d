"""How work that takes a while tells where it stands. Needs no torch: stages name this type before they load any."""

from __future__ import annotations

from collections.abc import Callable

OnStep = Callable[[int, int, dict[str, float]], None]
"""Called with the steps done, the steps in all, and the latest figures."""
