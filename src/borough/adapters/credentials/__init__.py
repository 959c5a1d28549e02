"""Credentials outside: files that only their owner reads, Argon2id hashes, an issuer's tokens."""
