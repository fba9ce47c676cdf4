"""A picture of what a terminal showed: text on standard input, an SVG on standard output.

    make demo | python -m tools.terminal_picture 'make demo' > docs/pictures/demo.svg

It names no font and no address, and holds the text itself.
"""

import sys
from html import escape

WIDTH_MAX = 128
CHARACTER = 7.25
LINE = 17
MARGIN = 18
BAR = 34


def picture(title: str, lines: list[str]) -> str:
    """The SVG of these lines; what is longer than a terminal of 128 columns ends in an ellipsis."""
    shown = [line if len(line) <= WIDTH_MAX else line[: WIDTH_MAX - 1] + "…" for line in lines]
    width, height = round(2 * MARGIN + CHARACTER * WIDTH_MAX), BAR + LINE * len(shown) + MARGIN
    rows = [
        f'<text x="{MARGIN}" y="{BAR + LINE * number + 12}" xml:space="preserve"{_emphasis(line)}>{escape(line)}</text>'
        for number, line in enumerate(shown)
        if line
    ]
    return "\n".join(
        [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
                f' role="img" aria-label="{escape(title)}"'
                " font-family=\"ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace\""
                ' font-size="12" fill="#d1d7e0">'
            ),
            f'<rect width="{width}" height="{height}" rx="10" fill="#151b23"/>',
            *(
                f'<circle cx="{MARGIN + 4 + 18 * place}" cy="17" r="5.5" fill="{colour}"/>'
                for place, colour in enumerate(("#f47067", "#e0b84c", "#6bc46d"))
            ),
            f'<text x="{width / 2:.0f}" y="21" text-anchor="middle" fill="#9198a1">{escape(title)}</text>',
            *rows,
            "</svg>",
            "",
        ]
    )


def _emphasis(line: str) -> str:
    if line.startswith("$ "):
        return ' fill="#f0f6fc" font-weight="600"'
    return ' fill="#6bc46d"' if line.startswith("sent to the queue") else ""


if __name__ == "__main__":
    sys.stdout.write(picture(sys.argv[1], sys.stdin.read().expandtabs().rstrip("\n").splitlines()))
