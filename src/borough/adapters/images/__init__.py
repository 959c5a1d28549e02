"""How images are made on a host: fetched with checksums, or put together from packages of this machine.

``fetching`` downloads, ``packages`` unpacks Debian packages, ``local_root`` and ``local_vm`` make the two images that
need no internet, ``making`` makes a recipe into an image of the host's store.
"""
