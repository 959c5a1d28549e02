"""Engines: what makes machines and boxes, one package each; each fills ports and knows no product rule."""
