"""Plots as SVG, drawn by the server: no script, no inline style, colours by the stylesheet."""
