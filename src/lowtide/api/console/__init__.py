"""The web console: pages over the same services that the HTTP API calls, for people.

`pages` declares the routes, `rendering` makes HTML of templates, `session_guard` says who may see
them, `live_pages` sends what has changed. A page can be read without JavaScript.
"""
