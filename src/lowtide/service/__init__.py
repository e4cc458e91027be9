"""The verbs, a module per noun: what may be asked of Lowtide, over HTTP or by the CLI.

A verb checks what it is given, acts through the ports and returns core values; refusals are
`LowtideError`. Nothing here knows HTTP or a vendor's shape.
"""
