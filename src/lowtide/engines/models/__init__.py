"""Where models come from: a file, the hub, the demo model; and what an engine lists."""
