"""The mark of a model as a small drawing, for tables: the same colour, dash and marker as in the figures."""

from __future__ import annotations

from markupsafe import Markup

from ipvit.analysis.looks import Look

_WIDTH, _HEIGHT = 26, 10
_X, _Y, _R = 13.0, 5.0, 3.6
_POLYGONS = {
    "square": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
    "triangle-up": ((0, -1.1), (1.15, 0.9), (-1.15, 0.9)),
    "triangle-down": ((0, 1.1), (1.15, -0.9), (-1.15, -0.9)),
    "triangle-right": ((1.1, 0), (-0.9, 1.15), (-0.9, -1.15)),
    "triangle-left": ((-1.1, 0), (0.9, 1.15), (0.9, -1.15)),
    "diamond": ((0, -1.3), (1, 0), (0, 1.3), (-1, 0)),
    "cross": (
        *((-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4), (1.2, 0.4), (0.4, 0.4)),
        *((0.4, 1.2), (-0.4, 1.2), (-0.4, 0.4), (-1.2, 0.4), (-1.2, -0.4), (-0.4, -0.4)),
    ),
}


def key(look: Look) -> Markup:
    """Return an SVG element: a piece of the model's line with its marker."""
    if look.shape in _POLYGONS:
        places = " ".join(f"{_X + _R * x:.1f},{_Y + _R * y:.1f}" for x, y in _POLYGONS[look.shape])
        mark = f'<polygon points="{places}"/>'
    else:
        mark = f'<circle cx="{_X:g}" cy="{_Y:g}" r="{_R:g}"/>'
    dash = "" if look.dash == (1, 0) else f' stroke-dasharray="{" ".join(map(str, look.dash))}"'
    return Markup(
        f'<svg class="key" width="{_WIDTH}" height="{_HEIGHT}" aria-hidden="true" fill="{look.colour}" '
        f'stroke="{look.colour}"><path d="M0 {_Y:g}H{_WIDTH}" fill="none" stroke-width="1.6"{dash}/>'
        f"{mark}</svg>"
    )
