"""From a template to a page in one file, and page and JSON to disk, each whole or not at all.

Style and plots are inline; there is no script, font or address; every text that a model or a person wrote is escaped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from pydantic import BaseModel

from alignment.files import write_text
from alignment.report import number_formats


def render(template: str, **context: Any) -> str:
    """A page as one HTML document; equal contexts give equal bytes.

    Args:
        template: file name in this folder.
        context: what it shows; style, number formats and the dash for what was not measured come with it.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=number_formats.percent,
        decimal=number_formats.decimal,
        duration=number_formats.duration,
        number=number_formats.number,
        interval=number_formats.interval,
        p_value=number_formats.p_value,
        probability=number_formats.probability,
    )
    style = Markup((Path(__file__).parent / "page.css").read_text(encoding="utf-8"))
    environment.globals.update(
        style=style,
        dash=number_formats.NONE,
        forms=(number_formats.decimal, number_formats.percent, number_formats.thousandths),
    )
    return environment.get_template(template).render(**context).rstrip() + "\n"


def write_both(folder: Path, stem: str, content: BaseModel, page: str) -> Path:
    """Write ``stem.json`` and ``stem.html`` into a folder; returns the page's path.

    Args:
        folder: where both go; made if missing.
        stem: name of both files without their endings.
        content: what the JSON file holds.
        page: the HTML of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = content.model_dump(mode="json")
    written = json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_text(folder / f"{stem}.json", written + "\n")
    write_text(folder / f"{stem}.html", page)
    return folder / f"{stem}.html"
