"""Random windows of robot data, from stores anywhere, in batches."""

from .dataset import Dataset, open_dataset
from .loader import Loader, Schedule
from .order import Blocks, Order, Permuted, Replaced, Sequential
from .wants import Want, WindowError
from .windows import Windows

__all__ = [
    "Blocks",
    "Dataset",
    "Loader",
    "Order",
    "Permuted",
    "Replaced",
    "Schedule",
    "Sequential",
    "Want",
    "WindowError",
    "Windows",
    "open_dataset",
]
