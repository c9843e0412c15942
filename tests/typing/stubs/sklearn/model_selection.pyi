"""What the examples use of scikit-learn, which has no types; pyright's guess at them is wrong."""

from typing import Any

def train_test_split(*arrays: Any, **options: Any) -> Any: ...
