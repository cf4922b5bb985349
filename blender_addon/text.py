# SPDX-License-Identifier: GPL-3.0-or-later
"""Long text in a layout, which has labels of one line only."""

import textwrap

PIXELS_PER_LETTER = 7.0


def draw_text(layout, text: str, context, icon: str = "NONE") -> None:
    """Break ``text`` to the width of the region; the icon stands before the first line."""
    width = context.region.width / (PIXELS_PER_LETTER * context.preferences.system.ui_scale)
    column = layout.column(align=True)
    column.scale_y = 0.8
    for i, line in enumerate(textwrap.wrap(text, max(20, int(width) - 8))):
        column.label(text=line, icon=icon if i == 0 else "BLANK1" if icon != "NONE" else "NONE")
