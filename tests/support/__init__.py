"""Throw-away servers for the Python tests; the fixtures in conftest.py hand them out."""
