"""A store's episodes in the formats of others, cameras as their packets lie wherever that can be."""

from .lerobot import ExportReport, export_lerobot
from .options import ExportOptions

__all__ = ["ExportOptions", "ExportReport", "export_lerobot"]
