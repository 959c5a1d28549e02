"""Technology at the rim: one package an outside thing. Its errors become ``core.errors``; product rules stay out."""
