"""What readers of history are given."""
