"""Writes the form of a certificate as a JSON schema, made of the records: python docs/make_schema.py"""

import json
from pathlib import Path

from triptych.conformance.certificate import Certificate
from triptych.spec.schema import schema

FILE = Path(__file__).with_name("certificate.schema.json")


def text() -> str:
    """The file's content."""
    return json.dumps(schema(Certificate, "triptych certificate, version 4"), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
