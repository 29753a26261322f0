r"""Figures of plotly.js in the style of the page."""
from __future__ import annotations

import html
from typing import Any, Mapping, Optional, Sequence

from pyg_emu.experiments.report.content import Figure, short

#: Colours of runs, terms and groups, in their order; distinguishable for colour-blind readers, too.
COLORS = ('#2f6fde', '#e07b00', '#11896b', '#9a4fc4', '#c9a100', '#cf3f6d', '#3aa0c9', '#6b7280')
#: The colour of each predicted side.
SIDE_COLORS = {'tail': COLORS[0], 'head': COLORS[1], 'relation': COLORS[2], 'both': '#374151'}

_INK, _QUIET, _GRID = '#1f2733', '#5b6675', '#e8ebf0'
_AXIS: dict[str, Any] = {
    'gridcolor': _GRID, 'zeroline': False, 'linecolor': '#c5ccd6', 'ticks': 'outside', 'ticklen': 4,
    'tickcolor': '#c5ccd6', 'automargin': True, 'title': {'font': {'size': 12.5, 'color': _QUIET}, 'standoff': 8},
}


def shown_label(value: Any) -> str:
    r"""A label for a figure. plotly.js reads some tags in text, so that they are escaped."""
    return html.escape(short(value), quote=False)


def figure(traces: Sequence[Mapping[str, Any]], *, x: str = '', y: str = '', caption: str = '', height: int = 320,
           course: bool = False, xaxis: Optional[Mapping[str, Any]] = None,
           yaxis: Optional[Mapping[str, Any]] = None, **layout: Any) -> Figure:
    r"""Makes a figure.

    Args:
        traces (list of dict): The traces of plotly.js. Labels in them have to be escaped by :func:`shown_label`.
        x (str, optional): The title of the x axis. (default: :obj:`""`)
        y (str, optional): The title of the y axis. (default: :obj:`""`)
        caption (str, optional): What the figure shows. (default: :obj:`""`)
        height (int, optional): The height in pixels. (default: :obj:`320`)
        course (bool, optional): See :class:`~pyg_emu.experiments.report.content.Figure`. (default: :obj:`False`)
        xaxis (dict, optional): Further settings of the x axis. (default: :obj:`None`)
        yaxis (dict, optional): Further settings of the y axis. (default: :obj:`None`)
        **layout (optional): Further settings of the layout.
    """
    import plotly.graph_objects as go

    several = sum(trace.get('showlegend', True) for trace in traces) > 1
    made = go.Figure({'data': list(traces), 'layout': {
        'template': 'none', 'height': height, 'colorway': list(COLORS),
        'font': {'family': 'system-ui, -apple-system, "Segoe UI", Roboto, sans-serif', 'size': 12.5, 'color': _INK},
        'margin': {'l': 56, 'r': 14, 't': 34 if several else 12, 'b': 46}, 'paper_bgcolor': 'rgba(0,0,0,0)',
        'plot_bgcolor': 'rgba(0,0,0,0)', 'hoverlabel': {'font': {'size': 12.5}, 'namelength': -1},
        'showlegend': several, 'legend': {'orientation': 'h', 'x': 0, 'y': 1.02, 'yanchor': 'bottom'},
        'xaxis': _axis(x, xaxis), 'yaxis': _axis(y, yaxis), **layout}})
    # `<` would let a label end the element of the page that holds the figure.
    return Figure(str(made.to_json(validate=False)).replace('<', '\\u003c'), caption, height, course)


def _axis(title: str, given: Optional[Mapping[str, Any]]) -> dict[str, Any]:
    return {**_AXIS, 'title': {**_AXIS['title'], 'text': title}, **(given or {})}
