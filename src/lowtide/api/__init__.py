"""The HTTP API:

Routes, vendor shapes, error envelope. Decides nothing; asks the verbs of `service`.
"""
