"""Where images and machines' disks are kept: files with shared blocks and layers, or ZFS volumes.

``trees`` turns folders into archives and back, always the same bytes for the same folder; ``catalogue`` knows images
by what is in them; ``copying`` shares blocks where the file system can; ``files`` and ``zvol`` fill ``DiskStore``.
"""
