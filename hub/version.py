"""What wrote a file: the name and version of this tool."""

from importlib.metadata import version

TOOL = f"teleopen {version('teleopen')}"
