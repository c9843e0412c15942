"""What the examples use of statsmodels, which has no types."""

from typing import Any

sunspots: Any
