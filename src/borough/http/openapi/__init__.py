"""The OpenAPI documents of the HTTP surfaces, derived from their operation tables.

What an operation does not say is not told here; who writes the documents to files is ``borough.openapi``.
"""
