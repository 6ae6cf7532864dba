"""Self-contained HTML pages: styles and figures inside, nothing fetched."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from triptych import __version__
from triptych.utils.files import write_atomically
from triptych.utils.terminal import harmless


def render(template: str, **values: Any) -> str:
    """`templates/TEMPLATE` as text. What is not marked as safe there is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("triptych.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(template).render(**values)


def write_page(path: Path, template: str, **values: Any) -> None:
    """Render `templates/TEMPLATE` with `values`, the version and the date into a file. Figures are marked as safe."""
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    text = render(template, **values, version=__version__, date=date)
    write_atomically(path, harmless(text).encode())
