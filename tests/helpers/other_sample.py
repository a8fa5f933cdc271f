"""Other images of the sample's classes, named in a study as ``other_sample.py:make``."""

from ipvit.data.dataset import MemoryDataset
from ipvit.testing.samples import sample_data


def make() -> MemoryDataset:
    """Return fewer of them, which makes them other data."""
    return sample_data(5)
