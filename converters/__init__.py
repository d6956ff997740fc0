"""Source formats: one file each, found because it lies here. A converter ends where an Episode begins."""

from .base import Converter, Format
from .registry import (
    confined,
    confining,
    converter_for,
    converter_named,
    converters,
    draft_mapping,
    read,
)

__all__ = [
    "Converter",
    "Format",
    "confined",
    "confining",
    "converter_for",
    "converter_named",
    "converters",
    "draft_mapping",
    "read",
]
