"""Engines: what makes machines and boxes, one package each. Each is a driver behind a port and knows no product rule."""
