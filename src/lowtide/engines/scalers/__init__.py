"""What starts and stops engines: Kubernetes, Ray, commands here. See ports/scalers.py."""
