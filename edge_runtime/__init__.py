"""Drafts ahead on the device and serves the app."""
