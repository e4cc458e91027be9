"""Where engines are found: a file, DNS, Kubernetes, Ray. See ports/sources.py."""
