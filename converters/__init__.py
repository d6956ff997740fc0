"""Source formats: one file each, found because it lies here. A converter ends where an Episode begins."""

from .base import Converter, Format
from .registry import converter_for, converter_named, converters

__all__ = ["Converter", "Format", "converter_for", "converter_named", "converters"]
