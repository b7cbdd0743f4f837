# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from .overlay import figure_to_png

__all__ = ["embed_picture", "render_page"]


def render_page(template: str, provenance: Mapping[str, Any], **content: Any) -> str:
    """Render an HTML page that needs nothing else.

    Args:
        template: file beside this module that extends ``page.html``.
        provenance: what made the content. Single values stand in a table at the end of the page, nested ones can be
            unfolded.
        content: what the template shows.

    Returns:
        The page.
    """
    environment = Environment(
        loader=PackageLoader("monai_fewshot", "visualize"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(percent=_percent, decimal=_decimal, embed=embed_picture)
    return environment.get_template(template).render(
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        facts={key: value for key, value in provenance.items() if not _nested(value)},
        details={key: json.dumps(value, indent=2, default=str) for key, value in provenance.items() if _nested(value)},
        **content,
    )


def embed_picture(picture: Figure | bytes) -> str:
    """Turn a figure, or the content of a PNG file, into an address that holds it.

    Args:
        picture: what to show.
    """
    png = picture if isinstance(picture, bytes) else figure_to_png(picture)
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _nested(value: Any) -> bool:
    return isinstance(value, (Mapping, list, tuple))


def _percent(value: float) -> str:
    return _decimal(100 * value)


def _decimal(value: float) -> str:
    return "\N{EN DASH}" if math.isnan(value) else f"{value:.1f}"
