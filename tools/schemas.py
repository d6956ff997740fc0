"""Write the JSON Schema files from the data classes: ``python tools/schemas.py``. A test keeps them fresh."""

import json
from pathlib import Path

from teleopen.schemas import json_schema
from teleopen.schemas.rights import RIGHTS_SCHEMA

FOLDER = Path(__file__).resolve().parents[1] / "schemas" / "json"


def documents() -> dict[str, str]:
    """Return the text of each schema file by its name."""
    found = {"episode-1.schema.json": json_schema(), "rights-1.schema.json": RIGHTS_SCHEMA}
    return {name: json.dumps(schema, indent=2, ensure_ascii=False) + "\n" for name, schema in found.items()}


def main() -> None:
    """Write them all."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in documents().items():
        FOLDER.joinpath(name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
