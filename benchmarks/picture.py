"""The CPU cost of the contenders as an SVG picture. Measures nothing."""

from __future__ import annotations

from typing import Final
from xml.sax.saxutils import escape

from benchmarks.measure import Cost
from benchmarks.report import NAMES

WIDTH: Final = 480
"""Of a picture, in units of which a letter is 15 high: on a phone that is still read."""

_SHOWN: Final = 552
_MARGIN: Final = 20
_TOP: Final = 90
_ROW: Final = 52
_BAR: Final = 20
# The panel has its own background, so it can be read on a light page and on a dark one.
_STYLE: Final = """
    .panel { fill: #ffffff; stroke: #d0d7de; }
    text { font: 15px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328; }
    .title { font-size: 17px; font-weight: 600; }
    .quiet { fill: #59636e; }
    .other { fill: #8c959f; }
    .ours { fill: #6f42c1; }
    .refused { fill: #cf222e; }
    .line { stroke: #8c959f; stroke-width: 1.5; fill: none; }
    .window { stroke: #8c959f; stroke-dasharray: 3 4; }
    .broken { stroke: #cf222e; stroke-width: 2; fill: none; }
    @media (prefers-color-scheme: dark) {
      .panel { fill: #151b23; stroke: #3d444d; }
      text { fill: #f0f6fc; }
      .quiet { fill: #9198a1; }
      .other { fill: #656c76; }
      .ours { fill: #a371f7; }
      .refused { fill: #ff7b72; }
      .broken { stroke: #ff7b72; }
    }"""


def svg(title: str, description: str, height: float, parts: list[str]) -> str:
    """Return a picture of ``parts`` with the given ``height``, and ``description`` for screen readers."""
    lines = "\n".join(f"  {part}" for part in parts)
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{_SHOWN}" role="img" \
aria-labelledby="title description">
  <title id="title">{escape(title)}</title>
  <desc id="description">{escape(description)}</desc>
  <style>{_STYLE}
  </style>
  <rect class="panel" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:g}" rx="8"/>
{lines}
</svg>
"""


def picture(costs: dict[str, Cost]) -> str:
    """Draw horizontal bars: CPU microseconds per link, and the ratio to bare aiohttp."""
    scale = (WIDTH - 2 * _MARGIN) / max(cost.cpu for cost in costs.values())
    parts = [
        f'<text class="title" x="{_MARGIN}" y="32">CPU time of the client per link</text>',
        f'<text class="quiet" x="{_MARGIN}" y="54">100 requests at once; shorter is better</text>',
    ]
    for place, (name, cost) in enumerate(costs.items()):
        parts += _bar(name, cost.cpu, cost.cpu / costs["bare"].cpu, _TOP + _ROW * place, scale)
    description = "; ".join(f"{_plain(name)}: {cost.cpu:.0f} µs" for name, cost in costs.items())
    return svg("CPU time per link in microseconds", description, _TOP + _ROW * len(costs) - 6, parts)


def _bar(name: str, cpu: float, ratio: float, y: float, scale: float) -> list[str]:
    kind = "ours" if name.startswith("sdk") else "other"
    number = f'<tspan class="quiet" dx="8">{cpu:.0f} µs, {ratio:.2f} of bare</tspan>'
    size = f'width="{cpu * scale:.1f}" height="{_BAR}"'
    return [
        f'<text x="{_MARGIN}" y="{y:g}">{escape(_plain(name))}{number}</text>',
        f'<rect class="{kind}" x="{_MARGIN}" y="{y + 7:g}" {size} rx="3"/>',
    ]


def _plain(name: str) -> str:
    return NAMES[name].replace("`", "")
