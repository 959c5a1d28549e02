"""Who is calling and what they may do: principals, scopes, credentials.

Rules and values only. How a credential is looked up (files, key sets, stores) is the adapters' business.
"""
