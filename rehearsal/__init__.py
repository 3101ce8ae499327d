"""Plays the sites: replays a real trial through the same flows that a live study uses."""
