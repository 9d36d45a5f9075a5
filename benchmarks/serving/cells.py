"""One load that a server is measured with."""

from __future__ import annotations

from dataclasses import dataclass

SIZES = {"224 px": (224, 224), "500×375": (500, 375), "1080p": (1920, 1080), "12 MP": (4000, 3000)}
"""Name → pixels (width, height) of a picture."""
USUAL = "500×375"


@dataclass(frozen=True)
class Cell:
    """One load."""

    model: str
    connections: int = 0
    """That always have a request in work; 0 for an open loop."""
    size: str = USUAL
    pictures: int = 1
    """In each request."""
    share: float = 0.0
    """Of an open loop: its rate as a share of what the same set-up did at most in closed loops."""

    def __str__(self) -> str:
        """For a line of progress."""
        load = f"{self.share:.0%} of saturation" if self.share else f"c={self.connections}"
        parts = [self.model, load, self.size if self.size != USUAL else ""]
        return ", ".join(filter(None, [*parts, f"{self.pictures} pictures" if self.pictures > 1 else ""]))
