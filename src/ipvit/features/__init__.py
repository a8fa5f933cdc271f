"""Features on disk, and the classifiers that are fitted on them."""

from typing import Literal

StoredType = Literal["fp32", "fp16"]
"""Type of the numbers in which features are kept."""
